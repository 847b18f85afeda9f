"""Numbers in pictures: how they are written, and where they stand on contour lines.

A label that a path half hides, or that the frame cuts, reads as another number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke

from landscope.draw.levels import FloatArray, digits_for, number

_FREE, _LETTER = 0.12, 0.034  # inches around the middle of a label; and more for each letter
_TRIED = 200  # places at most, along one line


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
            (levels[t.get_text()], t.get_position(), _FREE + _LETTER * len(t.get_text()))
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
