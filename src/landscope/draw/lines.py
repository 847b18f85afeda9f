"""Pictures of a line with matplotlib, in the style of the 2018 paper.

Losses belong to the left-hand axis and percentages to the right-hand one. Quantities that were
measured on training data are solid, those on held-out data are dashed.

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

from landscope.draw.axes import create_axes, set_round_ticks
from landscope.draw.labels import arrange_in_columns
from landscope.draw.levels import FloatArray, format_tick
from landscope.draw.line_scene import LineScene, LineSeries, build_line_scene
from landscope.draw.values import Landscapes, list_landscapes, name_landscapes

# The colors of Okabe and Ito, which color-blind people can tell apart; the first two are those of
# losses and percentages.
COLOR_CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Solid for training data, dashed for held-out data; one pair for each quantity of a landscape.
_LINE_STYLES = (("-", "--"), ("-.", ":"), ((0, (6, 1, 1, 1, 1, 1)), (0, (1, 3))))
HOLE_MARK: dict[str, Any] = {
    "ls": "none",
    "marker": "x",
    "color": "0.35",
    "ms": 4,
    "clip_on": False,
}

_CENTER: dict[str, Any] = {"color": "0.75", "linewidth": 0.8, "zorder": 0.9}
_TARGET: dict[str, Any] = {"color": "0.45", "linewidth": 1.0, "zorder": 0.9, "ls": (0, (4, 2))}
_BAND: dict[str, Any] = {"alpha": 0.2, "lw": 0, "zorder": 1.5}


def line(
    lands: Landscapes,
    *,
    quantity: str | Sequence[str] | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with quantities along a line: losses on the left, percentages on the right.

    Several landscapes are drawn over each other with thin lines: in one color, as repeats of one
    experiment, or, when they have labels, in a color each. A quantity whose standard error is in
    the landscape, as ``<name>_stderr``, has a band of 1.96 standard errors on both sides.

    Args:
        lands: One landscape with dims ("x",), or several.
        quantity: The name of a variable, or several. Default: every loss and every percentage.
        scale: "log" or "linear", of the left-hand axis. Default: log when all its finite values
            are positive and the largest is more than 20 times the smallest.
        labels: A name for each landscape. Default: none.
        title: The title; "" for none. Default: that of a single landscape, else their number.
        size: Width and height of a new figure in inches. Default: 6.8 by 4.2.
        ax: The axes to draw into. Default: axes in a new figure.

    Returns:
        The left-hand axes; their figure is ``axes.figure``.

    Raises:
        DrawError: When the landscapes cannot be drawn this way; the text explains what to do.

    Example:
        >>> axes = ls.draw.line(land)  # doctest: +SKIP
        >>> axes = ls.draw.line([a, b], labels=["SGD", "Adam"])  # doctest: +SKIP
    """
    lands = list_landscapes(lands)
    names = name_landscapes(lands, labels) if labels is not None else None
    scenes = [
        build_line_scene(land, quantity=quantity, scale=scale, shared_with=lands) for land in lands
    ]
    if ax is None:
        ax = create_axes((6.8, 4.2), size)
    paint_lines(scenes, ax, names)
    if title is not None:
        ax.set_title(title)
    add_line_legend(scenes, ax, names, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return ax


def paint_lines(scenes: Sequence[LineScene], ax: Axes, names: Sequence[str] | None = None) -> None:
    """Draw lines over each other into ``ax``, in a color each if they have names."""
    every = [series for scene in scenes for series in scene.series]
    measures = _list_measures(every)
    right = _create_right_axes(ax, every)
    for k, scene in enumerate(scenes):
        for series in scene.series:
            style = _choose_style(series, measures, landscape=k if names else None)
            width: dict[str, Any] = {"lw": 1.8} if len(scenes) == 1 else {"lw": 1.0, "alpha": 0.85}
            axes = right if series.percent else ax
            isolated = find_isolated_points(series.shown)
            axes.plot(scene.x, series.shown, markevery=isolated, **style, **width)
            _paint_error_band(scene, series, axes, style["color"])
        mark_holes(scene, ax)
    set_up_axes(scenes, ax, right)
    title = scenes[0].title if len(scenes) == 1 else f"{len(scenes)} landscapes"
    ax.set_title("" if names else title)


def add_line_legend(
    scenes: Sequence[LineScene],
    owner: Axes | Figure,
    names: Sequence[str] | None = None,
    **placement: Any,
) -> None:
    """Add the legend of lines below axes or a figure."""
    entries = _list_legend_entries(scenes, names)
    columns = arrange_in_columns(owner, entries, 4 if len(entries) % 3 else 3, extra_width=1.0)
    owner.legend(**columns, frameon=False, fontsize="small", **placement)


def _paint_error_band(scene: LineScene, series: LineSeries, ax: Axes, color: str) -> None:
    """Shade the 95% confidence interval, where it is known."""
    if series.margin is not None:
        low, high = series.shown - series.margin, series.shown + series.margin
        ax.fill_between(scene.x, low, high, color=color, **_BAND)


def _list_measures(every: Sequence[LineSeries]) -> list[str]:
    """Return the distinct measures (loss, accuracy, ...), losses before percentages."""
    ordered = sorted(every, key=lambda series: series.percent)
    return list(dict.fromkeys(_name_measure(series) for series in ordered))


def _name_measure(series: LineSeries) -> str:
    """Return the quantity without the data set on which it was measured."""
    return series.quantity.removeprefix("train_").removeprefix("test_").removeprefix("val_")


def _choose_style(
    series: LineSeries, measures: Sequence[str], *, landscape: int | None
) -> dict[str, Any]:
    """Return color by measure and dashes by data set; or, among named landscapes, color by name."""
    measure = measures.index(_name_measure(series))
    styles = _LINE_STYLES[0 if landscape is None else measure % len(_LINE_STYLES)]
    color = COLOR_CYCLE[(measure if landscape is None else landscape) % len(COLOR_CYCLE)]
    return {"color": color, "ls": styles[series.test], "marker": ".", "ms": 5}


def _create_right_axes(ax: Axes, every: Sequence[LineSeries]) -> Axes:
    """Return the axes of percentages: right-hand axes if there are other quantities too."""
    kinds = {series.percent for series in every}
    if kinds == {False, True}:
        return ax.twinx()
    return ax


def find_isolated_points(shown: FloatArray) -> list[int]:
    """Return the points without a neighbor, [points], which a line would not show."""
    hole = np.concatenate([[True], np.isnan(shown), [True]])
    return [int(k) for k in np.flatnonzero(~hole[1:-1] & hole[:-2] & hole[2:])]


def mark_holes(scene: LineScene, ax: Axes) -> None:
    """Draw a small cross at the bottom of the picture wherever a value is missing."""
    x = scene.hole_positions
    if x.size:
        bottom = np.full(x.shape, 0.02)
        ax.plot(x, bottom, transform=ax.get_xaxis_transform(), **HOLE_MARK)


def set_up_axes(scenes: Sequence[LineScene], ax: Axes, right: Axes) -> None:
    """Set the scales, ranges and labels of the axes."""
    first = scenes[0]
    ax.set_xlabel(first.x_label)
    ax.set_xlim(min(scene.x[0] for scene in scenes), max(scene.x[-1] for scene in scenes))
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    if first.center is not None:
        ax.axvline(0, **_CENTER)
    for (x,), _ in first.marks[bool(first.marks and first.center is not None) :]:
        ax.axvline(x, **_TARGET)
    if any(not series.percent for series in first.series):
        _set_left_limits(first, ax)
    for axes, percent in ((right, True), (ax, False)):
        labels = dict.fromkeys(s.label for s in first.series if s.percent == percent)
        if labels:
            axes.set_ylabel(join_labels(list(labels)))
            if percent:
                axes.set_ylim(-2, 102)


def _set_left_limits(scene: LineScene, ax: Axes) -> None:
    """Set the range of the left-hand axis to the limits of the scene, with a small margin."""
    (low, high), log = scene.limits, scene.scale == "log"
    low, high = (math.log10(low), math.log10(high)) if log else (low, high)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    ax.set_ylim((10**low, 10**high) if log else (low, high))
    # After the range, since matplotlib would choose a range itself and overflow at 1e300.
    ax.set_yscale(scene.scale)
    if log:
        set_round_ticks(ax.yaxis, scene.limits, "log")


def join_labels(labels: list[str]) -> str:
    """Return one label for an axis: the last words that all labels share, or all labels."""
    words = [label.split() for label in labels]
    shared: list[str] = []
    while all(len(w) > len(shared) for w in words):
        last_words = {w[-1 - len(shared)] for w in words}
        if len(last_words) > 1:
            break
        shared.insert(0, last_words.pop())
    text = " ".join(shared)
    if text[:1] != "(":
        return text or ", ".join(labels)
    return f"{', '.join(label.removesuffix(text).rstrip() for label in labels)} {text}"


def _list_legend_entries(
    scenes: Sequence[LineScene], names: Sequence[str] | None
) -> list[Line2D | Patch]:
    """Return an entry for each series and, where landscapes have names, for each landscape."""
    first = scenes[0]
    measures = _list_measures([series for scene in scenes for series in scene.series])
    entries: list[Line2D | Patch] = []
    for k, name in enumerate(names or []):
        entries.append(Line2D([], [], color=COLOR_CYCLE[k % len(COLOR_CYCLE)], label=name))
    for series in first.series:
        style = _choose_style(series, measures, landscape=0 if names else None) | {"marker": ""}
        style |= {"color": "0.3"} if names else {}
        entries.append(Line2D([], [], label=series.label, **style))
    if any(series.margin is not None for scene in scenes for series in scene.series):
        entries.append(Patch(facecolor="0.3", label="± 1.96 standard errors (95%)", **_BAND))
    return [*entries, *_list_mark_entries(first), *list_hole_entries(scenes)]


def _list_mark_entries(scene: LineScene) -> list[Line2D]:
    """Return the entries of models on the line, where there is another one than the center."""
    if len(scene.marks) < 2:
        return []
    return [
        Line2D([], [], label=f"x = {format_tick(x)}: {name}", **(_TARGET if k else _CENTER))
        for k, ((x,), name) in enumerate(scene.marks)
    ]


def list_hole_entries(scenes: Sequence[LineScene]) -> list[Line2D]:
    """Return the legend entry that explains the crosses, if there are any."""
    notes = list(dict.fromkeys(scene.hole_note for scene in scenes if scene.hole_note))
    if not notes:
        return []
    label = notes[0] if len(scenes) == 1 else "not finite, or ≤ 0 on a log scale"
    return [Line2D([], [], label=label, **HOLE_MARK | {"clip_on": True})]
