"""Notes on surfaces that mislead, on models whose surface and whose training are known.

Witnesses: W = B A with B = 0 does not depend on A; a linear model with a closed-form solution is
trained by solving it; a network with zero weights has the loss ln(classes).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.engines import Local, Plan


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter that has not been trained yet."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 3).requires_grad_(False)
        self.a, self.b = nn.Linear(6, 2, bias=False), nn.Linear(2, 3, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, rows: Tensor) -> Tensor:
        output: Tensor = self.base(rows) + self.b(self.a(rows))
        return output


def _network(last: float = 1.0, bias: float = 0.0) -> nn.Sequential:
    torch.manual_seed(3)
    first, second = nn.Linear(6, 8), nn.Linear(8, 3)
    with torch.no_grad():
        first.bias.add_(bias)
        second.weight.mul_(last)
        second.bias.mul_(last)
    return nn.Sequential(first, nn.ReLU(), second)


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(60, 6, generator=generator)
    return inputs, inputs[:, :3].argmax(1)


def _notes(model: nn.Module, sampler: Any = 3, **options: Any) -> str:
    torch.manual_seed(0)
    objective = ls.Objective(model, nn.CrossEntropyLoss(), _data())
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center, **options))
    land = ls.scan(objective, plane, sampler, engine=Local(plan=Plan()))
    return str(land.data.attrs["notes"])


@pytest.mark.parametrize("sampler", [3, ls.Adaptive(resolution=9), ls.Grid((1, 4))])
@pytest.mark.parametrize(
    ("model", "options", "cause"),
    [
        (Adapted(), {}, "they move a.weight, where the gradient of the loss is zero, and they do"
         " not move b.weight"),
        (Adapted(), {"select": "b.*"}, "the directions are zero"),
        (_network(last=0.0), {}, "they move 0.weight"),
        (_network(bias=-1e3), {"select": "0.*"}, "they move 0.weight"),
    ],
)  # fmt: skip
def test_a_surface_that_is_flat_by_construction_says_why(
    model: nn.Module, options: dict[str, Any], cause: str, sampler: Any
) -> None:
    notes = _notes(model, sampler, **options)
    dims = "y" if isinstance(sampler, ls.Grid) else "x and y"
    assert f"the loss does not change along {dims}, the whole slice (by 0 at most" in notes
    assert cause in notes


def test_a_surface_that_is_flat_along_one_axis_says_along_which() -> None:
    objective = ls.Objective(Adapted(), nn.CrossEntropyLoss(), _data())
    (dx,) = ls.directions.random(objective.center, 1, select="a.*")
    (dy,) = ls.directions.random(objective.center, 1, select="b.*", normalize="dfilter")
    line = ls.scan(objective, ls.Line(objective.center, dx), 3)
    assert "does not change along x, the whole slice" in line.data.attrs["notes"]
    zero = ls.params.like(objective.center, {n: 0.0 * t for n, t in dx.items()})
    plane = ls.scan(objective, ls.Plane(objective.center, dy, zero), 3)
    assert "does not change along y (by 0" in plane.data.attrs["notes"]


def test_a_span_too_small_for_the_precision_is_not_taken_for_an_invariance() -> None:
    notes = _notes(_network(), ls.Grid(5, (-1e-9, 1e-9)))
    assert "choose a wider span, or precision='float64'" in notes
    assert "gradient" not in notes


def test_an_untrained_model_is_noticed_and_a_trained_one_is_not() -> None:
    model = _network()
    assert "the model looks untrained" in _notes(model)
    inputs, targets = _data()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    assert _notes(model) == ""
    assert "1.099" in _notes(_network(last=0.0))  # ln(3), that of all parameters at zero


def test_a_regression_is_compared_with_the_prediction_of_zero() -> None:
    inputs = _data()[0].double()
    targets = inputs @ torch.arange(6.0, dtype=torch.float64)[:, None] + 0.5
    model = nn.Linear(6, 1).double()

    def scan() -> str:
        objective = ls.Objective(model, nn.MSELoss(), (inputs, targets))
        line = ls.Line(objective.center, *ls.directions.random(objective.center, 1))
        return str(ls.scan(objective, line, 3).data.attrs["notes"])

    with torch.no_grad():
        model.weight.mul_(0.01)
    assert f"at zero, {float(targets.square().mean()):.4g}" in scan()
    design = torch.cat([inputs, torch.ones(60, 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(design, targets).solution
    with torch.no_grad():
        model.weight.copy_(solution[:-1].T)
        model.bias.copy_(solution[-1])
    assert scan() == ""


def test_a_plane_around_another_point_says_nothing_of_the_model() -> None:
    objective = ls.Objective(_network(), nn.CrossEntropyLoss(), _data())
    moved = ls.params.like(objective.center, {n: t + 1 for n, t in objective.center.items()})
    plane = ls.Plane(moved, *ls.directions.random(moved))
    assert ls.scan(objective, plane, 3).data.attrs["notes"] == ""
