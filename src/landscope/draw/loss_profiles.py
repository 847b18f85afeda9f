"""What random planes show of a minimum, beside what is there: the loss over distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscope.draw.axes import new_axes
from landscope.draw.bands import hole_entries, legend_below, paint_band
from landscope.draw.labels import tick
from landscope.draw.levels import FloatArray
from landscope.draw.line_scene import LineScene, Trace
from landscope.draw.lines import CYCLE, dress, lonely, mark_holes
from landscope.draw.panels import panel_grid
from landscope.draw.scales import limits_of, paintable, resolve_scale
from landscope.draw.values import as_list, texts_of

if TYPE_CHECKING:
    from landscope.analysis.representative_planes import Representativeness

_AXIS = "distance (in mean lengths of a random direction)"
# Told apart by color, by dash and by mark: in print and by color-blind people too.
_SHARPEST: dict[str, Any] = {"color": CYCLE[1], "ls": "-", "marker": "^"}
_SMALLEST: dict[str, Any] = {"color": CYCLE[2], "ls": "--", "marker": "v"}
_WAY: dict[str, Any] = {"color": CYCLE[6], "ls": "-.", "marker": "s"}
_PANEL = (4.8, 3.8)  # inches, wide and high


def curvature_profiles(
    result: Representativeness, *, scale: str | None = None, ax: Axes | None = None
) -> Axes:
    """Return axes with the loss over distance: along random directions and along the extreme ones.

    The random directions are thin lines with their mean, the middle half and the extremes of them;
    over these lie the eigenvectors of the largest and of the smallest eigenvalue and, where it is
    known, the way from the initialization, whose place is marked if it is within the picture.

    Args:
        result: what ``ls.representativeness`` returned.
        scale: "log" or "linear". Default: log when all finite values are positive and the largest
            is more than 20 times the smallest.
        ax: where to draw. Default: a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: when no loss is finite, or the scale cannot be used.

    Example:
        >>> axes = ls.draw.curvature_profiles(result)  # doctest: +SKIP
    """
    (scene,) = _scenes([result], scale)
    if ax is None:
        ax = new_axes((6.8, 4.6))
    ends = result.extremes
    curvatures = [f" (curvature {tick(value, 3)})" for value in (ends.largest, ends.smallest)]
    _paint(result, scene, ax, [f"{len(result.random)} random directions", *curvatures])
    ax.set_title(f"{result.size:,} parameters")
    legend_below(ax, hole_entries([scene]), columns=2)
    return ax


def representativeness_figure(
    results: Representativeness | Sequence[Representativeness],
    *,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Return a figure with the ``curvature_profiles`` of several minima side by side, on one scale.

    Args:
        results: what ``ls.representativeness`` returned for one minimum, or for several.
        scale: "log" or "linear". Default: log when all finite values of all are positive and the
            largest is more than 20 times the smallest.
        labels: a title for each panel. Default: how many parameters there are.

    Returns:
        The figure.

    Raises:
        DrawError: when nothing was given, the labels do not fit, or the scale cannot be used.

    Example:
        >>> figure = ls.draw.representativeness_figure([a, b], labels=["a", "b"])  # doctest: +SKIP
    """
    results = as_list(results, "result of ls.representativeness")
    defaults = [f"{one.size:,} parameters" for one in results]
    names = defaults if labels is None else texts_of(labels, len(results), "of the minima")
    scenes = _scenes(results, scale)
    figure, axes = panel_grid(len(results), _PANEL)
    counts = {len(one.random) for one in results}
    drawn_random = f"{min(counts)} random directions" if len(counts) == 1 else "random directions"
    for one, scene, name, ax in zip(results, scenes, names, axes, strict=True):
        _paint(one, scene, ax, [drawn_random, "", ""])
        ends = [tick(value, 3) for value in (one.extremes.smallest, one.extremes.largest)]
        ax.set_title(f"{name}\ncurvature {ends[0]} to {ends[1]}", fontsize="medium")
    drawn = {h.get_label(): h for ax in axes for h in ax.get_legend_handles_labels()[0]}
    handles = [*drawn.values(), *hole_entries(scenes)]
    figure.legend(
        handles=handles, ncols=3, frameon=False, fontsize="small", loc="outside lower center"
    )
    return figure


def _scenes(wholes: Sequence[Representativeness], scale: str | None) -> list[LineScene]:
    """Return all profiles as plain arrays, on one scale; the random ones come first."""
    fields = [_profiles(one) for one in wholes]
    every = [profile for field in fields for profile in field]
    scale = resolve_scale(every, scale, name="loss")
    limits = limits_of([paintable(field, scale) for field in every], scale)
    return [
        LineScene(
            x=one.distances,
            traces=tuple(
                Trace("loss", "loss", values, paintable(values, scale), percent=False, test=False)
                for values in field
            ),
            scale=scale,
            limits=limits,
            x_label=_AXIS,
            title="",
            center=0.0,
        )
        for one, field in zip(wholes, fields, strict=True)
    ]


def _profiles(whole: Representativeness) -> list[FloatArray]:
    ways = [*whole.random, whole.sharpest, whole.steepest]
    return ways if whole.initialization is None else [*ways, whole.initialization]


def _paint(whole: Representativeness, scene: LineScene, ax: Axes, texts: Sequence[str]) -> None:
    """Draw all profiles; the texts name the random ones, and end the names of the next two."""
    shown = [trace.shown for trace in scene.traces]
    count = len(whole.random)
    paint_band(scene.x, np.stack(shown[:count]), ax, what=texts[0])
    ways = [
        (f"sharpest direction{texts[1]}", _SHARPEST),
        (f"direction of the smallest eigenvalue{texts[2]}", _SMALLEST),
        ("way from the initialization", _WAY),
    ]
    for curve, (label, style) in zip(shown[count:], ways, strict=False):
        dots: dict[str, Any] = {
            "markevery": lonely(curve) or slice(0, None, 5),
            "ms": 4.5,
            "lw": 1.6,
        }
        ax.plot(scene.x, curve, label=label, **style, **dots)
    _mark_start(whole, ax)
    mark_holes(scene, ax)
    dress([scene], ax, ax)


def _mark_start(whole: Representativeness, ax: Axes) -> None:
    """Mark where the initialization lies, or write how far off it is."""
    at = whole.initialization_at
    if at is None:
        return
    if whole.distances[0] <= at <= whole.distances[-1]:
        ax.axvline(at, color=_WAY["color"], lw=1, ls=":", label="the initialization")
    else:
        note = f"\N{LEFTWARDS ARROW} initialization at {tick(at, 3)}"
        ax.text(
            0.02, 0.97, note, transform=ax.transAxes, va="top", fontsize="small",
            color=_WAY["color"],
        )  # fmt: skip
