"""Training paths over a plane.

A checkpoint is drawn at its projection onto the plane. The surface there shows the loss of the
projection, not that of the network: see :mod:`landscope.draw.path_errors`.

Source: Li, Xu, Taylor, Studer, Goldstein 2018, arXiv 1712.09913, section 7 and Fig. 9.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke

from landscope.draw.axes import (
    add_color_bar,
    allows_equal_aspect,
    choose_size,
    compute_area_size,
    create_axes,
    limit_ticks,
)
from landscope.draw.figures import create_figure
from landscope.draw.labels import add_legend_below, make_room_for_legends
from landscope.draw.levels import FloatArray
from landscope.draw.panels import PAINTERS
from landscope.draw.path_errors import paint_path_errors
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
from landscope.draw.planes import paint_contour
from landscope.errors import DrawError
from landscope.landscape import Landscape

KINDS = tuple(kind for kind in PAINTERS if kind != "surface")
_HALO = [withStroke(linewidth=4.4, foreground="white")]
_ABOVE = 5.0  # zorder: over the labels of contour lines
_NOT_SCANNED: dict[str, Any] = {"facecolor": "0.93", "edgecolor": "none"}
_MARGIN = 0.04  # of the span: free space next to a checkpoint outside the grid


def path(
    land: Landscape,
    paths: ProjectedPaths,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    kind: str = "contour",
    levels: int | Sequence[float] | None = None,
    color: str | None = None,
    cmap: str | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with a plane and one training path over it, or several.

    A single path is colored by its time; several have a color and a line style each. Start, end and
    drops of the learning rate are marked. Where a path leaves the grid the axes are extended, and
    a note says how many checkpoints are outside it.

    Args:
        land: A landscape with dims ("y", "x").
        paths: One path over this plane, or several: results of ``ls.paths.project``.
        quantity: The name of a variable of the landscape. Default: ``land.quantity``.
        scale: "log" or "linear", of this quantity. Default: as in ``contour``.
        labels: A name for each path. Default: the names of the paths.
        title: The title; "" for none. Default: that of the landscape.
        kind: "contour", "filled" or "heatmap".
        levels: The number of levels (about), or the levels themselves. Default: about 20 round
            numbers.
        color: The column that colors a single path: "epoch", "step", "learning_rate", "loss",
            "projected_loss", "distance" or "relative_distance". Default: the epoch where it is
            known, else the step.
        cmap: The name of a color map of matplotlib, for the landscape. Default: viridis.
        size: Width and height of a new figure in inches. Default: that which suits the axes.
        ax: The axes to draw into. Default: axes in a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: When landscape, paths, labels, kind or color cannot be drawn this way.

    Source: Li et al. 2018, arXiv 1712.09913, Fig. 9.

    Example:
        >>> projected = ls.paths.project(trajectory, plane, objective)  # doctest: +SKIP
        >>> axes = ls.draw.path(land, projected)  # doctest: +SKIP
        >>> axes = ls.draw.path(land, [sgd, adam], labels=["SGD", "Adam"])  # doctest: +SKIP
    """
    scene = build_plane_scene(
        land, quantity=quantity, scale=scale, title=title, levels=levels, cmap=cmap
    )
    path_scenes = build_path_scenes(paths, labels, land)
    colors = choose_path_colors(path_scenes, color)
    is_new = ax is None
    ax = ax or create_axes(compute_picture_size(scene, path_scenes, 7.2), size)
    paint_paths(scene, path_scenes, ax, kind=kind, colors=colors)
    if is_new and size is None:
        make_room_for_legends(ax.figure)
    add_color_bar(scene, ax.figure, ax=ax, pad=0.03, aspect=22)
    if colors is not None:
        add_path_color_bar(colors, ax.figure, ax=ax, pad=0.03, aspect=22)
    return ax


def path_figure(
    land: Landscape,
    paths: ProjectedPaths,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    kind: str = "contour",
    levels: int | Sequence[float] | None = None,
    color: str | None = None,
    cmap: str | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Return a figure with ``path`` on the left and ``path_errors_figure`` on the right.

    The arguments are those of ``path``.

    Raises:
        DrawError: When landscape, paths, labels, kind or color cannot be drawn this way.

    Example:
        >>> figure = ls.draw.path_figure(land, projected)  # doctest: +SKIP
        >>> ls.draw.save(figure, "path.pdf")  # doctest: +SKIP
    """
    scene = build_plane_scene(
        land, quantity=quantity, scale=scale, title=title, levels=levels, cmap=cmap
    )
    path_scenes = build_path_scenes(paths, labels, land)
    colors = choose_path_colors(path_scenes, color)
    rows = 1 + any(path.has_losses for path in path_scenes)
    width, height = compute_picture_size(scene, path_scenes, 7.4)
    default = (width + 5.2, max(height, 2.6 * rows + 0.6))
    figure = create_figure(choose_size(size, default), layout="constrained")
    grid = figure.add_gridspec(rows, 2, width_ratios=(width, 5.0))
    left = figure.add_subplot(grid[:, 0])
    left.set_anchor("S")  # where the layout expects it, so that its legend is never cut off
    paint_paths(scene, path_scenes, left, kind=kind, colors=colors)
    # Inset axes have the height of these axes, whose aspect is fixed.
    add_color_bar(scene, figure, cax=left.inset_axes((1.03, 0, 0.04, 1)))
    if colors is not None:
        add_path_color_bar(colors, figure, cax=left.inset_axes((1.24, 0, 0.04, 1)))
    upper = figure.add_subplot(grid[0, 1])
    lower = [figure.add_subplot(grid[1, 1], sharex=upper)] if rows == 2 else []
    paint_path_errors(path_scenes, [upper, *lower], with_names=False)
    if size is None:
        make_room_for_legends(figure)
    return figure


def paint_paths(
    scene: PlaneScene,
    paths: Sequence[PathScene],
    ax: Axes,
    *,
    kind: str,
    colors: PathColors | None,
) -> None:
    """Draw a plane and paths over it into ``ax``, with a legend below."""
    paint_plane_below_paths(scene, paths, ax, kind=kind)
    not_scanned = extend_axes(paths, ax)
    for path in paths:
        _paint_path(path, ax, colors)
    entries = [*list_path_entries(paths), *not_scanned]
    add_legend_below(ax, entries, columns=2 if len(paths) == 1 else 3)


def paint_plane_below_paths(
    scene: PlaneScene, paths: Sequence[PathScene], ax: Axes, *, kind: str
) -> None:
    """Draw the plane, without the cross at its center where a path starts or ends there."""
    if kind not in KINDS:
        raise DrawError(
            f"kind={kind!r} is not known; expected one of {', '.join(map(repr, KINDS))}."
        )
    ends = [(path.x[k], path.y[k]) for path in paths for k in path.finite_indices[[0, -1]]]
    near = 0.02 * max(np.ptp(scene.x), np.ptp(scene.y))
    if any(np.hypot(x, y) < near for x, y in ends):
        scene = dataclasses.replace(scene, center=None)
    # A path over the plane shows where the model is; the origin may be a mean of several paths.
    marks = [(place, "origin" if not any(place) else name) for place, name in scene.marks]
    scene = dataclasses.replace(scene, marks=marks)
    if kind == "contour":
        paint_contour(scene, ax, avoid=np.vstack([_interpolate_path(path) for path in paths]))
    else:
        PAINTERS[kind](scene, ax)
    ax.set_ylabel(wrap_label(scene.y_label))


def extend_axes(paths: Sequence[PathScene], ax: Axes) -> list[Artist]:
    """Extend ``ax`` to all checkpoints; shade the area that was not scanned.

    Returns:
        The legend entry of this area, if there is one.
    """
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    x, y = (np.concatenate([getattr(p, n)[p.finite_indices] for p in paths]) for n in "xy")
    outside = int(((x < left) | (x > right) | (y < low) | (y > high)).sum())
    if not outside:
        return []
    ax.set_xlim(*_extend_range(left, right, x))
    ax.set_ylim(*_extend_range(low, high, y))
    equal = allows_equal_aspect(np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim()))
    ax.set_aspect("equal" if equal else "auto")
    limit_ticks(ax.xaxis)
    limit_ticks(ax.yaxis)
    note = f"not scanned: {outside} of {x.size} checkpoints lie here"
    frame = _build_frame((*ax.get_xlim(), *ax.get_ylim()), (left, right, low, high))
    ax.add_patch(PathPatch(frame, zorder=2.5, **_NOT_SCANNED))
    return [Patch(label=note, **_NOT_SCANNED)]


def compute_picture_size(
    scene: PlaneScene, paths: Sequence[PathScene], width: float
) -> tuple[float, float]:
    """Return the width and height in inches of a picture of the plane and all checkpoints."""
    spans = [
        np.ptp(np.concatenate([edges, *(getattr(p, n)[p.finite_indices] for p in paths)]))
        for n, edges in zip("xy", scene.edges, strict=True)
    ]
    second_bar = 0.9 * (len(paths) == 1)
    area = compute_area_size(float(spans[0]), float(spans[1]), width - second_bar)
    return area[0] + second_bar, area[1] + 0.4


def _interpolate_path(path: PathScene) -> FloatArray:
    """Return the positions of a path and nine between each two of them, [n, 2]."""
    indices = path.finite_indices
    steps = np.arange(0, indices.size - 0.999, 0.1)
    known = np.arange(indices.size)
    return np.stack([np.interp(steps, known, v[indices]) for v in (path.x, path.y)], axis=-1)


def _paint_path(path: PathScene, ax: Axes, colors: PathColors | None) -> None:
    """Draw one path: a line with a halo, a dot for each checkpoint, and marks."""
    if colors is None:
        ax.plot(
            path.x, path.y, color=path.color, ls=path.line_style, lw=WIDTH, path_effects=_HALO,
            zorder=_ABOVE, gid="path",
        )  # fmt: skip
    else:
        ax.plot(path.x, path.y, color="white", lw=4.4, solid_capstyle="round", zorder=_ABOVE)
        segments, indices = build_segments(np.stack([path.x, path.y], axis=-1))
        scale: dict[str, Any] = {"cmap": PATH_COLORMAP, "norm": colors.norm}
        line = LineCollection(
            [*segments], array=colors.segment_values[indices], linewidths=WIDTH, capstyle="round",
            zorder=_ABOVE + 0.1, gid="path", **scale,
        )  # fmt: skip
        ax.add_collection(line, autolim=False)
        ax.scatter(
            path.x, path.y, c=colors.values, s=16 if path.x.size <= 60 else 6,
            zorder=_ABOVE + 0.2, edgecolors="white", linewidths=0.4, **scale,
        )  # fmt: skip
    for k, style in list_marks(path):
        ax.plot(path.x[k], path.y[k], zorder=_ABOVE + 0.5, clip_on=False, **style)


def _extend_range(low: float, high: float, values: FloatArray) -> tuple[float, float]:
    """Return a range that includes all values, with a margin next to those outside it."""
    lowest, highest = min(low, float(values.min())), max(high, float(values.max()))
    margin = _MARGIN * (highest - lowest)
    return lowest - margin * (lowest < low), highest + margin * (highest > high)


def _build_frame(outer: tuple[float, ...], inner: tuple[float, ...]) -> Outline:
    """Return the area between two rectangles, each (left, right, low, high)."""
    corners = [
        [(left, low), (right, low), (right, high), (left, high), (left, low)]
        for left, right, low, high in (outer, inner)
    ]
    codes = [Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY]
    return Outline([*corners[0], *corners[1][::-1]], codes * 2)
