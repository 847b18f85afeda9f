"""The noise of values and the smoothing of splines.

Witnesses: scipy's RBFInterpolator with smoothing; the standard deviation of the noise that was
added.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from landscope.sampling.residuals import Residuals, find_noise
from landscope.sampling.splines import Lattice, Spline
from tests.surfaces import bowl, bumps

LATTICE = Lattice((41, 41), (0.0, 0.0))


def choose_points(pairs: int) -> np.ndarray:
    """Return the points of a coarse grid, and cells beside some of them."""
    grid = np.arange(0, 41, 8)
    coarse = (41 * grid[:, None] + grid[None, :]).ravel()
    return np.unique(np.append(coarse, coarse[coarse % 41 < 40][:pairs] + 1))


def test_a_spline_with_a_nugget_is_the_smoothing_spline_of_scipy() -> None:
    lattice = Lattice((11, 11), (0.0, 0.0))
    at = np.sort(np.random.default_rng(0).permutation(121)[:40])
    places, everywhere = lattice.coordinates, np.arange(121)
    values = bumps(*places.T)
    spline = Spline(lattice, at, 0.0, 3, 0.02)
    weights = spline.fit(values[at])

    def witness(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        fit = RBFInterpolator(
            places[points], values[points], kernel="cubic", degree=1, smoothing=0.02
        )
        return np.asarray(fit(places[wanted]))

    smoothed = spline.rows(everywhere) @ weights
    np.testing.assert_allclose(smoothed, witness(at, everywhere), atol=1e-8)
    left_out = [values[k] - witness(at[at != k], np.array([k]))[0] for k in at]
    np.testing.assert_allclose(spline.residuals(weights), left_out, atol=1e-8)


def test_gains_are_the_variances_of_residuals_of_noise() -> None:
    spline = Spline(LATTICE, choose_points(10), 0.0, 5)
    noise = np.random.default_rng(0).standard_normal((4000, len(spline.at)))
    residuals = np.array([spline.residuals(spline.fit(values)) for values in noise])
    np.testing.assert_allclose(residuals.var(axis=0), spline.noise_gains, rtol=0.15)


@pytest.mark.parametrize("level", [0.002, 0.01, 0.05])
def test_noise_is_measured_at_points_beside_each_other(level: float) -> None:
    at, measured = choose_points(12), []
    for seed in range(12):
        noise = level * np.random.default_rng(seed).standard_normal(len(at))
        values = np.log(bowl(*LATTICE.coordinates[at].T)) + noise
        measured.append(find_noise(LATTICE, at, values, (0.0, 5, 0.0))[1])
    assert level < np.mean(measured) < 1.6 * level  # on the safe side, because points are few
    assert 0.4 * level < min(measured)
    assert max(measured) < 2.4 * level


def test_a_smooth_surface_is_not_smoothed() -> None:
    at = choose_points(12)
    values = np.asarray(bowl(*LATTICE.coordinates[at].T))
    share, noise = find_noise(LATTICE, at, values, (0.0, 5, 0.0))
    assert share == 0.0
    assert noise < 1e-3 * np.ptp(values)


def test_points_beside_others_stand_for_as_many_cells_as_lie_beside_points() -> None:
    at = choose_points(12)
    residuals = Residuals(Spline(LATTICE, at, 0.0, 3), bumps(*LATTICE.coordinates[at].T))
    twins, share = residuals.twins, 4 * len(residuals.twins) / 1681
    assert twins.sum() == 24
    np.testing.assert_allclose(
        residuals.shares[twins].sum() / residuals.shares.sum(), share, rtol=1e-9
    )
