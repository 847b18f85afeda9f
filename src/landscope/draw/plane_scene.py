"""From the landscape of a plane to plain arrays: scale, limits, levels, clip, labels and marks.

A renderer paints a scene; every decision about the picture is made here. Raw values are never
changed. Values that cannot be painted (not finite, or not positive on a log scale) are NaN in a
second array, ``shown``, and are painted as holes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landscope.draw.explanations import list_marks
from landscope.draw.levels import FloatArray
from landscope.draw.scales import (
    check_clip,
    contains_zero,
    describe_holes,
    hide_unpaintable,
    resolve_colormap,
    resolve_levels,
    resolve_limits,
    resolve_scale,
)
from landscope.draw.values import (
    check_landscape,
    format_label,
    is_percent,
    read_axis,
    read_plane,
    read_title,
)
from landscope.errors import DrawError
from landscope.landscape import Landscape


@dataclass(frozen=True, eq=False)
class PlaneScene:
    """One quantity over a plane, ready to paint."""

    x: FloatArray  # [nx], rising
    y: FloatArray  # [ny], rising
    values: FloatArray  # [ny, nx], raw
    shown: FloatArray  # [ny, nx], NaN where the scale cannot show the value
    quantity: str  # the name of the variable
    scale: str  # "log" | "linear"
    limits: tuple[float, float]  # ends of the color scale; may be shared by several scenes
    levels: FloatArray  # [levels], rising
    clip: float | None  # larger heights are drawn at the clip; None: no clip
    label: str  # of the quantity, with its unit
    x_label: str
    y_label: str
    title: str  # empty when there is none
    colormap: str  # its name in matplotlib
    center: tuple[float, float] | None  # (0, 0) when it lies within the axes
    marks: list[tuple[tuple[float, ...], str]]  # coordinates and names of models on the plane
    center_value: float | None  # raw value of the cell at (0, 0); None when there is no such cell
    lowest: tuple[float, float, float] | None  # x, y and value; None when no value is finite

    @property
    def edges(self) -> tuple[FloatArray, FloatArray]:
        """Borders of the cells along x and y, [nx + 1] and [ny + 1]: halfway between points."""
        return _compute_edges(self.x, self.y), _compute_edges(self.y, self.x)

    @property
    def heights(self) -> FloatArray:
        """Heights to draw, [ny, nx]: clipped, and log10 of the values on a log scale."""
        return self.to_heights(self.shown)

    def to_heights(self, values: FloatArray) -> FloatArray:
        """Return the heights at which values are drawn; NaN where the scale cannot show them."""
        shown = hide_unpaintable(values, self.scale)
        clipped = shown if self.clip is None else np.minimum(shown, self.clip)
        return np.log10(clipped) if self.scale == "log" else clipped

    @property
    def span(self) -> tuple[float, float] | None:
        """Smallest and largest value shown; None when every cell is a hole."""
        shown = self.shown[~np.isnan(self.shown)]
        return (float(shown.min()), float(shown.max())) if shown.size else None

    @property
    def num_clipped(self) -> int:
        """The number of cells that are drawn at the clip instead of at their own height."""
        return 0 if self.clip is None else int((self.shown > self.clip).sum())

    @property
    def num_holes(self) -> int:
        """The number of cells that cannot be painted."""
        return int(np.isnan(self.shown).sum())

    @property
    def hole_note(self) -> str:
        """The number of holes of each kind, as a text; empty when there are none."""
        return describe_holes([self.values], [self.shown])


def build_plane_scene(
    land: Landscape,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    limits: tuple[float, float] | None = None,
    levels: int | Sequence[float] | None = None,
    clip: float | None = None,
    title: str | None = None,
    cmap: str | None = None,
    shared_with: Sequence[Landscape] = (),
) -> PlaneScene:
    """Return one quantity of a plane as plain arrays, with all choices for its picture.

    Args:
        land: A landscape with dims ("y", "x").
        quantity: The name of a variable. Default: ``land.quantity``.
        scale: "log" or "linear". Default: log when all finite values are positive, are not
            percentages, and the largest is more than 20 times the smallest.
        limits: The ends of the color scale. Default: the smallest and largest value shown, at most
            the clip.
        levels: The number of contour levels (about), or the levels themselves. Default: about 20.
        clip: The largest height that is drawn; it is used by renderers of heights only.
        title: The title of the picture. Default: that of the landscape.
        cmap: The name of a color map of matplotlib. Default: viridis, which is perceptually uniform
            and readable in print and by color-blind people.
        shared_with: The landscapes in the same figure; they share scale and limits.

    Returns:
        The scene; arrays of shape [ny, nx].

    Raises:
        DrawError: When ``land`` is not a landscape or not a plane, has no such quantity or no
            finite value, or when scale, limits, levels, clip or cmap cannot be used.

    Example:
        >>> scene = build_plane_scene(land, scale="log")  # doctest: +SKIP
        >>> scene.limits, scene.num_holes  # doctest: +SKIP
        ((0.01, 1000.0), 0)
    """
    check_landscape(land)
    name = quantity or land.quantity
    fields = [read_plane(each, name) for each in (land, *shared_with)]
    scale = resolve_scale(fields, scale, name=name, percent=is_percent(land, name))
    shown = [hide_unpaintable(field, scale) for field in fields]
    check_clip(clip, scale)
    limits = resolve_limits(shown, scale, limits=limits, clip=clip)
    x, y = read_axis(land, "x"), read_axis(land, "y")
    return PlaneScene(
        x=x,
        y=y,
        values=fields[0],
        shown=shown[0],
        quantity=name,
        scale=scale,
        limits=limits,
        levels=resolve_levels(limits, scale, levels),
        clip=clip,
        label=format_label(land, name),
        x_label=format_label(land, "x"),
        y_label=format_label(land, "y"),
        title=read_title(land) if title is None else str(title),
        colormap=resolve_colormap(cmap),
        center=(0.0, 0.0) if contains_zero(x) and contains_zero(y) else None,
        marks=list_marks(land),
        center_value=_read_center(fields[0], y, x),
        lowest=_find_lowest(fields[0], x, y),
    )


def check_area(scene: PlaneScene, picture: str) -> None:
    """Refuse a plane that is one point wide: it has cells, but no area between points.

    Args:
        scene: The plane.
        picture: The kind of picture, for the error message.

    Raises:
        DrawError: When an axis has only one point.
    """
    rows, columns = scene.values.shape
    if min(rows, columns) < 2:
        raise DrawError(
            f"The plane has {rows} x {columns} points (y, x); {picture} need two or more along each"
            " axis: use ls.draw.heatmap."
        )


def _compute_edges(axis: FloatArray, other_axis: FloatArray) -> FloatArray:
    """Return the borders of cells around the coordinates; a single cell is drawn as a square."""
    if axis.size == 1:
        width = float(np.diff(other_axis).mean()) if other_axis.size > 1 else 1.0
        return np.array([axis[0] - width / 2, axis[0] + width / 2])
    middles = (axis[1:] + axis[:-1]) / 2
    return np.concatenate([[2 * axis[0] - middles[0]], middles, [2 * axis[-1] - middles[-1]]])


def _read_center(values: FloatArray, *axes: FloatArray) -> float | None:
    """Return the raw value of the cell at the origin, up to rounding of the coordinates."""
    nearest = tuple(int(np.abs(axis).argmin()) for axis in axes)
    near = [abs(a[i]) <= 1e-9 * max(np.ptp(a), 1e-300) for a, i in zip(axes, nearest, strict=True)]
    return float(values[nearest]) if all(near) else None


def _find_lowest(
    values: FloatArray, x: FloatArray, y: FloatArray
) -> tuple[float, float, float] | None:
    finite = np.where(np.isfinite(values), values, np.inf)
    row, column = np.unravel_index(int(finite.argmin()), finite.shape)
    lowest = float(finite[row, column])
    return None if math.isinf(lowest) else (float(x[column]), float(y[row]), lowest)
