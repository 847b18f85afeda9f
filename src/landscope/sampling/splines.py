"""Splines through the values of some cells of a lattice, with their leave-one-out residuals.

Values are interpolated, or smoothed, by radial-basis functions. The error of a prediction is
estimated from the points themselves: each is predicted from all the others (leave-one-out).

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
from collections.abc import Callable, Iterator
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
LIMIT = 1500  # points of a spline: with more, its cubic cost would outweigh what it saves
# Multiples of the noise by which a spline may smooth: the noise is that of the cubic spline.
_MULTIPLES = (1.0, 4.0, 16.0)
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

    @property
    def steps(self) -> np.ndarray:
        """The coordinates of the cells in grid steps, float64 [cells, axes], x last."""
        return _cell_steps(self.shape)

    def nearest(self, at: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Return, for each cell, the index in ``at`` of the nearest point, measured in grid steps.

        Args:
            at: The cells that are points, shape (points,).
            cells: The cells, shape (cells,).
        """
        from scipy.spatial import cKDTree

        return cast(np.ndarray, cKDTree(self.steps[at]).query(self.steps[cells])[1])


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
        nugget: The variance of the noise of the values, in the units of the squared power
            function. It is added to the diagonal of K; the spline then smooths.

    Raises:
        LinAlgError: When the points do not determine the spline.
    """

    def __init__(
        self, lattice: Lattice, at: np.ndarray, stretch: float, exponent: int, nugget: float = 0.0
    ) -> None:
        self.at, self.stretch, self.exponent, self.nugget = at, stretch, exponent, nugget
        self.steps = lattice.steps
        self.space, self.trend = _stretched_space(lattice, stretch)
        nodes, trend = self.space[at], self.trend[at]
        n, m = trend.shape
        if n <= m or np.linalg.matrix_rank(trend) < m:
            raise np.linalg.LinAlgError
        matrix = np.zeros((n + m, n + m))
        matrix[:n, :n] = self._kernel(nodes, nodes) + nugget * np.eye(n)
        matrix[:n, n:], matrix[n:, :n] = trend, trend.T
        self.inverse = np.linalg.inv(matrix)
        # Infinite where the other points do not determine the trend.
        with np.errstate(divide="ignore"):
            self.squared_power = 1.0 / np.abs(np.diag(self.inverse)[:n])

    @property
    def median_power(self) -> float:
        """The median of the squared power function of the points."""
        return float(np.median(self.squared_power))

    def fit(self, targets: np.ndarray) -> np.ndarray:
        """Return the weights [points + trend, ...] for targets [points, ...]."""
        n = len(self.at)
        weights = self.inverse[:, :n] @ targets
        error = np.abs(self.rows(self.at) @ weights + self.nugget * weights[:n] - targets).max()
        if not error <= 1e-3 * np.ptp(targets) + 1e-9 * np.abs(targets).max() + 1e-300:
            raise np.linalg.LinAlgError  # the matrix is too close to singular
        return cast(np.ndarray, weights)

    def predict(self, cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the values in some cells of the spline with these weights."""
        return apply_in_chunks(cells, lambda part: self.rows(part) @ weights)

    def residuals(self, weights: np.ndarray) -> np.ndarray:
        """Return, for each point, its value - its prediction from all others, shape (points,)."""
        n = len(self.at)
        return cast(np.ndarray, weights[:n] / np.diag(self.inverse)[:n])

    @property
    def noise_gains(self) -> np.ndarray:
        """The variance of each residual where values are noise of variance 1, shape (points,)."""
        n = len(self.at)
        inverse = self.inverse[:n, :n]
        gains: np.ndarray = (inverse**2).sum(axis=1) / np.diag(inverse) ** 2
        return gains

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


def rank_splines(
    lattice: Lattice, at: np.ndarray, targets: np.ndarray, noise: float = 0.0
) -> list[tuple[float, int, float]]:
    """Return (stretch, exponent, nugget), best first, by their leave-one-out residuals.

    Args:
        lattice: The cells.
        at: The cells that are points, shape (points,).
        targets: Their values, shape (points,).
        noise: The nugget relative to the median of the squared power function.
    """
    scored: list[tuple[float, int, tuple[float, int, float]]] = []
    for stretch, exponent in itertools.product(_STRETCHES, _PENALTY):
        for spline in _make_splines(lattice, at, stretch, exponent, noise):
            try:
                residuals = spline.residuals(spline.fit(targets))
            except np.linalg.LinAlgError:
                continue
            mean = np.abs(residuals).mean() * _PENALTY[exponent]
            score = float(f"{mean:.6g}")  # rounded: ties stay ties
            scored.append((score, len(scored), (stretch, exponent, spline.nugget)))
    return [choice for _, _, choice in sorted(scored)]


def _make_splines(
    lattice: Lattice, at: np.ndarray, stretch: float, exponent: int, noise: float
) -> Iterator[Spline]:
    """Yield the splines of one kernel: without noise, or for several multiples of it."""
    try:
        plain = Spline(lattice, at, stretch, exponent)
        if not noise:
            yield plain
            return
        for multiple in _MULTIPLES:
            nugget = multiple * noise * plain.median_power
            yield Spline(lattice, at, stretch, exponent, nugget)
    except np.linalg.LinAlgError:
        return


def apply_in_chunks(cells: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
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


@functools.lru_cache(maxsize=8)
def _cell_steps(shape: tuple[int, ...]) -> np.ndarray:
    """Return the coordinates of the cells in grid steps, float64 [cells, axes], x last."""
    columns = np.unravel_index(np.arange(math.prod(shape)), shape[::-1])
    return np.stack(columns, axis=1).astype(np.float64)


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
