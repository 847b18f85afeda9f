"""The objective against torch in float64: whole data, one batch, plain autograd."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import landscope as ls
from landscope.errors import CallError, DeterminismError, ObjectiveError, ParamsError
from landscope.objective.determinism import check_determinism
from tests import cases

WEIGHT = torch.tensor([0.2, 1.0, 3.5])


def doubled(case: cases.Case) -> tuple[nn.Module, Tensor]:
    return copy.deepcopy(case.model).double(), case.inputs.double()


@pytest.mark.parametrize("make", cases.CASES, ids=lambda make: str(make.__name__))
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_gradient_is_that_of_autograd_on_the_whole_data(make: Any, decay: float) -> None:
    case = make()
    model, inputs = doubled(case)
    loss = F.cross_entropy(model(inputs), case.targets)
    alive = {n: p for n, p in model.named_parameters() if p.requires_grad}
    loss = loss + decay / 2 * sum((p.square().sum() for p in alive.values()), torch.zeros(()))
    found = torch.autograd.grad(loss, list(alive.values()), allow_unused=True)
    expected = dict(zip(alive, found, strict=True))
    penalty = ls.losses.weight_decay(decay) if decay else None
    objective = case.objective(penalty=penalty, precision="float64")
    assert objective.loss() == pytest.approx(float(loss.detach()), rel=1e-12)
    gradient = objective.gradient()
    assert list(gradient) == list(expected)
    for name, value in gradient.items():
        right = expected[name]
        witness = torch.zeros_like(value) if right is None else right
        torch.testing.assert_close(value, witness.to(value.dtype), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(weight=WEIGHT),
        nn.CrossEntropyLoss(ignore_index=1),
        nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=2, label_smoothing=0.1),
        F.cross_entropy,
    ],
    ids=lambda loss: getattr(loss, "__name__", str(loss)),
)
def test_loss_and_the_mean_of_terms_are_the_loss_of_torch_over_all_rows(loss: Any) -> None:
    case = cases.mlp()
    model, inputs = doubled(case)
    exact = copy.deepcopy(loss).double() if isinstance(loss, nn.Module) else loss
    expected = float(exact(model(inputs), case.targets).detach())
    objective = ls.Objective(case.model, exact, case.data, batch_size=5, precision="float64")
    assert objective.loss() == pytest.approx(expected, rel=1e-6)
    assert float(objective.terms().mean()) == pytest.approx(expected, rel=1e-6)
    ignored = getattr(loss, "ignore_index", -100)
    assert len(objective.terms()) == int((case.targets != ignored).sum())


def test_a_function_that_gives_one_mean_a_batch_is_weighed_by_samples() -> None:
    case = cases.mlp()

    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    objective = ls.Objective(case.model, mean, case.data, batch_size=5)
    assert objective.loss() == pytest.approx(cases.plain_loss(case, {}, double=True), rel=1e-6)
    assert len(objective.terms()) == len(case.inputs)


def test_a_custom_loss_sees_model_and_batch_and_may_weigh_its_terms() -> None:
    case = cases.mlp()
    weights = torch.linspace(0, 1, len(case.inputs))

    def terms(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return model(batch["x"]).square().sum(dim=1), batch["w"]

    data = [{"x": x, "w": w} for x, w in zip(case.inputs.split(5), weights.split(5), strict=True)]
    model, inputs = doubled(case)
    values = model(inputs).square().sum(dim=1).detach()
    expected = float((values * weights.double()).sum() / weights.double().sum())
    objective = ls.Objective(case.model, ls.losses.custom(terms, units="V"), data)
    assert objective.loss() == pytest.approx(expected, rel=1e-6)
    assert float(objective.terms().mean()) == pytest.approx(expected, rel=1e-6)


def test_metrics_and_test_data_come_in_one_pass_under_their_names() -> None:
    case = cases.mlp()
    test = torch.randn(9, 4), torch.randint(3, (9,))
    objective = case.objective(
        metrics={"accuracy": ls.losses.accuracy, "l1": lambda o, t: o.abs().mean(dim=1)},
        test_data=test,
        penalty=ls.losses.weight_decay(0.1),
    )
    model, _ = doubled(case)
    expected = {}
    for prefix, (x, y) in {"train_": case.data, "test_": test}.items():
        outputs = model(x.double()).detach()
        expected[f"{prefix}loss"] = float(F.cross_entropy(outputs, y))
        right = (outputs.argmax(dim=1) == y).double()
        expected[f"{prefix}accuracy"] = 100 * float(right.mean())
        expected[f"{prefix}l1"] = float(outputs.abs().mean())
    decay = sum(float(p.detach().square().sum()) for p in model.parameters())
    expected["train_loss"] += 0.1 / 2 * decay  # the penalty is what training minimizes
    assert objective.evaluate() == pytest.approx(expected, rel=1e-6)
    assert objective.loss() == objective.evaluate()["train_loss"]
    land = ls.scan(objective, cases.plane(objective), ls.Grid(1, (0, 1)))
    assert set(land.data) == set(expected)
    assert land.data["test_accuracy"].attrs == {"units": "%", "long_name": "test accuracy"}


def test_precisions_are_what_they_say() -> None:
    case = cases.mlp()
    exact = cases.plain_loss(case, {}, double=True)
    assert case.objective(precision="float64").loss() == pytest.approx(exact, rel=1e-14)
    half = case.objective(precision="bfloat16").loss()
    assert half == pytest.approx(exact, rel=2e-2)
    assert half != case.objective().loss()
    rough = copy.deepcopy(case.model).bfloat16()
    with torch.no_grad():
        outputs = rough(case.inputs.bfloat16()).float()
    assert half == pytest.approx(float(F.cross_entropy(outputs, case.targets)), rel=1e-6)
    double = ls.Objective(case.model.double(), nn.CrossEntropyLoss(), case.data)
    assert double.loss() == pytest.approx(exact, rel=1e-14)  # no digits are taken away


def test_dropout_in_training_mode_is_named() -> None:
    with pytest.raises(DeterminismError, match=r"dropout in training mode \(1\)"):
        check_determinism(cases.dropout().objective().problem)
    case = cases.dropout()
    case.model.eval()
    check_determinism(case.objective().problem)


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.randn(4), torch.tensor(index % 3)


def test_streamed_data_with_augmentation_are_named_and_kept_data_pass() -> None:
    model = cases.mlp().model
    streamed = ls.Objective(model, nn.CrossEntropyLoss(), DataLoader(Noisy()), cache=False)
    with pytest.raises(DeterminismError, match="streamed data") as caught:
        check_determinism(streamed.problem)
    assert "dropout" not in str(caught.value)
    check_determinism(ls.Objective(model, nn.CrossEntropyLoss(), DataLoader(Noisy())).problem)


def test_random_numbers_in_the_loss_are_named() -> None:
    case = cases.mlp()

    def noisy(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum(dim=1) + torch.rand(len(outputs))

    objective = ls.Objective(case.model, noisy, case.data)
    with pytest.raises(DeterminismError, match="random numbers in the model or the loss"):
        ls.scan(objective, cases.plane(objective), ls.Grid(2))


def test_the_center_is_a_copy_that_later_training_does_not_move() -> None:
    case = cases.mlp()
    objective = case.objective()
    before = objective.loss()
    with torch.no_grad():
        next(case.model.parameters()).add_(1.0)
    assert objective.loss() == before
    assert ls.Objective.of(objective.problem.recenter()).loss() == pytest.approx(
        cases.plain_loss(case, {}, double=True), rel=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffers": "kept"}, "buffers='kept'; expected 'keep' or 'recompute'"),
        ({"precision": "half"}, "precision='half'; expected one of"),
        ({"metrics": {"loss": ls.losses.accuracy}}, "metrics has the name 'loss'"),
        ({"metrics": [ls.losses.accuracy]}, "metrics is a list"),
        ({"device": "toaster"}, "device='toaster' is not known"),
        ({"batch_size": 0}, "batch_size=0; expected 1 or more"),
    ],
)
def test_errors_explain_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        cases.mlp().objective(**options)


def test_errors_explain_parts_that_do_not_fit() -> None:
    case = cases.mlp()
    with pytest.raises(ObjectiveError, match="failed on the first batch"):
        ls.Objective(case.model, nn.CrossEntropyLoss(), (case.inputs[:, :3], case.targets)).loss()
    with pytest.raises(ObjectiveError, match="model has no trainable parameters"):
        ls.Objective(nn.ReLU(), nn.CrossEntropyLoss(), case.data)
    with pytest.raises(ParamsError, match="'other', which the model does not have"):
        case.objective().loss({"other": torch.zeros(1)})
    ignoring = nn.CrossEntropyLoss(ignore_index=1)
    ones = torch.ones(len(case.inputs), dtype=torch.long)
    with pytest.raises(ObjectiveError, match="every one is ignored"):
        ls.Objective(case.model, ignoring, (case.inputs, ones)).loss()


def test_a_metric_that_is_no_mean_is_not_taken_for_a_loss() -> None:
    perplexity = ls.losses.perplexity(ls.losses.tokens())
    data = torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(ObjectiveError, match=r"'perplexity' is not a mean.*in metrics"):
        ls.Objective(nn.Linear(3, 4), perplexity, data)


def test_a_token_without_an_embedding_is_a_sentence_with_the_likely_cause() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    data = torch.full((2, 3), 7), torch.zeros(2, 3, dtype=torch.long)
    objective = ls.Objective(model, ls.losses.tokens(), data)
    with pytest.raises(CallError, match=r"index out of range.*without an embedding\?\)"):
        objective.loss()


def test_attributes_that_are_missing_are_a_sentence_too() -> None:
    class Odd(nn.Linear):
        def forward(self, x: Any) -> Tensor:
            found: Tensor = x.logits
            return found

    data = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
    with pytest.raises(CallError, match=r"Odd with .* failed on the first batch .*'logits'"):
        ls.Objective(Odd(3, 2), nn.CrossEntropyLoss(), data).loss()


def test_notes_of_earlier_evaluations_are_kept_once() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    data = torch.randn(20, 4), torch.randint(3, (20,))
    objective = ls.Objective(model, nn.CrossEntropyLoss(), data)
    objective.loss()
    objective.gradient()
    assert len(objective.notes) == 1
    assert objective.notes[0].startswith("1 (batch norm) is in training mode")
