"""Losses that torch has no gradient of, and losses that really do not depend on a parameter.

Each refused loss changes when its parameters change (the test evaluates it), so that a gradient of
zeros is wrong; each accepted one has the gradient that is written beside it.
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
from tests.cases import seeded

DATA = torch.randn(24, 6, generator=seeded(0)), torch.randint(3, (24,), generator=seeded(1))


class Features(nn.Module):
    """A layer, a function of its result, and a second layer."""

    def __init__(self, between: Callable[[Tensor], Tensor], *, grad: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.between, self.grad = between, grad

    def forward(self, rows: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            features = self.body(rows)
        return torch.as_tensor(self.head(self.between(features)))


class Spare(nn.Module):
    """A layer that is used, possibly with dropout, and one that is not."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.used, self.unused, self.dropout = linear(), linear(), dropout

    def forward(self, rows: Tensor) -> Tensor:
        return F.dropout(self.used(rows), self.dropout)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 3)


def errors(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.argmax(-1) != targets


LOSSES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "item": lambda o, t: F.cross_entropy(o, t).item(),
    "detach": lambda o, t: F.cross_entropy(o, t, reduction="none").detach(),
    "number of errors": errors,
    "share of errors": lambda o, t: errors(o, t).float(),
    "rounded": lambda o, t: F.cross_entropy(o.round(), t, reduction="none"),
    "signs": lambda o, t: F.cross_entropy(o.sign(), t, reduction="none"),
    "numpy": lambda o, t: torch.from_numpy(o.detach().numpy()).var(dim=1),
}
BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "detach": Tensor.detach,
    "sign": torch.sign,
    "round": lambda t: (3 * t).round(),
    "greater": lambda t: (t > 0).float(),
    "argmax": lambda t: F.one_hot(t.argmax(-1), 5).float(),
    "numpy": lambda t: torch.from_numpy(t.detach().numpy()),
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_whose_gradient_is_cut_off_has_no_gradient_of_zeros(name: str) -> None:
    objective = ls.Objective(linear(), LOSSES[name], DATA)
    there = {
        n: t + torch.linspace(0, 2, t.numel()).reshape(t.shape) for n, t in objective.center.items()
    }
    assert objective.loss(there) != objective.loss()
    with pytest.raises(ObjectiveError, match="torch has no gradient of it"):
        objective.gradient()


def test_a_model_under_no_grad_has_no_gradient_of_zeros() -> None:
    class Still(nn.Linear):
        @torch.no_grad()
        def forward(self, rows: Tensor) -> Tensor:
            return super().forward(rows)

    with pytest.raises(ObjectiveError, match="has no gradient of it"):
        ls.Objective(Still(6, 3), nn.CrossEntropyLoss(), DATA).gradient()


@pytest.mark.parametrize("name", list(BETWEEN))
def test_the_part_of_a_model_that_is_cut_off_is_named(name: str) -> None:
    objective = ls.Objective(Features(BETWEEN[name]), nn.CrossEntropyLoss(), DATA)
    before = objective.loss()
    with pytest.raises(ObjectiveError, match=r"depends on 'body\.weight'.*requires_grad_\(False\)"):
        objective.gradient()
    assert objective.loss() == before


def test_a_part_under_no_grad_is_named_and_can_be_frozen() -> None:
    model = Features(torch.tanh, grad=False)
    with pytest.raises(ObjectiveError, match=r"depends on 'body\.weight'"):
        ls.Objective(model, nn.CrossEntropyLoss(), DATA).gradient()
    model.body.requires_grad_(requires_grad=False)
    gradient = ls.Objective(model, nn.CrossEntropyLoss(), DATA).gradient()
    loss = F.cross_entropy(model(DATA[0]), DATA[1])
    expected = torch.autograd.grad(loss, list(model.head.parameters()))
    assert list(gradient) == ["head.weight", "head.bias"]
    torch.testing.assert_close(tuple(gradient.values()), expected)


def test_a_penalty_that_is_cut_off_is_refused() -> None:
    def penalty(params: Any) -> float:
        return float(sum(t.detach().square().sum() for t in params.values()))

    objective = ls.Objective(linear(), nn.CrossEntropyLoss(), DATA, penalty=penalty)  # type: ignore[arg-type]
    with pytest.raises(ObjectiveError, match="torch has no gradient of it"):
        objective.gradient()


# --- right as it is ------------------------------------------------------------------------------


def test_an_unused_layer_has_a_gradient_of_zeros() -> None:
    gradient = ls.Objective(Spare(), nn.CrossEntropyLoss(), DATA).gradient()
    assert float(gradient["unused.weight"].abs().max()) == 0.0
    assert float(gradient["used.weight"].abs().max()) > 0.0


def test_units_that_are_never_active_have_a_gradient_of_zeros() -> None:
    model = Features(torch.relu)
    with torch.no_grad():
        model.body.bias.fill_(-1e3)
    gradient = ls.Objective(model, nn.CrossEntropyLoss(), DATA).gradient()
    assert float(gradient["body.weight"].abs().max()) == 0.0


def test_a_constant_has_a_gradient_of_zeros() -> None:
    gradient = ls.Objective(linear(), lambda o, _: torch.ones(len(o)), DATA).gradient()
    assert float(ls.params.flatten(gradient).abs().max()) == 0.0


def test_a_random_loss_is_not_taken_for_a_dependence() -> None:
    gradient = ls.Objective(Spare(dropout=0.5), nn.CrossEntropyLoss(), DATA).gradient()
    assert float(gradient["unused.weight"].abs().max()) == 0.0
