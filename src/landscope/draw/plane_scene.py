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
    holds_zero,
    hole_note_of,
    levels_of,
    limits_of,
    paintable,
    resolve_scale,
)
from landscope.draw.values import (
    axis_values,
    check_landscape,
    is_percent,
    label_of,
    plane_values,
    title_of,
)
from landscope.errors import DrawError
from landscope.landscape import Landscape


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
        return hole_note_of([self.values], [self.shown])


def build_plane_scene(
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
        >>> scene = build_plane_scene(land, scale="log")  # doctest: +SKIP
        >>> scene.limits, scene.holes  # doctest: +SKIP
        ((0.01, 1000.0), 0)
    """
    check_landscape(land)
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
        center=(0.0, 0.0) if holds_zero(x) and holds_zero(y) else None,
        center_value=_at_zero(fields[0], y, x),
        lowest=_lowest(fields[0], x, y),
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


def _edges(axis: FloatArray, other: FloatArray) -> FloatArray:
    """Return the borders of cells about the coordinates; a lone cell is as wide as its height."""
    if axis.size == 1:
        width = float(np.diff(other).mean()) if other.size > 1 else 1.0
        return np.array([axis[0] - width / 2, axis[0] + width / 2])
    middles = (axis[1:] + axis[:-1]) / 2
    return np.concatenate([[2 * axis[0] - middles[0]], middles, [2 * axis[-1] - middles[-1]]])


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
