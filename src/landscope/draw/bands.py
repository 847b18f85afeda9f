"""Many curves as one picture: the mean, the middle half, and the smallest and largest.

Nothing is assumed about how the curves spread: quartiles and extremes are theirs. Where one of them
has no value the others say nothing about all, so there mean and bands have a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from landscope.draw.axes import new_axes
from landscope.draw.levels import FloatArray
from landscope.draw.line_scene import LineScene, build_line_scene
from landscope.draw.lines import CROSS, CYCLE, dress, lonely, mark_holes
from landscope.draw.values import Landscapes, axis_values, list_landscapes
from landscope.errors import DrawError
from landscope.landscape import Landscape

_EACH: dict[str, Any] = {"lw": 0.6, "alpha": 0.45, "zorder": 1.8}
_MIDDLE: dict[str, Any] = {"alpha": 0.30, "lw": 0, "zorder": 1.6}
_EXTREMES: dict[str, Any] = {"alpha": 0.13, "lw": 0, "zorder": 1.5}
UNDER: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15)}


def loss_band(
    lands: Landscapes,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with an ensemble of lines: each, their mean, the middle half and the extremes.

    For planes see ``side_by_side_figure``.

    Args:
        lands: two or more landscapes with dims ("x",), all with the same coordinates.
        quantity: name of a variable. Default: that of the first landscape.
        scale: "log" or "linear". Default: log when all finite values are positive, are no
            percentages, and the largest is more than 20 times the smallest.
        ax: where to draw. Default: a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: when the landscapes are no such ensemble; the text says what to do.

    Example:
        >>> axes = ls.draw.loss_band([first, second, third])  # doctest: +SKIP
    """
    lands = list_landscapes(lands)
    _check_ensemble(lands)
    name = quantity or lands[0].quantity
    first = build_line_scene(lands[0], quantity=name, scale=scale, beside=lands[1:])
    rest = [build_line_scene(o, quantity=name, scale=first.scale) for o in lands[1:]]
    scenes = [first, *rest]
    if ax is None:
        ax = new_axes((6.8, 4.2))
    values = np.stack([scene.traces[0].shown for scene in scenes])
    paint_band(scenes[0].x, values, ax, what=f"{len(lands)} landscapes")
    for scene in scenes:
        mark_holes(scene, ax)
    dress(scenes, ax, ax)
    legend_below(ax, hole_entries(scenes))
    return ax


def paint_band(
    x: FloatArray, values: FloatArray, ax: Axes, *, what: str, color: str = CYCLE[0]
) -> None:
    """Draw curves [curves, nx] as thin lines, mean and bands; NaN is a gap."""
    mean = values.mean(axis=0)
    quarter, three_quarters = np.quantile(values, (0.25, 0.75), axis=0)
    least, most = values.min(axis=0), values.max(axis=0)
    for k, curve in enumerate(values):
        ax.plot(x, curve, color=color, label="_" if k else what, **_dots(curve), **_EACH)
    ax.plot(x, mean, color=color, lw=2.2, label="their mean", **_dots(mean))
    ax.fill_between(x, quarter, three_quarters, color=color, label="middle half of them", **_MIDDLE)
    ax.fill_between(x, least, most, color=color, label="smallest to largest", **_EXTREMES)


def legend_below(ax: Axes, more: Sequence[Line2D] = (), columns: int = 4) -> None:
    """Say below axes what is drawn in them, and what ``more`` there is."""
    drawn = ax.get_legend_handles_labels()[0]
    ax.legend(handles=[*drawn, *more], ncols=columns, frameon=False, fontsize="small", **UNDER)


def hole_entries(scenes: Sequence[LineScene]) -> list[Line2D]:
    """Return the entry of a legend that says what the crosses are, if there are any."""
    notes = list(dict.fromkeys(scene.hole_note for scene in scenes if scene.hole_note))
    if not notes:
        return []
    label = notes[0] if len(scenes) == 1 else "not finite, or ≤ 0 on a log scale"
    return [Line2D([], [], label=label, **CROSS | {"clip_on": True})]


def _dots(curve: FloatArray) -> dict[str, Any]:
    """Return what shows a point that has no neighbor."""
    alone = lonely(curve)
    return {"marker": ".", "ms": 3, "markevery": alone} if alone else {}


def _check_ensemble(lands: Sequence[Landscape]) -> None:
    if len(lands) < 2:
        raise DrawError(
            "An ensemble has two landscapes or more, and 1 was given: one line is drawn with"
            " ls.draw.line."
        )
    first = lands[0]
    same = {land.dims for land in lands} == {first.dims}
    axes = [axis_values(land, "x") for land in lands] if same else []
    if not same or any(a.shape != axes[0].shape or not np.allclose(a, axes[0]) for a in axes):
        raise DrawError(
            "The landscapes of an ensemble have different coordinates: scan all of them with the"
            " same ls.Grid, or lay them over each other with ls.draw.line."
        )
