"""Splines: a surface predicted from its values in some cells, and how far it may be off.

Values are interpolated by radial-basis functions, and how far a prediction may be off is learned
from the points themselves: each is predicted from all the others (leave-one-out).

Sources: polyharmonic splines (Duchon 1977; Wendland, *Scattered Data Approximation*, 2005, chapters
8 and 11 for the power function); leave-one-out residuals in closed form (Dubrule 1983; Rippa 1999);
choosing points greedily by the power function (De Marchi, Schaback, Wendland 2005) scaled by local
residuals; an extra coordinate that stretches space (variably scaled kernels, Bozzini, Lenarduzzi,
Rossini, Schaback 2015).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

# Radial stretches to choose from: how much faster a surface changes away from the center than
# around it. Losses are near to homogeneous along rays, so that most need 0.5 to 1.5.
_STRETCHES = (0.0, 0.5, 1.0, 1.5)
# Cubic splines bear kinks, quintic ones gain on smooth surfaces. Points are dense where a surface
# is rough, so that residuals speak for the cubic more than the cells do: it must win clearly.
_HANDICAP = {3: 1.2, 5: 1.0}
_COMMITTEE = 3  # runners-up whose disagreement with the best counts as doubt
_DOUBT = 2.0  # its weight; 0.5 to 4 did equally well on digits networks
_NEIGHBORS = 8  # residuals that tell the roughness of a place; 5 to 16 did equally well
_SELECT = 500  # points by which spline and stretch are chosen
LIMIT = 1500  # points of a spline: beyond, its cubic cost would outweigh what it saves
_ROWS = 4096  # cells predicted at a time: bounds the memory


@dataclass(frozen=True)
class Lattice:
    """The cells of a grid, x running fastest, in a space where each axis runs from -1 to 1.

    Args:
        shape: points an axis, x first.
        center: where the coordinates of the grid are 0.
    """

    shape: tuple[int, ...]
    center: tuple[float, ...]

    @property
    def count(self) -> int:
        """How many cells there are."""
        return math.prod(self.shape)

    @property
    def places(self) -> np.ndarray:
        """Where they are, [cells, axes]; axes of one point are left out."""
        return _places(self.shape)

    def nearest(self, at: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Return which of some points is nearest to each cell, counted in steps of the grid."""
        from scipy.spatial import cKDTree

        steps = np.stack(np.unravel_index(np.arange(self.count), self.shape[::-1]), axis=1)
        found = cKDTree(steps[at].astype(float)).query(steps[cells].astype(float))[1]
        return cast(np.ndarray, found)


class Told:
    """What some values tell of a surface; ``surface`` is None when it is too little.

    Args:
        lattice: the cells.
        at: cells whose values are known, [points].
        losses: their values, [points]; those that are not finite are holes.
        log: predict the logarithm, if all finite values are positive; else the share of their
            range.
        predict: whether a surface is wanted at all.
    """

    def __init__(
        self,
        lattice: Lattice,
        at: np.ndarray,
        losses: np.ndarray,
        *,
        log: bool,
        predict: bool = True,
    ) -> None:
        self.lattice, self.at = lattice, at
        self.holes = ~np.isfinite(losses)
        finite = losses[~self.holes]
        self.log = log and bool((finite > 0).all())
        self.spread = 1.0
        if not self.log and len(finite):
            self.spread = float(finite.max() - finite.min()) or 1.0
        self.targets = np.log(finite) if self.log else finite / self.spread
        self.surface = _surface(lattice, at[~self.holes], self.targets) if predict else None

    def beyond(self, cells: np.ndarray) -> np.ndarray:
        """Return whether the nearest evaluated point of each cell is a hole."""
        if not self.holes.any():
            return np.zeros(len(cells), dtype=bool)
        return np.asarray(self.holes[self.lattice.nearest(self.at, cells)])


class Surface:
    """A predicted surface: the best spline, and how far it may be off."""

    def __init__(
        self, best: Spline, others: list[Spline], power: Spline, targets: np.ndarray
    ) -> None:
        self.best, self.others, self.power = best, others, power
        self.weights = best.through(targets)
        self.other_weights = [s.through(targets) for s in others]
        self.power_weights = power.through(targets)
        self.standard = power.residuals(self.power_weights) ** 2 / power.powers
        self.ratios = self._own_ratios()

    def predict(self, cells: np.ndarray) -> np.ndarray:
        """Return the values of the best spline in some cells."""
        return self.best.predict(cells, self.weights)

    def bars(self, cells: np.ndarray) -> np.ndarray:
        """Return the estimated error before it is scaled to cover 95%."""
        return _chunked(cells, self._bars)

    def forecast(self, cell: int) -> tuple[float, float]:
        """Return prediction and bar of one cell."""
        cells = np.array([cell])
        return float(self.predict(cells)[0]), float(self.bars(cells)[0])

    def _bars(self, cells: np.ndarray) -> np.ndarray:
        rows = self.power.rows(cells)
        squared = np.abs(((rows @ self.power.inverse) * rows).sum(1))
        doubt = np.zeros(len(cells))
        if self.others:
            mean = self.best.rows(cells) @ self.weights
            pairs = zip(self.others, self.other_weights, strict=True)
            doubt = np.mean([(s.rows(cells) @ w - mean) ** 2 for s, w in pairs], axis=0)
        tiny = 0.05 * np.median(self.power.powers)  # doubt fades where points are close
        rough = self._roughness(cells) + _DOUBT * doubt / (squared + tiny + 1e-300)
        return cast(np.ndarray, np.sqrt(rough * squared))

    def _roughness(self, cells: np.ndarray) -> np.ndarray:
        distances, who = self._neighbors(cells, min(_NEIGHBORS, len(self.standard)))
        return self._averaged(distances, who)

    def _own_ratios(self) -> np.ndarray:
        """Return residual over bar for each point, its own residual left out of the bar."""
        n = len(self.standard)
        distances, who = self._neighbors(self.best.at, min(_NEIGHBORS + 1, n))
        rough = self._averaged(distances[:, 1:], who[:, 1:])
        bars = np.sqrt(rough * self.power.powers)
        residuals = np.abs(self.best.residuals(self.weights))
        return cast(np.ndarray, residuals / np.maximum(bars, 1e-300))

    def _averaged(self, distances: np.ndarray, who: np.ndarray) -> np.ndarray:
        """Return the mean square of standard residuals near by, one share of it the overall."""
        near = 1.0 / (distances**2 + 0.04**2)
        share = near.mean(axis=1)
        total = (self.standard[who] * near).sum(axis=1) + self.standard.mean() * share
        return cast(np.ndarray, total / (near.sum(axis=1) + share))

    def _neighbors(self, cells: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        from scipy.spatial import cKDTree

        axes = self.best.space.shape[1] - (1 if self.best.stretch else 0)
        places = self.best.space[:, :axes]
        found = cKDTree(places[self.best.at]).query(places[cells], k=list(range(1, count + 1)))
        return found[0], found[1]

    def greedy(
        self, cells: np.ndarray, bars: np.ndarray, count: int, taken: Sequence[int]
    ) -> list[int]:
        """Return the cells of the largest error, each chosen as if those before were known.

        A chosen cell lowers the power function of all others by its column of the covariance.
        """
        rows = self.power.rows(cells)
        solved = rows @ self.power.inverse
        start = np.abs((solved * rows).sum(1))
        left, rough = start.copy(), bars**2 / np.maximum(start, 1e-300)
        free = ~np.isin(cells, taken)
        chosen: list[int] = []
        columns: list[tuple[np.ndarray, float]] = []
        for _ in range(min(count, int(free.sum()))):
            k = int(np.argmax(np.where(free, rough * left, -1.0)))
            column = self.power.kernel(cells, cells[k : k + 1])[:, 0] - solved @ rows[k]
            for other, pivot in columns:
                column = column - other * (other[k] / pivot)
            pivot = float(column[k])
            free[k] = False
            chosen.append(int(cells[k]))
            if pivot:
                columns.append((column, pivot))
                left = np.maximum(left - np.abs(column * column / pivot), 0.0)
        return chosen


class Spline:
    """A polyharmonic spline through some cells, with its leave-one-out residuals.

    With A = [[K, P], [P', 0]] of kernel and polynomial, s = [k, p] A^-1 [y, 0]; the residual of a
    point left out is c_i / (A^-1)_ii, and 1 / (A^-1)_ii is its power function squared (Rippa 1999).
    """

    def __init__(self, lattice: Lattice, at: np.ndarray, stretch: float, power: int) -> None:
        self.at, self.stretch, self.power = at, stretch, power
        self.space, self.trend = _space(lattice, stretch)
        nodes, trend = self.space[at], self.trend[at]
        n, m = trend.shape
        if n <= m or np.linalg.matrix_rank(trend) < m:
            raise np.linalg.LinAlgError
        matrix = np.zeros((n + m, n + m))
        matrix[:n, :n] = self._kernel(nodes, nodes)
        matrix[:n, n:], matrix[n:, :n] = trend, trend.T
        self.inverse = np.linalg.inv(matrix)
        with np.errstate(divide="ignore"):  # infinite where the others do not determine the trend
            self.powers = 1.0 / np.abs(np.diag(self.inverse)[:n])  # squared

    def through(self, targets: np.ndarray) -> np.ndarray:
        """Return the weights [points + trend, ...] that pass through targets [points, ...]."""
        weights = self.inverse[:, : len(self.at)] @ targets
        off = np.abs(self.rows(self.at) @ weights - targets).max()
        if not off <= 1e-3 * np.ptp(targets) + 1e-9 * np.abs(targets).max() + 1e-300:
            raise np.linalg.LinAlgError  # too close to singular to be believed
        return cast(np.ndarray, weights)

    def predict(self, cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the values in some cells of the spline with these weights."""
        return _chunked(cells, lambda part: self.rows(part) @ weights)

    def residuals(self, weights: np.ndarray) -> np.ndarray:
        """Return value minus prediction of each point, itself left out, [points]."""
        n = len(self.at)
        return cast(np.ndarray, weights[:n] / np.diag(self.inverse)[:n])

    def rows(self, cells: np.ndarray) -> np.ndarray:
        """Return what weights are multiplied by to predict some cells, [cells, points + trend]."""
        return np.hstack([self.kernel(cells, self.at), self.trend[cells]])

    def kernel(self, cells: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the kernel between cells, [cells, others]."""
        return self._kernel(self.space[cells], self.space[others])

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2.0 * a @ b.T
        np.maximum(squared, 0.0, out=squared)
        if self.power == 3:
            return cast(np.ndarray, squared * np.sqrt(squared))
        return cast(np.ndarray, -squared * squared * np.sqrt(squared))


def _surface(lattice: Lattice, at: np.ndarray, targets: np.ndarray) -> Surface | None:
    """Return the surface through some points; None when they are too few for any."""
    ranks = _ranks(lattice, at[:_SELECT].tobytes(), targets[:_SELECT].tobytes())
    try:
        ranked = [Spline(lattice, at, *r) for r in ranks[: 1 + _COMMITTEE]]
        if not ranked:
            return None
        best, cubic = ranked[0], (ranks[0][0], 3)
        same = [s for s in ranked if (s.stretch, s.power) == cubic]
        power = same[0] if same else Spline(lattice, at, *cubic)
        return Surface(best, ranked[1:], power, targets)
    except np.linalg.LinAlgError:
        return None


@functools.lru_cache(maxsize=64)
def _ranks(lattice: Lattice, at: bytes, targets: bytes) -> tuple[tuple[float, int], ...]:
    """Return (stretch, power), best first, by how well points are predicted from the others."""
    points, values = np.frombuffer(at, dtype=np.int64), np.frombuffer(targets)
    scored: list[tuple[float, int, tuple[float, int]]] = []
    for stretch, (power, handicap) in itertools.product(_STRETCHES, _HANDICAP.items()):
        try:
            spline = Spline(lattice, points, stretch, power)
            residuals = spline.residuals(spline.through(values))
        except np.linalg.LinAlgError:
            continue
        score = float(f"{np.abs(residuals).mean() * handicap:.6g}")  # rounded: ties stay ties
        scored.append((score, len(scored), (stretch, power)))
    return tuple(choice for _, _, choice in sorted(scored))


def _chunked(cells: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    parts = [function(cells[k : k + _ROWS]) for k in range(0, len(cells), _ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0)


@functools.lru_cache(maxsize=8)
def _places(shape: tuple[int, ...]) -> np.ndarray:
    """Return [cells, axes] with each axis from -1 to 1; axes of one point are left out."""
    lines = [np.linspace(-1.0, 1.0, n) for n in shape]
    grids = np.meshgrid(*lines[::-1], indexing="ij")[::-1]
    kept = [g.ravel() for g, n in zip(grids, shape, strict=True) if n > 1]
    return np.stack(kept, axis=1) if kept else np.zeros((1, 0))


@functools.lru_cache(maxsize=16)
def _cone(lattice: Lattice) -> np.ndarray:
    """Return the distance of each cell from the center."""
    zero = [c for c, n in zip(lattice.center, lattice.shape, strict=True) if n > 1]
    return cast(np.ndarray, np.sqrt(((lattice.places - zero) ** 2).sum(1)))


def _space(lattice: Lattice, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates [cells, axes + 1] and trend [cells, ...] of a radial stretch."""
    places = lattice.places
    space = np.column_stack([places, stretch * _cone(lattice)]) if stretch else places
    return space, np.column_stack([np.ones(len(space)), space])
