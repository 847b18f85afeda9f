"""Least squares by blocks against numpy's, which sees all rows at once (LAPACK's gelsd)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscope.slices.least_squares import reduce_rows, solve_triangle


def _solve(directions: torch.Tensor, target: torch.Tensor, size: int) -> tuple[list[float], float]:
    columns = torch.cat([directions, target[:, None]], dim=1)
    steps, residual = solve_triangle(reduce_rows(columns.split(size), columns.shape[1]))
    return list(steps), residual


@pytest.mark.parametrize("size", [1, 3, 7, 100, 1000])
def test_the_size_of_the_blocks_does_not_matter(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(400, generator=generator, dtype=torch.float64)
    expected, squared, *_ = np.linalg.lstsq(directions.numpy(), target.numpy(), rcond=None)
    steps, residual = _solve(directions, target, size)
    assert steps == pytest.approx(expected, rel=1e-12)
    assert residual == pytest.approx(squared[0] ** 0.5, rel=1e-13)


@pytest.mark.parametrize("factor", [1.0, -2.0, 3.0, 1e-3, 0.0])
def test_dependent_directions_give_the_coordinates_of_least_norm(factor: float) -> None:
    d = torch.linspace(-1.0, 2.0, 50, dtype=torch.float64)
    steps, residual = _solve(torch.stack([d, factor * d], dim=1), 0.8 * d, 8)
    share = 0.8 / (1 + factor**2)
    assert steps == pytest.approx((share, share * factor), rel=1e-9, abs=1e-12)
    assert residual == pytest.approx(0.0, abs=1e-12)


def test_a_target_that_is_not_finite_has_no_coordinates() -> None:
    steps, residual = _solve(torch.eye(5, 2, dtype=torch.float64), torch.full((5,), torch.nan), 5)
    assert np.isnan([*steps, residual]).all()
