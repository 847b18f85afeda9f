"""Weights with which a sample reproduces known totals exactly, and the error of other totals.

Source: J.-C. Deville, C.-E. Särndal, *Calibration estimators in survey sampling*, Journal of the
American Statistical Association 87 (1992) 376-382; the exponential distance of their section 2
("raking") keeps weights positive. Error bars are a multiplier bootstrap of the residuals:
C. F. J. Wu, Annals of Statistics 14 (1986) 1261-1295.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

_EXACT = 1e-11  # the iteration ends when no goal is missed by more
_RANK = 1e-10  # relative singular value below which anchors are linearly dependent
_STEPS = 60  # Newton steps at most
_STEEPEST = 8.0  # logarithm of the largest factor by which a weight may change
_LEVERAGE = 0.75  # upper limit of the leverage of a sample


@final
@dataclass(frozen=True, eq=False)
class Fit:
    """A calibration problem in coordinates in which its variables are orthonormal.

    Weights w solve shares w = totals and stay near 1 / probabilities. A weight may change in
    proportion to the variance of the draw, so samples with probability 1 keep a weight near 1: to
    first order this is the estimator of smallest variance (G. E. Montanari, International
    Statistical Review 55 (1987) 191-202).
    """

    probabilities: np.ndarray  # [samples drawn]: inclusion probabilities
    root: np.ndarray  # [samples drawn]: sqrt(1 - p) / p for probability p, kept above 0
    basis: np.ndarray  # [samples drawn, rank]: orthonormal columns
    goal: np.ndarray  # [rank]: wanted value of basis' (weights - 1 / probabilities) / root

    @classmethod
    def of(cls, shares: np.ndarray, totals: np.ndarray, probabilities: np.ndarray) -> Fit:
        """Return the problem of a sample whose weighted sums are to be ``totals``.

        Args:
            shares: The part of each sample in each total, shape (totals, samples drawn).
            totals: The sums over all samples, shape (totals,).
            probabilities: The inclusion probabilities, shape (samples drawn,).
        """
        root = np.sqrt(1 / probabilities - 1 + 1e-3) / np.sqrt(probabilities)
        basis, sizes, mix = np.linalg.svd((shares * root).T, full_matrices=False)
        rank = int((sizes > _RANK * sizes[0]).sum())
        goal = (mix @ (totals - shares @ (1 / probabilities)))[:rank] / sizes[:rank]
        return cls(probabilities, root, basis[:, :rank], goal)

    def weights(self) -> np.ndarray:
        """Return positive weights near ``1 / probabilities`` that meet the goal.

        Damped Newton's method; if there are no such weights, the nearest ones in least squares,
        some of which are negative.
        """
        state = np.zeros(len(self.goal))
        for _ in range(_STEPS):
            missing = self._missing(state)
            if np.abs(missing).max() < _EXACT:
                return self._weights(state)
            slope = (self.basis.T * (self._weights(state) * self.probabilities)) @ self.basis
            step = np.linalg.lstsq(slope, missing, rcond=None)[0]
            length = self._step_length(state, step, float(np.linalg.norm(missing)))
            if length == 0:
                break
            state = state + length * step
        nearest: np.ndarray = 1 / self.probabilities + self.root * (self.basis @ self.goal)
        return nearest

    def unexplained(self, values: np.ndarray) -> np.ndarray:
        """Return the residuals of values [points, samples drawn] on the calibrated variables."""
        residuals: np.ndarray = (
            values - ((values * self.root) @ self.basis) @ self.basis.T / self.root
        )
        return residuals

    def noise(self, weights: np.ndarray) -> np.ndarray:
        """Return the factors of the residuals that give the noise of each sample.

        Residuals of fitted samples are too small by the factor ``1 - leverage`` (J. G. MacKinnon,
        H. White, Journal of Econometrics 29 (1985) 305-325).
        """
        leverage = np.minimum((self.basis**2).sum(axis=1), _LEVERAGE)
        noise: np.ndarray = np.sqrt(1 - self.probabilities) * weights / (1 - leverage)
        return noise

    def replicates(self, weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return randomly perturbed weights that are still exact at every anchor."""
        signs = 2 * rng.integers(0, 2, (count, len(weights))) - 1
        moved = signs * self.noise(weights)
        projection = ((moved / self.root) @ self.basis) @ self.basis.T * self.root
        replicates: np.ndarray = weights + moved - projection
        return replicates

    def _weights(self, state: np.ndarray) -> np.ndarray:
        weights: np.ndarray = np.exp(self._exponent(state)) / self.probabilities
        return weights

    def _exponent(self, state: np.ndarray) -> np.ndarray:
        exponent: np.ndarray = self.root * self.probabilities * (self.basis @ state)
        return exponent

    def _missing(self, state: np.ndarray) -> np.ndarray:
        moved = (self._weights(state) - 1 / self.probabilities) / self.root
        missing: np.ndarray = self.goal - self.basis.T @ moved
        return missing

    def _step_length(self, state: np.ndarray, step: np.ndarray, before: float) -> float:
        """Return the largest of 1, 1/2, 1/4, ... with which the step reduces the miss, or 0."""
        for length in 0.5 ** np.arange(20):
            trial = state + length * step
            if np.abs(self._exponent(trial)).max() > _STEEPEST:
                continue
            if np.linalg.norm(self._missing(trial)) < (1 - 0.3 * length) * before:
                return float(length)
        return 0.0
