"""Pictures of a line with matplotlib, in the manner of the 2018 paper.

Losses stand on the left-hand axis and percentages on the right-hand one; what was measured on
training data is solid, what was measured on held-out data is dashed.

Source: Li, Xu, Taylor, Studer, Goldstein 2018, arXiv 1712.09913, Fig. 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from landscope.draw.axes import mark_axis, new_axes
from landscope.draw.levels import FloatArray
from landscope.draw.line_scene import LineScene, Trace, build_line_scene
from landscope.draw.values import Landscapes, list_landscapes, named

# Okabe and Ito's colors, told apart by color-blind people; the first two are loss and percentage.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Solid for training data, dashed for held-out data; one pair for each quantity of a landscape.
_DASHES = (("-", "--"), ("-.", ":"), ((0, (6, 1, 1, 1, 1, 1)), (0, (1, 3))))
CROSS: dict[str, Any] = {"ls": "none", "marker": "x", "color": "0.35", "ms": 4, "clip_on": False}

_BAND: dict[str, Any] = {"alpha": 0.2, "lw": 0, "zorder": 1.5}


def line(
    lands: Landscapes,
    *,
    quantity: str | Sequence[str] | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with quantities along a line: losses on the left, percentages on the right.

    Several landscapes are laid over each other in thin lines: in one color as repeats of one
    experiment, or, when they have labels, in a color each. A quantity whose standard error is in
    the landscape, as ``<name>_stderr``, has a band of 1.96 of these to both sides.

    Args:
        lands: one landscape with dims ("x",), or several.
        quantity: name of a variable, or several. Default: every loss and every percentage.
        scale: "log" or "linear", of the left-hand axis. Default: log when all its finite values
            are positive and the largest is more than 20 times the smallest.
        labels: a name for each landscape. Default: none.
        ax: where to draw. Default: a new figure.

    Returns:
        The left-hand axes; their figure is ``axes.figure``.

    Raises:
        DrawError: when the landscapes cannot be drawn so; the text says what to do.

    Example:
        >>> axes = ls.draw.line(land)  # doctest: +SKIP
        >>> axes = ls.draw.line([a, b], labels=["SGD", "Adam"])  # doctest: +SKIP
    """
    lands = list_landscapes(lands)
    names = named(lands, labels) if labels is not None else None
    scenes = [build_line_scene(o, quantity=quantity, scale=scale, beside=lands) for o in lands]
    if ax is None:
        ax = new_axes((6.8, 4.2))
    paint_lines(scenes, ax, names)
    line_legend(scenes, ax, names, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return ax


def paint_lines(scenes: Sequence[LineScene], ax: Axes, names: Sequence[str] | None = None) -> None:
    """Draw lines over each other into ``ax``, in one color each if they have names."""
    traces = [trace for scene in scenes for trace in scene.traces]
    families = _families(traces)
    right = _right_axes(ax, traces)
    for k, scene in enumerate(scenes):
        for trace in scene.traces:
            style = _style(trace, families, landscape=k if names else None)
            thin: dict[str, Any] = {"lw": 1.8} if len(scenes) == 1 else {"lw": 1.0, "alpha": 0.85}
            where = right if trace.percent else ax
            where.plot(scene.x, trace.shown, markevery=lonely(trace.shown), **style, **thin)
            _error_band(scene, trace, where, style["color"])
        mark_holes(scene, ax)
    dress(scenes, ax, right)
    title = scenes[0].title if len(scenes) == 1 else f"{len(scenes)} landscapes"
    ax.set_title("" if names else title)


def line_legend(
    scenes: Sequence[LineScene],
    where: Axes | Figure,
    names: Sequence[str] | None = None,
    **place: Any,
) -> None:
    """Say below axes, or below a figure, what the lines are."""
    entries = _entries(scenes, names)
    columns = 4 if len(entries) % 3 else 3
    where.legend(handles=entries, ncols=columns, frameon=False, fontsize="small", **place)


def _error_band(scene: LineScene, trace: Trace, ax: Axes, color: str) -> None:
    """Shade where the true value lies with a probability of 95%, if that is known."""
    if trace.margin is not None:
        low, high = trace.shown - trace.margin, trace.shown + trace.margin
        ax.fill_between(scene.x, low, high, color=color, **_BAND)


def _families(traces: Sequence[Trace]) -> list[str]:
    """Return what is measured, on whatever data: losses first, then percentages."""
    ordered = sorted(traces, key=lambda trace: trace.percent)
    return list(dict.fromkeys(_family(trace) for trace in ordered))


def _family(trace: Trace) -> str:
    return trace.quantity.removeprefix("train_").removeprefix("test_").removeprefix("val_")


def _style(trace: Trace, families: Sequence[str], *, landscape: int | None) -> dict[str, Any]:
    """Color by what is measured and dash by the data, or, beside others, color by landscape."""
    family = families.index(_family(trace))
    dashes = _DASHES[0 if landscape is None else family % len(_DASHES)]
    color = CYCLE[(family if landscape is None else landscape) % len(CYCLE)]
    return {"color": color, "ls": dashes[trace.test], "marker": ".", "ms": 5}


def _right_axes(ax: Axes, traces: Sequence[Trace]) -> Axes:
    """Return where percentages are drawn: on the right if the left-hand axis is taken."""
    kinds = {trace.percent for trace in traces}
    if kinds == {False, True}:
        return ax.twinx()
    return ax


def lonely(shown: FloatArray) -> list[int]:
    """Return the points without a neighbor, [points]: no line would show them."""
    hole = np.concatenate([[True], np.isnan(shown), [True]])
    return [int(k) for k in np.flatnonzero(~hole[1:-1] & hole[:-2] & hole[2:])]


def mark_holes(scene: LineScene, ax: Axes) -> None:
    """Put a small cross at the foot of the picture wherever a value is missing."""
    at = scene.hole_positions
    if at.size:
        foot = np.full(at.shape, 0.02)
        ax.plot(at, foot, transform=ax.get_xaxis_transform(), **CROSS)


def dress(scenes: Sequence[LineScene], ax: Axes, right: Axes) -> None:
    """Set scales, ranges and the labels of the axes."""
    first = scenes[0]
    ax.set_xlabel(first.x_label)
    ax.set_xlim(min(scene.x[0] for scene in scenes), max(scene.x[-1] for scene in scenes))
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    if first.center is not None:
        ax.axvline(0, color="0.75", linewidth=0.8, zorder=0.9)
    if any(not trace.percent for trace in first.traces):
        _span_limits(first, ax)
    for axes, percent in ((right, True), (ax, False)):
        labels = dict.fromkeys(t.label for t in first.traces if t.percent == percent)
        if labels:
            axes.set_ylabel(common(list(labels)))
            if percent:
                axes.set_ylim(-2, 102)


def _span_limits(scene: LineScene, ax: Axes) -> None:
    """Let the left-hand axis span the limits of the scene, which may be those of several."""
    (low, high), log = scene.limits, scene.scale == "log"
    low, high = (math.log10(low), math.log10(high)) if log else (low, high)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    ax.set_ylim((10**low, 10**high) if log else (low, high))
    # After the range, since matplotlib would look for one of its own and overflow at 1e300.
    ax.set_yscale(scene.scale)
    if log:
        mark_axis(ax.yaxis, scene.limits, "log")


def common(labels: list[str]) -> str:
    """Return one text for an axis: the words that all its labels end in, or all labels."""
    words = [label.split() for label in labels]
    shared: list[str] = []
    while all(len(w) > len(shared) for w in words):
        tails = {w[-1 - len(shared)] for w in words}
        if len(tails) > 1:
            break
        shared.insert(0, tails.pop())
    text = " ".join(shared)
    if text[:1] != "(":
        return text or ", ".join(labels)
    return f"{', '.join(label.removesuffix(text).rstrip() for label in labels)} {text}"


def _entries(scenes: Sequence[LineScene], names: Sequence[str] | None) -> list[Line2D | Patch]:
    """Return one entry a trace and, where landscapes have names, one a landscape."""
    first, many = scenes[0], len(scenes)
    families = _families([trace for scene in scenes for trace in scene.traces])
    entries: list[Line2D | Patch] = []
    for k, name in enumerate(names or []):
        entries.append(Line2D([], [], color=CYCLE[k % len(CYCLE)], label=name))
    for trace in first.traces:
        style = _style(trace, families, landscape=0 if names else None) | {"marker": ""}
        style |= {"color": "0.3"} if names else {}
        entries.append(Line2D([], [], label=trace.label, **style))
    if any(trace.margin is not None for scene in scenes for trace in scene.traces):
        entries.append(Patch(facecolor="0.3", label="± 1.96 standard errors (95%)", **_BAND))
    notes = list(dict.fromkeys(scene.hole_note for scene in scenes if scene.hole_note))
    if notes:
        label = notes[0] if many == 1 else "not finite, or ≤ 0 on a log scale"
        entries.append(Line2D([], [], label=label, **CROSS | {"clip_on": True}))
    return entries
