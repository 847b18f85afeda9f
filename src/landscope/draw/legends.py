"""Legends below and above axes that leave room for the picture, however long their entries are."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

_BELOW = -0.5  # inches, from the axes to a legend below their labels
_LETTERS = 54  # of an entry; a longer one is broken into lines
_LETTER, _COLUMN = 0.055, 0.5  # inches, of its letters (about) and of what stands beside them
_HEIGHT = 0.45  # inches, that pictures leave to a legend
_TURNED = -0.9  # inches: a color bar takes more from 3-D axes than from flat ones


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
