"""Labels of contour lines, and legends that leave room for the picture.

A label that a path half hides, or that the frame cuts, reads as another number. Legends are below
or above the axes, however long their entries are.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation

from landscope.draw.levels import FloatArray, digits_for, number

_FREE = 0.12  # inches around the middle of a label
_LETTER_ON_LINE = 0.034  # inches, that each letter adds to this
_TRIED = 200  # places at most, along one line


_BELOW = -0.5  # inches, from the axes to a legend below their labels
_LETTERS = 54  # of an entry; a longer one is broken into lines
_LETTER, _COLUMN = 0.055, 0.5  # inches, of its letters (about) and of what stands beside them
_HEIGHT = 0.45  # inches, that pictures leave to a legend
_TURNED = -0.9  # inches: a color bar takes more from 3-D axes than from flat ones


def tick(value: float, digits: int = 4) -> str:
    """Return a number as matplotlib writes it: with a true minus sign."""
    return number(value, digits).replace("-", "\N{MINUS SIGN}")


def label_lines(ax: Axes, lines: ContourSet, clear: FloatArray | None = None) -> None:
    """Label every line, or every second of many, away from the points ``clear``, [n, 2]."""
    drawn = list(lines.levels)
    every_other = drawn[:: 2 if len(drawn) > 9 else 1]
    digits = digits_for(drawn)
    style: dict[str, Any] = {"fontsize": 8, "fmt": partial(tick, digits=digits)}
    ax.apply_aspect()  # as the picture will have it: labels are placed in inches
    wanted = [*ax.clabel(lines, every_other, inline=False, **style)]
    levels = {tick(level, digits): level for level in every_other}
    places = _free_places(
        ax,
        lines,
        [
            (levels[t.get_text()], t.get_position(), _FREE + _LETTER_ON_LINE * len(t.get_text()))
            for t in wanted
        ],
        np.empty((0, 2)) if clear is None else clear,
    )
    for text in wanted:
        text.remove()
    labels = ax.clabel(lines, every_other, manual=places, inline_spacing=3, **style)
    for text in labels:
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
        text.set_color("0.15")


def _free_places(
    ax: Axes, lines: ContourSet, wanted: Sequence[tuple[float, Any, float]], clear: FloatArray
) -> list[tuple[float, float]]:
    """Return a place on its line for each label, the nearest that is free; none for some.

    Args:
        ax: of the lines.
        lines: that are labeled.
        wanted: for each label its level, where it would stand, and what is to be free around it, in
            inches.
        clear: points that stay free, [n, 2].
    """

    def inches(points: Any) -> FloatArray:
        return np.asarray(ax.transData.transform(points)) / ax.figure.dpi

    corners = np.array([ax.bbox.min, ax.bbox.max]) / ax.figure.dpi
    taken = inches(clear)
    places: list[tuple[float, float]] = []
    for level, at, room in wanted:
        way = _way_through(lines.get_paths()[[*lines.levels].index(level)], at)
        points = np.vstack([at, way[:: 1 + len(way) // _TRIED]])
        there = inches(points)
        inside = (np.minimum(there - corners[0], corners[1] - there) > room).all(axis=1)
        far = np.linalg.norm(there[:, None] - taken, axis=-1).min(axis=1, initial=np.inf) > room
        free = np.flatnonzero(inside & far)
        if free.size:
            k = free[np.linalg.norm(there[free] - there[0], axis=1).argmin()]
            taken = np.vstack([taken, there[k]])
            places.append((float(points[k, 0]), float(points[k, 1])))
    return places


def _way_through(line: Any, at: Any) -> FloatArray:
    """Return the connected part of a contour line that comes nearest to a place, [n, 2]."""
    begins = np.flatnonzero(line.codes == Outline.MOVETO)[1:]
    parts = np.split(np.asarray(line.vertices), begins)
    return min(parts, key=lambda part: float(np.linalg.norm(part - at, axis=1).min()))


def legend_under(ax: Axes, handles: Sequence[Artist], *, columns: int = 2) -> None:
    """Add entries to the legend below ``ax``, or begin one."""
    old = ax.get_legend()
    entries = [h for h in (old.legend_handles if old else []) if h is not None] + [*handles]
    # In inches, since the labels that it has to clear do not shrink with the axes.
    below = ScaledTranslation(0, _BELOW, ax.figure.dpi_scale_trans)
    laid_out = in_columns(ax, entries, columns, aside=_TURNED if ax.name == "3d" else 0.0)
    ax.legend(
        **laid_out, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=0,
        bbox_transform=ax.transAxes + below, frameon=False, fontsize="small",
    )  # fmt: skip


def in_columns(
    ax: Axes, handles: Sequence[Artist], most: int, *, aside: float = 0.0
) -> dict[str, Any]:
    """Return what lays a legend out: at most so many columns, and about as wide as the axes.

    It may be wider by so many inches ``aside``.
    """
    labels = [textwrap.fill(str(h.get_label()), _LETTERS, break_on_hyphens=False) for h in handles]
    lengths = [max(map(len, label.split("\n"))) for label in labels]
    room = ax.bbox.width / ax.figure.dpi + aside

    def width(columns: int) -> float:
        rows = math.ceil(len(lengths) / columns)
        parts = [lengths[k : k + rows] for k in range(0, len(lengths), rows)]
        return sum(_COLUMN + _LETTER * max(part) for part in parts)

    fitting = [n for n in range(1, min(most, len(labels)) + 1) if width(n) <= room]
    return {"handles": handles, "labels": labels, "ncols": max(fitting, default=1)}


def room_for_legends(figure: Any) -> None:
    """Make a figure higher by what its highest legend takes beyond the room that it has."""
    legends = [ax.get_legend() for ax in figure.axes]
    highest = max((one.get_window_extent().height for one in legends if one), default=0.0)
    beyond = max(0.0, highest / figure.dpi - _HEIGHT)
    figure.set_figheight(figure.get_figheight() + beyond)
