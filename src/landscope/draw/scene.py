"""From a Landscape to plain arrays: scale, limits, levels, clip, labels and marks.

A renderer gets a scene and paints it; all that is decided about a picture is decided here. The raw
values stay as they are. What cannot be painted (not finite, or not positive on a log scale) is NaN
in a second array, ``shown``, and is painted as a hole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landscope.draw.levels import FloatArray
from landscope.draw.scales import (
    check_clip,
    levels_of,
    limits_of,
    nothing_of,
    paintable,
    resolve_scale,
)
from landscope.draw.values import (
    axis_values,
    curves_of,
    is_percent,
    label_of,
    line_values,
    plane_values,
    title_of,
)
from landscope.errors import DrawError
from landscope.landscape import Landscape

_QUANTILE = 1.959964  # of the normal distribution: 95% on both sides together
_LEAST_OF_BAND = 10.0  # on a log scale: how far below its curve a band is followed, as a factor


@dataclass(frozen=True, eq=False)
class PlaneScene:
    """One quantity over a plane, ready to paint."""

    x: FloatArray  # [nx], rising
    y: FloatArray  # [ny], rising
    values: FloatArray  # [ny, nx], as they were computed
    shown: FloatArray  # [ny, nx], NaN where there is nothing to paint on this scale
    quantity: str  # the name of the variable
    scale: str  # "log" | "linear"
    limits: tuple[float, float]  # ends of the color scale; may be shared by several scenes
    levels: FloatArray  # [levels], rising
    clip: float | None  # heights above it are drawn at it; None: all at their own
    label: str  # of the quantity, with its unit
    x_label: str
    y_label: str
    title: str  # empty when the landscape has none
    center: tuple[float, float] | None  # (0, 0) when it lies within the axes
    center_value: float | None  # raw value of the cell at (0, 0); None when no cell is there
    lowest: tuple[float, float, float] | None  # x, y and value; None when no value is finite

    @property
    def edges(self) -> tuple[FloatArray, FloatArray]:
        """Borders of the cells, [nx + 1] and [ny + 1]: halfway between the coordinates."""
        return _edges(self.x, self.y), _edges(self.y, self.x)

    @property
    def heights(self) -> FloatArray:
        """Heights to draw, [ny, nx]: clipped, and log10 of the values on a log scale."""
        return self.raised(self.shown)

    def raised(self, values: FloatArray) -> FloatArray:
        """Return the heights at which values are drawn; NaN for what has none on this scale."""
        shown = paintable(values, self.scale)
        held = shown if self.clip is None else np.minimum(shown, self.clip)
        return np.log10(held) if self.scale == "log" else held

    @property
    def span(self) -> tuple[float, float] | None:
        """Smallest and largest value shown; None when all is holes."""
        shown = self.shown[~np.isnan(self.shown)]
        return (float(shown.min()), float(shown.max())) if shown.size else None

    @property
    def clipped(self) -> int:
        """The number of cells whose height is drawn at the clip instead of at their own."""
        return 0 if self.clip is None else int((self.shown > self.clip).sum())

    @property
    def holes(self) -> int:
        """The number of cells with nothing to paint."""
        return int(np.isnan(self.shown).sum())

    @property
    def hole_note(self) -> str:
        """What the holes are, in words; empty when there are none."""
        return _hole_note([self.values], [self.shown])


@dataclass(frozen=True, eq=False)
class Trace:
    """One quantity along a line, ready to paint."""

    quantity: str  # the name of the variable
    label: str  # with its unit
    values: FloatArray  # [nx], as they were computed
    shown: FloatArray  # [nx], NaN where there is nothing to paint on this scale
    percent: bool  # its unit is %: it belongs on the right-hand axis
    test: bool  # measured on data that were held out: it is drawn dashed
    margin: FloatArray | None = None  # [nx], half the width of the 95% interval; None: not known


@dataclass(frozen=True, eq=False)
class LineScene:
    """Several quantities along a line, ready to paint."""

    x: FloatArray  # [nx], rising
    traces: tuple[Trace, ...]
    scale: str  # "log" | "linear", of the traces that are no percentages
    limits: tuple[float, float]  # of these traces; may be shared by several scenes
    x_label: str
    title: str  # empty when the landscape has none
    center: float | None  # 0 when it lies within the axis

    @property
    def hole_positions(self) -> FloatArray:
        """Coordinates at which some trace has nothing to paint, [holes]."""
        return self.x[np.any([np.isnan(trace.shown) for trace in self.traces], axis=0)]

    @property
    def hole_note(self) -> str:
        """What the holes are, in words; empty when there are none."""
        return _hole_note([t.values for t in self.traces], [t.shown for t in self.traces])


def plane_scene(
    land: Landscape,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    limits: tuple[float, float] | None = None,
    levels: int | Sequence[float] | None = None,
    clip: float | None = None,
    beside: Sequence[Landscape] = (),
) -> PlaneScene:
    """Return one quantity of a plane as plain arrays, with all that is decided about its picture.

    Args:
        land: a landscape with dims ("y", "x").
        quantity: name of a variable. Default: ``land.quantity``.
        scale: "log" or "linear". Default: log when all finite values are positive, are no
            percentages, and the largest is more than 20 times the smallest.
        limits: ends of the color scale. Default: smallest and largest value shown, at most the
            clip.
        levels: how many contour levels (about), or the levels themselves. Default: about 20.
        clip: heights above this value are drawn at it, by renderers of height only.
        beside: landscapes whose picture stands beside this one: they all get one scale and one
            pair of limits.

    Returns:
        The scene; arrays of shape [ny, nx].

    Raises:
        DrawError: when land is no landscape or no plane, has no such quantity or nothing finite,
            or when scale, limits, levels or clip cannot be used.

    Example:
        >>> scene = plane_scene(land, scale="log")  # doctest: +SKIP
        >>> scene.limits, scene.holes  # doctest: +SKIP
        ((0.01, 1000.0), 0)
    """
    if not isinstance(land, Landscape):
        raise DrawError(
            f"land is a {type(land).__name__}; expected a Landscape, as ls.scan and ls.load return"
            " it."
        )
    name = quantity or land.quantity
    lands = [land, *beside]
    fields = [plane_values(one, name) for one in lands]
    scale = resolve_scale(fields, scale, name=name, percent=is_percent(land, name))
    shown = [paintable(field, scale) for field in fields]
    check_clip(clip, scale)
    limits = limits_of(shown, scale, limits=limits, clip=clip)
    x, y = axis_values(land, "x"), axis_values(land, "y")
    return PlaneScene(
        x=x,
        y=y,
        values=fields[0],
        shown=shown[0],
        quantity=name,
        scale=scale,
        limits=limits,
        levels=levels_of(limits, scale, levels),
        clip=clip,
        label=label_of(land, name),
        x_label=label_of(land, "x"),
        y_label=label_of(land, "y"),
        title=title_of(land),
        center=(0.0, 0.0) if _holds_zero(x) and _holds_zero(y) else None,
        center_value=_at_zero(fields[0], y, x),
        lowest=_lowest(fields[0], x, y),
    )


def line_scene(
    land: Landscape,
    *,
    quantities: str | Sequence[str] | None = None,
    scale: str | None = None,
    beside: Sequence[Landscape] = (),
) -> LineScene:
    """Return quantities of a line as plain arrays, with all that is decided about their picture.

    Args:
        land: a landscape with dims ("x",).
        quantities: names of variables. Default: every loss and every percentage.
        scale: "log" or "linear", of the quantities that are no percentages. Default: log when all
            their finite values are positive and the largest is more than 20 times the smallest.
        beside: landscapes that are drawn with this one: they all get one scale and one pair of
            limits.

    Returns:
        The scene; arrays of shape [nx].

    Raises:
        DrawError: when the landscape is no line, has no such quantity, or nothing to paint.

    Example:
        >>> scene = line_scene(land)  # doctest: +SKIP
        >>> [trace.label for trace in scene.traces]  # doctest: +SKIP
        ['loss', 'accuracy (%)']
    """
    if isinstance(quantities, str):
        quantities = [quantities]
    names = list(quantities) if quantities else curves_of(land)
    left = [line_values(one, n) for one in (land, *beside) for n in names if not is_percent(one, n)]
    scale = resolve_scale(left, scale, name=names[0]) if left else "linear"
    traces = tuple(_trace(land, name, scale) for name in names)
    unsure = [(o, n) for o in (land, *beside) for n in names if f"{n}_stderr" in o.data]
    bands = [end for one, name in unsure for end in _reach(_trace(one, name, scale), scale)]
    if all(np.isnan(trace.shown).all() for trace in traces):
        raise DrawError(nothing_of(names[0]))
    x = axis_values(land, "x")
    return LineScene(
        x=x,
        traces=traces,
        scale=scale,
        limits=limits_of([*(paintable(field, scale) for field in left), *bands], scale),
        x_label=label_of(land, "x"),
        title=title_of(land),
        center=0.0 if _holds_zero(x) else None,
    )


def need_area(scene: PlaneScene, what: str) -> None:
    """Refuse a plane that is one point wide: it has cells, but no area between them.

    Raises:
        DrawError: when an axis has one point only.
    """
    rows, columns = scene.values.shape
    if min(rows, columns) < 2:
        raise DrawError(
            f"The plane has {rows} x {columns} points (y, x); {what} need two or more along each"
            " axis: use ls.draw.heatmap."
        )


def _trace(land: Landscape, name: str, scale: str) -> Trace:
    values = line_values(land, name)
    percent, error = is_percent(land, name), f"{name}_stderr"
    return Trace(
        quantity=name,
        label=label_of(land, name),
        values=values,
        shown=paintable(values, "linear" if percent else scale),
        percent=percent,
        test=name.startswith(("test", "val")),
        margin=_QUANTILE * line_values(land, error) if error in land.data else None,
    )


def _reach(trace: Trace, scale: str) -> list[FloatArray]:
    """Return the ends of the error bands that a picture has to hold.

    On a log scale a band may reach down to nothing, and would take all of the picture with it.
    """
    if trace.margin is None or trace.percent:
        return []
    low, high = trace.shown - trace.margin, trace.shown + trace.margin
    if scale == "log":
        low = np.where(low >= trace.shown / _LEAST_OF_BAND, low, np.nan)
    return [paintable(low, scale), paintable(high, scale)]


def _edges(axis: FloatArray, other: FloatArray) -> FloatArray:
    """Return the borders of cells about the coordinates; a lone cell is as wide as its height."""
    if axis.size == 1:
        width = float(np.diff(other).mean()) if other.size > 1 else 1.0
        return np.array([axis[0] - width / 2, axis[0] + width / 2])
    middles = (axis[1:] + axis[:-1]) / 2
    return np.concatenate([[2 * axis[0] - middles[0]], middles, [2 * axis[-1] - middles[-1]]])


def _holds_zero(axis: FloatArray) -> bool:
    return bool(axis[0] <= 0 <= axis[-1])


def _at_zero(values: FloatArray, *axes: FloatArray) -> float | None:
    """Return the raw value of the cell at the origin, if a cell is there but for rounding."""
    nearest = tuple(int(np.abs(axis).argmin()) for axis in axes)
    near = [abs(a[i]) <= 1e-9 * max(np.ptp(a), 1e-300) for a, i in zip(axes, nearest, strict=True)]
    return float(values[nearest]) if all(near) else None


def _lowest(values: FloatArray, x: FloatArray, y: FloatArray) -> tuple[float, float, float] | None:
    finite = np.where(np.isfinite(values), values, np.inf)
    row, column = np.unravel_index(int(finite.argmin()), finite.shape)
    best = float(finite[row, column])
    return None if math.isinf(best) else (float(x[column]), float(y[row]), best)


def _hole_note(values: Sequence[FloatArray], shown: Sequence[FloatArray]) -> str:
    lost = sum(int((~np.isfinite(v)).sum()) for v in values)
    low = sum(int(np.isnan(s).sum()) for s in shown) - lost
    notes = [(lost, "not finite"), (low, "≤ 0 (no place on a log scale)")]
    return ", ".join(f"{count} {what}" for count, what in notes if count)
