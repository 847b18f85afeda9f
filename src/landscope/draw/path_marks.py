"""The look of paths in all pictures: marks, segments, legend entries and color scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D

from landscope.draw.axes import set_round_ticks
from landscope.draw.levels import FloatArray, format_tick
from landscope.draw.path_scene import PATH_COLORMAP, PathColors, PathScene, build_path_colors
from landscope.errors import DrawError

# Marks are white or in the color of their path, with a black or white outline, which is visible on
# every background.
START: dict[str, Any] = {"marker": "o", "ms": 8}
END: dict[str, Any] = {"marker": "*", "ms": 14}
DROP: dict[str, Any] = {"marker": "v", "ms": 8}
_OUTLINE: dict[str, Any] = {"ls": "none", "mec": "black", "mew": 1.1, "mfc": "white"}
WIDTH = 2.2  # points, of a path
_MAX_LETTERS = 36  # of a label in one line


def choose_path_colors(paths: Sequence[PathScene], color: str | None) -> PathColors | None:
    """Return the color scale of a single path; None for several, which have one color each.

    Raises:
        DrawError: When a color is given for several paths, or is unknown.
    """
    if len(paths) == 1:
        return build_path_colors(paths[0], color)
    if color is not None:
        raise DrawError(
            f"color={color!r} colors a single path, but {len(paths)} were given, which differ by"
            " color: leave it out, or draw each path in a picture of its own."
        )
    return None


def add_path_color_bar(colors: PathColors, figure: Any, **placement: Any) -> None:
    """Draw the color scale of a path into ``figure``, placed as by ``figure.colorbar``."""
    mappable = ScalarMappable(colors.norm, PATH_COLORMAP)
    bar = figure.colorbar(mappable, label=colors.label, **placement)
    set_round_ticks(bar.ax.yaxis, colors.limits, colors.scale)


def list_path_entries(paths: Sequence[PathScene]) -> list[Artist]:
    """Return the legend entries of paths and of their marks."""
    entries: list[Artist] = [
        Line2D([], [], color=path.color, ls=path.line_style, lw=WIDTH, label=path.name)
        for path in paths
        if not path.is_single
    ]
    outline = _OUTLINE | ({"mec": "white", "mfc": "0.3"} if entries else {})
    entries += [Line2D([], [], label="start", **START, **outline)]
    entries += [Line2D([], [], label="end", **END, **outline)]
    if any(path.drops for path in paths):
        entries += [Line2D([], [], label=_describe_drops(paths), **DROP, **outline)]
    total = sum(path.x.size for path in paths)
    missing = total - sum(path.finite_indices.size for path in paths)
    if missing:
        note = f"no finite coordinates: {missing} of {total} checkpoints"
        entries += [Line2D([], [], ls="none", label=note)]
    return entries


def _describe_drops(paths: Sequence[PathScene]) -> str:
    """Return the text of the entry for drops, with the rates if all paths have the same."""
    schedules = {tuple(format_tick(rate, 3) for rate in p.rates) for p in paths if p.drops}
    rates = " → ".join(schedules.pop()) if len(schedules) == 1 else ""
    return f"learning rate falls: {rates}" if rates else "learning rate falls"


def list_marks(path: PathScene) -> list[tuple[int, dict[str, Any]]]:
    """Return the marked checkpoints with the style of their marks: end, start, drops."""
    outline = _OUTLINE | ({} if path.is_single else {"mec": "white", "mfc": path.color})
    first, last = path.finite_indices[[0, -1]]
    drops = [(int(k), DROP | outline) for k in path.drops if k in path.finite_indices]
    # Drops last: at the end of a path their marks would be hidden by its star.
    return [(int(last), END | outline), (int(first), START | outline), *drops]


def build_segments(positions: FloatArray) -> tuple[FloatArray, np.ndarray]:
    """Return the segments between consecutive checkpoints, and their indices.

    Args:
        positions: The positions of the checkpoints, [t, dims].

    Returns:
        The segments whose two ends are finite, [segments, 2, dims], and their indices among all
        segments, [segments].
    """
    segments = np.stack([positions[:-1], positions[1:]], axis=1)
    indices = np.flatnonzero(np.isfinite(segments).all(axis=(1, 2)))
    return segments[indices], indices


def wrap_label(label: str, max_letters: int = _MAX_LETTERS) -> str:
    """Return a long label of an axis in two lines, since the axis may be shorter than it."""
    return label.replace(" (", "\n(") if len(label) > max_letters else label
