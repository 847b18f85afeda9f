"""Models that have no values, or none that can be moved, get one sentence."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import landscope as ls
from landscope.objective import batches

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def refuse(model: nn.Module, words: str) -> None:
    with pytest.raises(ls.errors.ObjectiveError, match=words):
        ls.Objective(model, nn.CrossEntropyLoss(), (X, Y))


def test_a_lazy_layer_asks_for_a_call() -> None:
    model = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(3))
    refuse(model, r"'0.weight' of the model is lazy.*call the model once")
    expected = nn.functional.cross_entropy(model(X), Y).item()
    assert ls.Objective(model, nn.CrossEntropyLoss(), (X, Y)).loss() == pytest.approx(expected)


def test_a_model_on_the_meta_device_has_no_values() -> None:
    with torch.device("meta"):
        model = nn.Linear(4, 3)
    refuse(model, r"'weight' of the model is on the meta device.*assign=True")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize:UserWarning")
def test_a_quantized_model_has_no_parameters() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    refuse(torch.ao.quantization.quantize_dynamic(model, {nn.Linear}), "quantized.*before")


def test_a_frozen_model_keeps_its_sentence() -> None:
    refuse(nn.Linear(4, 3).requires_grad_(requires_grad=False), "set requires_grad=True")


class Endless(IterableDataset[Any]):
    """Samples without an end; the test ends it after so many."""

    def __iter__(self) -> Iterator[Any]:
        for k in range(40):
            yield X[k % 8], Y[k % 8]


def test_data_that_do_not_end_are_warned_of_while_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "_PATIENCE", 0.0)
    data = DataLoader(Endless(), batch_size=4)
    objective = ls.Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), data)
    with pytest.warns(UserWarning, match=r"gave \d+ batches.*itertools\.islice"):
        objective.loss()
    ls.Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), [(X, Y)] * 3).loss()  # it has a length


def test_an_executor_is_an_engine_and_one_of_threads_gets_a_sentence() -> None:
    objective = ls.Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), (X, Y))
    (direction,) = ls.directions.random(objective.center, 1)
    line = ls.Line(objective.center, direction)
    with (
        concurrent.futures.ThreadPoolExecutor(1) as threads,
        pytest.raises(ls.errors.EngineError, match=r"engines\.Executor\(pool\)"),
    ):
        ls.scan(objective, line, 3, engine=threads)  # type: ignore[arg-type]  # not an Engine
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as processes:
        land = ls.scan(objective, line, 3, engine=processes)  # type: ignore[arg-type]
    assert land.data["loss"].values == pytest.approx(
        ls.scan(objective, line, 3).data["loss"].values, rel=1e-6
    )


def test_an_error_on_a_later_batch_names_it_and_its_cure() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).train()
    objective = ls.Objective(model, nn.CrossEntropyLoss(), (X, Y), batch_size=7)
    with pytest.raises(ls.errors.CallError, match=r"batch 2 of data .*\[1, 4\].*drop_last=True"):
        objective.loss()
