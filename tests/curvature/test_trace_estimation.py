"""Traces against the eigenvalues of dense matrices.

What is random is looked at over many seeds, with a stand-in for the operator that multiplies by a
matrix: its products are those of a Hessian (test_linear_operator.py) and cost nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from landscope.curvature.matrices import Hessian
from landscope.curvature.trace_estimation import trace
from landscope.errors import NumericsError, ParamsError
from tests import cases
from tests.cases import seeded
from tests.oracles import dense


class Matrix:
    """A symmetric matrix as an operator that counts."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.shape, self.products = matrix, tuple(matrix.shape), 0
        self.dtype, self.device = matrix.dtype, matrix.device

    def __matmul__(self, v: Tensor) -> Tensor:
        self.products += 1 if v.ndim == 1 else v.shape[1]
        return self.matrix @ v


def operator(values: Any, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """Return an operator with given eigenvalues, whose eigenvectors are random."""
    values = torch.as_tensor(values, dtype=torch.float64)
    normal = torch.randn(len(values), len(values), generator=seeded(seed), dtype=torch.float64)
    turn = torch.linalg.qr(normal)[0]
    return Matrix((turn @ torch.diag(values) @ turn.T).to(dtype))


def like_a_network(size: int = 60) -> Tensor:
    """Return a few eigenvalues far out and a bulk around zero, some of it negative."""
    bulk = torch.randn(size - 4, generator=seeded(9), dtype=torch.float64) * 0.05 + 0.03
    return torch.cat([bulk, torch.tensor([12.0, 5.0, 3.0, 1.0], dtype=torch.float64)])


# ------------------------------------------------------------------------------------- trace


@pytest.mark.parametrize(("sketch", "tolerance"), [(8, 0.05), (8, 0.02)])
def test_the_trace_is_within_three_error_bars(sketch: int, tolerance: float) -> None:
    hessian = operator(like_a_network())
    truth = float(like_a_network().sum())
    found = [
        trace(hessian, sketch_size=sketch, relative_stderr_tol=tolerance, seed=seed)
        for seed in range(200)
    ]
    off = np.array([abs(t.value - truth) / t.stderr for t in found])
    assert (off < 3).mean() >= 0.97
    assert 0.8 < float(np.sqrt((off**2).mean())) < 1.35
    assert all(t.converged == (t.stderr <= tolerance * abs(t.value)) for t in found)


def test_the_trace_of_a_network_is_that_of_its_dense_hessian() -> None:
    case = cases.mlp()
    model = dense.clone(case.model)
    inputs = case.inputs.double()
    expected = dense.hessian(
        lambda: F.cross_entropy(model(inputs), case.targets), dense.leaves(model)
    )
    hessian = Hessian(case.objective(precision="float64"))
    found = trace(hessian, relative_stderr_tol=0.02)
    assert found.converged
    assert found.products == hessian.products
    assert abs(found.value - float(expected.trace())) < 3 * found.stderr
    exact = trace(Hessian(case.objective(precision="float64"), select="2.bias"))
    assert exact.value == pytest.approx(float(expected.diag()[-3:].sum()), rel=1e-12)
    assert (exact.stderr, exact.converged, exact.products) == (0.0, True, 6)


def test_a_sketch_saves_products() -> None:
    hessian = operator(like_a_network())
    plain, sketched = (
        trace(hessian, sketch_size=s, relative_stderr_tol=0.01, max_products=4000) for s in (0, 8)
    )
    assert sketched.converged
    assert sketched.products < plain.products / 4


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_without_a_sketch_random_signs_tell_a_multiple_of_the_identity_exactly(
    value: float,
) -> None:
    found = trace(operator([value] * 20), sketch_size=0)
    assert found.value == pytest.approx(20 * value, abs=1e-12)
    assert found.stderr < 1e-12
    assert found.converged
    assert found.products == 16


def test_a_matrix_of_lower_rank_than_the_sketch_is_counted_exactly() -> None:
    found = trace(operator([4.0, -1.0, *[0.0] * 30]))
    assert found.value == pytest.approx(3.0, rel=1e-10)
    assert found.stderr < 1e-10


def test_a_trace_near_zero_is_told_with_its_error_and_the_truth_about_it() -> None:
    values = [*np.linspace(1, 3, 20), *np.linspace(-3, -1, 20)]
    found = trace(operator(values), max_products=100)
    assert not found.converged
    assert 100 <= found.products <= 104
    assert abs(found.value) < 4 * found.stderr


def test_the_seed_decides() -> None:
    hessian = operator(like_a_network())
    assert trace(hessian, seed=1) == trace(hessian, seed=1)
    assert trace(hessian, seed=1) != trace(hessian, seed=2)


def test_a_float32_trace_is_summed_in_double() -> None:
    found = trace(operator(like_a_network(), dtype=torch.float32), relative_stderr_tol=0.01)
    assert abs(found.value - float(like_a_network().sum())) < 4 * found.stderr


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_products_that_are_not_finite_are_a_sentence(bad: float) -> None:
    hessian = operator([1.0, 2.0, 3.0])
    hessian.matrix[1, 1] = bad
    for size in (8, 0):
        with pytest.raises(NumericsError, match="a Hessian product is not finite"):
            trace(hessian, sketch_size=size)


@pytest.mark.parametrize(
    "options",
    [
        {"relative_stderr_tol": 0.0},
        {"relative_stderr_tol": float("nan")},
        {"sketch_size": -1},
    ],
)
def test_traces_that_cannot_be_asked_for_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=r"relative_stderr_tol=.*; expected a tolerance above 0"):
        trace(operator([1.0, 2.0]), **options)


def test_intervals_are_students() -> None:
    held = []
    for seed in range(150):
        told = trace(operator([10.0, 6.0, 3.0] + [0.5] * 40, seed), seed=seed)
        lower, upper = told.interval
        factor = (upper - lower) / 2 / told.stderr
        assert factor == pytest.approx(stats.t.ppf(0.975, told.vectors - 1))
        held.append(lower <= 39.0 <= upper)
    assert np.mean(held) >= 0.93
    assert trace(operator([1.0, 2.0]), sketch_size=2).interval == pytest.approx((3.0, 3.0))
