"""Krylov spaces of small symmetric matrices, whose eigenvalues ``eigvalsh`` knows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from landscope.curvature.lanczos import KrylovSpace, random_vector
from tests.cases import seeded


def symmetric(values: list[float], seed: int = 0) -> Tensor:
    """Return a dense matrix with given eigenvalues."""
    size = len(values)
    normal = torch.randn(size, size, generator=seeded(seed), dtype=torch.float64)
    turn = torch.linalg.qr(normal)[0]
    found = turn @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ turn.T
    return torch.as_tensor((found + found.T) / 2)


def grown(matrix: Tensor, start: Tensor, count: int, **options: int) -> KrylovSpace:
    space = KrylovSpace(lambda v: matrix @ v, start, **{"max_vectors": len(start), **options})
    for _ in range(count):
        space.extend()
    return space


def start(size: int, seed: int = 1) -> Tensor:
    return random_vector(size, seed, dtype=torch.float64)


def assert_projected(space: KrylovSpace, matrix: Tensor) -> None:
    """Assert that the basis is orthonormal and the small matrix is Q'AQ."""
    held = space.basis[: space.size]
    scale = max(float(matrix.abs().max()), 1e-300)
    assert float((held @ held.T - torch.eye(space.size)).abs().max()) < 1e-12
    small = space.projection[: space.size, : space.size]
    assert float((held @ matrix @ held.T - small).abs().max()) < 1e-12 * scale * len(matrix)


eigenvalues = st.lists(
    st.sampled_from([0.0, 1.0, 1.0, -2.0, 3.5, 100.0, 1e-6]), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(eigenvalues, st.integers(0, 100))
@example([0.0, 0.0], 0)  # the vector to go on with is drawn as the first one was
@example([1.0, 1.0, 1.0], 3)
def test_a_whole_space_has_every_eigenvalue_as_often_as_it_occurs(
    values: list[float], seed: int
) -> None:
    matrix = symmetric(values, seed)
    space = grown(matrix, start(len(values), seed), len(values))
    assert space.is_exhausted
    assert space.is_full
    assert space.beta == 0.0
    assert_projected(space, matrix)
    scale = max(map(abs, values)) or 1.0
    found = torch.tensor(sorted(values), dtype=torch.float64)
    torch.testing.assert_close(space.ritz_pairs()[0], found, rtol=0, atol=1e-12 * scale)


@settings(max_examples=60, deadline=None)
@given(eigenvalues.filter(lambda values: len(values) > 2), st.integers(0, 100), st.integers(1, 12))
def test_residuals_are_those_of_the_ritz_vectors(
    values: list[float], seed: int, steps: int
) -> None:
    matrix = symmetric(values, seed)
    space = grown(matrix, start(len(values), seed), min(steps, len(values)))
    found, residuals, coefficients = space.ritz_pairs()
    vectors = space.combine(coefficients)
    true = (vectors @ matrix - found[:, None] * vectors).norm(dim=1)
    scale = max(map(abs, values))
    torch.testing.assert_close(residuals, true, rtol=1e-6, atol=1e-12 * scale)
    assert space.products == min(steps, len(values))


@pytest.mark.parametrize("value", [0.0, 2.5, -1e-12, 1e12])
def test_a_multiple_of_the_identity_has_no_second_eigenvalue(value: float) -> None:
    matrix = value * torch.eye(6, dtype=torch.float64)
    space = grown(matrix, start(6), 1)
    assert space.beta == 0.0
    space.extend()
    assert_projected(space, matrix)
    assert space.ritz_pairs()[0].tolist() == pytest.approx([value, value], rel=1e-13)


def test_one_parameter_is_a_whole_space() -> None:
    space = grown(torch.tensor([[-3.0]]), torch.tensor([2.0]), 1, max_vectors=50)
    assert space.is_exhausted
    assert space.is_full
    values, residuals, _ = space.ritz_pairs()
    assert values.tolist() == [-3.0]
    assert residuals.tolist() == [0.0]


def test_rank_one_is_found_with_two_products() -> None:
    direction = torch.ones(9, dtype=torch.float64)
    matrix = torch.outer(direction, direction)
    space = grown(matrix, start(9), 2)
    assert space.beta == 0.0
    values, residuals, _ = space.ritz_pairs()
    assert values.tolist() == pytest.approx([0.0, 9.0], abs=1e-13)
    assert residuals.tolist() == [0.0, 0.0]


def test_a_start_in_an_invariant_space_does_not_shut_the_rest_out() -> None:
    matrix = torch.diag(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0], dtype=torch.float64))
    inside = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    space = grown(matrix, inside, 2)
    assert space.beta == 0.0
    for _ in range(3):
        space.extend()
    assert space.ritz_pairs()[0].tolist() == pytest.approx([1, 2, 3, 4, 5])
    assert_projected(space, matrix)


def test_the_basis_grows_with_its_size_and_not_before() -> None:
    matrix = symmetric([float(k) for k in range(60)])
    space = grown(matrix, start(60), 10)
    assert len(space.basis) == 17
    for _ in range(50):
        space.extend()
    assert len(space.basis) <= 61
    assert_projected(space, matrix)


def test_restarts_keep_a_projection_of_the_matrix() -> None:
    matrix = symmetric([float(k) ** 2 for k in range(40)])
    space = grown(matrix, start(40), 12, max_vectors=12)
    assert space.is_full
    assert not space.is_exhausted
    before = space.ritz_pairs()[0]
    space.restart(torch.tensor([0, 1, 10, 11]))
    assert space.size == 4
    space.extend()
    assert_projected(space, matrix)
    after = space.ritz_pairs()[0]
    assert float(after[-1]) >= float(before[-1]) - 1e-9
    assert float(after[0]) <= float(before[0]) + 1e-9


def test_restarts_converge_to_both_ends() -> None:
    matrix = symmetric([-1.0, *[0.01 * k for k in range(60)], 5.0])
    space = grown(matrix, start(62), 10, max_vectors=10)
    for _ in range(12):
        space.restart(torch.tensor([0, 1, 2, 8, 9]))
        while not space.is_full:
            space.extend()
    assert_projected(space, matrix)
    values, residuals, coefficients = space.ritz_pairs()
    assert float(values[0]) == pytest.approx(-1.0, abs=1e-12)
    assert float(values[-1]) == pytest.approx(5.0, abs=1e-12)
    vectors = space.combine(coefficients[:, [0, 9]])
    true = (vectors @ matrix - values[[0, 9], None] * vectors).norm(dim=1)
    assert float((residuals[[0, 9]] - true).abs().max()) < 1e-12


def test_a_restart_at_an_invariant_space_goes_on_outside_it() -> None:
    matrix = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0, -2.0], dtype=torch.float64))
    inside = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    space = grown(matrix, inside, 2, max_vectors=2)
    assert space.beta == 0.0
    space.restart(torch.tensor([1]))
    space.extend()
    assert_projected(space, matrix)


def test_float32_vectors_stay_orthonormal_over_many_products() -> None:
    matrix = symmetric([2.0**-k for k in range(100)]).float()
    space = grown(matrix, start(100).float(), 80)
    held = space.basis[:80].double()
    assert float((held @ held.T - torch.eye(80)).abs().max()) < 1e-5
    assert float(space.ritz_pairs()[0][-1]) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_product_that_is_not_finite_is_an_error(bad: float) -> None:
    space = KrylovSpace(lambda v: v * bad, start(3), max_vectors=3)
    with pytest.raises(FloatingPointError):
        space.extend()


def test_random_vectors_are_drawn_by_the_seed_alone() -> None:
    first, same, other = (random_vector(5, seed, dtype=torch.float32) for seed in (3, 3, 4))
    assert first.equal(same)
    assert not first.equal(other)
    assert first.dtype == torch.float32
