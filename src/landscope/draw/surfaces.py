"""A plane as a 3-D surface with a light source, with matplotlib.

The faces are the quadrilaterals between four neighboring values. A face that touches a hole is
left out; nothing is smoothed, and no hole is bridged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LightSource
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from landscope.draw.axes import add_color_bar, create_axes, make_norm
from landscope.draw.levels import (
    FloatArray,
    choose_round_numbers,
    count_digits,
    format_number,
    format_tick,
)
from landscope.draw.plane_scene import PlaneScene, build_plane_scene, check_area
from landscope.draw.scales import read_numbers
from landscope.errors import DrawError
from landscope.landscape import Landscape

VIEW = (32.0, -58.0)  # elevation and azimuth in degrees: high enough to see the bottom of a bowl
_LIGHT = LightSource(azdeg=205, altdeg=50)
_SHADE = 0.55  # share of its color that a face turned away from the light loses
_SMOOTH = 80  # cells per side from which on the shading looks smooth
_BOX_HEIGHT = 0.72  # of the box, in units of its longer side


def surface(
    land: Landscape,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    title: str | None = None,
    limits: tuple[float, float] | None = None,
    clip: float | None = None,
    cmap: str | None = None,
    view: tuple[float, float] = VIEW,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return 3-D axes with a plane as a shaded surface.

    Args:
        land: A landscape with dims ("y", "x").
        quantity: The name of a variable. Default: ``land.quantity``.
        scale: "log" or "linear", of heights and colors. Default: log when all finite values are
            positive, are not percentages, and the largest is more than 20 times the smallest.
        title: The title; "" for none. Default: that of the landscape.
        limits: The ends of the color scale. Default: the smallest and largest value, at most the
            clip.
        clip: The largest height; larger values are drawn at the clip, which a note says. Default:
            no clip.
        cmap: The name of a color map of matplotlib. Default: viridis.
        view: Elevation and azimuth of the viewer in degrees. Default: (32, -58), high enough to see
            the bottom of a bowl; (90, -90) is a map.
        size: Width and height of a new figure in inches. Default: 7.2 by 5.0.
        ax: The axes to draw into, created with ``projection="3d"``. Default: axes in a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: When the landscape cannot be drawn this way; the text explains what to do.

    Example:
        >>> axes = ls.draw.surface(land, clip=10.0, view=(60, -45))  # doctest: +SKIP
    """
    scene = build_plane_scene(
        land, quantity=quantity, scale=scale, title=title, limits=limits, clip=clip, cmap=cmap
    )
    if ax is None:
        ax = create_axes((7.2, 5.0), size, projection="3d")
    paint_surface(scene, ax, view=view)
    axes_3d: Any = ax  # the types of matplotlib do not distinguish them from flat axes
    axes_3d.set_zlabel("")  # the color bar has this label
    add_color_bar(scene, ax.figure, ax=ax, shrink=0.62, pad=0.1)
    return ax


def paint_surface(
    scene: PlaneScene,
    ax: Any,
    *,
    zoom: float = 1.0,
    view: tuple[float, float] = VIEW,
    include: FloatArray | None = None,
) -> None:
    """Draw the surface into 3-D ``ax``.

    Args:
        scene: The plane.
        ax: The axes to draw into.
        zoom: The factor by which the box is enlarged.
        view: Elevation and azimuth of the viewer in degrees.
        include: Further points that lie within the box, [points, 3]; the third coordinate is a
            height of the scene.

    Raises:
        DrawError: When ``ax`` is flat, the plane has no area, or the view is not two angles.
    """
    if not isinstance(ax, Axes3D):
        raise DrawError(
            "ax is flat, but a surface needs 3-D axes: create them with"
            " figure.add_subplot(projection='3d'), or leave ax out."
        )
    check_area(scene, "surfaces")
    check_view(view)
    box = _compute_ranges(scene, np.empty((0, 3)) if include is None else include)
    corners, colors = _build_faces(scene, box, view)
    # Edges in the color of their face close the hairlines between faces; an image stays small.
    faces = Poly3DCollection(corners, facecolors=colors, edgecolors=colors, linewidths=0.3)
    faces.set_rasterized(True)
    ax.add_collection3d(faces)
    _set_up_box(scene, ax, zoom, box)
    ax.view_init(*view)
    ax.set_title(scene.title, pad=-2)
    ax.set_xlabel(scene.x_label, labelpad=8)
    ax.set_ylabel(scene.y_label, labelpad=13)
    ax.set_zlabel(scene.label)
    _add_notes(scene, ax)


def check_view(view: tuple[float, float]) -> None:
    """Refuse a view that is not an elevation and an azimuth.

    Raises:
        DrawError: When it is not two finite numbers.
    """
    if not read_numbers(view, 2):
        raise DrawError(
            f"view={view!r} is not a view: give elevation and azimuth in degrees, such as {VIEW}."
        )


def _build_faces(
    scene: PlaneScene, box: FloatArray, view: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Return corners [faces, 4, 3] and colors [faces, 4] of all faces that touch no hole.

    Each face is the bilinear patch between four neighboring values. On a coarse grid it is divided
    into smaller patches: the surface is the same, but its shading is as smooth as on a fine grid.
    """
    divisions = max(1, min(4, round(_SMOOTH / max(scene.values.shape))))
    x, y = np.meshgrid(scene.x, scene.y)
    share = np.clip(make_norm(scene)(np.ma.masked_invalid(scene.shown)).filled(np.nan), 0, 1)
    points = np.stack([x, y, scene.heights, share], axis=-1)
    fine = _subdivide(np.concatenate([points, _compute_normals(scene, box)], axis=-1), divisions)
    corners = _list_corners(fine)
    corners = corners[np.isfinite(corners[..., :4]).all(axis=(1, 2))]
    colors = _shade(corners[..., 3:].mean(axis=1), scene.colormap, view)
    return corners[..., :3], colors


def _list_corners(points: FloatArray) -> FloatArray:
    """Return the four corners of each cell of a grid: [ny, nx, k] -> [cells, 4, k]."""
    around = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]
    return np.stack(around, axis=2).reshape(-1, 4, points.shape[-1])


def _subdivide(points: FloatArray, divisions: int) -> FloatArray:
    """Divide each cell of a grid into divisions x divisions by bilinear interpolation."""
    for axis in (0, 1):
        points = np.moveaxis(points, axis, 0)
        share = np.linspace(0, 1, divisions, endpoint=False).reshape(-1, *[1] * points.ndim)
        # Where the share is 0 the next point must not matter, since 0 * NaN is NaN.
        ahead = np.where(share > 0, points[1:], 0.0)
        steps = points[:-1] * (1 - share) + ahead * share
        steps = np.moveaxis(steps, 0, 1).reshape(-1, *points.shape[1:])
        points = np.moveaxis(np.concatenate([steps, points[-1:]]), 0, axis)
    return points


def _shade(faces: FloatArray, colormap: str, view: tuple[float, float]) -> FloatArray:
    """Return colors [faces, 4].

    Args:
        faces: The position on the color scale, in [0, 1], and the normal of each face, [faces, 4].
        colormap: The name of the color map.
        view: Elevation and azimuth of the viewer in degrees.
    """
    colors = np.asarray(colormaps[colormap](faces[:, 0]), dtype=np.float64)
    length = np.linalg.norm(faces[:, 1:], axis=-1)
    normal = faces[:, 1:] / np.where(length > 0, length, 1)[:, None]
    # Faces that are seen from below are lit on that side: the front of a bowl would be black.
    elevation, azimuth = np.radians(view)
    level = np.cos(elevation)
    to_viewer = [level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)]
    side = np.where(normal @ to_viewer < 0, -1, 1)
    light = np.clip(side * (normal @ _LIGHT.direction), 0, 1)
    colors[:, :3] *= 1 - _SHADE + _SHADE * light[:, None]
    return colors


def _compute_normals(scene: PlaneScene, box: FloatArray) -> FloatArray:
    """Return the unit normals of the surface in the coordinates of the box, [ny, nx, 3].

    The slope next to a hole is that of the side with values; where there is none it is 0.
    """
    x, y, z = (
        values / np.ptp(ends) * side
        for values, ends, side in zip(
            (scene.x, scene.y, scene.heights), box, _compute_box_sides(box), strict=True
        )
    )
    slopes = [-_compute_slope(z.T, x).T, -_compute_slope(z, y), np.ones_like(z)]
    normal = np.stack(slopes, axis=-1)
    return np.asarray(normal / np.linalg.norm(normal, axis=-1, keepdims=True))


def _compute_slope(z: FloatArray, coordinates: FloatArray) -> FloatArray:
    """Return the slope along the first axis: the mean of the slopes that exist on both sides."""
    steps = np.diff(z, axis=0) / np.diff(coordinates)[:, None]
    blank = np.full((1, z.shape[1]), np.nan)
    sides = np.stack([np.concatenate([blank, steps]), np.concatenate([steps, blank])])
    known = np.isfinite(sides)
    return np.asarray(np.where(known, sides, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def _set_up_box(scene: PlaneScene, ax: Any, zoom: float, box: FloatArray) -> None:
    """Set the ranges and sides of the box, and ticks that show values also on a log scale."""
    ax.set(xlim=box[0], ylim=box[1], zlim=box[2])
    sides = _compute_box_sides(box)
    # The labels of a short side extend beyond the picture unless the box is made smaller.
    ax.set_box_aspect(sides, zoom=zoom * (1.0 if min(sides[:2]) > 0.75 else 0.86))
    for axis, ends, side in ((ax.xaxis, box[0], "right"), (ax.yaxis, box[1], "left")):
        slack = 1e-9 * float(np.ptp(ends))
        places = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(*ends)
        places = places[(places >= ends[0] - slack) & (places <= ends[1] + slack)]
        # Where the axes meet, labels that are centered at their ticks would cover each other.
        axis.set_ticks(places, [format_tick(place) for place in places], ha=side)
    low, high = 10.0 ** box[2] if scene.scale == "log" else box[2]
    ticks = choose_round_numbers(float(low), float(high), scale=scene.scale, count=6)
    texts = [format_tick(value, count_digits(ticks)) for value in ticks]
    ax.set_zticks(np.log10(ticks) if scene.scale == "log" else ticks, texts)
    # Tick labels are centered at their ticks: long ones would extend into the box.
    excess = max(max(map(len, texts), default=0) - 4, 0)
    ax.tick_params(axis="z", pad=4 + 3 * excess)
    ax.zaxis.labelpad = 8 + 5 * excess
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
        axis._axinfo["grid"].update(color="0.88", linewidth=0.6)


def _compute_box_sides(box: FloatArray) -> tuple[float, float, float]:
    width, depth = np.ptp(box[:2], axis=1)
    longest = max(width, depth)
    # A thin strip is drawn at most twice as long as wide, or its labels would overlap.
    return max(width / longest, 1 / 2), max(depth / longest, 1 / 2), _BOX_HEIGHT


def _compute_ranges(scene: PlaneScene, include: FloatArray) -> FloatArray:
    """Return the ends of the axes x, y and z, [3, 2]: of the limits and of everything drawn."""
    limits = np.log10(scene.limits) if scene.scale == "log" else np.asarray(scene.limits)
    heights = scene.heights[np.isfinite(scene.heights)]
    surface_points = [scene.x, scene.y, np.concatenate([limits, heights])]
    further_points = include[np.isfinite(include).all(axis=1)]
    along = [np.concatenate(pair) for pair in zip(surface_points, further_points.T, strict=True)]
    return np.array([[values.min(), values.max()] for values in along])


def _add_notes(scene: PlaneScene, ax: Any) -> None:
    """Say under the title how many heights are clipped or missing."""
    notes = []
    if scene.clip is not None and scene.num_clipped:
        notes.append(
            f"{scene.num_clipped} heights above {format_number(scene.clip)} are drawn at it"
        )
    if scene.num_holes:
        notes.append(f"holes: {scene.hole_note}")
    if notes:
        style = {"ha": "center", "va": "top", "fontsize": 8, "color": "0.35"}
        ax.text2D(0.5, 1.0, "; ".join(notes), transform=ax.transAxes, **style)
