"""Labels of contour lines, and legends that leave room for the picture.

A label that is half hidden by a path or cut by the frame reads as another number. Legends are below
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
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation

from landscope.draw.levels import FloatArray, count_digits, format_tick

_MARGIN = 0.12  # inches around the middle of a label on a contour line
_MARGIN_PER_LETTER = 0.034  # inches that each letter adds to this margin
_MAX_POSITIONS = 200  # positions that are tried along one contour line

_BELOW = -0.5  # inches, from the axes to a legend below their labels
_MAX_LETTERS = 54  # of a legend entry; a longer one is wrapped
_LETTER_WIDTH, _COLUMN_WIDTH = 0.055, 0.5  # inches: of a letter (about); of symbol and spacing
_HEIGHT = 0.45  # inches that pictures leave for a legend
_EXTRA_3D = -0.9  # inches: a color bar takes more from 3-D axes than from flat ones


def label_contours(ax: Axes, lines: ContourSet, avoid: FloatArray | None = None) -> None:
    """Label every contour line, or every second of many, away from the points ``avoid``, [n, 2]."""
    levels = list(lines.levels)
    labeled = levels[:: 2 if len(levels) > 9 else 1]
    digits = count_digits(levels)
    style: dict[str, Any] = {"fontsize": 8, "fmt": partial(format_tick, digits=digits)}
    ax.apply_aspect()  # labels are placed in inches, which depend on the final aspect
    preferred = [*ax.clabel(lines, labeled, inline=False, **style)]
    level_of = {format_tick(level, digits): level for level in labeled}
    positions = _find_free_positions(
        ax,
        lines,
        [
            (
                level_of[text.get_text()],
                text.get_position(),
                _MARGIN + _MARGIN_PER_LETTER * len(text.get_text()),
            )
            for text in preferred
        ],
        np.empty((0, 2)) if avoid is None else avoid,
    )
    for text in preferred:
        text.remove()
    for text in ax.clabel(lines, labeled, manual=positions, inline_spacing=3, **style):
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
        text.set_color("0.15")


def _find_free_positions(
    ax: Axes, lines: ContourSet, preferred: Sequence[tuple[float, Any, float]], avoid: FloatArray
) -> list[tuple[float, float]]:
    """Return the nearest free position for each label; a label without one is left out.

    Args:
        ax: The axes of the contour lines.
        lines: The contour lines.
        preferred: For each label its level, its preferred position, and its margin in inches.
        avoid: Points that no label may come near, [n, 2].
    """

    def to_inches(points: Any) -> FloatArray:
        return np.asarray(ax.transData.transform(points)) / ax.figure.dpi

    corners = np.array([ax.bbox.min, ax.bbox.max]) / ax.figure.dpi
    occupied = to_inches(avoid)
    positions: list[tuple[float, float]] = []
    for level, start, margin in preferred:
        line = lines.get_paths()[[*lines.levels].index(level)]
        vertices = _find_nearest_part(line, start)
        candidates = np.vstack([start, vertices[:: 1 + len(vertices) // _MAX_POSITIONS]])
        inches = to_inches(candidates)
        inside = (np.minimum(inches - corners[0], corners[1] - inches) > margin).all(axis=1)
        distances = np.linalg.norm(inches[:, None] - occupied, axis=-1)
        free = np.flatnonzero(inside & (distances.min(axis=1, initial=np.inf) > margin))
        if free.size:
            k = free[np.linalg.norm(inches[free] - inches[0], axis=1).argmin()]
            occupied = np.vstack([occupied, inches[k]])
            positions.append((float(candidates[k, 0]), float(candidates[k, 1])))
    return positions


def _find_nearest_part(line: Any, point: Any) -> FloatArray:
    """Return the connected part of a contour line that is nearest to a point, [n, 2]."""
    starts = np.flatnonzero(line.codes == Outline.MOVETO)[1:]
    parts = np.split(np.asarray(line.vertices), starts)
    return min(parts, key=lambda part: float(np.linalg.norm(part - point, axis=1).min()))


def add_legend_below(ax: Axes, handles: Sequence[Artist], *, columns: int = 2) -> None:
    """Add entries to the legend below ``ax``; create the legend if there is none."""
    legend = ax.get_legend()
    entries = [h for h in (legend.legend_handles if legend else []) if h is not None] + [*handles]
    # In inches, because the labels above the legend do not shrink with the axes.
    below = ScaledTranslation(0, _BELOW, ax.figure.dpi_scale_trans)
    columns_of_legend = arrange_in_columns(
        ax, entries, columns, extra_width=_EXTRA_3D if ax.name == "3d" else 0.0
    )
    ax.legend(
        **columns_of_legend, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=0,
        bbox_transform=ax.transAxes + below, frameon=False, fontsize="small",
    )  # fmt: skip


def arrange_in_columns(
    owner: Axes | Figure, handles: Sequence[Artist], max_columns: int, *, extra_width: float = 0.0
) -> dict[str, Any]:
    """Return arguments of a legend that is about as wide as its axes or its figure.

    Args:
        owner: The axes or the figure of the legend.
        handles: The entries.
        max_columns: The largest number of columns.
        extra_width: Inches by which the legend may be wider.
    """
    labels = [
        textwrap.fill(str(h.get_label()), _MAX_LETTERS, break_on_hyphens=False) for h in handles
    ]
    lengths = [max(map(len, label.split("\n"))) for label in labels]
    figure = owner if isinstance(owner, Figure) else owner.figure
    available = owner.bbox.width / figure.dpi + extra_width

    def estimate_width(columns: int) -> float:
        rows = math.ceil(len(lengths) / columns)
        parts = [lengths[k : k + rows] for k in range(0, len(lengths), rows)]
        return sum(_COLUMN_WIDTH + _LETTER_WIDTH * max(part) for part in parts)

    counts = range(1, min(max_columns, len(labels)) + 1)
    fitting = [count for count in counts if estimate_width(count) <= available]
    return {"handles": handles, "labels": labels, "ncols": max(fitting, default=1)}


def make_room_for_legends(figure: Any) -> None:
    """Increase the height of a figure by the part of its highest legend that does not fit."""
    legends = [ax.get_legend() for ax in figure.axes]
    highest = max((legend.get_window_extent().height for legend in legends if legend), default=0.0)
    missing = max(0.0, highest / figure.dpi - _HEIGHT)
    figure.set_figheight(figure.get_figheight() + missing)
