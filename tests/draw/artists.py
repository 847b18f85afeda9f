"""Find in axes what matplotlib was given."""

from __future__ import annotations

from typing import Any


def find_artist(ax: Any, gid: str, nth: int = 0) -> Any:
    return [artist for artist in ax.get_children() if artist.get_gid() == gid][nth]


def find_marks(ax: Any, marker: str) -> list[list[float]]:
    """The positions of all marks with this marker, in the order in which they were drawn."""
    lines = [line for line in ax.lines if line.get_marker() == marker]
    return [[float(values[0]) for values in line.get_data()] for line in lines]


def read_legend(ax: Any) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]
