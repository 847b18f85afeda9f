"""Forms of data: each gives the same loss, and reading it leaves no trace.

Witness: torch's own cross-entropy over all rows in one batch, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import landscope as ls
from landscope.errors import ObjectiveError
from landscope.objective.batches import Batches
from tests import cases

CPU = torch.device("cpu")


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Rows of a case, optionally with noise on the inputs."""

    def __init__(self, case: cases.Case, noise: float = 0.0) -> None:
        self.case, self.noise = case, noise

    def __len__(self) -> int:
        return len(self.case.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = self.case.inputs[index]
        return row + self.noise * torch.randn(row.shape), self.case.targets[index]


class Repeatable:
    """An iterable of batches that starts again from the first each time."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches, self.passes = batches, 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.batches)


def forms() -> dict[str, Any]:
    case = cases.mlp()
    x, y = case.data
    pairs = list(zip(x.split(5), y.split(5), strict=True))
    return {
        "tensors": (x, y),
        "numpy": (x.numpy(), y.numpy()),
        "list of two tensors": [x, y],
        "list of batches": pairs,
        "list of lists": [list(pair) for pair in pairs],
        "dicts": [{"x": a, "labels": b} for a, b in pairs],
        "numpy batches": [(a.numpy(), b.numpy()) for a, b in pairs],
        "iterable": Repeatable(pairs),
        "loader": DataLoader(TensorDataset(x, y), batch_size=4),
        "shuffling loader": DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True),
        "loader of a dataset": DataLoader(Pairs(case), batch_size=6, shuffle=True),
    }


@pytest.mark.parametrize("form", forms())
@pytest.mark.parametrize("cache", [True, False, "auto"])
def test_every_form_of_data_gives_the_same_loss_and_terms(form: str, cache: Any) -> None:
    case = cases.mlp()
    expected = F.cross_entropy(
        case.model.double()(case.inputs.double()), case.targets, reduction="none"
    ).detach()
    model = cases.mlp().model
    objective = ls.Objective(model, nn.CrossEntropyLoss(), forms()[form], cache=cache)
    assert objective.loss() == pytest.approx(float(expected.mean()), rel=1e-6)
    torch.testing.assert_close(objective.terms(), expected, rtol=1e-5, atol=1e-6)


def test_a_shuffling_loader_is_read_in_order_and_its_generator_is_untouched() -> None:
    case = cases.mlp()
    generator = cases.seeded(3)
    loader = DataLoader(TensorDataset(*case.data), batch_size=4, shuffle=True, generator=generator)
    before, around = generator.get_state(), torch.get_rng_state()
    objective = ls.Objective(case.model, nn.CrossEntropyLoss(), loader)
    ls.scan(objective, cases.plane(objective), ls.Grid(2))
    torch.testing.assert_close(generator.get_state(), before, rtol=0, atol=0)
    torch.testing.assert_close(torch.get_rng_state(), around, rtol=0, atol=0)
    rows = torch.cat([x for x, _ in objective.problem.batches[""]])
    torch.testing.assert_close(rows, case.inputs, rtol=0, atol=0)


def test_streamed_data_equal_cached_data_bit_for_bit() -> None:
    lands = []
    for cache in (True, False):
        case = cases.batch_norm_cnn()
        loader = DataLoader(Pairs(case), batch_size=4)
        objective = ls.Objective(case.model, nn.CrossEntropyLoss(), loader, cache=cache)
        lands.append(ls.scan(objective, cases.plane(objective), ls.Grid(3)))
    np.testing.assert_array_equal(lands[0].data["loss"], lands[1].data["loss"])
    assert "streamed" in lands[1].data.attrs["notes"]
    assert "streamed" not in lands[0].data.attrs["notes"]


def test_data_that_change_from_pass_to_pass_are_frozen_and_noted() -> None:
    case = cases.mlp()
    lands = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        loader = DataLoader(Pairs(case, noise=0.3), batch_size=4)
        objective = ls.Objective(case.model, nn.CrossEntropyLoss(), loader)
        lands.append(ls.scan(objective, cases.plane(objective), ls.Grid(2)))
        assert "changes from pass to pass" in lands[-1].data.attrs["notes"]
    assert lands[0].data.identical(lands[1].data)


def test_data_are_cached_only_when_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases.mlp()
    size = sum(t.nbytes for t in case.data)
    for free, streamed in ((2 * size, False), (2 * size - 2, True)):
        monkeypatch.setattr(
            "landscope.objective.batches.free_memory", lambda device, n=free: float(n)
        )
        batches = Batches(case.data, device=CPU, dtype=None, batch_size=5)
        assert batches.streamed is streamed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data is empty"),
        ((torch.zeros(0, 4), torch.zeros(0)), "data is empty"),
        (iter([(torch.zeros(1, 4), torch.zeros(1).long())]), "iterated only once"),
        ((x for x in [(torch.zeros(1, 4), torch.zeros(1).long())]), "iterated only once"),
        (torch.zeros(3, 4), "data is a Tensor"),
        (7, "data is a int"),
        ((torch.zeros(3, 4), torch.zeros(2).long()), "the same number of rows"),
        ([(torch.zeros(3, 4),)], "a batch is a tuple of 1"),
        ([{"x": torch.zeros(3, 4)}], "a dict with one of the keys"),
    ],
)
def test_errors_say_why_data_cannot_be_used(data: Any, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        ls.Objective(cases.mlp().model, nn.CrossEntropyLoss(), data).loss()


def test_an_iterable_that_can_be_iterated_only_once_is_noticed() -> None:
    class Dry:
        def __init__(self) -> None:
            self.once = iter([(torch.zeros(1, 4), torch.zeros(1).long())])

        def __iter__(self) -> Iterator[Any]:
            return self.once

    for cache in (True, False):
        with pytest.raises(ObjectiveError, match="iterated a second time"):
            ls.Objective(cases.mlp().model, nn.CrossEntropyLoss(), Dry(), cache=cache).loss()


def test_batches_of_several_inputs_reach_the_model_by_name() -> None:
    class Sum(nn.Linear):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(a + 2 * b)

    a, b = torch.randn(6, 4), torch.randn(6, 4)
    target = torch.randn(6, 1)
    model = Sum(4, 1)
    objective = ls.Objective(model, nn.MSELoss(), [{"a": a, "b": b, "y": target}])
    rows = (a + 2 * b).double() @ model.weight.double().T + model.bias.double()
    expected = (rows - target.double()).square().mean()
    assert objective.loss() == pytest.approx(float(expected.detach()), rel=1e-6)


def test_the_identity_changes_with_any_value_and_with_nothing_else() -> None:
    x, y = cases.mlp().data

    def identity(*data: Tensor) -> str:
        return Batches(data, device=CPU, dtype=None).identity

    changed = x.clone()
    changed[-1, -1] += 1e-6
    assert identity(x, y) == identity(x.clone(), y.clone())
    assert identity(x, y) != identity(changed, y)
    assert identity(x, y) != identity(x, y.flip(0))
