"""Attributes of modules: what a pass sets is reset and restored; the order of names stays."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from landscope.objective.module_attributes import ModuleAttributes


def make() -> Any:
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].flag, model[0].plain, model[0].calls = False, torch.zeros(2), 0
    return model


def test_changes_are_listed_by_kind_and_reset() -> None:
    model = make()
    attributes = ModuleAttributes(model)
    before = {name: list(vars(m)) for name, m in model.named_modules()}
    mean, plain = model[1].running_mean, model[0].plain
    for _ in range(2):
        model[0].flag, model[0].plain, model[0].calls = True, torch.ones(2), model[0].calls + 1
        model[0].new, model[1].running_mean = "x", torch.ones(2)
        assert attributes.find_changes() == (["1.running_mean"], ["0.flag", "0.plain", "0.new"])
        attributes.reset()
        assert (model[0].flag, model[0].plain is plain, model[1].running_mean is mean) == (
            False, True, True,
        )  # fmt: skip
    assert model[0].calls == 2
    assert {name: list(vars(m)) for name, m in model.named_modules()} == before


def test_restoring_needs_no_search_for_changes_and_leaves_modes() -> None:
    model = make()
    attributes = ModuleAttributes(model)
    model[0].flag = True
    model.eval()
    attributes.restore()
    assert (model[0].flag, model.training) == (False, False)


def test_a_plain_tensor_is_replaced_at_each_reset_until_all_is_restored() -> None:
    model = make()
    attributes = ModuleAttributes(model)
    assert [name for name, _ in attributes.list_plain_tensors()] == ["0.plain"]
    old, new = model[0].plain, torch.ones(2)
    attributes.replace(old, new)
    assert model[0].plain is new
    model[0].plain = torch.zeros(1)
    attributes.reset()
    assert model[0].plain is new
    attributes.restore()
    assert model[0].plain is old
