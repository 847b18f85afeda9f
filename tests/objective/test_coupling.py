"""Coupled rows are seen, and rows that only look coupled are not.

Which losses couple rows is known from their definitions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import landscope as ls
from landscope.errors import ObjectiveError
from landscope.losses import custom

Batch = tuple[Tensor, Tensor]
Spec = tuple[Callable[[], nn.Module], Any, dict[str, Any]]

ROWS = 24


def data() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, 6, generator=generator), torch.arange(ROWS) % 3


def mlp(scale: float = 1.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def norm(*, training: bool, track: bool = True) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=track), nn.Linear(8, 3)
    return nn.Sequential(*layers).train(training)


class Attention(nn.Module):
    """Rows that attend to all rows of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.inner(rows)
        return torch.as_tensor(hidden + torch.softmax(hidden @ hidden.T, dim=1) @ hidden)


def contrast(outputs: Tensor, reduction: str) -> Tensor:
    unit = F.normalize(outputs, dim=1)
    return F.cross_entropy(unit @ unit.T, torch.arange(len(unit)).roll(1), reduction=reduction)


def losses(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def contrast_neighbors(model: nn.Module, batch: Batch) -> Tensor:
    """Each row with the other one of its pair (0 and 1, 2 and 3, ...)."""
    outputs = model(batch[0])
    others = outputs.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return torch.as_tensor((outputs - others).square().sum(dim=1))


def normalize_advantages(model: nn.Module, batch: Batch) -> Tensor:
    rewards = batch[1].float()
    advantages = (rewards - rewards.mean()) / rewards.std()
    return torch.as_tensor(-advantages * model(batch[0]).log_softmax(1)[:, 0])


def rank(outputs: Tensor, targets: Tensor) -> Tensor:
    scores, order = outputs[:, 0], targets[:, None] - targets[None]
    return F.softplus(-(scores[:, None] - scores[None]) * order.sign()).mean()


def normalize_weights(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    weights = 1.0 + batch[1]
    return losses(model, batch), weights / weights.sum()


def average_some(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs[targets != 0], targets[targets != 0])


def average(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


CE = nn.CrossEntropyLoss()
COUPLED: dict[str, Spec] = {
    "contrastive": (mlp, custom(lambda m, b: contrast(m(b[0]), "none")), {}),
    "contrastive, one number": (mlp, lambda o, _: contrast(o, "mean"), {}),
    "contrastive, saturated": (lambda: mlp(40), custom(lambda m, b: contrast(m(b[0]), "none")), {}),
    "pairs of neighbors": (mlp, custom(contrast_neighbors), {}),
    "ranking": (mlp, rank, {}),
    "divided by the batch": (mlp, custom(lambda m, b: losses(m, b) / losses(m, b).mean()), {}),
    "advantages": (mlp, custom(normalize_advantages), {}),
    "attention over the batch": (Attention, CE, {}),
    "batch norm in training mode": (lambda: norm(training=True), CE, {}),
    "the same, one number": (lambda: norm(training=True), average, {}),
    "the same in bfloat16": (lambda: norm(training=True), CE, {"precision": "bfloat16"}),
    "batch norm without statistics": (lambda: norm(training=False, track=False), CE, {}),
}
INDEPENDENT: dict[str, Spec] = {
    "cross entropy": (mlp, CE, {}),
    "class weights": (mlp, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 2.0])), {}),
    "ignored rows": (mlp, nn.CrossEntropyLoss(ignore_index=0), {}),
    "sum": (mlp, nn.CrossEntropyLoss(reduction="sum"), {}),
    "weights normalized in batches": (mlp, custom(normalize_weights), {}),
    "mean of some rows": (mlp, average_some, {}),
    "saturated": (lambda: mlp(40), CE, {}),
    "bfloat16": (mlp, CE, {"precision": "bfloat16"}),
    "in place": (mlp, CE, {"in_place": True}),
    "all zero": (mlp, custom(lambda m, b: 0 * m(b[0]).sum(dim=1)), {}),
    "not a number": (mlp, custom(lambda m, b: m(b[0]).sum(dim=1).log()), {}),
    "dropout": (lambda: nn.Sequential(mlp(), nn.Dropout()), CE, {}),
    "batch norm in evaluation mode": (lambda: norm(training=False), CE, {}),
    "batch norm, recomputed": (lambda: norm(training=True), CE, {"buffers": "recompute"}),
}


def make(spec: Spec) -> ls.Objective:
    model, loss, options = spec
    return ls.Objective(model(), loss, data(), **options)


@pytest.mark.parametrize("spec", COUPLED.values(), ids=COUPLED)
def test_coupled_rows_are_seen(spec: Spec) -> None:
    assert "depends on the other rows" in make(spec).problem.find_coupling()


@pytest.mark.parametrize("spec", INDEPENDENT.values(), ids=INDEPENDENT)
def test_independent_rows_are_not_taken_for_coupled_ones(spec: Spec) -> None:
    assert make(spec).problem.find_coupling() == ""


def test_a_model_of_one_batch_size_cannot_be_divided() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(16, 3))

        def forward(self, rows: Tensor) -> Tensor:
            return torch.as_tensor(rows[:, :3] * self.weight)

    objective = ls.Objective(Fixed(), CE, [tuple(t[:16] for t in data())])
    assert "cannot be evaluated alone" in objective.problem.find_coupling()


def test_the_search_is_made_once_and_leaves_the_model_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective = make(COUPLED["batch norm in training mode"])
    before = {n: t.clone() for n, t in objective.model.state_dict().items()}
    objective.problem.find_coupling()
    assert all(torch.equal(before[n], t) for n, t in objective.model.state_dict().items())
    monkeypatch.setattr(objective.model, "forward", None)
    assert objective.problem.clone().find_coupling() != ""


def test_what_needs_independent_rows_refuses_coupled_ones() -> None:
    objective = make(COUPLED["contrastive"])
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])
    sentence = r"evaluates some rows.*without the others.*depends on the other rows"
    with pytest.raises(ObjectiveError, match="samples= " + sentence):
        ls.scan(objective, line, ls.Grid(5), samples=ls.Calibrated(8, anchors=3))
    with pytest.raises(ObjectiveError, match="samples= " + sentence):
        ls.curvature.Hessian(objective, samples=8)
    with pytest.raises(ObjectiveError, match="loss_stderr " + sentence):
        ls.loss_stderr(objective, objective.center)


def test_batches_of_coupled_rows_are_neither_joined_nor_divided() -> None:
    problem = make(COUPLED["batch norm in training mode"]).problem
    assert problem.rebatch(problem.batches, 7) is problem.batches
    with problem.session() as session:
        assert session.halve_batches() is None
    independent = make(INDEPENDENT["cross entropy"]).problem
    assert [len(x) for x, _ in independent.rebatch(independent.batches, 8)[""]] == [8, 8, 8]
