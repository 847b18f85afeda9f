"""The way of an optimizer over a plane.

A checkpoint is drawn where its projection lies. The surface below it has the loss of the
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

from landscope.draw.axes import add_color_bar, area_size, few_ticks, new_axes, one_unit
from landscope.draw.labels import legend_under, room_for_legends
from landscope.draw.levels import FloatArray
from landscope.draw.panels import PAINTERS
from landscope.draw.path_errors import paint_errors
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
from landscope.draw.planes import paint_contour
from landscope.errors import DrawError
from landscope.landscape import Landscape

KINDS = tuple(kind for kind in PAINTERS if kind != "surface")
_HALO = [withStroke(linewidth=4.4, foreground="white")]
_ABOVE = 5.0  # zorder: over the labels of contour lines
_BEYOND: dict[str, Any] = {"facecolor": "0.93", "edgecolor": "none"}
_ROOM = 0.04  # of the span: what is left free beside a checkpoint that lies off the grid


def path(
    land: Landscape,
    paths: Paths,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    kind: str = "contour",
    color: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with a plane and the path of training over it, or several.

    A lone path is colored by its time; several have a color and a line style each. Start, end and
    drops of the learning rate are marked. Where a path leaves the grid the axes are extended, and
    a note says how many checkpoints lie off it.

    Args:
        land: a landscape with dims ("y", "x").
        paths: one path over this plane, or several: what ``ls.paths.project`` returned.
        quantity: name of a variable of the landscape. Default: ``land.quantity``.
        scale: "log" or "linear", of that quantity. Default: as for ``contour``.
        labels: a name for each path. Default: their own.
        kind: "contour", "filled" or "heatmap".
        color: what colors a lone path: "epoch", "step", "learning_rate", "loss",
            "projected_loss", "distance" or "relative_distance". Default: epoch where it is known,
            else step.
        ax: where to draw. Default: a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: when landscape, paths, labels, kind or color cannot be drawn so.

    Source: Li et al. 2018, arXiv 1712.09913, Fig. 9.

    Example:
        >>> walked = ls.paths.project(trajectory, plane, objective)  # doctest: +SKIP
        >>> axes = ls.draw.path(land, walked)  # doctest: +SKIP
        >>> axes = ls.draw.path(land, [sgd, adam], labels=["SGD", "Adam"])  # doctest: +SKIP
    """
    scene = build_plane_scene(land, quantity=quantity, scale=scale)
    trails = trails_of(paths, labels, land)
    shade = shade_for(trails, color)
    own = ax is None
    ax = ax or new_axes(picture_size(scene, trails, 7.2))
    paint_paths(scene, trails, ax, kind=kind, shade=shade)
    if own:
        room_for_legends(ax.figure)
    add_color_bar(scene, ax.figure, ax=ax, pad=0.03, aspect=22)
    if shade is not None:
        add_shade_bar(shade, ax.figure, ax=ax, pad=0.03, aspect=22)
    return ax


def path_figure(
    land: Landscape,
    paths: Paths,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    kind: str = "contour",
    color: str | None = None,
) -> Figure:
    """Return a figure with ``path`` at the left and ``path_errors_figure`` at the right.

    The arguments are those of ``path``.

    Raises:
        DrawError: when landscape, paths, labels, kind or color cannot be drawn so.

    Example:
        >>> figure = ls.draw.path_figure(land, walked)  # doctest: +SKIP
        >>> ls.draw.save(figure, "path.pdf")  # doctest: +SKIP
    """
    scene = build_plane_scene(land, quantity=quantity, scale=scale)
    trails = trails_of(paths, labels, land)
    shade = shade_for(trails, color)
    rows = 1 + any(trail.has_losses for trail in trails)
    wide, high = picture_size(scene, trails, 7.4)
    figure = Figure(figsize=(wide + 5.2, max(high, 2.6 * rows + 0.6)), layout="constrained")
    grid = figure.add_gridspec(rows, 2, width_ratios=(wide, 5.0))
    left = figure.add_subplot(grid[:, 0])
    left.set_anchor("S")  # where the layout expects it: its legend, below, is then never cut off
    paint_paths(scene, trails, left, kind=kind, shade=shade)
    # Inside the axes' own frame they stay as high as these, whose aspect is fixed.
    add_color_bar(scene, figure, cax=left.inset_axes((1.03, 0, 0.04, 1)))
    if shade is not None:
        add_shade_bar(shade, figure, cax=left.inset_axes((1.24, 0, 0.04, 1)))
    upper = figure.add_subplot(grid[0, 1])
    lower = [figure.add_subplot(grid[1, 1], sharex=upper)] if rows == 2 else []
    paint_errors(trails, [upper, *lower], named=False)
    room_for_legends(figure)
    return figure


def paint_paths(
    scene: PlaneScene, trails: Sequence[Trail], ax: Axes, *, kind: str, shade: Shade | None
) -> None:
    """Draw a plane and paths over it into ``ax``, and a legend below."""
    paint_ground(scene, trails, ax, kind=kind)
    beyond = extend(trails, ax)
    for trail in trails:
        _draw(trail, ax, shade)
    legend_under(ax, [*entries(trails), *beyond], columns=2 if len(trails) == 1 else 3)


def paint_ground(scene: PlaneScene, trails: Sequence[Trail], ax: Axes, *, kind: str) -> None:
    """Draw the plane, without a cross at its center where a path starts or ends there."""
    if kind not in KINDS:
        raise DrawError(
            f"kind={kind!r} is not known; expected one of {', '.join(map(repr, KINDS))}."
        )
    ends = [(t.x[k], t.y[k]) for t in trails for k in t.placed[[0, -1]]]
    near = 0.02 * max(np.ptp(scene.x), np.ptp(scene.y))
    if any(np.hypot(x, y) < near for x, y in ends):
        scene = dataclasses.replace(scene, center=None)
    if kind == "contour":
        paint_contour(scene, ax, clear=np.vstack([_dense(t) for t in trails]))
    else:
        PAINTERS[kind](scene, ax)
    ax.set_ylabel(in_lines(scene.y_label))


def extend(trails: Sequence[Trail], ax: Axes) -> list[Artist]:
    """Let ``ax`` hold all checkpoints; shade what was not scanned, and return its entry."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    x, y = (np.concatenate([getattr(t, n)[t.placed] for t in trails]) for n in "xy")
    outside = int(((x < left) | (x > right) | (y < low) | (y > high)).sum())
    if not outside:
        return []
    ax.set_xlim(*_stretched(left, right, x))
    ax.set_ylim(*_stretched(low, high, y))
    ax.set_aspect("equal" if one_unit(np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())) else "auto")
    few_ticks(ax.xaxis)
    few_ticks(ax.yaxis)
    note = f"not scanned: {outside} of {x.size} checkpoints lie here"
    around = _frame((*ax.get_xlim(), *ax.get_ylim()), (left, right, low, high))
    ax.add_patch(PathPatch(around, zorder=2.5, **_BEYOND))
    return [Patch(label=note, **_BEYOND)]


def picture_size(scene: PlaneScene, trails: Sequence[Trail], width: float) -> tuple[float, float]:
    """Return the size of a picture that holds the plane and all checkpoints."""
    spans = [
        np.ptp(np.concatenate([edges, *(getattr(t, n)[t.placed] for t in trails)]))
        for n, edges in zip("xy", scene.edges, strict=True)
    ]
    bars = 0.9 * (len(trails) == 1)
    wide, high = area_size(float(spans[0]), float(spans[1]), width - bars)
    return wide + bars, high + 0.4


def _dense(trail: Trail) -> FloatArray:
    """Return the places of a path and some between them, [n, 2]."""
    at = np.arange(0, trail.placed.size - 0.999, 0.1)
    known = np.arange(trail.placed.size)
    return np.stack([np.interp(at, known, v[trail.placed]) for v in (trail.x, trail.y)], axis=-1)


def _draw(trail: Trail, ax: Axes, shade: Shade | None) -> None:
    """Draw one path: a line with a halo, a dot for each checkpoint, and marks."""
    if shade is None:
        ax.plot(
            trail.x, trail.y, color=trail.color, ls=trail.dash, lw=WIDTH, path_effects=_HALO,
            zorder=_ABOVE, gid="path",
        )  # fmt: skip
    else:
        ax.plot(trail.x, trail.y, color="white", lw=4.4, solid_capstyle="round", zorder=_ABOVE)
        segments, whole = segments_of(np.stack([trail.x, trail.y], axis=-1))
        line = LineCollection(
            [*segments], array=shade.between[whole], cmap=EMBER, norm=shade.norm,
            linewidths=WIDTH, capstyle="round", zorder=_ABOVE + 0.1, gid="path",
        )  # fmt: skip
        ax.add_collection(line, autolim=False)
        ax.scatter(
            trail.x, trail.y, c=shade.values, cmap=EMBER, norm=shade.norm, zorder=_ABOVE + 0.2,
            s=16 if trail.x.size <= 60 else 6, edgecolors="white", linewidths=0.4,
        )  # fmt: skip
    for k, style in marks_of(trail):
        ax.plot(trail.x[k], trail.y[k], zorder=_ABOVE + 0.5, clip_on=False, **style)


def _stretched(low: float, high: float, at: FloatArray) -> tuple[float, float]:
    """Return a range that holds ``at`` too, with some room beside what lies outside."""
    least, most = min(low, float(at.min())), max(high, float(at.max()))
    room = _ROOM * (most - least)
    return least - room * (least < low), most + room * (most > high)


def _frame(outer: tuple[float, ...], inner: tuple[float, ...]) -> Outline:
    """Return the area between two rectangles, each (left, right, low, high)."""
    corners = [
        [(left, low), (right, low), (right, high), (left, high), (left, low)]
        for left, right, low, high in (outer, inner)
    ]
    codes = [Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY]
    return Outline([*corners[0], *corners[1][::-1]], codes * 2)
