"""What matplotlib was given, found again in its axes."""

from __future__ import annotations

from typing import Any


def line(ax: Any, gid: str, nth: int = 0) -> Any:
    return [artist for artist in ax.get_children() if artist.get_gid() == gid][nth]


def marks(ax: Any, marker: str) -> list[list[float]]:
    """Places of the marks of one form, in the order in which they were drawn."""
    found = [one for one in ax.lines if one.get_marker() == marker]
    return [[float(v[0]) for v in one.get_data()] for one in found]


def texts(ax: Any) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]
