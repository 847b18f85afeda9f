"""Training paths over a 3-D surface, each checkpoint at its own loss.

The network of a checkpoint is not in the plane, so its loss is not the height of the surface: the
path runs above or below it. Vertical lines, the stems, join each checkpoint to the surface at its
projection. Path and stems are drawn over the surface, even where they are below or behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from landscope.draw.axes import add_color_bar, create_axes
from landscope.draw.labels import add_legend_below, make_room_for_legends
from landscope.draw.levels import FloatArray, format_tick
from landscope.draw.path_marks import (
    WIDTH,
    add_path_color_bar,
    build_segments,
    choose_path_colors,
    list_marks,
    list_path_entries,
    wrap_label,
)
from landscope.draw.path_scene import (
    PATH_COLORMAP,
    PathColors,
    PathScene,
    ProjectedPaths,
    build_path_scenes,
)
from landscope.draw.plane_scene import PlaneScene, build_plane_scene
from landscope.draw.surfaces import VIEW, paint_surface
from landscope.errors import DrawError
from landscope.landscape import Landscape

_MAX_LETTERS = 16  # of an axis label in one line: axes that run into the picture are short
_STEM_ENTRY: dict[str, Any] = {"color": "0.1", "marker": "|", "ls": "none", "ms": 10}
_STEM: dict[str, Any] = {
    "linewidths": 0.9,
    "colors": "0.1",
    "path_effects": [withStroke(linewidth=2.1, foreground="white", alpha=0.75)],
}


def path_surface(
    land: Landscape,
    paths: ProjectedPaths,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    clip: float | None = None,
    color: str | None = None,
    cmap: str | None = None,
    view: tuple[float, float] = VIEW,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return 3-D axes with a plane as a surface and each path at its true loss.

    Thin vertical lines join each checkpoint to the height of the surface at its projection.

    Args:
        land: A landscape with dims ("y", "x").
        paths: One path over this plane, or several, with losses: ``ls.paths.project`` computes
            losses and metrics when it is given an objective.
        quantity: The name of a variable of both landscape and paths. Default: ``land.quantity``.
        scale: "log" or "linear", of heights and colors. Default: as in ``surface``.
        labels: A name for each path. Default: the names of the paths.
        title: The title; "" for none. Default: that of the landscape.
        clip: The largest height; larger values are drawn at the clip, which a note says. Default:
            no clip.
        color: The column that colors a single path, as in ``path``.
        cmap: The name of a color map of matplotlib, for the landscape. Default: viridis.
        view: Elevation and azimuth of the viewer in degrees. Default: (32, -58).
        size: Width and height of a new figure in inches. Default: that which suits the legend.
        ax: The axes to draw into, created with ``projection="3d"``. Default: axes in a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: When a path has no such quantity, or landscape, paths, labels or color cannot be
            drawn this way.

    Example:
        >>> projected = ls.paths.project(trajectory, plane, objective)  # doctest: +SKIP
        >>> axes = ls.draw.path_surface(land, projected)  # doctest: +SKIP
    """
    scene = build_plane_scene(
        land, quantity=quantity, scale=scale, title=title, clip=clip, cmap=cmap
    )
    path_scenes = build_path_scenes(paths, labels, land)
    check_heights(path_scenes, scene)
    colors = choose_path_colors(path_scenes, color)
    is_new = ax is None
    ax = ax or create_axes((8.2 if colors else 7.4, 6.0), size, projection="3d")
    paint_surface_below_paths(scene, path_scenes, ax, view)
    for path in path_scenes:
        _paint_path(scene, path, ax, colors)
    if is_new and size is None:
        make_room_for_legends(ax.figure)
    add_color_bar(scene, ax.figure, ax=ax, shrink=0.62, pad=0.1)
    axes_3d: Any = ax  # the types of matplotlib do not distinguish them from flat axes
    axes_3d.set_zlabel("")  # the color bar has this label
    if colors is not None:
        add_path_color_bar(colors, ax.figure, ax=ax, shrink=0.62, pad=0.09)
    return ax


def check_heights(paths: Sequence[PathScene], scene: PlaneScene) -> None:
    """Refuse paths whose heights over a surface are unknown.

    Raises:
        DrawError: When a path has no finite value of the quantity of the surface.
    """
    for path in paths:
        if not np.isfinite(path.read_pair(scene.quantity)[0]).any():
            raise DrawError(
                f"The path {path.name!r} has no finite {scene.quantity!r}, so it has no height:"
                " give ls.paths.project the objective of the scan, or draw the path without"
                " heights, with ls.draw.path."
            )


def paint_surface_below_paths(
    scene: PlaneScene, paths: Sequence[PathScene], ax: Any, view: tuple[float, float] = VIEW
) -> None:
    """Draw the surface and the legend of paths into 3-D ``ax``, with room for the paths."""
    points = [
        locate(scene, path) for path in paths for locate in (locate_checkpoints, locate_projections)
    ]
    paint_surface(scene, ax, zoom=0.94, view=view, include=np.concatenate(points))
    # Sorted by depth, a path would disappear behind nearer faces; here it is always on top.
    ax.computed_zorder = False
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_label_text(wrap_label(axis.get_label_text(), _MAX_LETTERS))
        axis.labelpad += 8
    stem = Line2D([], [], label="from the checkpoint to the surface", **_STEM_ENTRY)
    handles = [*list_path_entries(paths), stem, *_list_exceptions(scene, paths)]
    add_legend_below(ax, handles, columns=2 if len(paths) == 1 else 3)


def locate_checkpoints(scene: PlaneScene, path: PathScene) -> FloatArray:
    """Return the positions of the checkpoints, at their own heights, [t, 3]."""
    heights = scene.to_heights(path.read_pair(scene.quantity)[0])
    return np.stack([path.x, path.y, heights], axis=-1)


def locate_projections(scene: PlaneScene, path: PathScene) -> FloatArray:
    """Return the positions of the projections of the checkpoints on the surface, [t, 3]."""
    heights = scene.to_heights(path.read_pair(scene.quantity)[1])
    return np.stack([path.x, path.y, heights], axis=-1)


def _build_stems(scene: PlaneScene, path: PathScene) -> FloatArray:
    """Return the lines from the checkpoints to the surface, [stems, 2, 3]."""
    ends = locate_checkpoints(scene, path), locate_projections(scene, path)
    stems: FloatArray = np.stack(ends, axis=1)
    has_length = stems[:, 0, 2] != stems[:, 1, 2]
    return np.asarray(stems[np.isfinite(stems).all(axis=(1, 2)) & has_length])


def _list_exceptions(scene: PlaneScene, paths: Sequence[PathScene]) -> list[Line2D]:
    """Return legend entries that count the checkpoints without a height or above the clip."""
    heights = np.concatenate([p.read_pair(scene.quantity)[0][p.finite_indices] for p in paths])
    missing = int(np.isnan(scene.to_heights(heights)).sum())
    above = 0 if scene.clip is None else int((heights > scene.clip).sum())
    notes = [
        (missing, f"no height: {missing} of {heights.size} checkpoints"),
        (above, f"above {format_tick(scene.clip or 0.0)}, drawn at it: {above} of {heights.size}"),
    ]
    return [Line2D([], [], ls="none", label=note) for count, note in notes if count]


def _paint_path(scene: PlaneScene, path: PathScene, ax: Any, colors: PathColors | None) -> None:
    """Draw one path: its stems, a line with a halo, a dot for each checkpoint, and marks."""
    positions = locate_checkpoints(scene, path)
    _add_lines(ax, _build_stems(scene, path), zorder=3, gid="stems", **_STEM)
    halo = [withStroke(linewidth=WIDTH + 2.0, foreground="white")]
    if colors is None:
        line: dict[str, Any] = {"color": path.color, "ls": path.line_style, "path_effects": halo}
        ax.plot(*positions.T, lw=WIDTH, zorder=4, gid="path", **line)
    else:
        ax.plot(*positions.T, color="white", lw=WIDTH + 2.0, solid_capstyle="round", zorder=4)
        segments, indices = build_segments(positions)
        scale: dict[str, Any] = {"cmap": PATH_COLORMAP, "norm": colors.norm}
        _add_lines(
            ax, segments, array=colors.segment_values[indices], gid="path", linewidths=WIDTH,
            capstyle="round", zorder=4.1, **scale,
        )  # fmt: skip
        dots: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.4, "depthshade": False}
        ax.scatter(*positions.T, c=colors.values, s=14, zorder=4.2, **scale, **dots)
    for k, style in list_marks(path):
        if np.isfinite(positions[k]).all():
            ax.plot(*positions[[k]].T, zorder=4.5, **style)


def _add_lines(ax: Any, segments: FloatArray, **style: Any) -> None:
    if len(segments):  # matplotlib cannot find the range of an empty collection
        ax.add_collection3d(Line3DCollection([*segments], **style))
