"""Spectral densities against the eigenvalues of dense matrices.

What is random is looked at over many seeds, with a stand-in for the operator that multiplies by a
matrix: its products are those of a Hessian (test_linear_operator.py) and cost nothing.
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
from landscope.errors import NumericsError, ParamsError
from tests import cases
from tests.cases import seeded
from tests.curvature.test_trace_estimation import like_a_network, operator
from tests.oracles import dense


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
    model = dense.clone(case.model)
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


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_products_that_are_not_finite_are_a_sentence(bad: float) -> None:
    hessian = operator([1.0, 2.0, 3.0])
    hessian.matrix[1, 1] = bad
    for count in (20, 0):
        with pytest.raises(NumericsError, match="a Hessian product is not finite"):
            spectrum(hessian, max_outliers=count)


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


@pytest.mark.parametrize("name", ["one eigenvalue dominates", "many are alike"])
def test_intervals_of_moments_hold(name: str) -> None:
    """Against the eigenvalues themselves, with 6 random vectors and no outliers singly."""
    values = np.linspace(0.5, 1.5, 60)
    if name == "one eigenvalue dominates":
        values[-1] = 100.0
    matrix = operator(list(values))
    held = []
    for seed in range(120):
        one = spectrum(matrix, num_vectors=6, num_steps=8, max_outliers=0, seed=100 * seed)
        for power in (1, 2):
            lower, upper = one.moment_interval(power)
            assert lower < one.moment(power) < upper
            held.append(lower <= (values**power).mean() <= upper)
    assert np.mean(held) >= 0.93


def test_intervals_of_exact_moments_are_the_moments() -> None:
    one = spectrum(operator([1.0, 2.0, 4.0]), num_steps=3, max_outliers=3)
    assert one.moment_interval(1) == pytest.approx((7 / 3, 7 / 3))
