"""From recorded paths to plain arrays: places, times, losses, distances, drops, colors.

A *trail* is a path as a renderer gets it. What a path does not know is NaN; nothing is filled in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

from landscope.draw.levels import FloatArray
from landscope.draw.scales import limits_of, paintable, resolve_scale
from landscope.draw.values import as_list, texts_of
from landscope.errors import DrawError
from landscope.landscape import Landscape

if TYPE_CHECKING:
    import xarray as xr

# Dark red to orange in even steps of CIELAB lightness (16 to 70): no color of it comes closer than
# 40 units to one of viridis, and the order can be read from the lightness alone.
EMBER = LinearSegmentedColormap.from_list(
    "ember",
    ["#55001e", "#700b27", "#8b2030", "#a63438", "#c2483f", "#dc5e46", "#f6744b", "#ff8c4f"],
)
# Okabe and Ito's colors; those that viridis holds too (blue and green) come last.
_COLORS = ("#D55E00", "#000000", "#56B4E9", "#CC79A7", "#E69F00", "#0072B2", "#009E73")
_DASHES: tuple[Any, ...] = (
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


class PathOnSlice(Protocol):
    """What a picture needs of a path: ``ls.paths.project`` returns such ones."""

    @property
    def data(self) -> xr.Dataset:
        """Variables over the one dim "checkpoint": x, y and whatever else is known."""
        ...

    @property
    def name(self) -> str:
        """What to call the path."""
        ...


Paths = PathOnSlice | Sequence[PathOnSlice]


@dataclass(frozen=True, eq=False)
class Trail:
    """A path over a plane, ready to paint."""

    name: str
    x: FloatArray  # [t], NaN where the checkpoint has no place
    y: FloatArray  # [t]
    time: FloatArray  # [t], epoch or step where all paths of a picture know it, else 0, 1, 2, ...
    time_label: str  # "epoch" | "step" | "checkpoint"
    epoch: FloatArray  # [t], as all below: NaN where it is not known
    step: FloatArray  # [t]
    learning_rate: FloatArray  # [t]
    distance: FloatArray  # [t], Euclidean, off the plane
    relative_distance: FloatArray  # [t], as a share of the distance from the center
    loss: FloatArray  # [t], at the checkpoint itself
    projected_loss: FloatArray  # [t], at its projection onto the plane
    columns: Mapping[str, FloatArray]  # all that is known of the checkpoints, [t] each
    drops: list[int]  # the first checkpoints after a drop of the learning rate
    color: str  # of this path among several
    dash: Any  # its line style among several, as matplotlib takes it
    alone: bool  # whether it is the only path of its picture

    @property
    def placed(self) -> np.ndarray:
        """Indices of the checkpoints that have a place, [placed]."""
        return np.flatnonzero(np.isfinite(self.x) & np.isfinite(self.y))

    @property
    def rates(self) -> FloatArray:
        """Learning rates before the first drop and from each drop on, [drops + 1].

        None where it rises in between, as in a schedule that begins again.
        """
        known = np.flatnonzero(np.isfinite(self.learning_rate)).tolist()
        before = [k for k in known if k < min(self.drops, default=0)][-1:]
        rates = self.learning_rate[[*before, *self.drops]]
        return rates if (np.diff(rates) < 0).all() else np.empty(0)

    @property
    def percent(self) -> FloatArray:
        """Distances off the plane in percent of those from the center, [t].

        NaN where both are 0: at the center itself there is no share.
        """
        return np.where(
            (self.distance == 0) & (self.relative_distance == 0),
            np.nan,
            100 * self.relative_distance,
        )

    def heights(self, quantity: str) -> tuple[FloatArray, FloatArray]:
        """Return a quantity at the checkpoints and at their projections, [t] each.

        NaN where it is not known. What a landscape calls the training loss, a path calls the loss.
        """
        name = "loss" if quantity == "train_loss" else quantity
        blank = np.full(self.x.shape, np.nan)
        return self.columns.get(name, blank), self.columns.get(f"projected_{name}", blank)

    @property
    def lost(self) -> FloatArray:
        """Times at which a loss was looked for and is not finite, [lost]."""
        known = [self.columns[n] for n in ("loss", "projected_loss") if n in self.columns]
        odd = [~np.isfinite(column) for column in known]
        return self.time[np.any(odd, axis=0)] if odd else np.empty(0)

    @property
    def has_losses(self) -> bool:
        """Whether some loss is known, at a checkpoint or at its projection."""
        return bool(np.isfinite(self.loss).any() or np.isfinite(self.projected_loss).any())


@dataclass(frozen=True, eq=False)
class Shade:
    """The color scale of one path."""

    values: FloatArray  # [t], NaN where there is no color on this scale
    limits: tuple[float, float]
    scale: str  # "log" | "linear"
    label: str

    @property
    def norm(self) -> Normalize:
        """What maps values to [0, 1]."""
        return LogNorm(*self.limits) if self.scale == "log" else Normalize(*self.limits)

    @property
    def between(self) -> FloatArray:
        """What colors the way between two checkpoints, [t - 1]: the middle on the scale."""
        first, second = self.values[:-1], self.values[1:]
        return np.sqrt(first * second) if self.scale == "log" else (first + second) / 2


def trails_of(
    paths: Paths, labels: Sequence[str] | None = None, land: Landscape | None = None
) -> list[Trail]:
    """Return paths over a plane as plain arrays, all with one measure of time.

    Args:
        paths: one path, or several.
        labels: a name for each. Default: their own.
        land: the landscape over which they are drawn. Default: none.

    Raises:
        DrawError: when there is no path, one is not over a plane, is over another plane than the
            landscape or has no finite place, or the labels do not fit.

    Example:
        >>> [trail.time_label for trail in trails_of([first, second])]  # doctest: +SKIP
        ['epoch', 'epoch']
    """
    listed = as_list(paths, "path")
    odd = next((one for one in listed if not _is_path(one)), listed)
    if odd is not listed:
        raise DrawError(
            f"A {type(odd).__name__} was given for a path; expected what"
            " ls.paths.project(trajectory, plane, objective) returned."
        )
    own = [path.name or f"path {k}" for k, path in enumerate(listed, 1)]
    names = own if labels is None else texts_of(labels, len(listed), "path(s)")
    for path, name in zip(listed, names, strict=True):
        _check(path, name)
        _check_ground(path, name, land)
    unit = next((t for t in TIMES if all(_rises(path, t) for path in listed)), "checkpoint")
    return [
        _trail(path, names[k], unit, k=k, alone=len(listed) == 1) for k, path in enumerate(listed)
    ]


def shade_of(trail: Trail, color: str | None) -> Shade:
    """Return what colors a path: a variable of it, by default its time.

    Raises:
        DrawError: when the variable is not known, here or anywhere.
    """
    name = color or trail.time_label
    known = [n for n in LABELS if n == trail.time_label or _finite(getattr(trail, n, np.empty(0)))]
    if name not in known:
        raise DrawError(
            f"color={color!r} is not known of the path {trail.name!r}; expected one of"
            f" {', '.join(map(repr, known))}."
        )
    values = trail.time if name == trail.time_label else getattr(trail, name)
    scale = "linear" if name in TIMES else resolve_scale([values], None, name=name)
    shown = paintable(values, scale)
    return Shade(shown, limits_of([shown], scale), scale, LABELS[name])


def _is_path(one: object) -> bool:
    dims = getattr(getattr(one, "data", None), "dims", ())
    return tuple(dims) == ("checkpoint",)


def _check(path: PathOnSlice, name: str) -> None:
    lacking = [n for n in ("x", "y") if n not in path.data]
    if lacking or "z" in path.data:
        what = f"has no variable {lacking[0]!r}" if lacking else "has a variable 'z'"
        raise DrawError(
            f"The path {name!r} {what}, so it is not over a plane: project it with"
            " ls.paths.project(..., plane), onto the plane that was scanned."
        )
    if not (np.isfinite(_column(path, "x")) & np.isfinite(_column(path, "y"))).any():
        raise DrawError(
            f"No checkpoint of the path {name!r} has finite coordinates: there is nothing to draw."
        )


def _check_ground(path: PathOnSlice, name: str, land: Landscape | None) -> None:
    """Refuse a path that was projected onto another plane, where both planes are known."""
    if land is None:
        return
    scanned = json.loads(str(land.data.attrs.get("fingerprints", "{}"))).get("slice")
    own = path.data.attrs.get("slice")
    if scanned and own and scanned != own:
        raise DrawError(
            f"The path {name!r} was projected onto another plane than the one that was scanned:"
            " use one plane for ls.paths.project and for ls.scan."
        )


def _trail(path: PathOnSlice, name: str, unit: str, *, k: int, alone: bool) -> Trail:
    # It loads torch, which a picture without paths does not need.
    from landscope.training.trajectory import drops

    known = {n: _column(path, n) for n in ("x", "y", *LABELS) if n != "checkpoint"}
    count, rates = known["x"].size, known["learning_rate"]
    return Trail(
        name=name,
        time=known[unit] if unit in TIMES else np.arange(count, dtype=np.float64),
        time_label=unit,
        color=_COLORS[k % len(_COLORS)],
        dash=_DASHES[(k + k // len(_COLORS)) % len(_DASHES)],
        alone=alone,
        columns={str(n): _column(path, str(n)) for n in path.data},
        drops=drops(rates.tolist()) if _finite(rates) else [],
        **known,
    )


def _column(path: PathOnSlice, name: str) -> FloatArray:
    if name not in path.data:
        return np.full(path.data["x"].shape, np.nan)
    return np.asarray(path.data[name].values, dtype=np.float64)


def _rises(path: PathOnSlice, name: str) -> bool:
    """Tell whether a time is known at all checkpoints and never goes back."""
    values = _column(path, name)
    return bool(np.isfinite(values).all() and (np.diff(values) >= 0).all())


def _finite(values: FloatArray) -> bool:
    return bool(np.isfinite(values).any())
