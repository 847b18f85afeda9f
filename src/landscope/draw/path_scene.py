"""From projected training paths to plain arrays: positions, times, losses, distances, colors.

Values that a path does not have are NaN; nothing is filled in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

from landscope.draw.levels import FloatArray
from landscope.draw.scales import hide_unpaintable, resolve_limits, resolve_scale
from landscope.draw.values import check_labels, list_values
from landscope.errors import DrawError
from landscope.landscape import Landscape

if TYPE_CHECKING:
    import xarray as xr

# Dark red to orange in even steps of CIELAB lightness (16 to 70): each of these colors is at least
# 40 units from every color of viridis, and their order can be read from the lightness alone.
PATH_COLORMAP = LinearSegmentedColormap.from_list(
    "landscope paths",
    ["#55001e", "#700b27", "#8b2030", "#a63438", "#c2483f", "#dc5e46", "#f6744b", "#ff8c4f"],
)
# The colors of Okabe and Ito; those that are also in viridis (blue and green) come last.
_COLORS = ("#D55E00", "#000000", "#56B4E9", "#CC79A7", "#E69F00", "#0072B2", "#009E73")
_LINE_STYLES: tuple[Any, ...] = (
    "-", (0, (4, 1.2)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)), (0, (2, 1)),
)  # fmt: skip
TIMES = ("epoch", "step")
LABELS = {
    "epoch": "epoch",
    "step": "step",
    "checkpoint": "checkpoint",
    "learning_rate": "learning rate",
    "loss": "loss at the checkpoint",
    "projected_loss": "loss at its projection",
    "distance": "distance off the plane",
    "relative_distance": "distance off the plane / distance from the center",
}


class ProjectedPath(Protocol):
    """A training path that was projected onto a slice, as ``ls.paths.project`` returns it."""

    @property
    def data(self) -> xr.Dataset:
        """Variables over the one dim "checkpoint": x, y and any other known columns."""
        ...

    @property
    def name(self) -> str:
        """The name of the path."""
        ...


ProjectedPaths = ProjectedPath | Sequence[ProjectedPath]


@dataclass(frozen=True, eq=False)
class PathScene:
    """A path over a plane, ready to paint."""

    name: str
    x: FloatArray  # [t], NaN where the checkpoint has no finite coordinates
    y: FloatArray  # [t]
    time: FloatArray  # [t], epoch or step where all paths of a picture have it, else 0, 1, 2, ...
    time_label: str  # "epoch" | "step" | "checkpoint"
    epoch: FloatArray  # [t], NaN where it is unknown, as in all columns below
    step: FloatArray  # [t]
    learning_rate: FloatArray  # [t]
    distance: FloatArray  # [t], Euclidean distance off the plane
    relative_distance: FloatArray  # [t], as a share of the distance from the center
    loss: FloatArray  # [t], at the checkpoint itself
    projected_loss: FloatArray  # [t], at its projection onto the plane
    columns: Mapping[str, FloatArray]  # all columns of the path, [t] each
    drops: list[int]  # the first checkpoints after a drop of the learning rate
    color: str  # of this path among several
    line_style: Any  # of this path among several, as matplotlib takes it
    is_single: bool  # whether it is the only path of its picture

    @property
    def finite_indices(self) -> np.ndarray:
        """Indices of the checkpoints with finite coordinates, [finite]."""
        return np.flatnonzero(np.isfinite(self.x) & np.isfinite(self.y))

    @property
    def rates(self) -> FloatArray:
        """Learning rates before the first drop and from each drop on, [drops + 1].

        Empty where the rate rises in between, as in a schedule with restarts.
        """
        known = np.flatnonzero(np.isfinite(self.learning_rate)).tolist()
        before = [k for k in known if k < min(self.drops, default=0)][-1:]
        rates = self.learning_rate[[*before, *self.drops]]
        return rates if (np.diff(rates) < 0).all() else np.empty(0)

    @property
    def percent(self) -> FloatArray:
        """Distances off the plane as percentages of the distances from the center, [t].

        NaN where both are 0, at the center itself.
        """
        at_center = (self.distance == 0) & (self.relative_distance == 0)
        return np.where(at_center, np.nan, 100 * self.relative_distance)

    def read_pair(self, quantity: str) -> tuple[FloatArray, FloatArray]:
        """Return a quantity at the checkpoints and at their projections, [t] each.

        NaN where it is unknown. The training loss of a landscape is the loss of a path.
        """
        name = "loss" if quantity == "train_loss" else quantity
        blank = np.full(self.x.shape, np.nan)
        return self.columns.get(name, blank), self.columns.get(f"projected_{name}", blank)

    @property
    def nonfinite_times(self) -> FloatArray:
        """Times at which a loss was computed and is not finite, [nonfinite]."""
        losses = [self.columns[n] for n in ("loss", "projected_loss") if n in self.columns]
        nonfinite = [~np.isfinite(loss) for loss in losses]
        return self.time[np.any(nonfinite, axis=0)] if nonfinite else np.empty(0)

    @property
    def has_losses(self) -> bool:
        """Whether some loss is known, at a checkpoint or at its projection."""
        return bool(np.isfinite(self.loss).any() or np.isfinite(self.projected_loss).any())


@dataclass(frozen=True, eq=False)
class PathColors:
    """The color scale of a single path."""

    values: FloatArray  # [t], NaN where the scale has no color
    limits: tuple[float, float]
    scale: str  # "log" | "linear"
    label: str

    @property
    def norm(self) -> Normalize:
        """The norm that maps values to [0, 1]."""
        return LogNorm(*self.limits) if self.scale == "log" else Normalize(*self.limits)

    @property
    def segment_values(self) -> FloatArray:
        """Values of the segments between checkpoints, [t - 1]: the midpoints on the scale."""
        first, second = self.values[:-1], self.values[1:]
        return np.sqrt(first * second) if self.scale == "log" else (first + second) / 2


def build_path_scenes(
    paths: ProjectedPaths, labels: Sequence[str] | None = None, land: Landscape | None = None
) -> list[PathScene]:
    """Return paths over a plane as plain arrays, all with the same measure of time.

    Args:
        paths: One path, or several.
        labels: A name for each path. Default: the names of the paths.
        land: The landscape over which they are drawn. Default: none.

    Raises:
        DrawError: When there is no path; when a path is not over a plane, was projected onto
            another plane than that of the landscape, or has no finite coordinates; or when the
            labels do not fit.

    Example:
        >>> [path.time_label for path in build_path_scenes([first, second])]  # doctest: +SKIP
        ['epoch', 'epoch']
    """
    paths = list_values(paths, "path")
    for path in paths:
        _check_type(path)
    defaults = [path.name or f"path {k}" for k, path in enumerate(paths, 1)]
    names = defaults if labels is None else check_labels(labels, len(paths), "path(s)")
    for path, name in zip(paths, names, strict=True):
        _check_coordinates(path, name)
        _check_plane(path, name, land)
    unit = next((t for t in TIMES if all(_never_falls(path, t) for path in paths)), "checkpoint")
    single = len(paths) == 1
    return [_build(path, names[k], unit, k=k, single=single) for k, path in enumerate(paths)]


def build_path_colors(path: PathScene, color: str | None) -> PathColors:
    """Return the color scale of a path by one of its columns; by default by its time.

    Raises:
        DrawError: When the column is unknown, or has no finite value.
    """
    name = color or path.time_label
    columns = {n: getattr(path, n, np.empty(0)) for n in LABELS}
    known = [n for n in LABELS if n == path.time_label or _has_values(columns[n])]
    if name not in known:
        raise DrawError(
            f"color={color!r} is not known for the path {path.name!r}; expected one of"
            f" {', '.join(map(repr, known))}."
        )
    values = path.time if name == path.time_label else columns[name]
    scale = "linear" if name in TIMES else resolve_scale([values], None, name=name)
    shown = hide_unpaintable(values, scale)
    return PathColors(shown, resolve_limits([shown], scale), scale, LABELS[name])


def _check_type(path: object) -> None:
    dims = getattr(getattr(path, "data", None), "dims", ())
    if tuple(dims) != ("checkpoint",):
        raise DrawError(
            f"A {type(path).__name__} was given as a path; expected the result of"
            " ls.paths.project(trajectory, plane, objective)."
        )


def _check_coordinates(path: ProjectedPath, name: str) -> None:
    missing = [n for n in ("x", "y") if n not in path.data]
    if missing or "z" in path.data:
        reason = f"has no variable {missing[0]!r}" if missing else "has a variable 'z'"
        raise DrawError(
            f"The path {name!r} {reason}, so it is not over a plane: project it with"
            " ls.paths.project(..., plane), onto the plane that was scanned."
        )
    if not (np.isfinite(_read_column(path, "x")) & np.isfinite(_read_column(path, "y"))).any():
        raise DrawError(
            f"No checkpoint of the path {name!r} has finite coordinates: there is nothing to draw."
        )


def _check_plane(path: ProjectedPath, name: str, land: Landscape | None) -> None:
    """Refuse a path that was projected onto another plane, where both planes are known."""
    if land is None:
        return
    scanned = json.loads(str(land.data.attrs.get("fingerprints", "{}"))).get("slice")
    plane = path.data.attrs.get("slice")
    if scanned and plane and scanned != plane:
        raise DrawError(
            f"The path {name!r} was projected onto another plane than the one that was scanned:"
            " use one plane for ls.paths.project and for ls.scan."
        )


def _build(path: ProjectedPath, name: str, unit: str, *, k: int, single: bool) -> PathScene:
    # This import loads torch, which a picture without paths does not need.
    from landscope.training.trajectory import drops

    columns = {n: _read_column(path, n) for n in ("x", "y", *LABELS) if n != "checkpoint"}
    count, rates = columns["x"].size, columns["learning_rate"]
    return PathScene(
        name=name,
        time=columns[unit] if unit in TIMES else np.arange(count, dtype=np.float64),
        time_label=unit,
        color=_COLORS[k % len(_COLORS)],
        line_style=_LINE_STYLES[(k + k // len(_COLORS)) % len(_LINE_STYLES)],
        is_single=single,
        columns={str(n): _read_column(path, str(n)) for n in path.data},
        drops=drops(rates.tolist()) if _has_values(rates) else [],
        **columns,
    )


def _read_column(path: ProjectedPath, name: str) -> FloatArray:
    if name not in path.data:
        return np.full(path.data["x"].shape, np.nan)
    return np.asarray(path.data[name].values, dtype=np.float64)


def _never_falls(path: ProjectedPath, name: str) -> bool:
    """Tell whether a time is known at all checkpoints and never decreases."""
    values = _read_column(path, name)
    return bool(np.isfinite(values).all() and (np.diff(values) >= 0).all())


def _has_values(values: FloatArray) -> bool:
    return bool(np.isfinite(values).any())
