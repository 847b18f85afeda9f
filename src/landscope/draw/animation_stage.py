"""The figure of an animation: everything that stands still is drawn once, then only what moves."""

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
from landscope.draw.labels import legend_under, room_for_legends, tick
from landscope.draw.levels import FloatArray
from landscope.draw.path_marks import WIDTH, entries, marks_of
from landscope.draw.path_plane import extend, paint_ground, picture_size
from landscope.draw.path_scene import Trail
from landscope.draw.path_surfaces import feet_of, paint_air, places_of
from landscope.draw.plane_scene import PlaneScene

_DPI = 100
_ROW = 0.19  # inches, of the table above the picture
_WIDTHS = (1.1, 0.9, 1.2)  # inches, of its columns after the names
_LETTER = 0.088  # inches, of a name
_LONGEST_NAME = 16  # letters; the middle of a longer one is left to the legend
_ABOVE = 6.0  # zorder: over all that stands still

Tell = Callable[[Trail, int], str]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Walker:
    """One path and the artists that show how far it has come."""

    trail: Trail
    places: FloatArray  # [t, 2], or [t, 3] over a surface
    feet: FloatArray  # [t, 3], of the stems; [0, 3] on a flat picture
    stems: Any
    line: Any
    head: Any
    marks: list[tuple[int, Any]]  # each with the checkpoint from which on it is seen
    name: Text
    cells: list[tuple[Text, Tell]]  # its row of the table

    def at(self, now: float) -> list[Artist]:
        """Bring the artists to a time, and return those that are seen then."""
        time = self.trail.time
        reached = int(np.searchsorted(time, now, side="right"))
        if reached == 0:
            return []
        way = self.places[:reached]
        if reached < time.size:
            share = (now - time[reached - 1]) / (time[reached] - time[reached - 1])
            way = np.vstack([way, (1 - share) * way[-1] + share * self.places[reached]])
        _put(self.line, way)
        _put(self.head, way[-1:])
        if self.feet.size:
            _put(self.stems, _joined(self.places[:reached], self.feet[:reached]))
        for text, tell in self.cells:
            text.set_text(tell(self.trail, reached - 1))
        marks = [mark for k, mark in self.marks if k < reached]
        arrived = reached == time.size
        texts = [self.name, *(text for text, _ in self.cells)]
        return [self.stems, self.line, *marks, *([] if arrived else [self.head]), *texts]


@dataclass(frozen=True, eq=False)
class Stage:
    """A figure with all that stands still, and all that moves before it."""

    canvas: Any  # of matplotlib's Agg; it has no annotations
    still: Any  # the pixels without what moves
    clock: Text
    walkers: list[Walker]

    @property
    def span(self) -> tuple[float, float]:
        """The first and the last time at which some path has a checkpoint."""
        times = np.concatenate([walker.trail.time for walker in self.walkers])
        return float(times.min()), float(times.max())

    def picture(self, now: float) -> Pixels:
        """Return the picture at a time, [height, width, 3]."""
        self.canvas.restore_region(self.still)
        first = self.walkers[0].trail
        self.clock.set_text(f"{first.time_label} {_clock(now, first)}")
        seen = [artist for walker in self.walkers for artist in walker.at(now)]
        for artist in (*seen, self.clock):
            artist.draw(self.canvas.get_renderer())
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()


def build_stage(scene: PlaneScene, trails: Sequence[Trail], *, kind: str) -> Stage:
    """Return a figure in which all that stands still is drawn, once, and all that moves is made."""
    raised, room = kind == "surface", _ROW * (len(trails) + 1)
    wide, high = (7.0, 5.6) if raised else picture_size(scene, trails, 6.4)
    figure = Figure(figsize=(wide, high + room), dpi=_DPI, layout="compressed")
    ax: Any = figure.add_subplot(projection="3d") if raised else figure.add_subplot()
    if raised:
        paint_air(scene, trails, ax)
        add_color_bar(scene, figure, ax=ax, shrink=0.62, pad=0.1)
    else:
        paint_ground(scene, trails, ax, kind=kind)
        legend_under(ax, [*extend(trails, ax), *entries(trails)], columns=3)
        add_color_bar(scene, figure, ax=ax, pad=0.03, aspect=22)
    room_for_legends(figure)
    # H.264 has even sides only.
    figure.set_size_inches(*(2 * np.round(figure.get_size_inches() * _DPI / 2) / _DPI))
    ax.set_title(scene.title, pad=6 + 72 * room)
    (clock, *_), *rows = _table(ax, trails)
    tells = [tell for _, tell in _columns(trails)]
    walkers = [
        _walker(scene, trail, ax, row[0], list(zip(row[1:], tells, strict=True)))
        for trail, row in zip(trails, rows, strict=True)
    ]
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return Stage(canvas, canvas.copy_from_bbox(figure.bbox), clock, walkers)


def _walker(
    scene: PlaneScene, trail: Trail, ax: Any, name: Text, cells: list[tuple[Text, Tell]]
) -> Walker:
    raised = ax.name == "3d"
    places = places_of(scene, trail) if raised else np.stack([trail.x, trail.y], axis=-1)
    halo = [withStroke(linewidth=WIDTH + 2.2, foreground="white")]
    # A line without points would stretch the layout down to the corner of the figure.
    moving: dict[str, Any] = {
        "animated": True,
        "zorder": _ABOVE,
        "clip_on": False,
        "in_layout": False,
    }
    nowhere = [np.empty(0)] * places.shape[1]
    own: dict[str, Any] = {"color": trail.color, **moving}
    (line,) = ax.plot(*nowhere, ls=trail.dash, lw=WIDTH, path_effects=halo, **own)
    (head,) = ax.plot(*nowhere, marker="o", ms=9, mec="white", mew=1.4, **own)
    thin = [withStroke(linewidth=2.1, foreground="white")]
    (stems,) = ax.plot(*nowhere, lw=0.9, path_effects=thin, **moving | {"color": "0.1"})
    marks = [(k, ax.plot(*places[[k]].T, **moving, **style)[0]) for k, style in marks_of(trail)]
    name.set(text=_short(trail.name), color=trail.color, fontweight="bold")
    feet = feet_of(scene, trail) if raised else np.empty((0, 3))
    return Walker(trail, places, feet, stems, line, head, marks, name, cells)


def _columns(trails: Sequence[Trail]) -> list[tuple[str, Tell]]:
    """Return what is told of a checkpoint: what some path knows, with its caption."""
    columns: dict[str, tuple[str, Tell]] = {
        "learning_rate": ("learning rate", lambda t, k: tick(float(t.learning_rate[k]), 3)),
        "loss": ("loss", lambda t, k: tick(float(t.loss[k]), 3)),
        "distance": ("off the plane", _off),
    }
    return [
        column
        for name, column in columns.items()
        if any(np.isfinite(getattr(trail, name)).any() for trail in trails)
    ]


def _off(trail: Trail, k: int) -> str:
    """Return the distance off the plane, absolute and in percent of that from the center."""
    share = trail.percent[k]
    return tick(float(trail.distance[k]), 3) + (
        f" ({tick(share, 3)}%)" if np.isfinite(share) else ""
    )


def _table(ax: Any, trails: Sequence[Trail]) -> list[list[Text]]:
    """Return texts above the axes, empty but for the captions in the first row: [rows][columns]."""
    captions = ["", *(caption for caption, _ in _columns(trails))]
    longest = max(len(_short(trail.name)) for trail in trails)
    left = np.cumsum([0.0, max(1.0, 0.2 + _LETTER * longest), *_WIDTHS])[: len(captions)]
    rows = []
    for row in reversed(range(len(trails) + 1)):
        corner = [(x, 0.08 + _ROW * row) for x in left]
        rows.append([_text(ax, x, y) for x, y in corner])
    for text, caption in zip(rows[0][1:], captions[1:], strict=True):
        text.set(text=caption, animated=False)
    return rows


def _short(name: str) -> str:
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}"


def _text(ax: Any, x: float, y: float) -> Text:
    """Return an empty text, inches to the right of the upper left corner of axes and above it."""
    shift = ScaledTranslation(x, y, ax.figure.dpi_scale_trans)
    text = Text(0, 1, fontsize="small", transform=ax.transAxes + shift, animated=True)
    ax.add_artist(text)
    text.set_clip_on(False)
    return text


def _clock(now: float, trail: Trail) -> str:
    whole = bool((trail.time == np.round(trail.time)).all())
    return str(int(now + 1e-9)) if whole else tick(now, 3)


def _put(artist: Any, points: FloatArray) -> None:
    """Move a line to points, [n, 2] or [n, 3]."""
    (artist.set_data_3d if points.shape[1] == 3 else artist.set_data)(*points.T)


def _joined(tops: FloatArray, feet: FloatArray) -> FloatArray:
    """Return stems as one line with gaps between them, [3 stems, 3]."""
    return np.stack([tops, feet, np.full_like(tops, np.nan)], axis=1).reshape(-1, 3)
