"""The figure of an animation: its background is drawn once, each frame adds only what moves.

Matplotlib calls this blitting. Above the axes is a table with the learning rate, the loss and the
distance off the plane of the checkpoint that each path reached last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from landscope.draw.axes import add_color_bar
from landscope.draw.labels import add_legend_below, make_room_for_legends
from landscope.draw.levels import FloatArray, format_tick
from landscope.draw.path_marks import WIDTH, list_marks, list_path_entries
from landscope.draw.path_plane import compute_picture_size, extend_axes, paint_plane_below_paths
from landscope.draw.path_scene import PathScene
from landscope.draw.path_surfaces import (
    locate_checkpoints,
    locate_projections,
    paint_surface_below_paths,
)
from landscope.draw.plane_scene import PlaneScene

_DPI = 100
_ROW_HEIGHT = 0.19  # inches, of the table above the axes
_COLUMN_WIDTHS = (1.1, 0.9, 1.2)  # inches, of its columns after the names
_LETTER_WIDTH = 0.088  # inches, of a name
_MAX_LETTERS = 16  # of a name; longer names are shortened in the table, not in the legend
_ABOVE = 6.0  # zorder: over the background

FormatCell = Callable[[PathScene, int], str]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class MovingPath:
    """One path and the artists that show the part of it up to a time."""

    path: PathScene
    positions: FloatArray  # [t, 2], or [t, 3] over a surface
    projections: FloatArray  # [t, 3], the lower ends of the stems; [0, 3] without a surface
    stems: Any
    line: Any
    head: Any
    marks: list[tuple[int, Any]]  # each with the checkpoint from which on it is visible
    name: Text
    cells: list[tuple[Text, FormatCell]]  # the row of the path in the table

    def move_to(self, time: float) -> list[Artist]:
        """Move the artists to a time, and return those that are visible then."""
        times = self.path.time
        reached = int(np.searchsorted(times, time, side="right"))
        if reached == 0:
            return []
        points = self.positions[:reached]
        if reached < times.size:
            share = (time - times[reached - 1]) / (times[reached] - times[reached - 1])
            head = (1 - share) * points[-1] + share * self.positions[reached]
            points = np.vstack([points, head])
        _set_points(self.line, points)
        _set_points(self.head, points[-1:])
        if self.projections.size:
            ends = self.positions[:reached], self.projections[:reached]
            _set_points(self.stems, _join_stems(*ends))
        for text, format_cell in self.cells:
            text.set_text(format_cell(self.path, reached - 1))
        marks = [mark for k, mark in self.marks if k < reached]
        head_artists = [self.head] if reached < times.size else []
        texts = [self.name, *(text for text, _ in self.cells)]
        return [self.stems, self.line, *marks, *head_artists, *texts]


@dataclass(frozen=True, eq=False)
class AnimationFigure:
    """A figure with a background, and the artists that move over it."""

    canvas: Any  # of matplotlib's Agg, which has no annotations
    background: Any  # the pixels without moving artists
    clock: Text
    moving_paths: list[MovingPath]

    @property
    def span(self) -> tuple[float, float]:
        """The first and the last time at which a path has a checkpoint."""
        times = np.concatenate([moving.path.time for moving in self.moving_paths])
        return float(times.min()), float(times.max())

    def draw_frame(self, time: float) -> Pixels:
        """Return the frame at a time, [height, width, 3]."""
        self.canvas.restore_region(self.background)
        first = self.moving_paths[0].path
        self.clock.set_text(f"{first.time_label} {_format_time(time, first)}")
        visible = [artist for moving in self.moving_paths for artist in moving.move_to(time)]
        for artist in (*visible, self.clock):
            artist.draw(self.canvas.get_renderer())
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()


def build_animation_figure(
    scene: PlaneScene, paths: Sequence[PathScene], *, kind: str
) -> AnimationFigure:
    """Return a figure whose background is drawn and whose moving artists are created.

    Args:
        scene: The plane.
        paths: The paths over it.
        kind: "contour", "filled", "heatmap" or "surface".
    """
    has_heights, table_height = kind == "surface", _ROW_HEIGHT * (len(paths) + 1)
    width, height = (7.0, 5.6) if has_heights else compute_picture_size(scene, paths, 6.4)
    figure = Figure(figsize=(width, height + table_height), dpi=_DPI, layout="compressed")
    ax: Any = figure.add_subplot(**({"projection": "3d"} if has_heights else {}))
    _paint_background(scene, paths, ax, kind)
    make_room_for_legends(figure)
    # H.264 requires an even number of pixels per side.
    figure.set_size_inches(*(2 * np.round(figure.get_size_inches() * _DPI / 2) / _DPI))
    ax.set_title(scene.title, pad=6 + 72 * table_height)
    (clock, *_), *rows = _create_table(ax, paths)
    formats = [format_cell for _, format_cell in _list_columns(paths)]
    moving_paths = [
        _create_moving_path(scene, path, ax, row[0], list(zip(row[1:], formats, strict=True)))
        for path, row in zip(paths, rows, strict=True)
    ]
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return AnimationFigure(canvas, canvas.copy_from_bbox(figure.bbox), clock, moving_paths)


def _paint_background(scene: PlaneScene, paths: Sequence[PathScene], ax: Any, kind: str) -> None:
    if kind == "surface":
        paint_surface_below_paths(scene, paths, ax)
        add_color_bar(scene, ax.figure, ax=ax, shrink=0.62, pad=0.1)
    else:
        paint_plane_below_paths(scene, paths, ax, kind=kind)
        add_legend_below(ax, [*extend_axes(paths, ax), *list_path_entries(paths)], columns=3)
        add_color_bar(scene, ax.figure, ax=ax, pad=0.03, aspect=22)


def _create_moving_path(
    scene: PlaneScene, path: PathScene, ax: Any, name: Text, cells: list[tuple[Text, FormatCell]]
) -> MovingPath:
    has_heights = ax.name == "3d"
    flat = np.stack([path.x, path.y], axis=-1)
    positions = locate_checkpoints(scene, path) if has_heights else flat
    halo = [withStroke(linewidth=WIDTH + 2.2, foreground="white")]
    # A line without points would extend the layout to the corner of the figure.
    moving: dict[str, Any] = {
        "animated": True,
        "zorder": _ABOVE,
        "clip_on": False,
        "in_layout": False,
    }
    no_points = [np.empty(0)] * positions.shape[1]
    color: dict[str, Any] = {"color": path.color, **moving}
    (line,) = ax.plot(*no_points, ls=path.line_style, lw=WIDTH, path_effects=halo, **color)
    (head,) = ax.plot(*no_points, marker="o", ms=9, mec="white", mew=1.4, **color)
    thin_halo = [withStroke(linewidth=2.1, foreground="white")]
    (stems,) = ax.plot(*no_points, lw=0.9, color="0.1", path_effects=thin_halo, **moving)
    marks = [(k, ax.plot(*positions[[k]].T, **moving, **style)[0]) for k, style in list_marks(path)]
    name.set(text=_shorten(path.name), color=path.color, fontweight="bold")
    projections = locate_projections(scene, path) if has_heights else np.empty((0, 3))
    return MovingPath(path, positions, projections, stems, line, head, marks, name, cells)


def _list_columns(paths: Sequence[PathScene]) -> list[tuple[str, FormatCell]]:
    """Return the columns of the table that some path has values for, with their captions."""
    columns: dict[str, tuple[str, FormatCell]] = {
        "learning_rate": ("learning rate", lambda p, k: format_tick(float(p.learning_rate[k]), 3)),
        "loss": ("loss", lambda p, k: format_tick(float(p.loss[k]), 3)),
        "distance": ("off the plane", _format_distance),
    }
    return [
        column
        for name, column in columns.items()
        if any(np.isfinite(getattr(path, name)).any() for path in paths)
    ]


def _format_distance(path: PathScene, k: int) -> str:
    """Return the distance off the plane, absolute and in percent of that from the center."""
    percent = path.percent[k]
    suffix = f" ({format_tick(percent, 3)}%)" if np.isfinite(percent) else ""
    return format_tick(float(path.distance[k]), 3) + suffix


def _create_table(ax: Any, paths: Sequence[PathScene]) -> list[list[Text]]:
    """Return the texts of a table above the axes, [rows][columns]; only captions are filled in."""
    captions = ["", *(caption for caption, _ in _list_columns(paths))]
    longest = max(len(_shorten(path.name)) for path in paths)
    name_width = max(1.0, 0.2 + _LETTER_WIDTH * longest)
    left = np.cumsum([0.0, name_width, *_COLUMN_WIDTHS])[: len(captions)]
    rows = [
        [_create_text(ax, x, 0.08 + _ROW_HEIGHT * row) for x in left]
        for row in reversed(range(len(paths) + 1))
    ]
    for text, caption in zip(rows[0][1:], captions[1:], strict=True):
        text.set(text=caption, animated=False)
    return rows


def _shorten(name: str) -> str:
    """Return a name without its middle part if it is long."""
    half = _MAX_LETTERS // 2
    return name if len(name) <= _MAX_LETTERS else f"{name[:half]}…{name[1 - half :]}"


def _create_text(ax: Any, x: float, y: float) -> Text:
    """Return an empty text, x inches to the right of and y inches above the upper left corner."""
    shift = ScaledTranslation(x, y, ax.figure.dpi_scale_trans)
    text = Text(0, 1, fontsize="small", transform=ax.transAxes + shift, animated=True)
    ax.add_artist(text)
    text.set_clip_on(False)
    return text


def _format_time(time: float, path: PathScene) -> str:
    whole = bool((path.time == np.round(path.time)).all())
    return str(int(time + 1e-9)) if whole else format_tick(time, 3)


def _set_points(line: Any, points: FloatArray) -> None:
    """Set the points of a line, [n, 2] or [n, 3]."""
    (line.set_data_3d if points.shape[1] == 3 else line.set_data)(*points.T)


def _join_stems(tops: FloatArray, bottoms: FloatArray) -> FloatArray:
    """Return stems as one line with gaps between them, [3 stems, 3]."""
    return np.stack([tops, bottoms, np.full_like(tops, np.nan)], axis=1).reshape(-1, 3)
