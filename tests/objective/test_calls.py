"""How the inputs of a batch are passed to a model: the values are those of the call by hand."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import landscope as ls
from landscope.objective.calls import Caller, describe_arguments

LEFT = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
RIGHT = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])
Two = namedtuple("Two", "left right")


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(5, 3)

    def join(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.as_tensor(self.layer(torch.cat([left, right], dim=1)))


class Positional(Base):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.join(left, right)


class Optional(Base):
    def forward(self, left: Tensor, right: Tensor | None = None) -> Tensor:
        return self.join(left, RIGHT if right is None else right)


class Keyword(Base):
    def forward(self, *, left: Tensor, right: Tensor) -> Tensor:
        return self.join(left, right)


class OfPair(Base):
    def forward(self, pair: Any) -> Tensor:
        return self.join(pair[0], pair[1])


class OfDict(Base):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.join(batch["left"], batch["right"])


class Open(Base):
    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        return self.join(*inputs, **named)


class SecondOnly(Base):
    def forward(self, tokens: Tensor | None = None, features: Tensor | None = None) -> Tensor:
        assert tokens is None
        assert features is not None
        return self.join(features[:, :2], features[:, 2:])


NAMED: dict[str, Any] = {"left": LEFT, "right": RIGHT}
JOINED = torch.cat([LEFT, RIGHT], dim=1)
RIGHT_VALUE = F.cross_entropy(Base().join(LEFT, RIGHT), LABELS).item()

CASES: list[tuple[type[nn.Module], Any]] = [
    (Positional, ((LEFT, RIGHT), LABELS)),
    (Positional, ([LEFT, RIGHT], LABELS)),
    (Positional, (LEFT, RIGHT, LABELS)),
    (Positional, [LEFT, RIGHT, LABELS]),
    (Positional, (NAMED, LABELS)),
    (Positional, {**NAMED, "labels": LABELS}),
    (Positional, {"right": RIGHT, "y": LABELS, "left": LEFT}),
    (Optional, ((LEFT, RIGHT), LABELS)),
    (Optional, (LEFT, LABELS)),
    (Optional, {"left": LEFT, "labels": LABELS}),
    (Keyword, (NAMED, LABELS)),
    (Keyword, {**NAMED, "labels": LABELS}),
    (OfPair, ((LEFT, RIGHT), LABELS)),
    (OfPair, (Two(LEFT, RIGHT), LABELS)),
    (OfDict, (NAMED, LABELS)),
    (OfDict, {**NAMED, "labels": LABELS}),
    (Open, ((LEFT, RIGHT), LABELS)),
    (Open, {**NAMED, "labels": LABELS}),
    (SecondOnly, {"features": JOINED, "labels": LABELS}),
]


@pytest.mark.parametrize(
    ("model", "batch"), [pytest.param(*c, id=f"{k} {c[0].__name__}") for k, c in enumerate(CASES)]
)
def test_the_signature_decides_how_inputs_are_passed(model: type[nn.Module], batch: Any) -> None:
    objective = ls.Objective(model(), nn.CrossEntropyLoss(), [batch])
    assert objective.loss() == pytest.approx(RIGHT_VALUE, rel=1e-6)
    (direction,) = ls.directions.random(objective.center, 1)
    line = ls.Line(objective.center, direction)
    assert ls.scan(objective, line, 3).data["loss"].values[1] == pytest.approx(RIGHT_VALUE)


def test_the_model_inside_a_wrapper_of_torch_decides() -> None:
    model = nn.DataParallel(Positional())
    objective = ls.Objective(model, nn.CrossEntropyLoss(), [(LEFT, RIGHT, LABELS)])
    assert objective.loss() == pytest.approx(RIGHT_VALUE, rel=1e-6)


def test_a_triple_is_not_guessed_at_where_the_second_input_is_optional() -> None:
    objective = ls.Objective(Optional(), nn.CrossEntropyLoss(), [(LEFT, RIGHT, LABELS)])
    with pytest.raises(ls.errors.ObjectiveError, match=r"a batch is a tuple of 3.*dict"):
        objective.loss()


@pytest.mark.parametrize(
    ("model", "batch", "words"),
    [
        (Positional(), (LEFT, LABELS), r"takes \(left, right\): give a batch as a dict"),
        (
            Positional(),
            {**NAMED, "row": LABELS, "labels": LABELS},
            r"takes \(left, right\), and the batch has the keys left, right, row",
        ),
        (Keyword(), ((LEFT, RIGHT), LABELS), r"takes \(left, right\): give a batch as a dict"),
    ],
    ids=["one", "a further key", "positional"],
)
def test_the_sentence_names_the_arguments_and_the_dict(
    model: nn.Module, batch: Any, words: str
) -> None:
    with pytest.raises(ls.errors.CallError, match=words):
        ls.Objective(model, nn.CrossEntropyLoss(), [batch]).loss()


def test_arguments_are_described_without_types_and_defaults() -> None:
    assert describe_arguments(Optional()) == "left, right"
    assert describe_arguments(Open()) == "*inputs, **named"


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_a_model_without_a_signature_gets_one_argument() -> None:
    caller = Caller(torch.jit.script(nn.Linear(2, 3)))
    assert caller.choose_way((LEFT,)) == "one"
