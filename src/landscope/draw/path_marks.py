"""How paths look in all pictures: marks, legend entries and color scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D

from landscope.draw.axes import mark_axis
from landscope.draw.labels import tick
from landscope.draw.levels import FloatArray
from landscope.draw.path_scene import EMBER, Shade, Trail, shade_of
from landscope.errors import DrawError

# Marks are white or of the color of their path, in a ring of black or white: seen on any ground.
START: dict[str, Any] = {"marker": "o", "ms": 8}
END: dict[str, Any] = {"marker": "*", "ms": 14}
DROP: dict[str, Any] = {"marker": "v", "ms": 8}
_RING: dict[str, Any] = {"ls": "none", "mec": "black", "mew": 1.1, "mfc": "white"}
WIDTH = 2.2  # points, of a path
_LONG = 36  # characters: a longer label stands in two lines beside the axes


def shade_for(trails: Sequence[Trail], color: str | None) -> Shade | None:
    """Return what colors a lone path; several are colored by which they are.

    Raises:
        DrawError: when a color is given for several paths, or is not known.
    """
    if len(trails) == 1:
        return shade_of(trails[0], color)
    if color is not None:
        raise DrawError(
            f"color={color!r} colors one path, and {len(trails)} were given, which differ by"
            " color: leave it out, or draw each path by itself."
        )
    return None


def entries(trails: Sequence[Trail]) -> list[Artist]:
    """Return what a legend says of paths and of the marks on them."""
    found: list[Artist] = [
        Line2D([], [], color=t.color, ls=t.dash, lw=WIDTH, label=t.name)
        for t in trails
        if not t.alone
    ]
    ring = _RING | ({"mec": "white", "mfc": "0.3"} if found else {})
    found += [Line2D([], [], label="start", **START, **ring)]
    found += [Line2D([], [], label="end", **END, **ring)]
    if any(t.drops for t in trails):
        found += [Line2D([], [], label=_fall_note(trails), **DROP, **ring)]
    every = sum(t.x.size for t in trails)
    lost = every - sum(t.placed.size for t in trails)
    if lost:
        note = f"no finite coordinates: {lost} of {every} checkpoints"
        found += [Line2D([], [], ls="none", label=note)]
    return found


def marks_of(trail: Trail) -> list[tuple[int, dict[str, Any]]]:
    """Return the checkpoints that are marked, each with its style: start, end and drops."""
    ring = _RING | ({} if trail.alone else {"mec": "white", "mfc": trail.color})
    first, last = trail.placed[[0, -1]]
    drops = [(int(k), DROP | ring) for k in trail.drops if k in trail.placed]
    return [*drops, (int(last), END | ring), (int(first), START | ring)]


def in_lines(label: str, longest: int = _LONG) -> str:
    """Return a long label in two lines: its axis may be shorter than it."""
    return label.replace(" (", "\n(") if len(label) > longest else label


def add_shade_bar(shade: Shade, figure: Any, **place: Any) -> None:
    """Draw the color scale of a path into ``figure``."""
    bar = figure.colorbar(ScalarMappable(shade.norm, EMBER), label=shade.label, **place)
    mark_axis(bar.ax.yaxis, shade.limits, shade.scale)


def segments_of(places: FloatArray) -> tuple[FloatArray, np.ndarray]:
    """Return the ways between neighboring checkpoints, and which of all these they are.

    Args:
        places: of the checkpoints, [t, dims].

    Returns:
        Segments whose two ends are finite, [segments, 2, dims], and their numbers, [segments].
    """
    segments = np.stack([places[:-1], places[1:]], axis=1)
    whole = np.flatnonzero(np.isfinite(segments).all(axis=(1, 2)))
    return segments[whole], whole


def _fall_note(trails: Sequence[Trail]) -> str:
    rates = {tuple(tick(rate, 3) for rate in t.rates) for t in trails if t.drops}
    told = " → ".join(rates.pop()) if len(rates) == 1 else ""
    return f"learning rate falls: {told}" if told else "learning rate falls"
