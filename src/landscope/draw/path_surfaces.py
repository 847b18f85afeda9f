"""Paths over a 3-D surface, each checkpoint at its own loss.

The network of a checkpoint is not in the plane, and its loss is not the height of the surface: the
path floats above or below it. Upright lines, the stems, join each checkpoint to the surface where
its projection lies. Both are drawn over the surface, also where they run below or behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from landscope.draw.axes import add_color_bar, new_axes
from landscope.draw.labels import legend_under, room_for_legends, tick
from landscope.draw.levels import FloatArray
from landscope.draw.path_marks import (
    WIDTH,
    add_shade_bar,
    entries,
    in_lines,
    marks_of,
    segments_of,
    shade_for,
)
from landscope.draw.path_scene import EMBER, Paths, Shade, Trail, trails_of
from landscope.draw.plane_scene import PlaneScene, build_plane_scene
from landscope.draw.surfaces import paint_surface
from landscope.errors import DrawError
from landscope.landscape import Landscape

_LONG = 16  # characters: axes that run into the picture are short
_STEM_KEY: dict[str, Any] = {"color": "0.1", "marker": "|", "ls": "none", "ms": 10}
_STEM: dict[str, Any] = {
    "linewidths": 0.9,
    "colors": "0.1",
    "path_effects": [withStroke(linewidth=2.1, foreground="white", alpha=0.75)],
}


def path_surface(
    land: Landscape,
    paths: Paths,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    clip: float | None = None,
    color: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return 3-D axes with a plane as a surface and each path at its true loss.

    Thin upright lines join each checkpoint to the height of the surface at its projection.

    Args:
        land: a landscape with dims ("y", "x").
        paths: one path over this plane, or several, with losses: ``ls.paths.project`` measures
            these, and the metrics, where it is given an objective.
        quantity: name of a variable of the landscape and of the paths. Default: ``land.quantity``.
        scale: "log" or "linear", of heights and colors. Default: as for ``surface``.
        labels: a name for each path. Default: their own.
        clip: heights above it are drawn at it, and the picture says so. Default: none.
        color: what colors a lone path, as for ``path``.
        ax: where to draw; made with ``projection="3d"``. Default: a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: when a path has no such quantity, or landscape, paths, labels or color cannot be
            drawn so.

    Example:
        >>> walked = ls.paths.project(trajectory, plane, objective)  # doctest: +SKIP
        >>> axes = ls.draw.path_surface(land, walked)  # doctest: +SKIP
    """
    scene = build_plane_scene(land, quantity=quantity, scale=scale, clip=clip)
    trails = trails_of(paths, labels, land)
    check_heights(trails, scene)
    shade = shade_for(trails, color)
    own = ax is None
    ax = ax or new_axes((8.2 if shade else 7.4, 6.0), projection="3d")
    paint_floating(scene, trails, ax, shade)
    if own:
        room_for_legends(ax.figure)
    add_color_bar(scene, ax.figure, ax=ax, shrink=0.62, pad=0.1)
    if shade is not None:
        solid: Any = ax  # which matplotlib's types do not tell from flat ones
        solid.set_zlabel("")  # the color bar says it, and would hide it
        add_shade_bar(shade, ax.figure, ax=ax, shrink=0.62, pad=0.09)
    return ax


def check_heights(trails: Sequence[Trail], scene: PlaneScene) -> None:
    """Refuse paths whose heights over a surface are not known.

    Raises:
        DrawError: when a path has no finite value of what the surface shows.
    """
    for trail in trails:
        if not np.isfinite(trail.heights(scene.quantity)[0]).any():
            raise DrawError(
                f"The path {trail.name!r} has no finite {scene.quantity!r}, so it has no height:"
                " give ls.paths.project the objective of the scan, or draw it flat with"
                " ls.draw.path."
            )


def paint_floating(
    scene: PlaneScene, trails: Sequence[Trail], ax: Any, shade: Shade | None
) -> None:
    """Draw the surface, the paths over it and their legend into 3-D ``ax``."""
    paint_air(scene, trails, ax)
    for trail in trails:
        _draw(scene, trail, ax, shade)


def paint_air(scene: PlaneScene, trails: Sequence[Trail], ax: Any) -> None:
    """Draw the surface and the legend of paths into 3-D ``ax``, with room for the paths."""
    ends = [e for t in trails for e in (places_of(scene, t), feet_of(scene, t))]
    paint_surface(scene, ax, zoom=0.94, holding=np.concatenate(ends))
    # By its depth a path would hide behind faces that are nearer; here it is always on top.
    ax.computed_zorder = False
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_label_text(in_lines(axis.get_label_text(), _LONG))
        axis.labelpad += 8
    stem = Line2D([], [], label="from the checkpoint to the surface", **_STEM_KEY)
    handles = [*entries(trails), stem, *_exceptions(scene, trails)]
    legend_under(ax, handles, columns=2 if len(trails) == 1 else 3)


def places_of(scene: PlaneScene, trail: Trail) -> FloatArray:
    """Return where the checkpoints of a path float, [t, 3]."""
    return np.stack([trail.x, trail.y, scene.raised(trail.heights(scene.quantity)[0])], axis=-1)


def feet_of(scene: PlaneScene, trail: Trail) -> FloatArray:
    """Return where the projections of the checkpoints lie on the surface, [t, 3]."""
    return np.stack([trail.x, trail.y, scene.raised(trail.heights(scene.quantity)[1])], axis=-1)


def stems_of(scene: PlaneScene, trail: Trail) -> FloatArray:
    """Return the lines from each checkpoint to the surface, [stems, 2, 3]."""
    stems: FloatArray = np.stack([places_of(scene, trail), feet_of(scene, trail)], axis=1)
    upright = stems[:, 0, 2] != stems[:, 1, 2]
    return np.asarray(stems[np.isfinite(stems).all(axis=(1, 2)) & upright])


def _exceptions(scene: PlaneScene, trails: Sequence[Trail]) -> list[Line2D]:
    """Return entries that say what is not drawn, or not at its own height."""
    heights = np.concatenate([trail.heights(scene.quantity)[0][trail.placed] for trail in trails])
    lost = int(np.isnan(scene.raised(heights)).sum())
    above = 0 if scene.clip is None else int((heights > scene.clip).sum())
    notes = [
        (lost, f"no height: {lost} of {heights.size} checkpoints"),
        (above, f"above {tick(scene.clip or 0.0)}, drawn at it: {above} of {heights.size}"),
    ]
    return [Line2D([], [], ls="none", label=note) for count, note in notes if count]


def _draw(scene: PlaneScene, trail: Trail, ax: Any, shade: Shade | None) -> None:
    at = places_of(scene, trail)
    _add_lines(ax, stems_of(scene, trail), zorder=3, gid="stems", **_STEM)
    halo = [withStroke(linewidth=WIDTH + 2.0, foreground="white")]
    if shade is None:
        style: dict[str, Any] = {"color": trail.color, "ls": trail.dash, "path_effects": halo}
        ax.plot(*at.T, lw=WIDTH, zorder=4, gid="path", **style)
    else:
        ax.plot(*at.T, color="white", lw=WIDTH + 2.0, solid_capstyle="round", zorder=4)
        segments, whole = segments_of(at)
        _add_lines(
            ax, segments, array=shade.between[whole], cmap=EMBER, norm=shade.norm, gid="path",
            linewidths=WIDTH, capstyle="round", zorder=4.1,
        )  # fmt: skip
        dots: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.4, "depthshade": False}
        ax.scatter(*at.T, c=shade.values, cmap=EMBER, norm=shade.norm, s=14, zorder=4.2, **dots)
    for k, style in marks_of(trail):
        if np.isfinite(at[k]).all():
            ax.plot(*at[[k]].T, zorder=4.5, **style)


def _add_lines(ax: Any, segments: FloatArray, **style: Any) -> None:
    if len(segments):  # matplotlib looks for the ends of them all
        ax.add_collection3d(Line3DCollection([*segments], **style))
