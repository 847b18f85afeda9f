"""Splines.

Witnesses: scipy's RBFInterpolator for the spline; leaving points out one by one for the residuals
in closed form. How well surfaces are predicted is in ``test_adaptive.py``.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from landscope.sampling.splines import Lattice, Spline
from tests.surfaces import bumps


@pytest.mark.parametrize(("power", "kernel"), [(3, "cubic"), (5, "quintic")])
def test_the_spline_is_that_of_scipy_and_its_residuals_those_of_leaving_points_out(
    power: int, kernel: str
) -> None:
    lattice = Lattice((11, 11), (0.0, 0.0))
    at = np.sort(np.random.default_rng(0).permutation(121)[:30])
    places = lattice.coordinates
    values = bumps(*places.T)
    spline = Spline(lattice, at, 0.0, power)
    weights = spline.fit(values[at])

    def witness(points: np.ndarray, wanted: np.ndarray) -> Any:
        # For its quintic scipy recommends degree 2; degree 1 is what is compared.
        expected = pytest.warns(UserWarning, match="degree") if power == 5 else nullcontext()
        with expected:
            fit = RBFInterpolator(places[points], values[points], kernel=kernel, degree=1)
        return fit(places[wanted])

    everywhere = np.arange(121)
    np.testing.assert_allclose(
        spline.rows(everywhere) @ weights, witness(at, everywhere), atol=1e-8
    )
    left_out = [values[k] - witness(at[at != k], np.array([k]))[0] for k in at]
    np.testing.assert_allclose(spline.residuals(weights), left_out, atol=1e-7)


def test_a_point_that_alone_determines_the_trend_has_an_endless_power() -> None:
    """All others lie on one line; an early preview of a scan may see such points."""
    spline = Spline(Lattice((9, 9), (0.0, 0.0)), np.array([0, 1, 4, 5, 7, 8, 9]), 0.0, 3)
    assert spline.squared_power[-1] > 1e12
