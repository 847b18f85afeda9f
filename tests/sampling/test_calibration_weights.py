"""Weights that meet known totals; the witnesses are SciPy's root finder and least squares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from landscope.sampling.calibration_weights import Fit


def small_problem(totals: tuple[float, float]) -> tuple[Fit, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    shares = np.stack([np.ones(40), 1 + rng.gamma(2.0, 1.0, 40)])
    odds = rng.uniform(0.1, 0.9, 40)
    wanted = np.array(totals)
    return Fit.of(shares, wanted, odds), shares, odds, wanted


def test_weights_are_those_of_a_general_root_finder() -> None:
    fit, shares, odds, wanted = small_problem((150.0, 480.0))
    freedom = 1 / odds - 1 + 1e-3

    def weights(multipliers: np.ndarray) -> np.ndarray:
        raked: np.ndarray = np.exp(freedom * (multipliers @ shares)) / odds
        return raked

    witness = optimize.root(lambda m: shares @ weights(m) - wanted, np.zeros(2), tol=1e-12)
    assert witness.success
    np.testing.assert_allclose(fit.weights(), weights(witness.x), rtol=1e-7)


def test_where_no_positive_weights_exist_the_nearest_in_least_squares_are_given() -> None:
    fit, shares, odds, wanted = small_problem((150.0, 100.0))  # a mean of 2/3, of values above 1
    found = fit.weights()
    np.testing.assert_allclose(shares @ found, wanted, rtol=1e-9)
    assert found.min() < 0
    variance = (1 / odds - 1 + 1e-3) / odds
    gap = np.linalg.solve((shares * variance) @ shares.T, wanted - shares @ (1 / odds))
    np.testing.assert_allclose(found, 1 / odds + variance * (gap @ shares), rtol=1e-7)


def test_residuals_are_those_of_weighted_least_squares() -> None:
    fit, shares, odds, _ = small_problem((150.0, 480.0))
    values = np.random.default_rng(0).standard_normal((3, 40))
    root = np.sqrt((1 / odds - 1 + 1e-3) / odds)
    slopes = np.linalg.lstsq((shares * root).T, (values * root).T, rcond=None)[0]
    np.testing.assert_allclose(fit.unexplained(values), values - slopes.T @ shares, atol=1e-10)


def test_a_sample_is_judged_by_a_fit_that_has_not_seen_it() -> None:
    fit, shares, odds, _ = small_problem((150.0, 480.0))
    values = np.random.default_rng(0).standard_normal(40)
    noise = fit.unexplained(values[None])[0] * fit.noise(np.full(40, 2.0))
    root = np.sqrt((1 / odds - 1 + 1e-3) / odds)
    for k in np.argsort((fit.basis**2).sum(axis=1))[:-3]:  # leverages of the last may be bounded
        rest = np.arange(40) != k
        slopes = np.linalg.lstsq((shares * root).T[rest], (values * root)[rest], rcond=None)[0]
        missed = values[k] - slopes @ shares[:, k]
        assert noise[k] == pytest.approx(2 * np.sqrt(1 - odds[k]) * missed, rel=1e-9)
