"""How far the way of an optimizer over a plane can be believed.

The distance of each checkpoint off the plane; and two losses, for the surface below a path has the
loss of its projection, not that of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from landscope.draw.axes import few_ticks, mark_axis
from landscope.draw.labels import in_columns, room_for_legends
from landscope.draw.lines import CROSS
from landscope.draw.path_scene import Paths, Trail, trails_of
from landscope.draw.scales import limits_of, paintable, resolve_scale
from landscope.errors import DrawError

_FALL: dict[str, Any] = {"lw": 1.0, "alpha": 0.45}


def path_errors_figure(
    paths: Paths, *, labels: Sequence[str] | None = None, axes: Sequence[Axes] | None = None
) -> Figure:
    """Return a figure that says how far paths run off their plane, and what that does to heights.

    Above is the distance off the plane, relative to the distance from its center (left-hand axis)
    and absolute (right-hand axis). Below, where losses are known, is the loss at each checkpoint
    beside that at its projection, which is the height of the surface there.

    Args:
        paths: one path over a plane, or several: what ``ls.paths.project`` returned.
        labels: a name for each path. Default: their own.
        axes: those for distances and for losses. Default: a new figure.

    Raises:
        DrawError: when there is no path, one is not over a plane, or labels or axes do not fit.

    Example:
        >>> figure = ls.draw.path_errors_figure(walked)  # doctest: +SKIP
    """
    trails = trails_of(paths, labels)
    rows = 1 + any(trail.has_losses for trail in trails)
    own = axes is None
    if axes is None:
        figure = Figure(figsize=(6.4, 0.6 + 2.9 * rows), layout="constrained")
        axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    if len(axes) < rows:
        raise DrawError(f"axes has {len(axes)}; these paths need {rows}: distances, then losses.")
    paint_errors(trails, axes)
    drawn = axes[0].get_figure(root=True)
    assert drawn is not None
    if own:
        room_for_legends(drawn)
    return drawn


def paint_errors(trails: Sequence[Trail], axes: Sequence[Axes], *, named: bool = True) -> None:
    """Draw distances into the first axes and losses, where they are known, into the second.

    Beside a picture whose legend names the paths they are not ``named`` again.
    """
    upper, lower = axes[0], axes[-1]
    _distances(trails, upper, trails if named and len(trails) > 1 else ())
    if any(trail.has_losses for trail in trails):
        _losses(trails, lower)
    for ax in dict.fromkeys([upper, lower]):
        for trail in trails:
            for at in trail.time[trail.drops]:
                ax.axvline(at, color=_ink(trail), zorder=0.9, **_FALL)
        ax.grid(color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        few_ticks(ax.xaxis)
    lower.set_xlabel(trails[0].time_label)


def _distances(trails: Sequence[Trail], ax: Axes, named: Sequence[Trail]) -> None:
    right = ax.twinx()
    for trail in trails:
        ink = _ink(trail)
        style: dict[str, Any] = {"color": ink, "marker": ".", "ms": 4}
        ax.plot(trail.time, trail.percent, lw=1.6, ls="-", gid="relative", **style)
        right.plot(trail.time, trail.distance, lw=1.1, ls="--", gid="absolute", **style)
    ax.set_ylabel("distance off the plane\n(% of that from the center)")
    right.set_ylabel("distance off the plane")
    for axes in (ax, right):
        axes.set_ylim(0, max(axes.get_ylim()[1], 1e-12))
        few_ticks(axes.yaxis)
    names = [Line2D([], [], color=t.color, lw=1.6, label=t.name) for t in named]
    kinds = [("relative (left)", "-", 1.6), ("absolute (right)", "--", 1.1)]
    what = [Line2D([], [], color="0.3", ls=ls, lw=lw, label=label) for label, ls, lw in kinds]
    if any(trail.drops for trail in trails):
        upright: dict[str, Any] = {"ls": "none", "marker": "|", "ms": 9, "mew": 1}
        what += [Line2D([], [], color="0.3", alpha=0.45, label="learning rate falls", **upright)]
    _legend_above(ax, [*names, *what])


def _losses(trails: Sequence[Trail], ax: Axes) -> None:
    fields = [field for t in trails for field in (t.loss, t.projected_loss)]
    scale = resolve_scale(fields, None, name="loss")
    limits = limits_of([paintable(field, scale) for field in fields], scale)
    for trail in trails:
        ink = _ink(trail)
        at, below = (paintable(f, scale) for f in (trail.loss, trail.projected_loss))
        ax.plot(trail.time, at, color=ink, lw=1.6, marker=".", ms=5, gid="loss")
        ax.plot(
            trail.time, below, color=ink, lw=1.1, ls="--", marker="o", mfc="white", ms=3.5,
            gid="projected",
        )  # fmt: skip
        ax.fill_between(trail.time, at, below, color=ink, alpha=0.13, lw=0)
    ax.set_yscale(scale)
    if scale == "log":
        mark_axis(ax.yaxis, limits, "log", count=6)
    ax.set_ylabel("loss")
    for trail in trails:
        if trail.lost.size:
            foot = np.full(trail.lost.shape, 0.03)
            ax.plot(trail.lost, foot, gid="lost", transform=ax.get_xaxis_transform(), **CROSS)
    look: dict[str, Any] = {"color": "0.3"}
    what = [
        Line2D([], [], lw=1.6, marker=".", ms=5, label="at the checkpoint", **look),
        Line2D([], [], lw=1.1, ls="--", marker="o", mfc="white", ms=3.5,
               label="at its projection: the surface", **look),
    ]  # fmt: skip
    if any(trail.lost.size for trail in trails):
        what.append(Line2D([], [], label="not finite", **CROSS))
    _legend_above(ax, what)


def _ink(trail: Trail) -> str:
    return "0.15" if trail.alone else trail.color


def _legend_above(ax: Axes, handles: Sequence[Line2D]) -> None:
    ax.legend(
        **in_columns(ax, handles, 3, aside=0.7), loc="lower left", bbox_to_anchor=(0, 1),
        frameon=False, fontsize="small", borderaxespad=0.1, handlelength=1.7, columnspacing=1.3,
    )  # fmt: skip
