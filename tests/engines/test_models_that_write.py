"""Models that write into themselves: each point has the values of a fresh copy of the model.

The witness is a plain loop: a deep copy of the model for each point, whose weights are set once,
evaluates the batches in their order.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import landscope as ls
from landscope.engines.plan import Plan
from tests import writers

ROWS, BATCH = 20, 8
STEPS = (-1.0, 0.0, 1.0)
ENGINES = {
    "default": None,
    "threads": ls.engines.Local(workers=2),
    "larger batches": ls.engines.Local(plan=Plan(rows=20)),
}


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(ROWS, 4, generator=generator)
    classes = torch.randint(3, (ROWS,), generator=generator)
    return list(zip(rows.split(BATCH), classes.split(BATCH), strict=True))


def set_point(model: nn.Module, point: dict[str, Tensor]) -> nn.Module:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in point:
                parameter.copy_(point[name])
    return model


@torch.no_grad()
def loss_of_copy(model: nn.Module, point: dict[str, Tensor]) -> float:
    fresh = set_point(copy.deepcopy(model), point)
    return sum(float(F.cross_entropy(fresh(x), y, reduction="sum")) for x, y in batches()) / ROWS


def remember(model: nn.Module) -> dict[str, Any]:
    """Return all that a pass might have changed: tensors, by name and identity, and flags."""
    tensors = {n: (id(t), t.data.tolist()) for n, t in ls.params.named_tensors(model)}
    plain = {
        f"{prefix}.{n}": (id(v), v.tolist()) if isinstance(v, Tensor) else v
        for prefix, module in model.named_modules()
        for n, v in vars(module).items()
        if isinstance(v, Tensor | bool)
    }
    return {**tensors, **plain}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", writers.MODELS)
def test_a_scan_has_the_values_of_fresh_copies(name: str, in_place: bool) -> None:
    if in_place and name == "clamp by numpy":
        pytest.skip("torch does not see this write, and there is no memory for a copy")
    model = writers.make(name)
    before = remember(model)
    objective = ls.Objective(model, nn.CrossEntropyLoss(), batches(), in_place=in_place)
    center = ls.params.clone(objective.center)
    direction, _ = ls.directions.random(center)
    line = ls.Line(objective.center if in_place else center, direction)
    truth = [loss_of_copy(model, {n: center[n] + x * direction[n] for n in center}) for x in STEPS]
    for engine in ENGINES.values() if not in_place else [None]:
        land = ls.scan(objective, line, ls.Grid(3), engine=engine)
        np.testing.assert_allclose(land.data["loss"], truth, rtol=1e-5)
    assert objective.loss() == pytest.approx(truth[1], rel=1e-5)
    assert all(torch.equal(objective.center[n], center[n]) for n in center)
    assert remember(model) == before
    assert [note for note in objective.notes if "writes into the model's own" in note]


@pytest.mark.parametrize("name", writers.MODELS)
def test_a_gradient_is_that_of_a_fresh_copy(name: str) -> None:
    model = writers.make(name)
    objective = ls.Objective(model, nn.CrossEntropyLoss(), batches())
    fresh = copy.deepcopy(model)
    for x, y in batches():
        (F.cross_entropy(fresh(x), y, reduction="sum") / ROWS).backward()
    expected = {n: p.grad for n, p in fresh.named_parameters() if p.requires_grad}
    torch.testing.assert_close(dict(objective.gradient()), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["embedding", "clamp", "flag", "buffer"])
def test_products_with_a_hessian_can_be_repeated(name: str) -> None:
    model = writers.make(name)
    before = remember(model)
    hessian = ls.curvature.Hessian(ls.Objective(model, nn.CrossEntropyLoss(), batches()))
    vector = torch.ones(hessian.shape[0])
    torch.testing.assert_close(hessian @ vector, hessian @ vector)
    assert remember(model) == before


def test_a_quantity_is_given_the_point_and_not_what_the_pass_made_of_it() -> None:
    objective = ls.Objective(writers.make("clamp"), nn.CrossEntropyLoss(), batches())
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])

    def largest(_: object, params: ls.params.Params) -> dict[str, float]:
        return {"largest": float(params["first.weight"].abs().max())}

    land = ls.scan(objective, line, ls.Grid(3), quantities=[largest])
    expected = [float(line.at((x,))["first.weight"].abs().max()) for x in STEPS]
    np.testing.assert_allclose(land.data["largest"], expected, rtol=1e-6)


def test_a_counter_goes_on_counting_and_a_cache_is_no_write() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.count, self.last = nn.Linear(4, 3), 0, torch.zeros(BATCH, 3)

        def forward(self, rows: Tensor) -> Tensor:
            self.count, self.last = self.count + 1, self.layer(rows)
            return self.last

    model = Caching()
    kept = model.last
    objective = ls.Objective(model, nn.CrossEntropyLoss(), batches()[:2])
    objective.loss()
    assert (objective.notes, model.last is kept, model.count > 0) == ((), True, True)
