"""Errors of a path over a plane: its distance off the plane, and its loss against its projection's.

The loss of the surface below a path is that of the projections, not that of the networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from landscope.draw.axes import choose_size, limit_ticks, set_round_ticks
from landscope.draw.figures import create_figure
from landscope.draw.labels import arrange_in_columns, make_room_for_legends
from landscope.draw.lines import HOLE_MARK
from landscope.draw.path_scene import PathScene, ProjectedPaths, build_path_scenes
from landscope.draw.scales import hide_unpaintable, resolve_limits, resolve_scale
from landscope.errors import DrawError

_DROP: dict[str, Any] = {"lw": 1.0, "alpha": 0.45}
_CHECKPOINT: dict[str, Any] = {"lw": 1.6, "marker": ".", "ms": 5}
_PROJECTION: dict[str, Any] = {"lw": 1.1, "ls": "--", "marker": "o", "mfc": "white", "ms": 3.5}


def path_errors_figure(
    paths: ProjectedPaths,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    size: tuple[float, float] | None = None,
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """Return a figure with the distances of paths off their plane, and with their losses.

    The upper panel has the distance off the plane, relative to the distance from the center
    (left-hand axis) and absolute (right-hand axis). The lower panel, where losses are known, has
    the loss at each checkpoint and that at its projection, which is the height of the surface.

    Args:
        paths: One path over a plane, or several: results of ``ls.paths.project``.
        labels: A name for each path. Default: the names of the paths.
        title: The title. Default: none.
        size: Width and height of a new figure in inches. Default: that which suits the panels.
        axes: The axes for distances and for losses. Default: axes in a new figure.

    Returns:
        The figure, or the figure of the axes that were given.

    Raises:
        DrawError: When there is no path, a path is not over a plane, or labels or axes do not fit.

    Example:
        >>> figure = ls.draw.path_errors_figure(projected)  # doctest: +SKIP
    """
    path_scenes = build_path_scenes(paths, labels)
    rows = 1 + any(path.has_losses for path in path_scenes)
    is_new = axes is None
    if axes is None:
        figure = create_figure(choose_size(size, (6.4, 0.6 + 2.9 * rows)), layout="constrained")
        axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    if len(axes) < rows:
        raise DrawError(
            f"axes has {len(axes)}; these paths need {rows}: for distances, then for losses."
        )
    paint_path_errors(path_scenes, axes)
    root = axes[0].get_figure(root=True)
    assert root is not None
    if title is not None:
        root.suptitle(title)
    if is_new and size is None:
        make_room_for_legends(root)
    return root


def paint_path_errors(
    paths: Sequence[PathScene], axes: Sequence[Axes], *, with_names: bool = True
) -> None:
    """Draw distances into the first axes and losses, where they are known, into the last.

    Args:
        paths: The paths.
        axes: One or two axes.
        with_names: Whether the legend names the paths. False next to a picture that names them.
    """
    upper, lower = axes[0], axes[-1]
    _paint_distances(paths, upper)
    _add_distance_legend(paths, upper, with_names=with_names and len(paths) > 1)
    if any(path.has_losses for path in paths):
        _paint_losses(paths, lower)
        _add_loss_legend(paths, lower)
    for ax in dict.fromkeys([upper, lower]):
        for time, color in _list_drops(paths):
            ax.axvline(time, color=color, zorder=0.9, **_DROP)
        ax.grid(color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        limit_ticks(ax.xaxis)
    lower.set_xlabel(paths[0].time_label)


def _list_drops(paths: Sequence[PathScene]) -> list[tuple[float, str]]:
    """Return the times at which a learning rate falls, with a color: gray for several paths."""
    colors: dict[float, list[str]] = {}
    for path in paths:
        for time in path.time[path.drops].tolist():
            colors.setdefault(time, []).append(_choose_color(path))
    return [(time, each[0] if len(each) == 1 else "0.3") for time, each in colors.items()]


def _paint_distances(paths: Sequence[PathScene], ax: Axes) -> None:
    right = ax.twinx()
    for path in paths:
        style: dict[str, Any] = {"color": _choose_color(path), "marker": ".", "ms": 4}
        ax.plot(path.time, path.percent, lw=1.6, ls="-", gid="relative", **style)
        right.plot(path.time, path.distance, lw=1.1, ls="--", gid="absolute", **style)
    ax.set_ylabel("distance off the plane\n(% of that from the center)")
    right.set_ylabel("distance off the plane")
    for axes in (ax, right):
        axes.set_ylim(0, max(axes.get_ylim()[1], 1e-12))
        limit_ticks(axes.yaxis)


def _add_distance_legend(paths: Sequence[PathScene], ax: Axes, *, with_names: bool) -> None:
    named = paths if with_names else ()
    names = [Line2D([], [], color=path.color, lw=1.6, label=path.name) for path in named]
    kinds = [("relative (left)", "-", 1.6), ("absolute (right)", "--", 1.1)]
    entries = [Line2D([], [], color="0.3", ls=ls, lw=lw, label=label) for label, ls, lw in kinds]
    if any(path.drops for path in paths):
        tick: dict[str, Any] = {"ls": "none", "marker": "|", "ms": 9, "mew": 1}
        entries += [Line2D([], [], color="0.3", alpha=0.45, label="learning rate falls", **tick)]
    _add_legend_above(ax, [*names, *entries])


def _paint_losses(paths: Sequence[PathScene], ax: Axes) -> None:
    fields = [field for path in paths for field in (path.loss, path.projected_loss)]
    scale = resolve_scale(fields, None, name="loss")
    limits = resolve_limits([hide_unpaintable(field, scale) for field in fields], scale)
    for path in paths:
        color = _choose_color(path)
        loss, projected = (hide_unpaintable(f, scale) for f in (path.loss, path.projected_loss))
        ax.plot(path.time, loss, color=color, gid="loss", **_CHECKPOINT)
        ax.plot(path.time, projected, color=color, gid="projected", **_PROJECTION)
        ax.fill_between(path.time, loss, projected, color=color, alpha=0.13, lw=0)
    ax.set_yscale(scale)
    if scale == "log":
        set_round_ticks(ax.yaxis, limits, "log", count=6)
    ax.set_ylabel("loss")
    for path in paths:
        times = path.nonfinite_times
        if times.size:
            bottom = np.full(times.shape, 0.03)
            transform = ax.get_xaxis_transform()
            ax.plot(times, bottom, gid="nonfinite", transform=transform, **HOLE_MARK)


def _add_loss_legend(paths: Sequence[PathScene], ax: Axes) -> None:
    entries = [
        Line2D([], [], color="0.3", label="at the checkpoint", **_CHECKPOINT),
        Line2D([], [], color="0.3", label="at its projection: the surface", **_PROJECTION),
    ]
    if any(path.nonfinite_times.size for path in paths):
        entries.append(Line2D([], [], label="not finite", **HOLE_MARK))
    _add_legend_above(ax, entries)


def _choose_color(path: PathScene) -> str:
    return "0.15" if path.is_single else path.color


def _add_legend_above(ax: Axes, handles: Sequence[Line2D]) -> None:
    ax.legend(
        **arrange_in_columns(ax, handles, 3, extra_width=0.7), loc="lower left",
        bbox_to_anchor=(0, 1), frameon=False, fontsize="small", borderaxespad=0.1,
        handlelength=1.7, columnspacing=1.3,
    )  # fmt: skip
