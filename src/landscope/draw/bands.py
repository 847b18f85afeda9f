"""Many curves in one picture: their mean, their middle half, and the smallest and largest values.

Nothing is assumed about the distribution of the curves: the bands are their quartiles and extremes.
Where one curve has no value, mean and bands have a gap, because the other curves alone would not
describe all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from landscope.draw.axes import create_axes
from landscope.draw.labels import arrange_in_columns
from landscope.draw.levels import FloatArray
from landscope.draw.line_scene import build_line_scene
from landscope.draw.lines import (
    COLOR_CYCLE,
    find_isolated_points,
    list_hole_entries,
    mark_holes,
    set_up_axes,
)
from landscope.draw.values import Landscapes, list_landscapes, read_axis
from landscope.errors import DrawError
from landscope.landscape import Landscape

_CURVE: dict[str, Any] = {"lw": 0.6, "alpha": 0.45, "zorder": 1.8}
_MIDDLE_HALF: dict[str, Any] = {"alpha": 0.30, "lw": 0, "zorder": 1.6}
_EXTREMES: dict[str, Any] = {"alpha": 0.13, "lw": 0, "zorder": 1.5}
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15)}


def loss_band(
    lands: Landscapes,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    title: str | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with an ensemble of lines: each line, their mean, middle half and extremes.

    For planes see ``side_by_side_figure``.

    Args:
        lands: Two or more landscapes with dims ("x",), all with the same coordinates.
        quantity: The name of a variable. Default: that of the first landscape.
        scale: "log" or "linear". Default: log when all finite values are positive, are not
            percentages, and the largest is more than 20 times the smallest.
        title: The title. Default: none.
        size: Width and height of a new figure in inches. Default: 6.8 by 4.2.
        ax: The axes to draw into. Default: axes in a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: When the landscapes are not such an ensemble; the text explains what to do.

    Example:
        >>> axes = ls.draw.loss_band([first, second, third])  # doctest: +SKIP
    """
    lands = list_landscapes(lands)
    _check_ensemble(lands)
    name = quantity or lands[0].quantity
    first = build_line_scene(lands[0], quantity=name, scale=scale, shared_with=lands[1:])
    others = [build_line_scene(land, quantity=name, scale=first.scale) for land in lands[1:]]
    scenes = [first, *others]
    if ax is None:
        ax = create_axes((6.8, 4.2), size)
    curves = np.stack([scene.series[0].shown for scene in scenes])
    paint_band(first.x, curves, ax, name=f"{len(lands)} landscapes")
    for scene in scenes:
        mark_holes(scene, ax)
    set_up_axes(scenes, ax, ax)
    ax.set_title(title or "")
    add_legend(ax, list_hole_entries(scenes))
    return ax


def paint_band(
    x: FloatArray, curves: FloatArray, ax: Axes, *, name: str, color: str = COLOR_CYCLE[0]
) -> None:
    """Draw curves [curves, nx] as thin lines, with their mean and bands; NaN is a gap."""
    mean = curves.mean(axis=0)
    quartiles = np.quantile(curves, (0.25, 0.75), axis=0)
    smallest, largest = curves.min(axis=0), curves.max(axis=0)
    for k, curve in enumerate(curves):
        ax.plot(x, curve, color=color, label="_" if k else name, **_mark_points(curve), **_CURVE)
    ax.plot(x, mean, color=color, lw=2.2, label="their mean", **_mark_points(mean))
    ax.fill_between(x, *quartiles, color=color, label="middle half of them", **_MIDDLE_HALF)
    ax.fill_between(x, smallest, largest, color=color, label="smallest to largest", **_EXTREMES)


def add_legend(ax: Axes, more: Sequence[Line2D] = (), columns: int = 4) -> None:
    """Add a legend below the axes, with the entries ``more`` at its end."""
    entries = [*ax.get_legend_handles_labels()[0], *more]
    arranged = arrange_in_columns(ax, entries, columns, extra_width=1.0)
    ax.legend(**arranged, frameon=False, fontsize="small", **BELOW)


def _mark_points(curve: FloatArray) -> dict[str, Any]:
    """Return the style that shows points without a neighbor."""
    isolated = find_isolated_points(curve)
    return {"marker": ".", "ms": 3, "markevery": isolated} if isolated else {}


def _check_ensemble(lands: Sequence[Landscape]) -> None:
    if len(lands) < 2:
        raise DrawError(
            "An ensemble has two landscapes or more, and 1 was given: draw a single line with"
            " ls.draw.line."
        )
    first = lands[0]
    same = {land.dims for land in lands} == {first.dims}
    axes = [read_axis(land, "x") for land in lands] if same else []
    if not same or any(a.shape != axes[0].shape or not np.allclose(a, axes[0]) for a in axes):
        raise DrawError(
            "The landscapes of an ensemble have different coordinates: scan all of them with the"
            " same ls.Grid, or draw them over each other with ls.draw.line."
        )
