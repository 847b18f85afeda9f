"""Notes on outputs that a loss does not take, for models with and without their last layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import landscope as ls

INPUTS = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(20) % 3
YES = (CLASSES > 0).float()[:, None]
SHARES = torch.eye(3)[CLASSES]


def make_model(outputs: int, *last: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, outputs), *last).eval()


@pytest.mark.parametrize(
    ("model", "loss", "targets", "note"),
    [
        (make_model(3), nn.CrossEntropyLoss(), CLASSES, None),
        (make_model(3, nn.Softmax(1)), nn.CrossEntropyLoss(), CLASSES, "softmax is applied twice"),
        (make_model(3, nn.Sigmoid()), nn.CrossEntropyLoss(), CLASSES, None),
        (make_model(1), nn.BCEWithLogitsLoss(), YES, None),
        (make_model(1, nn.Sigmoid()), nn.BCEWithLogitsLoss(), YES, "it is applied twice"),
        (make_model(1), nn.BCEWithLogitsLoss(), 2 * YES - 1, "use nn.SoftMarginLoss"),
        (make_model(1, nn.Sigmoid()), nn.BCELoss(), YES, None),
        (make_model(3, nn.LogSoftmax(1)), nn.NLLLoss(), CLASSES, None),
        (make_model(3, nn.Softmax(1)), nn.NLLLoss(), CLASSES, "takes log-probabilities"),
        (make_model(3), nn.NLLLoss(), CLASSES, "takes log-probabilities"),
        (make_model(3, nn.LogSoftmax(1)), nn.KLDivLoss(reduction="sum"), SHARES, "sum over each"),
        (make_model(3), nn.KLDivLoss(reduction="batchmean"), SHARES, "takes log-probabilities"),
    ],
)
@pytest.mark.parametrize("batch_size", [20, 3])
def test_outputs_that_a_loss_does_not_take_are_noted(
    model: nn.Module, loss: Any, targets: Tensor, note: str | None, batch_size: int
) -> None:
    objective = ls.Objective(model, loss, (INPUTS, targets), batch_size=batch_size)
    objective.evaluate()
    assert len(objective.notes) == (note is not None)
    assert note is None or note in objective.notes[0]


def test_the_notes_of_a_loss_are_those_of_a_scan() -> None:
    loss = nn.CrossEntropyLoss(reduction="sum")
    objective = ls.Objective(make_model(3, nn.Softmax(1)), loss, (INPUTS, CLASSES))
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])
    notes = ls.scan(objective, line, 3).data.attrs["notes"]
    assert "CrossEntropyLoss has reduction='sum'" in notes
    assert "softmax is applied twice" in notes
