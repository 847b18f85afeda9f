"""Hessian products against a dense Hessian of a copy of the model over one batch.

The witness (tests/oracles/dense.py) shares no code with the operator; its own witness, central
differences of the gradient, shares none with torch's second derivatives.
"""

from __future__ import annotations

import functools
import gc
import re
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

import landscope as ls
from landscope import params
from landscope.curvature import linear_operator
from landscope.curvature.linear_operator import CurvatureOperator
from landscope.curvature.matrices import MATRICES, Fisher, GaussNewton, Hessian
from landscope.errors import ObjectiveError, ParamsError
from landscope.params import Params
from landscope.progress import Progress
from tests import cases
from tests.cases import Case, seeded
from tests.oracles import dense

MODELS: dict[str, Callable[[], Case]] = {
    "mlp": cases.mlp,
    "batch_norm_cnn": cases.batch_norm_cnn,
    "transformer": cases.transformer,
    "lstm": cases.lstm,
    "odd": cases.odd,
}
each_model = pytest.mark.parametrize("name", list(MODELS))
WEIGHTED = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 1.25]), ignore_index=-100)


def _value(model: nn.Module, case: Case) -> Callable[[], Tensor]:
    return lambda: F.cross_entropy(model(case.inputs.double()), case.targets)


@functools.cache
def witness(name: str) -> Tensor:
    case = MODELS[name]()
    model = dense.clone(case.model)
    return dense.hessian(_value(model, case), dense.leaves(model))


def matrix(hessian: CurvatureOperator) -> Tensor:
    """Return all columns of an operator."""
    return torch.as_tensor(hessian @ torch.eye(hessian.shape[0], dtype=hessian.dtype))


def assert_equal(found: Tensor, expected: Tensor, error: float = 1e-10) -> None:
    assert float(expected.abs().max()) > 0
    assert float((found - expected).abs().max()) <= error * float(expected.abs().max())


def some(shape: tuple[int, ...], seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def ignoring(case: Case) -> Case:
    """Return a case some of whose targets are ignored, a whole batch of seven among them."""
    targets = case.targets.clone()
    targets[[1, 9, *range(14, 21)]] = -100
    return Case(case.name, case.model, case.inputs, targets)


# ------------------------------------------------------------------------------- the Hessian


@each_model
def test_the_dense_witness_agrees_with_differences_of_the_gradient(name: str) -> None:
    case = MODELS[name]()
    model = dense.clone(case.model)
    found = dense.differences(_value(model, case), dense.leaves(model))
    assert_equal(witness(name), found, 1e-8)


@each_model
def test_products_are_columns_of_the_dense_hessian(name: str) -> None:
    hessian = Hessian(MODELS[name]().objective(precision="float64"))
    assert hessian.shape == (len(witness(name)),) * 2
    assert_equal(matrix(hessian), witness(name))
    assert hessian.relative_error == 0.0
    assert hessian.products == len(witness(name))


@each_model
def test_float32_products_are_right_to_float32(name: str) -> None:
    hessian = Hessian(MODELS[name]().objective())
    v = some((hessian.shape[0], 2))
    assert (hessian @ v).dtype == torch.float32
    assert_equal((hessian @ v).double(), witness(name) @ v, 2e-5)


def test_targets_that_do_not_count_and_class_weights_count_as_in_the_loss() -> None:
    case = ignoring(cases.mlp())
    objective = ls.Objective(case.model, WEIGHTED, case.data, precision="float64", batch_size=7)
    model = dense.clone(case.model)
    weight = torch.as_tensor(WEIGHTED.weight).double()

    def value() -> Tensor:
        return F.cross_entropy(model(case.inputs.double()), case.targets, weight=weight)

    expected = dense.hessian(value, dense.leaves(model))
    assert_equal(matrix(Hessian(objective)), expected)


def test_a_loss_that_gives_the_mean_of_a_batch_is_weighted_by_rows() -> None:
    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    case = cases.mlp()
    objective = ls.Objective(case.model, mean, case.data, precision="float64", batch_size=7)
    assert_equal(matrix(Hessian(objective)), witness("mlp"))


@pytest.mark.parametrize("kind", ["hessian", "ggn", "fisher"])
def test_the_penalty_adds_its_hessian(kind: Any) -> None:
    def quartic(here: Params) -> Tensor:
        return torch.stack([(t**4).sum() for t in here.values()]).sum() / 12

    case = cases.mlp()
    plain = matrix(MATRICES[kind](case.objective(precision="float64")))
    decay = case.objective(precision="float64", penalty=ls.losses.weight_decay(0.3))
    identity = torch.eye(len(plain), dtype=torch.float64)
    assert_equal(matrix(MATRICES[kind](decay)), plain + 0.3 * identity)
    bent = case.objective(precision="float64", penalty=quartic)
    squares = params.flatten(bent.center).square()
    assert_equal(matrix(MATRICES[kind](bent)), plain + torch.diag(squares))
    value = MATRICES[kind](decay).along(identity[0])[0]
    assert value == pytest.approx(float(plain[0, 0]) + 0.3)


def test_a_penalty_on_other_parameters_adds_nothing() -> None:
    def first(here: Params) -> Tensor:
        return here["0.weight"].square().sum()

    objective = cases.mlp().objective(precision="float64", penalty=first)
    found = matrix(Hessian(objective, select="2.*"))
    assert_equal(found, witness("mlp")[40:, 40:])


def test_all_batches_count_when_the_data_are_streamed() -> None:
    case = cases.mlp()
    parts = (5, 11, 7)
    data = list(zip(case.inputs.split(parts), case.targets.split(parts), strict=True))
    loss = nn.CrossEntropyLoss()
    objective = ls.Objective(case.model, loss, data, cache=False, precision="float64")
    hessian = Hessian(objective)
    assert_equal(matrix(hessian), witness("mlp"))
    assert_equal(matrix(hessian), witness("mlp"))


def test_only_the_training_data_count() -> None:
    case, other = cases.mlp(), cases.mlp(rows=9)
    objective = case.objective(precision="float64", test_data=(other.inputs + 1, other.targets))
    assert_equal(matrix(Hessian(objective)), witness("mlp"))


def test_recomputed_statistics_are_constants() -> None:
    case = cases.batch_norm_cnn(rows=21)
    objective = case.objective(precision="float64", buffers="recompute")
    (point,) = ls.directions.random(objective.center, 1, seed=2)
    model = dense.clone(case.model, point)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # torch's own mean over the batches, which are of one size
    with torch.no_grad():
        for rows in case.inputs.double().split(7):
            model(rows)
    model.eval()
    expected = dense.hessian(_value(model, case), dense.leaves(model))
    assert_equal(matrix(Hessian(objective, point)), expected)


# ------------------------------------------------------------------------ points and parameters


def test_it_is_the_hessian_of_the_point_that_it_is_at() -> None:
    case = cases.mlp()
    objective = case.objective(precision="float64")
    (direction,) = ls.directions.random(objective.center, 1, normalize="layer", ignore=None)
    there = params.like(objective.center, {n: t + 1 for n, t in direction.items()})
    hessian = Hessian(objective)
    assert_equal(matrix(hessian), witness("mlp"))
    model = dense.clone(case.model, there)
    expected = dense.hessian(_value(model, case), dense.leaves(model))
    assert hessian.at(there) is hessian
    assert_equal(matrix(hessian), expected)
    assert_equal(matrix(Hessian(objective, there)), expected)
    assert hessian.products == 2 * len(expected)
    there["2.weight"].zero_()  # the point is a copy
    assert_equal(matrix(hessian), expected)
    assert_equal(matrix(hessian.at(objective.center)), witness("mlp"))


def test_a_point_may_hold_buffers_or_some_parameters_alone() -> None:
    case = cases.batch_norm_cnn()
    objective = case.objective(precision="float64")
    states = params.clone(objective.states)
    states["1.running_var"] *= 2.0
    model = dense.clone(case.model, states)
    expected = dense.hessian(_value(model, case), dense.leaves(model))
    assert_equal(matrix(Hessian(objective, states)), expected)
    part = {"0.weight": 2 * objective.center["0.weight"]}
    model = dense.clone(case.model, part)
    expected = dense.hessian(_value(model, case), dense.leaves(model))
    assert_equal(matrix(Hessian(objective, part)), expected)


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ("2.*", ["2.weight", "2.bias"]),
        (["2.bias", "0.*"], ["0.weight", "0.bias", "2.bias"]),
        (iter(["2.bias"]), ["2.bias"]),
        (lambda name, tensor: tensor.ndim == 1 and name[0] == "0", ["0.bias"]),
        ("dimension > 1", ["0.weight", "2.weight"]),
    ],
)
def test_a_part_of_the_parameters_gives_a_part_of_the_hessian(
    chosen: Any, names: list[str]
) -> None:
    objective = cases.mlp().objective(precision="float64")
    hessian = Hessian(objective, select=chosen)
    assert list(hessian.template) == names
    places = {n: torch.full(t.shape, k) for k, (n, t) in enumerate(objective.center.items())}
    wanted = [list(places).index(n) for n in names]
    kept = torch.isin(params.flatten(places), torch.tensor(wanted))
    assert_equal(matrix(hessian), witness("mlp")[kept][:, kept])


def test_a_module_gives_the_part_of_its_parameters() -> None:
    case = cases.mlp()
    assert isinstance(case.model, nn.Sequential)
    hessian = Hessian(case.objective(precision="float64"), select=case.model[2])
    assert_equal(matrix(hessian), witness("mlp")[40:, 40:])


def test_unused_parameters_have_no_curvature_and_frozen_ones_are_left_out() -> None:
    hessian = Hessian(cases.odd().objective(precision="float64"))
    assert not any("frozen" in name for name in hessian.template)
    assert "second.weight" not in hessian.template  # tied to first.weight
    ones = {n: torch.ones_like(t) for n, t in hessian.template.items()}
    assert (hessian @ ones)["unused.weight"].count_nonzero() == 0
    alone = Hessian(hessian.objective, select="unused.*")
    assert matrix(alone).count_nonzero() == 0


# ---------------------------------------------------------------------------------- vectors


def test_a_product_is_of_the_kind_of_its_vector() -> None:
    hessian = Hessian(cases.mlp().objective(precision="float64"))
    v = some((hessian.shape[0], 3))
    expected = witness("mlp") @ v
    assert_equal(hessian @ v, expected)
    assert (hessian @ v[:, 0]).shape == v[:, 0].shape
    assert_equal(hessian @ v[:, 0], expected[:, 0])
    named = params.unflatten(v[:, 0], hessian.template)
    backwards = Params(reversed(named.items()))
    for given in (named, backwards, {n: t.float().double() for n, t in named.items()}):
        found = hessian @ given
        assert isinstance(found, Params)
        assert list(found) == list(hessian.template)
        assert_equal(params.flatten(found), expected[:, 0], 1e-6)


def test_a_vector_of_another_dtype_or_with_a_gradient_is_taken_as_numbers() -> None:
    hessian = Hessian(cases.mlp().objective(precision="float64"))
    v = torch.ones(hessian.shape[0], dtype=torch.int32)
    assert_equal(hessian @ v, witness("mlp").sum(dim=1))
    found = hessian @ v.double().requires_grad_()
    assert not found.requires_grad
    assert_equal(found, witness("mlp").sum(dim=1))


def test_scipy_finds_the_eigenvalues_through_the_operator() -> None:
    operator = Hessian(cases.mlp().objective(precision="float64")).to_scipy()
    expected = torch.linalg.eigvalsh(witness("mlp")).numpy()
    found = eigsh(operator, k=3, which="LA", return_eigenvectors=False, v0=np.ones(67))
    assert np.sort(found) == pytest.approx(expected[-3:], rel=1e-9)
    block = some((67, 2)).numpy()
    assert operator.matmat(block) == pytest.approx(witness("mlp").numpy() @ block)
    assert operator.matvec(block[:, :1]).shape == (67, 1)


@pytest.mark.parametrize("v", [torch.ones(66), torch.ones(67, 1, 1), torch.ones(()), 3.0])
def test_a_vector_that_does_not_fit_is_refused(v: Any) -> None:
    hessian = Hessian(cases.mlp().objective())
    with pytest.raises(ParamsError, match=r"v is .*; expected Params or a tensor of shape \(67,\)"):
        hessian @ v
    with pytest.raises(ParamsError, match=r"v is .*; expected Params or a tensor of shape \(67,\)"):
        hessian.along(v)


def test_named_vectors_that_do_not_fit_are_refused() -> None:
    hessian = Hessian(cases.mlp().objective(), select="2.*")
    center = hessian.objective.center
    for given in (center, {"2.weight": center["2.weight"]}):
        with pytest.raises(ParamsError, match="v "):
            hessian @ given
        with pytest.raises(ParamsError, match="v "):
            hessian.along(given)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"samples": 0}, ObjectiveError, "samples=0; expected how many, 1 to 23"),
        ({"samples": 24}, ObjectiveError, "samples=24; expected how many, 1 to 23"),
        ({"samples": 2.5}, ObjectiveError, r"samples=2.5; expected how many"),
        ({"samples": []}, ObjectiveError, r"samples=\[\]; expected how many"),
        ({"samples": [3, 23]}, ObjectiveError, "or a list of which of them, 0 to 22"),
        ({"samples": [-1]}, ObjectiveError, "or a list of which of them, 0 to 22"),
        ({"select": "9.*"}, ParamsError, r"pattern='9\.\*' matches no name"),
        ({"select": 42}, ParamsError, "select=42 chooses no trainable parameter"),
        ({"select": nn.Linear(2, 2)}, ParamsError, "chooses no trainable parameter"),
        ({"select": lambda name, tensor: False}, ParamsError, "a function .name, tensor."),
        ({"params": 3}, ParamsError, "params is a int; expected a dict of named tensors"),
        (
            {"params": {"w": torch.ones(2)}},
            ParamsError,
            "params has 'w', which the model does not have",
        ),
        ({"params": {"0.bias": torch.ones(2)}}, ParamsError, "has the shape"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Hessian(cases.mlp().objective(), **options)


def test_objectives_without_second_derivatives_are_refused() -> None:
    case = cases.mlp()
    with pytest.raises(ObjectiveError, match="'bfloat16' has too few digits"):
        Hessian(case.objective(precision="bfloat16"))
    with pytest.raises(
        ObjectiveError, match=r"objective is a Sequential; expected an ls.Objective"
    ):
        Hessian(case.model)  # type: ignore[arg-type]
    with pytest.raises(ObjectiveError, match=r"calibrated subset \(samples=Calibrated\(...\)\)"):
        Hessian(ls.Objective.of(case.objective().problem.select_samples([0, 1], torch.ones(1, 2))))
    with pytest.raises(ObjectiveError, match="GaussNewton needs a loss of outputs and targets"):
        GaussNewton(cases.curved(torch.eye(2)))
    two = case.objective(test_data=case.data)
    with pytest.raises(ObjectiveError, match="samples are drawn from data"):
        Hessian(two, samples=3)


# ------------------------------------------------------------------------------- relatives


@pytest.mark.parametrize("name", ["mlp", "batch_norm_cnn", "transformer", "lstm", "odd"])
def test_the_gauss_newton_matrix_is_j_h_j(name: str) -> None:
    case = MODELS[name]()
    model = dense.clone(case.model)
    outputs = model(case.inputs.double())
    expected = dense.gauss_newton(
        outputs, lambda o: F.cross_entropy(o, case.targets), dense.leaves(model)
    )
    found = matrix(GaussNewton(case.objective(precision="float64")))
    assert_equal(found, expected)
    assert float(torch.linalg.eigvalsh(found)[0]) > -1e-12


@pytest.mark.parametrize("name", ["mlp", "batch_norm_cnn", "transformer", "lstm", "odd"])
def test_the_fisher_matrix_is_the_mean_of_g_g(name: str) -> None:
    case = MODELS[name]()
    model = dense.clone(case.model)
    pairs = zip(case.inputs.double().split(1), case.targets.split(1), strict=True)
    singles = [(F.cross_entropy(model(x), y), 1.0) for x, y in pairs]
    expected = dense.fisher(singles, dense.leaves(model))
    found = matrix(Fisher(case.objective(precision="float64")))
    assert_equal(found, expected)


def test_relatives_count_class_weights_and_ignored_targets_as_the_loss_does() -> None:
    case = ignoring(cases.mlp())
    objective = ls.Objective(case.model, WEIGHTED, case.data, precision="float64", batch_size=7)
    model = dense.clone(case.model)
    weight = torch.as_tensor(WEIGHTED.weight).double()
    outputs, leaves = model(case.inputs.double()), dense.leaves(model)
    expected = dense.gauss_newton(
        outputs, lambda o: F.cross_entropy(o, case.targets, weight=weight), leaves
    )
    assert_equal(matrix(GaussNewton(objective)), expected)
    counted = [k for k in range(23) if case.targets[k] >= 0]
    assert len(counted) == 14
    singles = [
        (F.cross_entropy(model(case.inputs[k : k + 1].double()), case.targets[k : k + 1]), w)
        for k, w in ((k, float(weight[case.targets[k]])) for k in counted)
    ]
    assert_equal(matrix(Fisher(objective)), dense.fisher(singles, leaves))


def test_relatives_of_a_loss_that_gives_the_mean_of_a_batch() -> None:
    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    case = cases.mlp()
    whole = ls.Objective(case.model, mean, case.data, precision="float64", batch_size=7)
    for kind in ("ggn", "fisher"):
        single = case.objective(precision="float64")
        expected = matrix(MATRICES[kind](single))
        assert_equal(matrix(MATRICES[kind](whole)), expected)


def test_of_a_linear_model_the_gauss_newton_matrix_is_the_hessian() -> None:
    model, rows, right = cases.quadratic()
    objective = ls.Objective(model, nn.MSELoss(), (rows, right), batch_size=4)
    expected = 2 * rows.T @ rows / len(rows)
    assert_equal(matrix(Hessian(objective)), expected)
    assert_equal(matrix(GaussNewton(objective)), expected)
    residuals = rows @ model.w.detach() - right
    slopes = 2 * residuals[:, None] * rows
    assert_equal(matrix(Fisher(objective)), slopes.T @ slopes / len(rows))


def test_a_term_with_several_values_is_one_term_of_their_mean() -> None:
    case = cases.mlp()
    targets = some((23, 3))
    objective = ls.Objective(
        case.model, nn.MSELoss(), (case.inputs, targets), precision="float64", batch_size=7
    )
    model = dense.clone(case.model)
    leaves, outputs = dense.leaves(model), model(case.inputs.double())
    expected = dense.gauss_newton(outputs, lambda o: F.mse_loss(o, targets), leaves)
    assert_equal(matrix(GaussNewton(objective)), expected)
    pairs = zip(case.inputs.double(), targets, strict=True)
    singles = [(F.mse_loss(model(x), y), 1.0) for x, y in pairs]
    assert_equal(matrix(Fisher(objective)), dense.fisher(singles, leaves))


class Labeled(nn.Module):
    """Logits in a dict, beside a float tensor that no parameter has a part in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, cases.CLASSES)

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        return {"inputs": rows * 2, "logits": self.layer(rows).tanh()}


def test_outputs_may_be_a_dict_with_things_that_no_parameter_moves() -> None:
    def terms(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs["logits"], targets, reduction="none")

    case = cases.mlp()
    named = ls.Objective(Labeled().double(), terms, case.data, batch_size=7)
    found = GaussNewton(named)
    model = dense.clone(named.model)
    logits = model(case.inputs.double())["logits"]
    expected = dense.gauss_newton(
        logits, lambda o: F.cross_entropy(o, case.targets), dense.leaves(model)
    )
    assert_equal(matrix(found), expected)


# ---------------------------------------------------------------------- samples and error bars


def test_samples_are_the_rows_that_were_asked_for() -> None:
    case = cases.mlp()
    rows = [2, 3, 5, 7, 11, 13, 17]
    hessian = Hessian(case.objective(precision="float64"), samples=rows[::-1])
    assert hessian.samples == 7
    part = Case("part", case.model, case.inputs[rows], case.targets[rows])
    model = dense.clone(case.model)
    assert_equal(matrix(hessian), dense.hessian(_value(model, part), dense.leaves(model)))
    numpy = Hessian(case.objective(precision="float64"), samples=np.array(rows))  # type: ignore[arg-type]
    assert_equal(matrix(numpy), matrix(hessian), 1e-14)


def test_rows_of_unequal_lengths_are_drawn_with_all_of_their_tokens() -> None:
    """Witness: the same rows alone, as a data set of their own."""
    text = torch.randint(1, 5, (12, 6), generator=cases.seeded(0))
    data = [{"input": t, "labels": t} for t in (text[:5], text[5:8, :4], text[8:, :3])]
    rows = [0, 4, 5, 7, 9]
    own = [{"input": t, "labels": t} for t in (text[[0, 4]], text[[5, 7], :4], text[[9], :3])]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 5)).double()
    one = Hessian(ls.Objective(model, ls.losses.tokens(), data), samples=rows)
    two = Hessian(ls.Objective(model, ls.losses.tokens(), own))
    assert_equal(matrix(one), matrix(two))


def test_a_number_of_samples_is_drawn_by_the_seed() -> None:
    objective = cases.mlp().objective(precision="float64")
    first, same, other = (Hessian(objective, samples=6, seed=s) for s in (1, 1, 2))
    assert matrix(first).equal(matrix(same))
    assert not torch.allclose(matrix(first), matrix(other))
    assert_equal(matrix(Hessian(objective, samples=23)), witness("mlp"))


def test_the_curvature_along_a_direction_is_the_rayleigh_quotient() -> None:
    hessian = Hessian(cases.mlp().objective(precision="float64"))
    v = some((67,))
    expected = float(v @ witness("mlp") @ v / (v @ v))
    backwards = Params(reversed(params.unflatten(5 * v, hessian.template).items()))
    for given in (v, -3 * v, backwards):
        assert hessian.along(given)[0] == pytest.approx(expected, rel=1e-12)
    assert hessian.products == 3


def test_of_one_batch_or_of_all_samples_the_error_is_not_known_or_zero() -> None:
    case = cases.mlp()
    one = Hessian(case.objective(batch_size=64, cache=False, precision="float64"))
    assert np.isnan(one.along(torch.ones(67))[1])
    divided = Hessian(case.objective(batch_size=64, precision="float64"))
    value, error = divided.along(torch.ones(67))
    assert value == pytest.approx(one.along(torch.ones(67))[0], rel=1e-12)
    assert error > 0
    every = Hessian(case.objective(precision="float64"), samples=23)
    assert every.along(torch.ones(67))[1] == 0.0


def sorted_by_class(rows: int, seed: int = 10) -> tuple[Tensor, Tensor]:
    """Return data in the order of their classes, whose curvatures differ."""
    targets = torch.arange(rows) * cases.CLASSES // rows
    inputs = torch.randn(rows, 4, generator=seeded(seed)) * (1 + 2 * targets[:, None])
    return inputs, targets


@pytest.mark.parametrize("size", [24, 200])
def test_the_error_bar_of_drawn_samples_is_about_their_spread(size: int) -> None:
    model = nn.Linear(4, cases.CLASSES).double()
    nn.init.zeros_(model.weight)
    objective = ls.Objective(model, nn.CrossEntropyLoss(), sorted_by_class(240), batch_size=64)
    v = some((15,))
    truth = Hessian(objective).along(v)[0]
    found = [Hessian(objective, samples=size, seed=s).along(v) for s in range(80)]
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / 80**0.5)
    assert 0.75 < np.sqrt((errors**2).mean()) / values.std() < 1.33


def test_the_error_bar_of_all_data_is_about_their_spread_over_data_sets() -> None:
    model = nn.Linear(4, cases.CLASSES).double()
    nn.init.zeros_(model.weight)
    v, found = some((15,)), []
    for seed in range(80):
        inputs, targets = sorted_by_class(60, seed)
        order = torch.randperm(60, generator=seeded(seed))
        data = inputs[order], targets[order]
        objective = ls.Objective(model, nn.CrossEntropyLoss(), data, batch_size=7)
        found.append(Hessian(objective).along(v))
    values, errors = np.array(found).T
    assert 0.7 < np.sqrt((errors**2).mean()) / values.std() < 1.45


# ------------------------------------------------------------------- what it costs and leaves alone


class Counting(nn.Module):
    """An MLP that counts its forward passes, and fails when told to."""

    calls: ClassVar[list[str]] = []
    fails: ClassVar[list[str]] = []

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> Tensor:
        self.calls.append(torch.get_float32_matmul_precision())
        if self.fails:
            raise RuntimeError(self.fails[0])
        return torch.as_tensor(self.model(rows))


@pytest.fixture
def counting() -> Case:
    Counting.calls.clear()
    Counting.fails.clear()
    case = cases.mlp()
    return Case("counting", Counting(case.model), case.inputs, case.targets)


def _passes(hessian: Hessian) -> int:
    Counting.calls.clear()
    assert_equal(matrix(hessian), witness("mlp"))
    return len(Counting.calls)


def test_kept_graphs_save_the_forward_passes(counting: Case) -> None:
    hessian = Hessian(counting.objective(precision="float64"))
    assert _passes(hessian) >= 4
    assert _passes(hessian) == 0
    hessian.at(hessian.objective.center)
    assert _passes(hessian) == 4
    assert _passes(hessian) == 0


def test_without_room_for_graphs_products_are_the_same(
    counting: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_operator, "_SHARE", 0.0)
    hessian = Hessian(counting.objective(precision="float64"))
    _passes(hessian)
    assert _passes(hessian) == 4


def test_with_room_for_some_graphs_products_are_the_same(counting: Case) -> None:
    hessian = Hessian(counting.objective(precision="float64"))
    hessian._products.budget = 4e3
    _passes(hessian)
    assert _passes(hessian) == 4
    assert hessian._products.maps == []


class Watched(torch.autograd.Function):
    """x ** 2, whose graphs can be counted."""

    alive: ClassVar[list[weakref.ref[Any]]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.token = type("Token", (), {})()
        Watched.alive.append(weakref.ref(ctx.token))
        return x.square()

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * slopes[0]


class Square(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        watched: Any = Watched
        return torch.as_tensor(watched.apply(rows))


def test_graphs_that_are_not_kept_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_operator, "_SHARE", 0.0)
    case = cases.mlp()
    model = nn.Sequential(nn.Linear(4, 8), Square(), nn.Tanh(), nn.Linear(8, cases.CLASSES))
    hessian = Hessian(Case("watched", model, *case.data).objective(precision="float64"))
    Watched.alive.clear()
    for _ in range(3):
        hessian @ some((67,))
    gc.collect()
    assert len(Watched.alive) > 9
    assert sum(ref() is not None for ref in Watched.alive) <= 1


def _global() -> dict[str, Any]:
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    return {
        "attention": (
            cuda.flash_sdp_enabled(),
            cuda.math_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
        ),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "mkldnn": (mkldnn.enabled, mkldnn.deterministic, mkldnn.allow_tf32),
        "matmul": torch.get_float32_matmul_precision(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


@pytest.mark.parametrize("kind", ["hessian", "ggn", "fisher"])
@each_model
def test_the_user_has_everything_back_as_it_was(name: str, kind: Any) -> None:
    case = MODELS[name]()
    before, flags = cases.remembered(case.model), _global()
    hessian = MATRICES[kind](case.objective(), samples=None if name == "odd" else 16)
    assert cases.remembered(case.model) == before
    hessian @ torch.ones(hessian.shape[0])
    hessian.along(torch.ones(hessian.shape[0]))
    hessian.at(hessian.objective.center)
    assert cases.remembered(case.model) == before
    assert _global() == flags


def test_the_user_has_everything_back_when_the_model_fails(counting: Case) -> None:
    before, flags = cases.remembered(counting.model), _global()
    hessian = Hessian(counting.objective(precision="float64"))
    Counting.fails.append("the cat sat on the keyboard")
    with pytest.raises(ObjectiveError, match="the cat sat on the keyboard"):
        hessian @ some((67,))
    assert cases.remembered(counting.model) == before
    assert _global() == flags
    Counting.fails.clear()
    assert_equal(matrix(hessian), witness("mlp"))


def test_gradients_that_the_user_has_are_neither_read_nor_added_to() -> None:
    case = cases.mlp()
    F.cross_entropy(case.model(case.inputs), case.targets).backward()
    before = cases.remembered(case.model)
    assert_equal(matrix(Hessian(case.objective(precision="float64"))), witness("mlp"))
    assert cases.remembered(case.model) == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_differentiates_whatever_mode_the_caller_is_in(mode: Callable[[], Any]) -> None:
    case, expected = cases.mlp(), witness("mlp")
    with mode():
        hessian = Hessian(case.objective(precision="float64"), samples=list(range(23)))
        assert_equal(matrix(hessian), expected)
        assert_equal(matrix(hessian.at(hessian.objective.center)), expected)


def test_float32_products_are_full_ones_also_while_statistics_are_computed() -> None:
    Counting.calls.clear()
    Counting.fails.clear()
    case = cases.batch_norm_cnn()
    counted = Case("counted", Counting(case.model), case.inputs, case.targets)
    torch.set_float32_matmul_precision("high")
    try:
        hessian = Hessian(counted.objective(buffers="recompute"))
        assert Counting.calls
        hessian @ torch.ones(hessian.shape[0])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(Counting.calls) == {"highest"}


def test_a_model_that_cannot_be_copied_is_a_sentence() -> None:
    case = cases.mlp()
    weight = dict(case.model.named_parameters())["0.weight"]
    vars(case.model)["computed"] = [weight * 2]
    with pytest.raises(
        ObjectiveError, match=r"cannot be copied \(RuntimeError.*keep computed tensors"
    ):
        Hessian(case.objective())


def test_a_tensor_that_a_pass_computed_is_copied_with_the_model() -> None:
    case = cases.mlp()
    case.model.computed = dict(case.model.named_parameters())["0.weight"] * 2
    assert_equal(matrix(Hessian(case.objective(precision="float64"))), witness("mlp"))


def test_progress_counts_all_products_without_a_total() -> None:
    reports: list[Progress] = []
    hessian = Hessian(cases.mlp().objective(), progress=reports.append)
    vector = torch.ones(hessian.shape[0])
    _ = hessian @ vector
    _ = hessian @ vector[:, None].expand(-1, 3)
    assert [(now.done, now.total, now.remaining) for now in reports] == [
        (1, None, None),
        (4, None, None),
    ]
    assert reports[1].seconds >= reports[0].seconds >= 0.0


def test_progress_true_shows_a_bar_for_each_measure(capsys: pytest.CaptureFixture[str]) -> None:
    hessian = Hessian(cases.mlp().objective(), progress=True)
    _ = hessian @ torch.ones(hessian.shape[0])
    assert capsys.readouterr() == ("", "")
    ls.curvature.trace(hessian)
    ls.curvature.eigenpairs(hessian)
    err = capsys.readouterr().err
    assert re.findall(r"^(\w+) .* (\d+) +products", err, re.MULTILINE)[-1] == (
        "eigenvalues",
        str(hessian.products),
    )
    assert err.splitlines()[0].startswith("trace ")
