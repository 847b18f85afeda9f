"""Leave-one-out residuals of a spline: the local roughness of a surface, the noise of its values.

If values are rough from one cell to the next, from the rounding of low precision for example, no
spline through them predicts well. Points beside each other ("twins") tell: without noise their
residuals are far smaller than those of other points.

Source: noise as a nugget on the diagonal of the kernel, whose spline smooths (Wahba, *Spline Models
for Observational Data*, 1990, chapters 1 and 4).
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from landscope.sampling.splines import Lattice, Spline

_NEIGHBORS = 8  # residuals from which local roughness is averaged; 5 to 16 did equally well
# The noise is taken to be as large as this quantile of chi-squared allows: a noise that is taken to
# be too small ends scans too early, one that is too large costs some points.
_DOUBT = 0.15
# Variances of the noise to choose from, relative to the median squared power of the points.
_NOISES = (0.003, 0.03, 0.1, 0.3, 1.0, 10.0)
_SILENT = 0.05  # of the residuals: a noise (standard deviation) that needs no smoothing
_QUIET = (12, 24)  # points that tell the noise: those with the smallest estimated error


class Residuals:
    """Leave-one-out residuals of a spline, and the local roughness that they show.

    Args:
        spline: The spline.
        targets: The values at its points, shape (points,).
    """

    def __init__(self, spline: Spline, targets: np.ndarray) -> None:
        self.spline, self.values = spline, spline.residuals(spline.fit(targets))
        self.squares = self.values**2 / spline.squared_power  # standardized
        self.twins = _are_twins(spline.steps[spline.at])
        self.shares = self._weigh_twins()

    @property
    def scale(self) -> float:
        """The variance per squared power, on average."""
        return float((self.shares * self.squares).sum() / self.shares.sum())

    def roughness(self, cells: np.ndarray) -> np.ndarray:
        """Return the variance per squared power in some cells, shape (cells,)."""
        return self._average_nearby(*self._neighbors(cells, min(_NEIGHBORS, len(self.squares))))

    @property
    def variances_from_others(self) -> np.ndarray:
        """The variance of each residual, estimated from the others, shape (points,)."""
        count = min(_NEIGHBORS + 1, len(self.squares))
        distances, indices = self._neighbors(self.spline.at, count)
        variances = self._average_nearby(distances[:, 1:], indices[:, 1:])
        return variances * self.spline.squared_power

    @property
    def variances_without_twins(self) -> np.ndarray:
        """The variance of each residual, estimated from others that are not next to the point."""
        at, steps = self.spline.at, self.spline.steps
        distances, indices = self._neighbors(at, min(2 * _NEIGHBORS, len(self.squares)))
        gaps = np.linalg.norm(steps[at][indices] - steps[at][:, None], axis=2)
        near = np.where(gaps < 1.5, np.inf, distances)
        return self._average_nearby(near, indices) * self.spline.squared_power

    def _weigh_twins(self) -> np.ndarray:
        """Return weights by which points stand for cells, shape (points,).

        Residuals of points beside others say how cells beside points are predicted, which are few:
        they get the weight of those. All other points have the weight 1.
        """
        cells, axes = self.spline.steps.shape
        share = min(2 * axes * len(self.twins) / cells, 0.999)  # of cells beside points
        alone = max(int((~self.twins).sum()), 1)
        weight = share / (1 - share) * alone / max(int(self.twins.sum()), 1)
        return np.where(self.twins, min(weight, 1.0), 1.0)

    def _average_nearby(self, distances: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Return the mean of squared standardized residuals of the neighbors and of all points."""
        weights = self.shares[indices] / (distances**2 + 0.04**2)
        weight_of_all = weights.mean(axis=1) + 1e-12  # neighbors at infinity have no weight
        total = (self.squares[indices] * weights).sum(axis=1) + self.scale * weight_of_all
        return cast(np.ndarray, total / (weights.sum(axis=1) + weight_of_all))

    def _neighbors(self, cells: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        from scipy.spatial import cKDTree

        axes = self.spline.space.shape[1] - (1 if self.spline.stretch else 0)
        coordinates = self.spline.space[:, :axes]
        tree = cKDTree(coordinates[self.spline.at])
        distances, indices = tree.query(coordinates[cells], k=list(range(1, count + 1)))
        return distances, indices


def find_noise(
    lattice: Lattice, at: np.ndarray, targets: np.ndarray, choice: tuple[float, int, float]
) -> tuple[float, float]:
    """Return the nugget, relative to the median squared power, and the noise that it stands for.

    Args:
        lattice: The cells.
        at: The cells that are points, shape (points,).
        targets: Their values, shape (points,).
        choice: Stretch, exponent and nugget (0) of the spline that predicts best without noise.
    """
    plain = Residuals(Spline(lattice, at, choice[0], 3), targets)
    noise = _estimate_noise(plain, Spline(lattice, at, *choice), targets)
    if noise <= _SILENT**2 * float(np.mean(plain.values**2)):
        return 0.0, math.sqrt(noise)
    for share in _NOISES:
        nugget = share * plain.spline.median_power
        noisy = Residuals(Spline(lattice, at, choice[0], 3, nugget), targets)
        implied = nugget * noisy.scale
        if implied >= noise:
            return share * noise / implied, math.sqrt(noise)
    return _NOISES[-1], math.sqrt(noise)


def _estimate_noise(plain: Residuals, best: Spline, targets: np.ndarray) -> float:
    """Return the variance of the noise, from the residuals that are least due to the surface."""
    from scipy.stats import chi2

    order = np.argsort(plain.variances_without_twins, kind="stable")
    count = int(np.clip(plain.twins.sum(), *_QUIET))
    quiet = order[: max(count, len(order) // 8)]
    squares = best.residuals(best.fit(targets))[quiet] ** 2 / best.noise_gains[quiet]
    mean = float(np.minimum(squares, 9 * np.median(squares)).mean())
    pairs = len(quiet) / 2  # the residuals of two neighbors are nearly the same number
    return mean * pairs / float(chi2.ppf(_DOUBT, pairs))


def _are_twins(steps: np.ndarray) -> np.ndarray:
    """Return whether there is another point beside each, shape (points,).

    Args:
        steps: The points in grid steps, shape (points, axes).
    """
    from scipy.spatial import cKDTree

    nearest: np.ndarray = cKDTree(steps).query(steps, k=[2])[0][:, 0]
    return nearest <= 1.0
