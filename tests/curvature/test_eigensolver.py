"""Eigenpairs and extremes against ``eigvalsh`` of dense matrices.

Matrices are given outright (an objective w'Mw / 2 has M as its Hessian), or the dense Hessian of a
network by plain double backward (tests/oracles/dense.py).
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from landscope import Objective, params
from landscope.curvature import linear_operator, probe, ritz
from landscope.curvature.eigensolver import eigenpairs, extremes
from landscope.curvature.matrices import Hessian
from landscope.curvature.spectral_density import spectrum
from landscope.curvature.trace_estimation import trace
from landscope.errors import NumericsError, ParamsError
from tests import cases
from tests.cases import seeded
from tests.oracles import dense

MODELS = {
    "mlp": cases.mlp,
    "batch_norm_cnn": cases.batch_norm_cnn,
    "transformer": cases.transformer,
    "lstm": cases.lstm,
    "odd": cases.odd,
}
WHICH: tuple[Any, ...] = ("extremes", "largest", "smallest", "magnitude")
each_which = pytest.mark.parametrize("which", WHICH)


@functools.cache
def network(name: str) -> tuple[Hessian, Tensor]:
    """Return an operator and its dense witness."""
    case = MODELS[name]()
    model = dense.clone(case.model)
    inputs = case.inputs.double()
    found = dense.hessian(lambda: F.cross_entropy(model(inputs), case.targets), dense.leaves(model))
    return Hessian(case.objective(precision="float64")), found


def symmetric(values: list[float] | Tensor, seed: int = 0) -> Tensor:
    values = torch.as_tensor(values, dtype=torch.float64)
    normal = torch.randn(len(values), len(values), generator=seeded(seed), dtype=torch.float64)
    turn = torch.linalg.qr(normal)[0]
    found = turn @ torch.diag(values) @ turn.T
    return torch.as_tensor((found + found.T) / 2)


def of(matrix: Tensor, **options: Any) -> Hessian:
    return Hessian(cases.curved(matrix), **options)


def in_order(values: Tensor, count: int, which: str) -> list[float]:
    """Return what a person would write down: sorted lists, dealt out."""
    rising = sorted(values.tolist())
    if which == "largest":
        return rising[::-1][:count]
    if which == "smallest":
        return rising[:count]
    if which == "magnitude":
        return sorted(rising, key=abs)[::-1][:count]
    found: list[float] = []
    while len(found) < count:
        found.append(rising.pop(-1 if len(found) % 2 == 0 else 0))
    return found


# -------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("name", list(MODELS))
def test_extremes_of_networks_are_right_to_six_digits(name: str) -> None:
    hessian, matrix = network(name)
    expected = torch.linalg.eigvalsh(matrix)
    before = hessian.products
    found = extremes(hessian, eigenvalue_tol=1e-7)
    assert found.converged
    assert found.smallest == pytest.approx(float(expected[0]), rel=1e-6)
    assert found.largest == pytest.approx(float(expected[-1]), rel=1e-6)
    assert found.convexity == pytest.approx(abs(float(expected[0] / expected[-1])), rel=1e-6)
    assert found.products == hessian.products - before
    for k, value in enumerate((found.smallest, found.largest)):
        vector, residual = params.flatten(found.vectors[k]), float(found.residual[k])
        true = float((matrix @ vector - value * vector).norm())
        assert residual == pytest.approx(true, rel=1e-3, abs=1e-12)
        assert abs(value - float(expected[[0, -1][k]])) <= max(residual, 1e-12)


@each_which
@pytest.mark.parametrize("name", list(MODELS))
def test_eigenpairs_of_networks_are_right_in_order_and_with_true_residuals(
    name: str, which: Any
) -> None:
    hessian, matrix = network(name)
    found = eigenpairs(hessian, 5, which, residual_tol=1e-8)
    expected = in_order(torch.linalg.eigvalsh(matrix), 5, which)
    assert found.converged
    assert found.value.tolist() == pytest.approx(expected, rel=1e-8)
    assert len(found.vectors) == 5
    flat = torch.stack([params.flatten(v) for v in found.vectors])
    assert list(found.vectors[0]) == list(hessian.template)
    assert float((flat @ flat.T - torch.eye(5)).abs().max()) < 1e-7
    true = (flat @ matrix - found.value[:, None] * flat).norm(dim=1)
    torch.testing.assert_close(found.residual, true, rtol=1e-3, atol=1e-13)
    assert found.stderr.tolist() == [0.0] * 5


def test_float32_extremes_are_right_to_float32() -> None:
    expected = torch.linalg.eigvalsh(network("mlp")[1])
    found = extremes(Hessian(cases.mlp().objective()), eigenvalue_tol=1e-9)
    assert found.converged
    assert found.smallest == pytest.approx(float(expected[0]), rel=1e-5)
    assert found.largest == pytest.approx(float(expected[-1]), rel=1e-5)


# -------------------------------------------------------------------------------- matrices


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-20, 20).map(float), min_size=2, max_size=25),
    st.sampled_from(WHICH),
    st.integers(0, 1000),
)
def test_residuals_and_errors_are_bounds(values: list[float], which: Any, seed: int) -> None:
    matrix = symmetric(values, seed)
    found = eigenpairs(of(matrix), 2, which, residual_tol=1e-6, seed=seed)
    scale = max(*map(abs, values), 1e-300)
    flat = torch.stack([params.flatten(v) for v in found.vectors])
    true = (flat @ matrix - found.value[:, None] * flat).norm(dim=1)
    assert float((found.residual - true).abs().max()) <= 1e-12 * scale + 1e-6 * float(true.max())
    assert found.converged
    assert float(true.max()) <= 1e-6 * scale
    ends = extremes(of(matrix), eigenvalue_tol=1e-9, seed=seed)
    assert ends.smallest == pytest.approx(min(values), abs=2e-9 * scale)
    assert ends.largest == pytest.approx(max(values), abs=2e-9 * scale)


@pytest.mark.parametrize("value", [0.0, 3.0, -1.0])
@each_which
def test_a_multiple_of_the_identity(value: float, which: Any) -> None:
    hessian = of(value * torch.eye(30, dtype=torch.float64))
    found = eigenpairs(hessian, 2, which)
    assert found.value.tolist() == pytest.approx([value] * 2)
    assert found.converged
    ends = extremes(hessian)
    assert (ends.smallest, ends.largest) == pytest.approx((value, value))
    assert ends.convexity == pytest.approx(1.0 if value else float("nan"), nan_ok=True)


def test_a_matrix_of_rank_one() -> None:
    direction = torch.ones(40, dtype=torch.float64)
    hessian = of(torch.outer(direction, direction))
    ends = extremes(hessian)
    assert ends.converged
    assert (ends.smallest, ends.largest) == pytest.approx((0.0, 40.0), abs=1e-12)
    assert ends.products <= 5
    assert ends.convexity < 1e-12
    assert eigenpairs(hessian, 1, "magnitude").value.tolist() == pytest.approx([40.0])


def test_a_single_parameter() -> None:
    hessian = of(torch.tensor([[-2.0]], dtype=torch.float64))
    ends = extremes(hessian)
    assert (ends.smallest, ends.largest, ends.converged) == (-2.0, -2.0, True)
    assert float(ends.residual.max()) == pytest.approx(0.0, abs=1e-15)
    pairs = eigenpairs(hessian, 1)
    assert pairs.value.tolist() == [-2.0]
    assert pairs.vectors[0]["w"].tolist() == [1.0]


@each_which
def test_all_eigenvalues_can_be_asked_for(which: Any) -> None:
    matrix = symmetric([1.0, 1.0, 2.0, -3.0, 0.0, 7.0])
    found = eigenpairs(of(matrix), 6, which, residual_tol=1e-10)
    expected = in_order(torch.linalg.eigvalsh(matrix), 6, which)
    assert found.value.tolist() == pytest.approx(expected, abs=1e-12)
    assert found.converged


def test_eigenvectors_have_a_sign() -> None:
    found = eigenpairs(of(symmetric([float(k) for k in range(12)])), 6)
    for vector in found.vectors:
        flat = params.flatten(vector)
        assert float(flat[flat.abs().argmax()]) > 0


def test_the_same_seed_gives_the_same_numbers() -> None:
    hessian = network("mlp")[0]
    first, same = (eigenpairs(hessian, 2, seed=3) for _ in range(2))
    assert first.value.equal(same.value)
    assert params.flatten(first.vectors[0]).equal(params.flatten(same.vectors[0]))
    assert extremes(hessian, seed=1).largest != extremes(hessian, seed=2).largest


def test_a_start_may_be_given() -> None:
    matrix = symmetric([1.0, *[0.01 * k for k in range(60)], -1.0, 5.0])
    cold = extremes(of(matrix), eigenvalue_tol=1e-8)
    first, last = cold.vectors
    start = {name: first[name] + last[name] for name in first}
    warm = extremes(of(matrix), eigenvalue_tol=1e-8, start=start)
    assert warm.products < cold.products
    assert warm.largest == pytest.approx(cold.largest)
    assert warm.smallest == pytest.approx(cold.smallest)
    with pytest.raises(ParamsError, match=r"v is \(3,\)"):
        extremes(of(matrix), start=torch.ones(3))


# -------------------------------------------------------------------------------- little room


@each_which
@pytest.mark.parametrize("room", [(8, 8), (12, 12)])
def test_a_small_basis_starts_again_and_finds_the_right_ends(
    which: Any, room: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ritz, "_BASIS", room)
    values = torch.cat([torch.linspace(-1, 1, 150), torch.tensor([2.0, 2.5, -1.7, -2.2])])
    matrix = symmetric(values)
    found = eigenpairs(of(matrix), 3, which, residual_tol=1e-7)
    assert found.converged
    assert found.products > room[0]
    expected = in_order(values.double(), 3, which)
    assert found.value.tolist() == pytest.approx(expected, rel=1e-9)
    flat = torch.stack([params.flatten(v) for v in found.vectors])
    true = (flat @ matrix - found.value[:, None] * flat).norm(dim=1)
    torch.testing.assert_close(found.residual, true, rtol=1e-3, atol=1e-12)


def test_extremes_are_found_in_a_small_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ritz, "_BASIS", (6, 6))
    found = extremes(of(symmetric(torch.linspace(-1, 4, 200))), eigenvalue_tol=1e-9)
    assert found.converged
    assert (found.smallest, found.largest) == pytest.approx((-1.0, 4.0), rel=1e-6)


@each_which
def test_more_pairs_than_a_basis_has_room_for(which: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ritz, "_BASIS", (10, 10))
    values = torch.linspace(-1, 2, 60, dtype=torch.float64) ** 3
    found = eigenpairs(of(symmetric(values)), 14, which, residual_tol=1e-6)
    assert found.converged
    assert found.value.tolist() == pytest.approx(in_order(values, 14, which), rel=1e-5)


def test_the_basis_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    hessian = network("mlp")[0]
    for size, room in ((2**31, 400), (67 * 8 * 50, 50), (0, 24)):
        monkeypatch.setattr(ritz, "_BYTES", size)
        assert ritz._count_room(hessian) == room


# -------------------------------------------------------------------------------- what it says


def test_with_too_few_products_it_says_so() -> None:
    matrix = symmetric(torch.linspace(-1, 4, 100))
    pairs = eigenpairs(of(matrix), 2, residual_tol=1e-9, max_products=6)
    assert not pairs.converged
    assert pairs.products == 6
    assert len(pairs.value) == 2
    ends = extremes(of(matrix), eigenvalue_tol=1e-9, max_products=6)
    assert not ends.converged
    assert ends.products == 6
    assert abs(ends.largest - 4) <= float(ends.residual[1])


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_extremes_are_within_the_tolerance(tolerance: float) -> None:
    values = torch.cat([torch.linspace(-0.5, 1, 300), torch.tensor([1.1, -0.55])])
    hessian = of(symmetric(values))
    for seed in range(5):
        found = extremes(hessian, eigenvalue_tol=tolerance, seed=seed)
        assert found.converged
        assert found.largest == pytest.approx(1.1, rel=2 * tolerance)
        assert found.smallest == pytest.approx(-0.55, rel=2 * tolerance)


def test_an_end_near_zero_is_told_to_a_share_of_the_other() -> None:
    hessian = of(symmetric([*[10.0 * k for k in range(1, 31)], 1e-7]))
    found = extremes(hessian, eigenvalue_tol=1e-2)
    assert found.converged
    assert found.smallest == pytest.approx(1e-7, abs=1e-5 * 300)


def test_of_samples_each_value_has_an_error_bar() -> None:
    objective = cases.mlp().objective(precision="float64")
    hessian = Hessian(objective, samples=18)
    before = hessian.products
    found = eigenpairs(hessian, 2)
    assert found.products == hessian.products - before
    expected = [hessian.along(v)[1] for v in found.vectors]
    assert found.stderr.tolist() == pytest.approx(expected)
    assert min(expected) > 0
    before = hessian.products
    ends = extremes(hessian)
    assert ends.products == hessian.products - before
    assert ends.stderr.tolist() == pytest.approx([hessian.along(v).stderr for v in ends.vectors])
    cheap = extremes(hessian, with_stderr=False)
    assert cheap.products == ends.products - 2
    assert cheap.stderr.isnan().all()
    assert cheap.value.equal(ends.value)
    assert extremes(Hessian(objective)).stderr.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_products_that_are_not_finite_are_a_sentence(bad: float) -> None:
    matrix = torch.eye(5, dtype=torch.float64)
    matrix[2, 2] = bad
    for find in (eigenpairs, extremes):
        with pytest.raises(NumericsError, match="a Hessian product is not finite"):
            find(of(matrix))


@pytest.mark.parametrize(
    ("count", "which", "words"),
    [
        (0, "largest", "count=0; expected 1 to 5, the number of parameters"),
        (6, "largest", "count=6; expected 1 to 5"),
        (2.5, "largest", r"count=2\.5; expected 1 to 5"),
        (1, "biggest", "which='biggest'; expected one of extremes, largest"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(count: Any, which: Any, words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        eigenpairs(of(torch.eye(5, dtype=torch.float64)), count, which)


# -------------------------------------------------------------------------------- rounding


def fitted(seed: int, precision: str, **options: Any) -> Any:
    """Return a convex objective whose loss is so small that products in float32 are rounding."""
    torch.manual_seed(seed)
    targets = torch.randint(3, (30,), generator=seeded(seed))
    inputs = torch.randn(30, 6, generator=seeded(seed + 50)) / 3 + 4 * torch.eye(6)[targets]
    model = torch.nn.Linear(6, 3)
    with torch.no_grad():
        model.weight.copy_(5 * torch.eye(6)[:3])
        model.bias.zero_()
    data = inputs, targets
    return Objective(model, torch.nn.CrossEntropyLoss(), data, precision=precision, **options)


@pytest.mark.parametrize("seed", range(6))
def test_rounding_is_in_the_residual_and_products_are_repeated(seed: int) -> None:
    result = extremes(Hessian(fitted(seed, "float32")))
    right = torch.linalg.eigvalsh(dense_hessian(fitted(seed, "float64")))
    assert result.is_saddle_like is False
    assert result.route.endswith("in float64")
    assert result.rounding < 1e-6 * result.largest
    for value, residual, true in zip(result.value, result.residual, right[[0, -1]], strict=True):
        assert abs(float(value - true)) <= float(residual) + 1e-8 * float(right[-1])


def test_without_float64_the_sign_of_a_rounded_eigenvalue_is_not_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_operator, "to_double", lambda _: None)
    monkeypatch.setattr(probe, "to_double", lambda _: None)
    for seed in range(6):
        result = extremes(Hessian(fitted(seed, "float32")))
        true = torch.linalg.eigvalsh(dense_hessian(fitted(seed, "float64")))
        assert result.is_saddle_like is not True
        assert abs(result.smallest - float(true[0])) <= 2 * float(result.residual[0])


def test_negative_curvature_is_still_found_in_float32() -> None:
    result = extremes(Hessian(cases.mlp().objective()))
    expected = torch.linalg.eigvalsh(network("mlp")[1])
    assert float(expected[0]) < 0
    assert result.is_saddle_like is True
    assert (result.route, result.converged) == ("double backward", True)
    assert 0 < result.rounding < 1e-5 * result.largest
    assert result.symmetry < 1e-5


def dense_hessian(objective: Any) -> Tensor:
    model, (inputs, targets) = dense.clone(objective.model), objective.problem.sources[""]
    return dense.hessian(
        lambda: F.cross_entropy(model(inputs.double()), targets), dense.leaves(model)
    )


def test_the_trace_and_the_spectrum_of_a_tiny_loss_are_those_of_float64() -> None:
    hessian = Hessian(fitted(1, "float32"))
    expected = dense_hessian(fitted(1, "float64"))
    estimate = trace(hessian, sketch_size=3)
    assert estimate.route.endswith("in float64")
    assert abs(estimate.value - float(expected.trace())) <= 3 * estimate.stderr + 1e-12
    density = spectrum(hessian, num_vectors=2)
    assert density.moment(1) * 21 == pytest.approx(float(expected.trace()), rel=0.5)
    assert density.nodes.min() >= -1e-3 * density.nodes.max()
    assert density.rounding < 1e-6 * density.nodes.max()
