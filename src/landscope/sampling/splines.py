"""Splines: a surface that is predicted from its values in some cells, with an error estimate.

Values are interpolated by radial-basis functions. The error of a prediction is estimated from the
points themselves: each is predicted from all the others (leave-one-out).

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

# Radial stretches to choose from: how much faster a surface changes far from the center than near
# it. Losses are nearly homogeneous along rays, so most surfaces need 0.5 to 1.5.
_STRETCHES = (0.0, 0.5, 1.0, 1.5)
# Exponent -> factor of its residuals. Cubic splines tolerate kinks, quintic ones are better on
# smooth surfaces. Points are dense where a surface is rough, so residuals favor the cubic spline
# more than the cells do: it must win clearly.
_PENALTY = {3: 1.2, 5: 1.0}
_RUNNERS_UP = 3  # next-best splines: disagreement with the best is a part of the error estimate
_DISAGREEMENT_WEIGHT = 2.0  # 0.5 to 4 did equally well on digits networks
_NEIGHBORS = 8  # residuals from which local roughness is averaged; 5 to 16 did equally well
_SELECT = 500  # exponent and stretch are chosen by this many of the points
LIMIT = 1500  # points of a spline: with more, its cubic cost would outweigh what it saves
_ROWS = 4096  # cells that are predicted at a time, to limit the memory


@dataclass(frozen=True)
class Lattice:
    """The cells of a grid, x running fastest, in a space where each axis runs from -1 to 1.

    Args:
        shape: The number of points along each axis, x first.
        center: The position of the grid's origin in this space.
    """

    shape: tuple[int, ...]
    center: tuple[float, ...]

    @property
    def count(self) -> int:
        """The number of cells."""
        return math.prod(self.shape)

    @property
    def coordinates(self) -> np.ndarray:
        """The coordinates of the cells, [cells, axes]; axes of one point are left out."""
        return _cell_coordinates(self.shape)

    def nearest(self, at: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Return, for each cell, the index in ``at`` of the nearest point, measured in grid steps.

        Args:
            at: The cells that are points, shape (points,).
            cells: The cells, shape (cells,).
        """
        from scipy.spatial import cKDTree

        steps = np.stack(np.unravel_index(np.arange(self.count), self.shape[::-1]), axis=1)
        nearest = cKDTree(steps[at].astype(float)).query(steps[cells].astype(float))[1]
        return cast(np.ndarray, nearest)


class Observations:
    """Evaluated points, and the ``surface`` through them, None when they are too few for one.

    Args:
        lattice: The cells.
        at: The cells that were evaluated, shape (points,).
        losses: Their values, shape (points,); values that are not finite are holes.
        log: Predict the logarithm if all finite values are positive; else the values divided by
            their range.
        predict: Whether a surface is needed.
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
        self.divisor = 1.0
        if not self.log and len(finite):
            self.divisor = float(finite.max() - finite.min()) or 1.0
        self.targets = np.log(finite) if self.log else finite / self.divisor
        self.surface = _fit_surface(lattice, at[~self.holes], self.targets) if predict else None

    def are_near_holes(self, cells: np.ndarray) -> np.ndarray:
        """Return whether the nearest evaluated point of each cell is a hole."""
        if not self.holes.any():
            return np.zeros(len(cells), dtype=bool)
        return np.asarray(self.holes[self.lattice.nearest(self.at, cells)])


class Surface:
    """A predicted surface with an error estimate.

    Args:
        best: The spline that predicts.
        runners_up: Splines whose disagreement with the best is a part of the error estimate.
        error_spline: The spline whose power function is the other part, see :class:`Spline`.
        targets: The values at the points, shape (points,).
    """

    def __init__(
        self, best: Spline, runners_up: list[Spline], error_spline: Spline, targets: np.ndarray
    ) -> None:
        self.best, self.runners_up, self.error_spline = best, runners_up, error_spline
        self.weights = best.fit(targets)
        self.runner_up_weights = [s.fit(targets) for s in runners_up]
        error_weights = error_spline.fit(targets)
        residuals = error_spline.residuals(error_weights)
        self.standardized_squares = residuals**2 / error_spline.squared_power
        self.ratios = self._leave_one_out_ratios()

    def predict(self, cells: np.ndarray) -> np.ndarray:
        """Return the values of the best spline in some cells, shape (cells,)."""
        return self.best.predict(cells, self.weights)

    def bars(self, cells: np.ndarray) -> np.ndarray:
        """Return the estimated error, before it is scaled to cover 95%, shape (cells,)."""
        return _apply_in_chunks(cells, self._bars)

    def forecast(self, cell: int) -> tuple[float, float]:
        """Return the prediction and the error bar of one cell."""
        cells = np.array([cell])
        return float(self.predict(cells)[0]), float(self.bars(cells)[0])

    def _bars(self, cells: np.ndarray) -> np.ndarray:
        rows = self.error_spline.rows(cells)
        squared = np.abs(((rows @ self.error_spline.inverse) * rows).sum(1))
        disagreement = np.zeros(len(cells))
        if self.runners_up:
            best = self.best.rows(cells) @ self.weights
            pairs = zip(self.runners_up, self.runner_up_weights, strict=True)
            disagreement = np.mean([(s.rows(cells) @ w - best) ** 2 for s, w in pairs], axis=0)
        # Near the points ``squared`` is small: there the disagreement must count less.
        damping = 0.05 * np.median(self.error_spline.squared_power)
        rough = self._roughness(cells) + _DISAGREEMENT_WEIGHT * disagreement / (
            squared + damping + 1e-300
        )
        return cast(np.ndarray, np.sqrt(rough * squared))

    def _roughness(self, cells: np.ndarray) -> np.ndarray:
        distances, indices = self._neighbors(cells, min(_NEIGHBORS, len(self.standardized_squares)))
        return self._average_nearby(distances, indices)

    def _leave_one_out_ratios(self) -> np.ndarray:
        """Return |residual| / error bar of each point; the bar does not use that residual."""
        n = len(self.standardized_squares)
        distances, indices = self._neighbors(self.best.at, min(_NEIGHBORS + 1, n))
        rough = self._average_nearby(distances[:, 1:], indices[:, 1:])
        bars = np.sqrt(rough * self.error_spline.squared_power)
        residuals = np.abs(self.best.residuals(self.weights))
        return cast(np.ndarray, residuals / np.maximum(bars, 1e-300))

    def _average_nearby(self, distances: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Return the mean of squared standardized residuals of the neighbors and of all points."""
        squares = self.standardized_squares
        weights = 1.0 / (distances**2 + 0.04**2)
        weight_of_all = weights.mean(axis=1)
        total = (squares[indices] * weights).sum(axis=1) + squares.mean() * weight_of_all
        return cast(np.ndarray, total / (weights.sum(axis=1) + weight_of_all))

    def _neighbors(self, cells: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        from scipy.spatial import cKDTree

        axes = self.best.space.shape[1] - (1 if self.best.stretch else 0)
        coordinates = self.best.space[:, :axes]
        tree = cKDTree(coordinates[self.best.at])
        distances, indices = tree.query(coordinates[cells], k=list(range(1, count + 1)))
        return distances, indices

    def greedy(
        self, cells: np.ndarray, bars: np.ndarray, count: int, excluded: Sequence[int]
    ) -> list[int]:
        """Return the cells of the largest error, each chosen as if the ones before were evaluated.

        A chosen cell lowers the power function of all others by its column of the covariance.

        Args:
            cells: The candidates, shape (cells,).
            bars: Their error bars, shape (cells,).
            count: The number of cells to choose.
            excluded: Cells that are chosen already.
        """
        rows = self.error_spline.rows(cells)
        solved = rows @ self.error_spline.inverse
        start = np.abs((solved * rows).sum(1))
        remaining, roughness = start.copy(), bars**2 / np.maximum(start, 1e-300)
        free = ~np.isin(cells, excluded)
        chosen: list[int] = []
        columns: list[tuple[np.ndarray, float]] = []
        for _ in range(min(count, int(free.sum()))):
            k = int(np.argmax(np.where(free, roughness * remaining, -1.0)))
            column = self.error_spline.kernel(cells, cells[k : k + 1])[:, 0] - solved @ rows[k]
            for earlier, pivot in columns:
                column = column - earlier * (earlier[k] / pivot)
            pivot = float(column[k])
            free[k] = False
            chosen.append(int(cells[k]))
            if pivot:
                columns.append((column, pivot))
                remaining = np.maximum(remaining - np.abs(column * column / pivot), 0.0)
        return chosen


class Spline:
    """A polyharmonic spline through some cells, with its leave-one-out residuals.

    With A = [[K, P], [P', 0]] of kernel and polynomial, s = [k, p] c with c = A^-1 [y, 0]. The
    residual of a point that is left out is c_i / (A^-1)_ii, and 1 / (A^-1)_ii is the square of its
    power function, which bounds the error for a function of norm 1 (Rippa 1999).

    Args:
        lattice: The cells.
        at: The cells that are interpolated, shape (points,).
        stretch: The radial stretch of space.
        exponent: 3 or 5: the kernel is r^3 or -r^5.

    Raises:
        LinAlgError: When the points do not determine the spline.
    """

    def __init__(self, lattice: Lattice, at: np.ndarray, stretch: float, exponent: int) -> None:
        self.at, self.stretch, self.exponent = at, stretch, exponent
        self.space, self.trend = _stretched_space(lattice, stretch)
        nodes, trend = self.space[at], self.trend[at]
        n, m = trend.shape
        if n <= m or np.linalg.matrix_rank(trend) < m:
            raise np.linalg.LinAlgError
        matrix = np.zeros((n + m, n + m))
        matrix[:n, :n] = self._kernel(nodes, nodes)
        matrix[:n, n:], matrix[n:, :n] = trend, trend.T
        self.inverse = np.linalg.inv(matrix)
        # Infinite where the other points do not determine the trend.
        with np.errstate(divide="ignore"):
            self.squared_power = 1.0 / np.abs(np.diag(self.inverse)[:n])

    def fit(self, targets: np.ndarray) -> np.ndarray:
        """Return the weights [points + trend, ...] that pass through targets [points, ...]."""
        weights = self.inverse[:, : len(self.at)] @ targets
        error = np.abs(self.rows(self.at) @ weights - targets).max()
        if not error <= 1e-3 * np.ptp(targets) + 1e-9 * np.abs(targets).max() + 1e-300:
            raise np.linalg.LinAlgError  # the matrix is too close to singular
        return cast(np.ndarray, weights)

    def predict(self, cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the values in some cells of the spline with these weights."""
        return _apply_in_chunks(cells, lambda part: self.rows(part) @ weights)

    def residuals(self, weights: np.ndarray) -> np.ndarray:
        """Return, for each point, its value - its prediction from all others, shape (points,)."""
        n = len(self.at)
        return cast(np.ndarray, weights[:n] / np.diag(self.inverse)[:n])

    def rows(self, cells: np.ndarray) -> np.ndarray:
        """Return the matrix that maps weights to predictions, shape (cells, points + trend)."""
        return np.hstack([self.kernel(cells, self.at), self.trend[cells]])

    def kernel(self, cells: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the kernel between cells, shape (cells, columns)."""
        return self._kernel(self.space[cells], self.space[columns])

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2.0 * a @ b.T
        np.maximum(squared, 0.0, out=squared)
        if self.exponent == 3:
            return cast(np.ndarray, squared * np.sqrt(squared))
        return cast(np.ndarray, -squared * squared * np.sqrt(squared))


def _fit_surface(lattice: Lattice, at: np.ndarray, targets: np.ndarray) -> Surface | None:
    """Return the surface through some points; None when they are too few for one."""
    ranks = _rank_splines(lattice, at[:_SELECT].tobytes(), targets[:_SELECT].tobytes())
    try:
        ranked = [Spline(lattice, at, *r) for r in ranks[: 1 + _RUNNERS_UP]]
        if not ranked:
            return None
        best, cubic = ranked[0], (ranks[0][0], 3)
        same = [s for s in ranked if (s.stretch, s.exponent) == cubic]
        error_spline = same[0] if same else Spline(lattice, at, *cubic)
        return Surface(best, ranked[1:], error_spline, targets)
    except np.linalg.LinAlgError:
        return None


@functools.lru_cache(maxsize=64)
def _rank_splines(lattice: Lattice, at: bytes, targets: bytes) -> tuple[tuple[float, int], ...]:
    """Return (stretch, exponent), best first, by their leave-one-out residuals."""
    points, values = np.frombuffer(at, dtype=np.int64), np.frombuffer(targets)
    scored: list[tuple[float, int, tuple[float, int]]] = []
    for stretch, (exponent, penalty) in itertools.product(_STRETCHES, _PENALTY.items()):
        try:
            spline = Spline(lattice, points, stretch, exponent)
            residuals = spline.residuals(spline.fit(values))
        except np.linalg.LinAlgError:
            continue
        score = float(f"{np.abs(residuals).mean() * penalty:.6g}")  # rounded: ties stay ties
        scored.append((score, len(scored), (stretch, exponent)))
    return tuple(choice for _, _, choice in sorted(scored))


def _apply_in_chunks(cells: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the values of a function of cells, computed for some of them at a time."""
    parts = [function(cells[k : k + _ROWS]) for k in range(0, len(cells), _ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0)


@functools.lru_cache(maxsize=8)
def _cell_coordinates(shape: tuple[int, ...]) -> np.ndarray:
    """Return [cells, axes] with each axis from -1 to 1; axes of one point are left out."""
    lines = [np.linspace(-1.0, 1.0, n) for n in shape]
    grids = np.meshgrid(*lines[::-1], indexing="ij")[::-1]
    columns = [g.ravel() for g, n in zip(grids, shape, strict=True) if n > 1]
    return np.stack(columns, axis=1) if columns else np.zeros((1, 0))


@functools.lru_cache(maxsize=16)
def _radius(lattice: Lattice) -> np.ndarray:
    """Return the distance of each cell from the center."""
    zero = [c for c, n in zip(lattice.center, lattice.shape, strict=True) if n > 1]
    return cast(np.ndarray, np.sqrt(((lattice.coordinates - zero) ** 2).sum(1)))


def _stretched_space(lattice: Lattice, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates [cells, axes + 1] and trend [cells, ...] of radially stretched space."""
    flat = lattice.coordinates
    space = np.column_stack([flat, stretch * _radius(lattice)]) if stretch else flat
    return space, np.column_stack([np.ones(len(space)), space])
