"""A plane as a lit 3-D surface with matplotlib.

The faces are the quadrilaterals between four neighboring values. A face that touches a hole is
left out; nothing is smoothed and nothing is bridged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LightSource
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from landscope.draw.axes import COLORS, add_color_bar, few_ticks, new_axes, norm
from landscope.draw.labels import tick
from landscope.draw.levels import FloatArray, digits_for, number, round_numbers
from landscope.draw.plane_scene import PlaneScene, build_plane_scene, need_area
from landscope.errors import DrawError
from landscope.landscape import Landscape

VIEW = {"elev": 32.0, "azim": -58.0}  # degrees; from the front, high enough to see the floor
_EYE = np.array([0.449, -0.719, 0.530])  # unit vector from the box to who looks from VIEW
_SUN = LightSource(azdeg=205, altdeg=50)
_SHADE = 0.55  # share of the color that a face turned away from the sun loses
_SMOOTH = 80  # cells a side from which on the light looks smooth
_BOX_HEIGHT = 0.72  # of the box, in units of its longer side


def surface(
    land: Landscape,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    limits: tuple[float, float] | None = None,
    clip: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return 3-D axes with a plane as a lit surface.

    Args:
        land: a landscape with dims ("y", "x").
        quantity: name of a variable. Default: ``land.quantity``.
        scale: "log" or "linear", of heights and colors. Default: log when all finite values are
            positive, are no percentages, and the largest is more than 20 times the smallest.
        limits: ends of the color scale. Default: smallest and largest value, at most the clip.
        clip: values above it are drawn at its height, and the picture says so. Default: none.
        ax: where to draw; made with ``projection="3d"``. Default: a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: when the landscape cannot be drawn so; the text says what to do.

    Example:
        >>> axes = ls.draw.surface(land, clip=10.0)  # doctest: +SKIP
        >>> axes.view_init(elev=60)  # doctest: +SKIP
    """
    scene = build_plane_scene(land, quantity=quantity, scale=scale, clip=clip, limits=limits)
    if ax is None:
        ax = new_axes((7.2, 5.4), projection="3d")
    paint_surface(scene, ax)
    add_color_bar(scene, ax.figure, ax=ax, shrink=0.62, pad=0.1)
    return ax


def paint_surface(
    scene: PlaneScene, ax: Any, *, zoom: float = 1.0, holding: FloatArray | None = None
) -> None:
    """Draw the surface into 3-D ``ax``.

    Args:
        scene: what to draw.
        ax: where to draw.
        zoom: enlarges the box.
        holding: further points that the box has to hold, [points, 3]; their third coordinate is a
            height of the scene.

    Raises:
        DrawError: when ``ax`` is flat or the plane has no area.
    """
    if not isinstance(ax, Axes3D):
        raise DrawError(
            "ax is flat, and a surface needs 3-D axes: make them with"
            " figure.add_subplot(projection='3d'), or leave ax out."
        )
    need_area(scene, "surfaces")
    box = _ranges(scene, np.empty((0, 3)) if holding is None else holding)
    corners, colors = _faces(scene, box)
    # Edges in the color of their face close the hairlines between faces; an image stays small.
    skin = Poly3DCollection(corners, facecolors=colors, edgecolors=colors, linewidths=0.3)
    skin.set_rasterized(True)
    ax.add_collection3d(skin)
    _box(scene, ax, zoom, box)
    ax.set_title(scene.title)
    ax.set_xlabel(scene.x_label, labelpad=8)
    ax.set_ylabel(scene.y_label, labelpad=8)
    ax.set_zlabel(scene.label)
    _notes(scene, ax)


def _faces(scene: PlaneScene, box: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return corners [faces, 4, 3] and colors [faces, 4] of all faces that touch no hole.

    Each is the bilinear patch between four neighboring values, cut into smaller pieces on a coarse
    grid: the surface is the same, but its light is as smooth as on a fine one.
    """
    pieces = max(1, min(4, round(_SMOOTH / max(scene.values.shape))))
    x, y = np.meshgrid(scene.x, scene.y)
    share = np.clip(norm(scene)(np.ma.masked_invalid(scene.shown)).filled(np.nan), 0, 1)
    points = np.stack([x, y, scene.heights, share], axis=-1)
    fine = _refined(np.concatenate([points, _normals(scene, box)], axis=-1), pieces)
    corners = _corners(fine)
    corners = corners[np.isfinite(corners[..., :4]).all(axis=(1, 2))]
    return corners[..., :3], _lit(corners[..., 3:].mean(axis=1))


def _corners(points: FloatArray) -> FloatArray:
    """Return the four corners of each cell of a grid: [ny, nx, k] -> [cells, 4, k]."""
    around = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]
    return np.stack(around, axis=2).reshape(-1, 4, points.shape[-1])


def _refined(points: FloatArray, pieces: int) -> FloatArray:
    """Cut each cell of a grid into pieces x pieces by bilinear interpolation."""
    for axis in (0, 1):
        points = np.moveaxis(points, axis, 0)
        part = np.linspace(0, 1, pieces, endpoint=False).reshape(-1, *[1] * points.ndim)
        # Where a share is 0 the other end must not matter, since 0 * NaN is NaN.
        ahead = np.where(part > 0, points[1:], 0.0)
        steps = points[:-1] * (1 - part) + ahead * part
        steps = np.moveaxis(steps, 0, 1).reshape(-1, *points.shape[1:])
        points = np.moveaxis(np.concatenate([steps, points[-1:]]), 0, axis)
    return points


def _lit(share: FloatArray) -> FloatArray:
    """Return colors [faces, 4] from the place on the color scale and the normal, [faces, 1 + 3]."""
    colors = np.asarray(colormaps[COLORS](share[:, 0]), dtype=np.float64)
    length = np.linalg.norm(share[:, 1:], axis=-1)
    normal = share[:, 1:] / np.where(length > 0, length, 1)[:, None]
    # Faces seen from below are lit on that side: the front wall of a bowl would be black.
    seen = np.where(normal @ _EYE < 0, -1, 1)
    light = np.clip(seen * (normal @ _SUN.direction), 0, 1)
    colors[:, :3] *= 1 - _SHADE + _SHADE * light[:, None]
    return colors


def _normals(scene: PlaneScene, box: FloatArray) -> FloatArray:
    """Return what stands upright on the surface as it looks in the box, [ny, nx, 3].

    A slope next to a hole is taken from the side that has values; where there is none it is 0.
    """
    x, y, z = (
        values / np.ptp(ends) * side
        for values, ends, side in zip(
            (scene.x, scene.y, scene.heights), box, _box_sides(box), strict=True
        )
    )
    slopes = [-_slope(z.T, x).T, -_slope(z, y), np.ones_like(z)]
    normal = np.stack(slopes, axis=-1)
    return np.asarray(normal / np.linalg.norm(normal, axis=-1, keepdims=True))


def _slope(z: FloatArray, at: FloatArray) -> FloatArray:
    """Return the slope along the first axis: the mean of those that exist on both sides."""
    steps = np.diff(z, axis=0) / np.diff(at)[:, None]
    blank = np.full((1, z.shape[1]), np.nan)
    sides = np.stack([np.concatenate([blank, steps]), np.concatenate([steps, blank])])
    known = np.isfinite(sides)
    return np.asarray(np.where(known, sides, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def _box(scene: PlaneScene, ax: Any, zoom: float, box: FloatArray) -> None:
    """Set the ranges and sides of the box, and ticks that tell values also on a log scale."""
    ax.set(xlim=box[0], ylim=box[1], zlim=box[2])
    sides = _box_sides(box)
    # The labels of a short side reach beyond the picture unless the box is made smaller.
    ax.set_box_aspect(sides, zoom=zoom * (1.0 if min(sides[:2]) > 0.75 else 0.86))
    ax.view_init(**VIEW)
    few_ticks(ax.xaxis)
    few_ticks(ax.yaxis, prune="lower")  # its label would stand on that of x
    low, high = 10.0 ** box[2] if scene.scale == "log" else box[2]
    ticks = round_numbers(float(low), float(high), scale=scene.scale, count=6)
    names = [tick(value, digits_for(ticks)) for value in ticks]
    ax.set_zticks(np.log10(ticks) if scene.scale == "log" else ticks, names)
    # Long numbers, centered at their ticks, would reach into the box.
    longer = max(max(map(len, names), default=0) - 4, 0)
    ax.tick_params(axis="z", pad=4 + 3 * longer)
    ax.zaxis.labelpad = 8 + 5 * longer
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
        axis._axinfo["grid"].update(color="0.88", linewidth=0.6)


def _box_sides(box: FloatArray) -> tuple[float, float, float]:
    width, depth = np.ptp(box[:2], axis=1)
    longest = max(width, depth)
    # A thin strip is drawn at most twice as long as wide, or its labels would collide.
    return max(width / longest, 1 / 2), max(depth / longest, 1 / 2), _BOX_HEIGHT


def _ranges(scene: PlaneScene, holding: FloatArray) -> FloatArray:
    """Return the ends of the axes x, y and z, [3, 2]: the limits and all that is drawn."""
    limits = np.log10(scene.limits) if scene.scale == "log" else np.asarray(scene.limits)
    drawn = scene.heights[np.isfinite(scene.heights)]
    every = [scene.x, scene.y, np.concatenate([limits, drawn])]
    held = holding[np.isfinite(holding).all(axis=1)]
    along = [np.concatenate(pair) for pair in zip(every, held.T, strict=True)]
    return np.array([[values.min(), values.max()] for values in along])


def _notes(scene: PlaneScene, ax: Any) -> None:
    """Say under the title what was clipped and what is missing."""
    notes = []
    if scene.clip is not None and scene.clipped:
        notes.append(f"{scene.clipped} heights above {number(scene.clip)} are drawn at it")
    if scene.holes:
        notes.append(f"holes: {scene.hole_note}")
    if notes:
        style = {"ha": "center", "va": "top", "fontsize": 8, "color": "0.35"}
        ax.text2D(0.5, 1.0, "; ".join(notes), transform=ax.transAxes, **style)
