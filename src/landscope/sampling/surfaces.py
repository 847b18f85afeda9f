"""A surface through evaluated points, with its estimated error and the noise of its values.

Values are interpolated by a spline, or smoothed where they are noisy. The error of a prediction
has two parts: that of the surface, by the power function of a spline, local roughness and the
disagreement of several splines, and the noise. Sources: see ``splines`` and ``residuals``.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from landscope.sampling.residuals import Residuals, find_noise
from landscope.sampling.splines import Lattice, Spline, apply_in_chunks, rank_splines

_RUNNERS_UP = 3  # next-best splines: disagreement with the best is a part of the error estimate
_DISAGREEMENT_WEIGHT = 2.0  # 0.5 to 4 did equally well on digits networks
_NOISE_FACTOR = 2.4  # a 95% interval in standard deviations that are known from few points
_SLAB = 4  # points of a slab, at least
_SLABS_UNTIL = 150  # points of a surface: four times as many as in the first round of a plane
_SELECT = 500  # exponent, stretch and noise are chosen by this many of the points


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
        error_spline: The spline whose power function is the other part, see :class:`Spline`; its
            nugget is the variance of the noise.
        targets: The values at the points, shape (points,).
        noise: The standard deviation of the noise of the values.
    """

    def __init__(
        self,
        best: Spline,
        runners_up: list[Spline],
        error_spline: Spline,
        targets: np.ndarray,
        noise: float = 0.0,
    ) -> None:
        self.noise = noise
        self.best, self.runners_up, self.error_spline = best, runners_up, error_spline
        self.weights = best.fit(targets)
        self.runner_up_weights = [s.fit(targets) for s in runners_up]
        self.residuals = Residuals(error_spline, targets)
        squared = np.maximum(self.residuals.variances_from_others, 1e-300)
        self.ratios = np.abs(best.residuals(self.weights)) / np.sqrt(squared)

    def predict(self, cells: np.ndarray) -> np.ndarray:
        """Return the values of the best spline in some cells, shape (cells,)."""
        return self.best.predict(cells, self.weights)

    def bars(self, cells: np.ndarray) -> np.ndarray:
        """Return the estimated error, before it is scaled to cover 95%, shape (cells,)."""
        return cast(np.ndarray, np.sqrt(self._variances(cells).sum(axis=1)))

    def intervals(self, cells: np.ndarray, factor: float) -> np.ndarray:
        """Return the half-widths of intervals that cover 95%, shape (cells,).

        Args:
            cells: The cells.
            factor: The factor of the error bars that covers known errors. The noise gets a factor
                of at least 2.4: that of a normal law whose width is known from few points.
        """
        factors = np.array([factor, max(factor, _NOISE_FACTOR)])
        return cast(np.ndarray, np.sqrt(self._variances(cells) @ factors**2))

    @functools.cached_property
    def slab_ratios(self) -> np.ndarray:
        """|residual| / error bar of points that are left out with all others of their slab.

        A slab is a row or a column of points, on a line two neighbors. A surface that changes along
        one axis only is predicted well where single points are left out, because those beside them
        along the other axis are like them; between the columns it is not. Slabs at the ends are not
        left out, and none where there are so many points that the first grid matters no more. Shape
        (residuals,).
        """
        ratios, at = [np.zeros(0)], self.error_spline.at
        for slab in _list_slabs(self.error_spline.steps[at]) if len(at) <= _SLABS_UNTIL else ():
            with contextlib.suppress(np.linalg.LinAlgError):  # the others leave a trend open
                ratios.append(self._leave_out(slab))
        return np.concatenate(ratios)

    def _leave_out(self, slab: np.ndarray) -> np.ndarray:
        """Return |residual| / error bar of some points, each predicted without any of them."""
        block = np.ix_(slab, slab)
        residuals = np.linalg.solve(self.best.inverse[block], self.weights[slab])
        squared = np.diag(np.linalg.inv(self.error_spline.inverse[block]))
        rough = self.residuals.roughness(self.error_spline.at[slab])
        return cast(np.ndarray, np.abs(residuals) / np.sqrt(rough * np.abs(squared) + 1e-300))

    def forecast(self, cell: int) -> tuple[float, float]:
        """Return the prediction and the error bar of one cell."""
        cells = np.array([cell])
        return float(self.predict(cells)[0]), float(self.bars(cells)[0])

    def _variances(self, cells: np.ndarray) -> np.ndarray:
        """Return the variances of the surface and of the noise, shape (cells, 2)."""
        return apply_in_chunks(cells, self._compute_variances).reshape(len(cells), 2)

    def _compute_variances(self, cells: np.ndarray) -> np.ndarray:
        spline = self.error_spline
        rows = spline.rows(cells)
        squared = np.abs(((rows @ spline.inverse) * rows).sum(1))
        disagreement = np.zeros(len(cells))
        if self.runners_up:
            best = self.best.rows(cells) @ self.weights
            pairs = zip(self.runners_up, self.runner_up_weights, strict=True)
            disagreement = np.mean([(s.rows(cells) @ w - best) ** 2 for s, w in pairs], axis=0)
        # Near the points ``squared`` is small: there the disagreement must count less.
        damping = spline.nugget + 0.05 * spline.median_power
        rough = self.residuals.roughness(cells)
        wide = rough + _DISAGREEMENT_WEIGHT * disagreement / (squared + damping + 1e-300)
        return np.stack([wide * squared, np.maximum(rough * spline.nugget, self.noise**2)], axis=1)

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
        nugget = self.error_spline.nugget  # which no evaluation of other cells lowers
        remaining, roughness = start.copy(), bars**2 / np.maximum(start + nugget, 1e-300)
        free = ~np.isin(cells, excluded)
        chosen: list[int] = []
        columns: list[tuple[np.ndarray, float]] = []
        for _ in range(min(count, int(free.sum()))):
            k = int(np.argmax(np.where(free, roughness * remaining, -1.0)))
            column = self.error_spline.kernel(cells, cells[k : k + 1])[:, 0] - solved @ rows[k]
            for earlier, pivot in columns:
                column = column - earlier * (earlier[k] / pivot)
            pivot = float(column[k]) + nugget
            free[k] = False
            chosen.append(int(cells[k]))
            if pivot:
                columns.append((column, pivot))
                remaining = np.maximum(remaining - np.abs(column * column / pivot), 0.0)
        return chosen


def _list_slabs(steps: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the indices of the points of each row and column, or of neighbors on a line.

    Args:
        steps: The points in grid steps, shape (points, axes).
    """
    lengths = np.ptp(steps, axis=0)
    if (lengths > 0).sum() == 1:
        order = np.argsort(steps[:, int(lengths.argmax())])
        yield from (order[k : k + 2] for k in range(1, len(order) - 2))
        return
    for along in steps.T:
        places, counts = np.unique(along, return_counts=True)
        for place in places[1:-1][counts[1:-1] >= _SLAB]:
            yield np.flatnonzero(along == place)


def _fit_surface(lattice: Lattice, at: np.ndarray, targets: np.ndarray) -> Surface | None:
    """Return the surface through some points; None when they are too few for one."""
    choices, noise = _choose_splines(lattice, at[:_SELECT].tobytes(), targets[:_SELECT].tobytes())
    if not choices:
        return None
    try:
        splines = [Spline(lattice, at, *choice) for choice in choices[: 1 + _RUNNERS_UP]]
        cubics = [choice for choice in choices if choice[:2] == (choices[0][0], 3)]
        cubic = cubics[0] if cubics else (choices[0][0], 3, 0.0)
        same = [spline for spline in splines if (spline.stretch, spline.exponent) == cubic[:2]]
        error_spline = same[0] if same else Spline(lattice, at, *cubic)
        return Surface(splines[0], splines[1:], error_spline, targets, noise)
    except np.linalg.LinAlgError:
        return None


@functools.lru_cache(maxsize=64)
def _choose_splines(
    lattice: Lattice, at: bytes, targets: bytes
) -> tuple[tuple[tuple[float, int, float], ...], float]:
    """Return (stretch, exponent, nugget) of splines, best first, and the noise of the values."""
    points, values = np.frombuffer(at, dtype=np.int64), np.frombuffer(targets)
    ranks = rank_splines(lattice, points, values)
    noise = 0.0
    if ranks:
        try:
            share, noise = find_noise(lattice, points, values, ranks[0])
            ranks = rank_splines(lattice, points, values, share) if share else ranks
        except np.linalg.LinAlgError:
            noise = 0.0
    return tuple(ranks), noise
