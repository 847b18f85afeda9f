"""Traces and spectra against the eigenvalues of dense matrices.

What is random is looked at over many seeds, with a stand-in for the operator that multiplies by a
matrix: its products are those of a Hessian (tests/analysis/test_hessian.py) and cost nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from landscope.curvature.matrices import Hessian
from landscope.curvature.spectral_density import spectrum
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
    model = dense.twin(case.model)
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


# ---------------------------------------------------------------------------------- spectrum


def moments(values: Tensor) -> list[float]:
    return [float((values**k).mean()) for k in range(1, 5)]


@pytest.mark.parametrize("size", [60, 300])
def test_moments_are_those_of_the_eigenvalues(size: int) -> None:
    values = like_a_network(size)
    found = spectrum(operator(values), num_vectors=30, num_steps=60, max_outliers=20)
    assert [found.moment(k) for k in range(1, 5)] == pytest.approx(moments(values), rel=0.01)
    assert found.size == size


def test_moments_of_a_network_are_those_of_its_dense_hessian() -> None:
    case = cases.mlp()
    model = dense.twin(case.model)
    inputs = case.inputs.double()
    matrix = dense.hessian(
        lambda: F.cross_entropy(model(inputs), case.targets), dense.leaves(model)
    )
    hessian = Hessian(case.objective(precision="float64"))
    found = spectrum(hessian, num_vectors=10, num_steps=50, max_outliers=40)
    expected = moments(torch.linalg.eigvalsh(matrix))
    assert [found.moment(k) for k in range(1, 5)] == pytest.approx(expected, rel=0.01)
    assert found.products == hessian.products


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0, 20.0]), min_size=1, max_size=15),
    st.integers(1, 3),
    st.integers(2, 20),
    st.integers(0, 20),
    st.integers(0, 50),
)
def test_weights_are_shares_whatever_is_asked_for(
    values: list[float], vectors: int, steps: int, outliers: int, seed: int
) -> None:
    found = spectrum(
        operator(values, seed),
        num_vectors=vectors,
        num_steps=steps,
        max_outliers=outliers,
        seed=seed,
    )
    assert abs(float(found.weights.sum()) - 1.0) < 1e-12
    assert (found.weights >= 0).all()
    assert (np.diff(found.nodes) >= 0).all()
    assert np.isfinite(found.density).all()
    error = 1e-3 * max(map(abs, values))  # at which an eigenvalue is found singly
    heavy = found.nodes[found.weights > 1e-12]
    assert heavy.min() >= min(values) - error - 1e-12
    assert heavy.max() <= max(values) + error + 1e-12
    assert len(found.outliers) <= outliers
    for outlier in found.outliers:
        assert np.abs(np.array(values) - outlier).min() <= error + 1e-12


def test_outliers_are_eigenvalues_that_each_count_once() -> None:
    values = like_a_network(300)
    found = spectrum(operator(values), max_outliers=4)
    assert found.outliers == pytest.approx([1.0, 3.0, 5.0, 12.0], rel=1e-6)
    for outlier in found.outliers:
        assert found.weights[np.argmin(abs(found.nodes - outlier))] == pytest.approx(1 / 300)


def test_an_eigenvalue_that_occurs_often_has_its_share() -> None:
    values = [0.0] * 70 + [1.0] * 20 + [5.0] * 10
    found = spectrum(operator(values), num_vectors=200, max_outliers=5)
    for value, share in ((0.0, 0.7), (1.0, 0.2), (5.0, 0.1)):
        near = abs(found.nodes - value) < 1e-6
        assert found.weights[near].sum() == pytest.approx(share, abs=0.02)


def test_the_share_of_negative_eigenvalues_is_about_right() -> None:
    values = like_a_network(300)
    found = spectrum(operator(values), num_vectors=20)
    share = float((values < 0).double().mean())
    assert found.weights[found.nodes < 0].sum() == pytest.approx(share, abs=0.04)


def test_the_density_integrates_to_one_and_is_as_wide_as_asked_for() -> None:
    hessian = operator(like_a_network(120))
    found = spectrum(hessian, width=0.5)
    assert found.width == 0.5
    assert float(np.trapezoid(found.density, found.grid)) == pytest.approx(1.0, abs=1e-3)
    sum_ = np.zeros_like(found.grid)
    for node, weight in zip(found.nodes, found.weights, strict=True):
        sum_ += (
            weight * np.exp(-0.5 * ((found.grid - node) / 0.5) ** 2) / (0.5 * np.sqrt(2 * np.pi))
        )
    assert found.density == pytest.approx(sum_)
    usual = spectrum(hessian)
    assert usual.width == pytest.approx(np.ptp(usual.nodes) / 200)


@pytest.mark.parametrize("values", [[0.0] * 9, [2.0] * 9, [3.0]])
def test_a_single_eigenvalue_is_all_of_the_spectrum(values: list[float]) -> None:
    found = spectrum(operator(values))
    assert found.nodes == pytest.approx([values[0]] * len(found.nodes), abs=1e-12)
    assert found.moment(1) == pytest.approx(values[0], abs=1e-12)
    assert float(np.trapezoid(found.density, found.grid)) == pytest.approx(1.0, abs=1e-3)


def test_the_products_are_no_more_than_was_promised() -> None:
    hessian = operator(like_a_network(300))
    found = spectrum(hessian, num_vectors=3, num_steps=25)
    assert found.products == hessian.products <= 25 * 4


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_products_that_are_not_finite_are_a_sentence(bad: float) -> None:
    hessian = operator([1.0, 2.0, 3.0])
    hessian.matrix[1, 1] = bad
    for estimate in (trace, spectrum):
        with pytest.raises(NumericsError, match="a Hessian product is not finite"):
            estimate(hessian)
    with pytest.raises(NumericsError, match="a Hessian product is not finite"):
        spectrum(hessian, max_outliers=0)
    with pytest.raises(NumericsError, match="a Hessian product is not finite"):
        trace(hessian, sketch_size=0)


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


@pytest.mark.parametrize(
    "options",
    [{"num_vectors": 0}, {"num_steps": 1}, {"max_outliers": -1}, {"width": 0.0}, {"width": -1.0}],
)
def test_spectra_that_cannot_be_asked_for_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=r"num_vectors=.*; expected at least 1 vector"):
        spectrum(operator([1.0, 2.0]), **options)


def test_the_error_of_a_moment_is_its_spread_over_seeds() -> None:
    values = torch.linspace(-1, 3, 120, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(120, 120, generator=seeded(3), dtype=torch.float64))[0]
    hessian = Hessian(cases.curved(turn @ torch.diag(values) @ turn.T, precision="float64"))
    found = [
        spectrum(hessian, num_vectors=6, num_steps=12, max_outliers=0, seed=100 * k)
        for k in range(60)
    ]
    for power in (1, 2):
        moments = np.array([one.moment(power) for one in found])
        told = np.array([one.moment_stderr(power) for one in found])
        assert np.sqrt((told**2).mean()) == pytest.approx(moments.std(), rel=0.35)
    single = spectrum(hessian, num_vectors=1, num_steps=5, max_outliers=0)
    assert np.isnan(single.moment_stderr(1))
