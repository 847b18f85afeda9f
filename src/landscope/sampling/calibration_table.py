"""The losses of all samples at the anchors, by which samples are drawn and error bars checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from landscope.sampling.calibration_weights import Fit

_UNIFORM = 0.3  # share of the probability that is uniform; 0.15 to 0.5 change the error by 2%
_COMPONENTS = 6  # principal components of the losses along which the draw is stratified
_STRATUM = 8  # samples; strata of this size or smaller are not split
_FOLDS = 6  # parts of the anchors that are left out in turn to check the error bars
_TRUST_RANGE = (0.5, 4.0)  # the range of the factor of error bars


@dataclass(frozen=True, eq=False)
class Draw:
    """A random sample of the rows."""

    rows: np.ndarray  # int64 [samples drawn], ascending
    probabilities: np.ndarray  # [samples drawn]: inclusion probabilities


@dataclass(frozen=True, eq=False)
class Table:
    """The losses of all samples at the anchors, as shares, so that all anchors count the same."""

    # [anchors + 1, samples]: shares of the absolute loss at an anchor; last row: of the counts
    shares: np.ndarray
    totals: np.ndarray  # [anchors + 1]: their sums over all samples
    chance: np.ndarray  # [samples]: proportional to the inclusion probability
    strata: np.ndarray  # int64 [samples]: number of the stratum; close numbers are similar
    seed: int

    @classmethod
    def of(cls, values: np.ndarray, counts: np.ndarray, *, seed: int) -> Table:
        """Return the table of losses [anchors, samples] and counts [samples]."""
        scale = np.abs(values).sum(axis=1, keepdims=True)
        shares = np.vstack([values / scale, counts / counts.sum()])
        size = np.abs(shares).mean(axis=0)
        chance = _UNIFORM / len(size) + (1 - _UNIFORM) * size / size.sum()
        return cls(shares, shares.sum(axis=1), chance, _stratify(shares), seed)

    def generator(self, number: int) -> np.random.Generator:
        """Return the random generator of the draw with this number."""
        return np.random.default_rng((abs(self.seed), int(self.seed < 0), number))

    def draw(self, size: int, number: int) -> Draw:
        """Return a systematic sample with a proportional part of each stratum, to within one."""
        rng = self.generator(number)
        probabilities = _inclusion_probabilities(self.chance, size)
        order = np.lexsort((rng.random(len(probabilities)), self.strata))
        positions = np.searchsorted(np.cumsum(probabilities[order]), rng.random() + np.arange(size))
        rows = np.unique(order[np.minimum(positions, len(probabilities) - 1)])
        return Draw(rows, probabilities[rows])

    def fit(self, draw: Draw, usable: np.ndarray | slice = slice(None)) -> Fit:
        """Return the calibration of the samples on all rows of the table, or on some of them."""
        return Fit.of(self.shares[usable][:, draw.rows], self.totals[usable], draw.probabilities)


def _inclusion_probabilities(chance: np.ndarray, size: int) -> np.ndarray:
    """Return probabilities that are proportional to ``chance``, at most 1, and sum to ``size``."""
    certain = np.zeros(len(chance), dtype=bool)
    while True:
        rest = (size - certain.sum()) / chance[~certain].sum()
        probabilities = np.where(certain, 1.0, chance * rest)
        if (probabilities <= 1).all():
            return probabilities
        certain |= probabilities > 1


def _stratify(shares: np.ndarray) -> np.ndarray:
    """Return the stratum of each sample; strata with close numbers have similar losses.

    Samples are divided into halves, recursively, along the principal component in which they differ
    most. Losses enter as fourth roots, because a few samples have most of the loss.
    """
    roots = np.abs(shares * shares.shape[1]) ** 0.25
    roots -= roots.mean(axis=1, keepdims=True)
    components = np.linalg.eigh(roots @ roots.T)[1][:, : -_COMPONENTS - 1 : -1]
    strata = np.empty(shares.shape[1], dtype=np.int64)
    for number, rows in enumerate(_halve(roots.T @ components, np.arange(len(strata)))):
        strata[rows] = number
    return strata


def _halve(points: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield groups of rows of points [samples, components], similar ones in sequence."""
    if len(rows) <= _STRATUM:
        yield rows
        return
    along = points[rows, np.argmax(points[rows].var(axis=0))]
    order, half = np.argsort(along, kind="stable"), len(rows) // 2
    yield from _halve(points, rows[order[:half]])
    yield from _halve(points, rows[order[half:]])


def estimate_trust(table: Table, draws: Sequence[Draw]) -> tuple[float, float]:
    """Return the factor that makes error bars hold at left-out anchors, and their median there."""
    anchors = len(table.totals) - 1
    if anchors < 3:
        return 1.0, math.nan
    outcomes = [
        [_predict_left_out(table, draw, fold) for fold in _folds(anchors)] for draw in draws
    ]
    misses = np.array([np.concatenate([miss for miss, _ in folds]) for folds in outcomes])
    errors = np.array([np.concatenate([error for _, error in folds]) for folds in outcomes])
    # shares of 1e-9 are rounding, where anchors are equal
    needed = np.quantile(misses / np.maximum(errors, 1e-9), 0.95, axis=1) / 1.96
    return float(np.clip(needed.max(), *_TRUST_RANGE)), float(np.median(errors))


def _folds(anchors: int) -> Iterator[np.ndarray]:
    """Yield the anchors of each fold, bool [anchors + 1]; the counts are in none."""
    number = np.append(np.arange(anchors) % _FOLDS, -1)
    yield from (number == fold for fold in range(min(_FOLDS, anchors)))


def _predict_left_out(table: Table, draw: Draw, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the errors at anchors that are left out, and the standard errors stated for them."""
    fit = table.fit(draw, ~out)
    weights = fit.weights()
    values = table.shares[out][:, draw.rows]
    errors = np.sqrt(((fit.unexplained(values) * fit.noise(weights)) ** 2).sum(axis=1))
    return np.abs(values @ weights - table.totals[out]), errors
