"""Weights of the samples drawn with which known totals come out exactly, and their error.

Source: J.-C. Deville, C.-E. Särndal, *Calibration estimators in survey sampling*, Journal of the
American Statistical Association 87 (1992) 376-382; the exponential distance of their section 2
("raking") keeps weights positive. Error bars are a multiplier bootstrap of the residuals:
C. F. J. Wu, Annals of Statistics 14 (1986) 1261-1295.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

_EXACT = 1e-11  # of the standard error of an anchor: where the iteration ends
_RANK = 1e-10  # anchors that agree to this are one
_STEPS = 60
_STEEPEST = 8.0  # log of the largest change of a weight
_LEVERAGE = 0.75  # the most that a sample is believed to explain of itself


@final
@dataclass(frozen=True, eq=False)
class Fit:
    """A calibration problem in coordinates in which its variables are orthonormal.

    A weight may move in proportion to the variance that the draw gives it, so samples drawn with
    certainty keep their weight of 1: to first order this is the estimator of smallest variance
    (G. E. Montanari, International Statistical Review 55 (1987) 191-202).
    """

    odds: np.ndarray  # [samples drawn]
    root: np.ndarray  # [samples drawn]: standard deviation of 1 / odds in the draw, and a little
    basis: np.ndarray  # [samples drawn, rank]: orthonormal columns
    goal: np.ndarray  # [rank]: what basis' (weights - 1 / odds) / root is to be

    @classmethod
    def of(cls, shares: np.ndarray, totals: np.ndarray, odds: np.ndarray) -> Fit:
        """Return the problem of samples drawn with ``odds`` that are to sum up to ``totals``.

        Args:
            shares: shape (totals, samples drawn): what each sample has of each total.
            totals: shape (totals,).
            odds: shape (samples drawn,): the probability of each to be drawn.
        """
        root = np.sqrt(1 / odds - 1 + 1e-3) / np.sqrt(odds)
        basis, sizes, mix = np.linalg.svd((shares * root).T, full_matrices=False)
        rank = int((sizes > _RANK * sizes[0]).sum())
        goal = (mix @ (totals - shares @ (1 / odds)))[:rank] / sizes[:rank]
        return cls(odds, root, basis[:, :rank], goal)

    def weights(self) -> np.ndarray:
        """Return positive weights near ``1 / odds`` that meet the goal; Newton's method, damped.

        Where there are none, the nearest ones in least squares, some of which are negative.
        """
        state = np.zeros(len(self.goal))
        for _ in range(_STEPS):
            missing = self._missing(state)
            if np.abs(missing).max() < _EXACT:
                return self._weights(state)
            slope = (self.basis.T * (self._weights(state) * self.odds)) @ self.basis
            step = np.linalg.lstsq(slope, missing, rcond=None)[0]
            length = self._length(state, step, float(np.linalg.norm(missing)))
            if length == 0:
                break
            state = state + length * step
        nearest: np.ndarray = 1 / self.odds + self.root * (self.basis @ self.goal)
        return nearest

    def unexplained(self, values: np.ndarray) -> np.ndarray:
        """Return residuals of values [points, samples drawn] on the calibrated variables."""
        residuals: np.ndarray = (
            values - ((values * self.root) @ self.basis) @ self.basis.T / self.root
        )
        return residuals

    def noise(self, weights: np.ndarray) -> np.ndarray:
        """Return the standard deviation that each sample's residual is to be multiplied by.

        Residuals are too small by ``1 - leverage``, as the fit has seen them (J. G. MacKinnon,
        H. White, Journal of Econometrics 29 (1985) 305-325).
        """
        leverage = np.minimum((self.basis**2).sum(axis=1), _LEVERAGE)
        noise: np.ndarray = np.sqrt(1 - self.odds) * weights / (1 - leverage)
        return noise

    def replicates(self, weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return weights moved at random such that every anchor stays as it is."""
        signs = 2 * rng.integers(0, 2, (count, len(weights))) - 1
        moved = signs * self.noise(weights)
        back = ((moved / self.root) @ self.basis) @ self.basis.T * self.root
        replicates: np.ndarray = weights + moved - back
        return replicates

    def _weights(self, state: np.ndarray) -> np.ndarray:
        weights: np.ndarray = np.exp(self._exponent(state)) / self.odds
        return weights

    def _exponent(self, state: np.ndarray) -> np.ndarray:
        exponent: np.ndarray = self.root * self.odds * (self.basis @ state)
        return exponent

    def _missing(self, state: np.ndarray) -> np.ndarray:
        moved = (self._weights(state) - 1 / self.odds) / self.root
        missing: np.ndarray = self.goal - self.basis.T @ moved
        return missing

    def _length(self, state: np.ndarray, step: np.ndarray, before: float) -> float:
        """Return the longest of 1, 1/2, 1/4, ... steps that comes nearer to the goal; 0 if none."""
        for length in 0.5 ** np.arange(20):
            there = state + length * step
            if np.abs(self._exponent(there)).max() > _STEEPEST:
                continue
            if np.linalg.norm(self._missing(there)) < (1 - 0.3 * length) * before:
                return float(length)
        return 0.0
