"""Calibrated subsets: the loss over a few samples, with weights that make it exact at some points.

All samples are evaluated at a few cells of the grid, the anchors. Some samples are drawn, with the
weights that are nearest to their sampling weights and reproduce the loss over all data at every
anchor. At the other points only these samples are evaluated. The error is the part of a point's
losses that no linear combination of the anchors' losses explains, which is small; that part also
gives the error bars. No assumption is made on the shape of the surface between the anchors.

Source: J.-C. Deville, C.-E. Särndal, *Calibration estimators in survey sampling*, Journal of the
American Statistical Association 87 (1992) 376-382;
see :mod:`landscope.sampling.calibration_weights`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from landscope.errors import SamplerError
from landscope.sampling.calibration_table import Draw, Table, estimate_trust
from landscope.sampling.data_subset import REPLICATES, Subset

# Anchors are denser near the center: their spacing is proportional to 0.8 + radius.
_NEARNESS = 0.8
_DRAWS = 8  # draws for which error bars are checked at anchors; they must hold in every one


@final
@dataclass(frozen=True)
class Calibrated:
    """How a calibrated subset of the samples is drawn.

    Args:
        size: The number of samples that are evaluated at points that are not anchors. The error
            falls as 1 / sqrt(size).
        anchors: The number of points at which all samples are evaluated.
        seed: The seed of the draw.

    Raises:
        SamplerError: For a size or anchors below 1, or fewer than two samples per anchor.

    Example:
        >>> Calibrated(600, anchors=5).places((5, 5))
        [0, 4, 12, 20, 24]
    """

    size: int = 600
    anchors: int = 36
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("anchors", self.anchors)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise SamplerError(f"{name}={value!r}; expected a whole number of 1 or more.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer):
            raise SamplerError(f"seed={self.seed!r}; expected a whole number.")
        if self.size < 2 * self.anchors:
            raise SamplerError(
                f"size={self.size} with anchors={self.anchors}; expected at least two samples per"
                f" anchor: draw {2 * self.anchors} samples or more, or ask for fewer anchors."
            )

    def places(self, shape: Sequence[int]) -> list[int]:
        """Return the cells at which all samples are evaluated.

        The first is the center. Each next one is the cell that is farthest from those chosen (the
        corners come first), measured in units of ``0.8 + distance from the center``: the walls of a
        basin, where the losses of single samples begin to rise, are near the center more often than
        at the edge.

        Args:
            shape: The number of points along each axis, x first.

        Returns:
            Sorted flat indices, x running fastest: ``anchors`` of them, or all cells.

        Cost: cells x anchors x axes multiplications.
        """
        points = _cell_coordinates(shape)
        radius = np.sqrt((points**2).sum(axis=1))
        chosen = [int(np.argmin(radius))]
        nearest = _distances(points, chosen[0])
        while len(chosen) < min(self.anchors, len(points)):
            # rounded, so that equal distances stay equal on every machine
            chosen.append(int(np.argmax(np.round(nearest / (_NEARNESS + radius), 9))))
            nearest = np.minimum(nearest, _distances(points, chosen[-1]))
        return sorted(chosen)

    def subset(self, values: np.ndarray, counts: np.ndarray) -> Subset:
        """Return the samples to evaluate at the other points, with their weights.

        Args:
            values: The loss of each sample at each anchor, summed over its terms, shape (anchors,
                samples). An anchor with a value that is not finite is left out.
            counts: The weight of each sample in the mean, shape (samples,): 1, or its number of
                tokens. The loss at an anchor is ``values.sum() / counts.sum()``.

        Raises:
            SamplerError: When the shapes do not fit, or counts are negative or all zero.

        Cost: no evaluation of the model; 0.1 s for 600 of 2,000 samples, 1 s for 3000 of 50,000,
            and four times the memory of ``values``. On digits networks with 36 anchors the mean
            error of ln loss was 0.003 to 0.013 with 600 of 1,797 samples, 0.001 to 0.008 with 900,
            and 0.003 to 0.004 with 2000 of 16,000. 95% intervals held in 97% of the cells, in 83 to
            100% for single draws: the errors of one draw are similar all over its surface.
        """
        values, counts = np.asarray(values, np.float64), np.asarray(counts, np.float64)
        _check(values, counts)
        if len(counts) <= self.size:
            return _take_all(values, len(counts))
        usable, notes = _usable_anchors(values)
        table = Table.of(usable, counts, seed=int(self.seed))
        draws = [table.draw(self.size, number) for number in range(_DRAWS)]
        trust, spread = estimate_trust(table, draws)
        fit = table.fit(draws[0])
        weights = fit.weights()
        return Subset(
            rows=draws[0].rows,
            weights=weights,
            replicates=fit.replicates(weights, REPLICATES, table.generator(_DRAWS)),
            trust=trust,
            spread=spread,
            positive=bool((usable >= 0).all()),
            notes=(*notes, *_warnings(table, draws[0], weights)),
        )


def _take_all(values: np.ndarray, count: int) -> Subset:
    """Return the subset of all samples."""
    return Subset(
        rows=np.arange(count),
        weights=np.ones(count),
        replicates=np.ones((REPLICATES, count)),
        trust=1.0,
        spread=0.0,
        positive=not bool((values < 0).any()),
    )


def _check(values: np.ndarray, counts: np.ndarray) -> None:
    if values.ndim != 2 or counts.shape != values.shape[1:]:
        raise SamplerError(
            f"values have shape {values.shape} and counts {counts.shape}; expected"
            " (anchors, samples) and (samples,)."
        )
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() > 0):
        raise SamplerError("counts hold values that are not finite, negative, or all zero.")


def _usable_anchors(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the anchors on which samples can be calibrated, and notes on the others."""
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.abs(values).sum(axis=1)
    usable = values[np.isfinite(scale) & (scale > 0)]
    lost = int((~np.isfinite(scale)).sum())
    notes = []
    if lost:
        notes.append(
            f"{lost} of {len(values)} anchors hold losses that are not finite; the samples are"
            " calibrated on the others."
        )
    if len(usable) < 3:
        notes.append(
            f"only {len(usable)} anchors could be calibrated on; the error bars are unchecked."
        )
    return usable, tuple(notes)


def _warnings(table: Table, draw: Draw, weights: np.ndarray) -> Iterator[str]:
    """Yield a note if the weights do not reproduce an anchor, or some are negative."""
    missed = np.abs(table.shares[:, draw.rows] @ weights - table.totals).max()
    if missed > 1e-6:
        yield (
            f"the weights miss an anchor by {missed:.1e} of its loss: draw more samples, or use"
            " fewer anchors."
        )
    if (weights < 0).any():
        yield (
            f"{(weights < 0).sum()} of {len(weights)} weights are negative, as no positive ones"
            " reproduce the anchors: draw more samples, or use fewer anchors."
        )


def _cell_coordinates(shape: Sequence[int]) -> np.ndarray:
    """Return the cells of a grid with axes from -1 to 1, shape (cells, axes), x running fastest."""
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape]
    mesh = np.meshgrid(*axes[::-1], indexing="ij")
    return np.stack([grid.ravel() for grid in mesh[::-1]], axis=1)


def _distances(points: np.ndarray, index: int) -> np.ndarray:
    distances: np.ndarray = np.sqrt(((points - points[index]) ** 2).sum(axis=1))
    return distances


def check_samples(samples: object) -> None:
    """Check the ``samples`` argument of a scan.

    Raises:
        SamplerError: If it is neither None nor a Calibrated.
    """
    if samples is not None and not isinstance(samples, Calibrated):
        raise SamplerError(
            f"samples={samples!r}; expected ls.Calibrated(600) to evaluate about so many samples"
            " at most points, or None for all samples at every point."
        )
