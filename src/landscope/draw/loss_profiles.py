"""Loss profiles around a minimum: along random directions, and along the extreme directions.

They show what random planes miss: the directions of the largest and the smallest eigenvalue, and
the direction to the initialization.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscope.draw.axes import create_axes
from landscope.draw.bands import add_legend, paint_band
from landscope.draw.labels import arrange_in_columns
from landscope.draw.levels import FloatArray, format_tick
from landscope.draw.line_scene import LineScene, LineSeries
from landscope.draw.lines import (
    COLOR_CYCLE,
    find_isolated_points,
    list_hole_entries,
    mark_holes,
    set_up_axes,
)
from landscope.draw.panels import create_panels
from landscope.draw.scales import hide_unpaintable, resolve_limits, resolve_scale
from landscope.draw.values import check_labels, list_values

if TYPE_CHECKING:
    from landscope.analysis.representative_planes import Representativeness

_X_LABEL = "distance (in mean lengths of a random direction)"
# They differ in color, dashes and marker: also in print, and for color-blind people.
_SHARPEST: dict[str, Any] = {"color": COLOR_CYCLE[1], "ls": "-", "marker": "^"}
_SMALLEST: dict[str, Any] = {"color": COLOR_CYCLE[2], "ls": "--", "marker": "v"}
_INITIALIZATION: dict[str, Any] = {"color": COLOR_CYCLE[6], "ls": "-.", "marker": "s"}
_PANEL = (4.8, 3.8)  # inches, width and height


def curvature_profiles(
    result: Representativeness,
    *,
    scale: str | None = None,
    title: str | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with the loss over distance: along random and along extreme directions.

    Random directions are thin lines with their mean, their middle half and their extremes. Over
    them are the eigenvectors of the largest and the smallest eigenvalue and, where it is known, the
    direction to the initialization, whose position is marked if it lies within the picture.

    Args:
        result: The result of ``ls.representativeness``.
        scale: "log" or "linear". Default: log when all finite values are positive and the largest
            is more than 20 times the smallest.
        title: The title; "" for none. Default: the number of parameters.
        size: Width and height of a new figure in inches. Default: 6.8 by 4.6.
        ax: The axes to draw into. Default: axes in a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: When no loss is finite, or the scale cannot be used.

    Example:
        >>> axes = ls.draw.curvature_profiles(result)  # doctest: +SKIP
    """
    (scene,) = _build_scenes([result], scale)
    if ax is None:
        ax = create_axes((6.8, 4.6), size)
    extremes = result.extremes.largest, result.extremes.smallest
    curvatures = [f" (curvature {format_tick(value, 3)})" for value in extremes]
    _paint_profiles(result, scene, ax, [f"{len(result.random)} random directions", *curvatures])
    ax.set_title(f"{result.size:,} parameters" if title is None else title)
    add_legend(ax, list_hole_entries([scene]), columns=2)
    return ax


def representativeness_figure(
    results: Representativeness | Sequence[Representativeness],
    *,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Return a figure with the ``curvature_profiles`` of several minima side by side, on one scale.

    Args:
        results: The result of ``ls.representativeness`` for one minimum, or for several.
        scale: "log" or "linear". Default: log when all finite values of all minima are positive and
            the largest is more than 20 times the smallest.
        labels: A title for each panel. Default: the numbers of parameters.
        title: The title of the figure. Default: none.
        size: Width and height of the figure in inches. Default: that which suits the panels.

    Returns:
        The figure.

    Raises:
        DrawError: When no result was given, the labels do not fit, or the scale cannot be used.

    Example:
        >>> figure = ls.draw.representativeness_figure([a, b], labels=["a", "b"])  # doctest: +SKIP
    """
    results = list_values(results, "result of ls.representativeness")
    names = [f"{result.size:,} parameters" for result in results]
    names = names if labels is None else check_labels(labels, len(results), "of the minima")
    scenes = _build_scenes(results, scale)
    figure, axes = create_panels(len(results), _PANEL, size)
    counts = {len(result.random) for result in results}
    random = f"{min(counts)} random directions" if len(counts) == 1 else "random directions"
    for result, scene, name, ax in zip(results, scenes, names, axes, strict=True):
        _paint_profiles(result, scene, ax, [random, "", ""])
        extremes = result.extremes.smallest, result.extremes.largest
        smallest, largest = (format_tick(value, 3) for value in extremes)
        ax.set_title(f"{name}\ncurvature {smallest} to {largest}", fontsize="medium")
    figure.suptitle(title or "")
    entries = {h.get_label(): h for ax in axes for h in ax.get_legend_handles_labels()[0]}
    handles = [*entries.values(), *list_hole_entries(scenes)]
    columns = arrange_in_columns(figure, handles, 3)
    figure.legend(**columns, frameon=False, fontsize="small", loc="outside lower center")
    return figure


def _build_scenes(results: Sequence[Representativeness], scale: str | None) -> list[LineScene]:
    """Return all profiles as plain arrays on one scale, those of random directions first."""
    profiles = [_list_profiles(result) for result in results]
    every = [profile for of_result in profiles for profile in of_result]
    scale = resolve_scale(every, scale, name="loss")
    limits = resolve_limits([hide_unpaintable(profile, scale) for profile in every], scale)
    return [
        LineScene(
            x=result.distances,
            series=tuple(_build_series(profile, scale) for profile in of_result),
            scale=scale,
            limits=limits,
            x_label=_X_LABEL,
            title="",
            center=0.0,
            marks=[],
        )
        for result, of_result in zip(results, profiles, strict=True)
    ]


def _build_series(losses: FloatArray, scale: str) -> LineSeries:
    shown = hide_unpaintable(losses, scale)
    return LineSeries("loss", "loss", losses, shown, percent=False, test=False)


def _list_profiles(result: Representativeness) -> list[FloatArray]:
    profiles = [*result.random, result.sharpest, result.steepest]
    return profiles if result.initialization is None else [*profiles, result.initialization]


def _paint_profiles(
    result: Representativeness, scene: LineScene, ax: Axes, texts: Sequence[str]
) -> None:
    """Draw all profiles.

    Args:
        result: The result of ``ls.representativeness``.
        scene: Its profiles.
        title: The title; "" for none. Default: the number of parameters.
        size: Width and height of a new figure in inches. Default: 6.8 by 4.6.
        ax: The axes to draw into.
        texts: The name of the random directions, then what to add to the names of the sharpest
            direction and of that of the smallest eigenvalue.
    """
    shown = [series.shown for series in scene.series]
    count = len(result.random)
    paint_band(scene.x, np.stack(shown[:count]), ax, name=texts[0])
    styles = [
        (f"sharpest direction{texts[1]}", _SHARPEST),
        (f"direction of the smallest eigenvalue{texts[2]}", _SMALLEST),
        ("way from the initialization", _INITIALIZATION),
    ]
    for curve, (label, style) in zip(shown[count:], styles, strict=False):
        marks: dict[str, Any] = {
            "markevery": find_isolated_points(curve) or slice(0, None, 5),
            "ms": 4.5,
            "lw": 1.6,
        }
        ax.plot(scene.x, curve, label=label, **style, **marks)
    _mark_initialization(result, ax)
    mark_holes(scene, ax)
    set_up_axes([scene], ax, ax)


def _mark_initialization(result: Representativeness, ax: Axes) -> None:
    """Mark the position of the initialization, or write how far away it is."""
    position, color = result.initialization_at, _INITIALIZATION["color"]
    if position is None:
        return
    if result.distances[0] <= position <= result.distances[-1]:
        ax.axvline(position, color=color, lw=1, ls=":", label="the initialization")
    else:
        note = f"\N{LEFTWARDS ARROW} initialization at {format_tick(position, 3)}"
        style: dict[str, Any] = {"va": "top", "fontsize": "small", "color": color}
        ax.text(0.02, 0.97, note, transform=ax.transAxes, **style)
