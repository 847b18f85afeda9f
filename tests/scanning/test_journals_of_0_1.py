"""Journals that landscope 0.1 left half finished: this version finishes them, or says why not.

All numbers of the problem are multiples of 1/32, so fingerprints are those of every machine; the
witness of the values is the closed form in float64, which needs neither torch nor landscope. The
files in ``tests/data/journals_0_1`` were made by commit b4a8763 with ``problem`` of this module::

    class Stop(Exception): ...

    def stop(progress):
        if progress.done >= {35: 18, 289: 50}[progress.total]:
            raise Stop

    plan = Plan(workers=2, threads=1, rows=8)  # of landscope.engines.plans
    scans = {
        "grid": {"sampler": ls.Grid((7, 5))},
        "calibrated": {"sampler": ls.Grid((7, 5)), "terms": ls.Calibrated(12, anchors=5)},
        "adaptive": {"sampler": ls.Adaptive(0.002, 17), "engine": Local(plan=plan)},
    }
    for name, options in scans.items():
        with contextlib.suppress(Stop):
            ls.scan(*problem(), journal=f"{name}.sqlite", progress=stop, **options)

The plans in them are plain passes, which every machine can follow.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import landscope as ls
from landscope.errors import JournalError
from landscope.params import Params
from landscope.progress import Progress

JOURNALS = Path(__file__).parents[1] / "data" / "journals_0_1"
ROWS, CLASSES, HIDDEN = 40, 3, 4


def numbers(shape: tuple[int, ...], step: int) -> Tensor:
    """Return multiples of 1/32 between -1 and 1 that show no pattern."""
    count = torch.arange(1, int(np.prod(shape)) + 1)
    return ((count * count * step + 7 * count) % 61 - 30).reshape(shape) / 32


def weights(step: int) -> Params:
    shapes = {"0.weight": (HIDDEN, 2), "0.bias": (HIDDEN,), "2.weight": (CLASSES, HIDDEN)}
    shapes["2.bias"] = (CLASSES,)
    return Params({n: numbers(s, step + k) for k, (n, s) in enumerate(shapes.items())})


def problem() -> tuple[ls.Objective, ls.Plane]:
    model = nn.Sequential(nn.Linear(2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES))
    model.load_state_dict(weights(3))
    data = numbers((ROWS, 2), 11), torch.arange(ROWS) * 5 % 7 % CLASSES
    metrics = {"accuracy": ls.losses.accuracy}
    objective = ls.Objective(model, nn.CrossEntropyLoss(), data, metrics=metrics, device="cpu")
    return objective, ls.Plane(objective.center, weights(17), weights(29))


def exact_loss(x: float, y: float) -> float:
    """Return the mean cross entropy at a point of the plane, in float64."""
    center, dx, dy = (
        {name: tensor.double().numpy() for name, tensor in weights(step).items()}
        for step in (3, 17, 29)
    )
    point = {name: center[name] + x * dx[name] + y * dy[name] for name in center}
    inputs = numbers((ROWS, 2), 11).double().numpy()
    hidden = np.tanh(inputs @ point["0.weight"].T + point["0.bias"])
    logits = hidden @ point["2.weight"].T + point["2.bias"]
    targets = np.arange(ROWS) * 5 % 7 % CLASSES
    chosen = logits[np.arange(ROWS), targets]
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen))


Stored = dict[int, dict[str, float]]


@pytest.fixture
def unfinished(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Stored]:
    """A copy of the journal that the test is parametrized with, and the values in it."""
    path = Path(shutil.copy(JOURNALS / f"{request.param}.sqlite", tmp_path))
    return path, read(path)


def read(path: Path) -> Stored:
    stored: Stored = {}
    with contextlib.closing(sqlite3.connect(path)) as file:
        for point, quantity, value in file.execute("SELECT point, quantity, value FROM value"):
            stored.setdefault(point, {})[quantity] = value
    return stored


def finish(path: Path, stored: Stored, **options: Any) -> xr.Dataset:
    """Return the data of a scan that goes on after the points that are stored."""
    steps: list[Progress] = []
    land = ls.scan(*problem(), journal=path, progress=steps.append, **options)
    assert steps[0].done == len(stored) < steps[-1].done
    losses = land.data["loss"].values.ravel()  # x runs fastest, as in the indices of points
    assert {k: losses[k] for k in stored} == {k: values["loss"] for k, values in stored.items()}
    return land.data


def exact_losses(data: xr.Dataset) -> np.ndarray:
    return np.array([[exact_loss(x, y) for x in data["x"].values] for y in data["y"].values])


@pytest.mark.parametrize("unfinished", ["grid"], indirect=True)
def test_a_grid_is_finished_with_the_values_of_an_uninterrupted_one(
    unfinished: tuple[Path, Stored],
) -> None:
    data = finish(*unfinished, sampler=ls.Grid((7, 5)))
    np.testing.assert_allclose(data["loss"], exact_losses(data), rtol=1e-5)
    whole = ls.scan(*problem(), ls.Grid((7, 5))).data
    np.testing.assert_array_equal(data["accuracy"], whole["accuracy"])


@pytest.mark.parametrize("unfinished", ["grid"], indirect=True)
def test_values_in_the_journal_are_not_evaluated_again(unfinished: tuple[Path, Stored]) -> None:
    path, stored = unfinished
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE value SET value = 1234.5 WHERE point = 2 AND quantity = 'loss'")
    stored[2]["loss"] = 1234.5
    finish(path, stored, sampler=ls.Grid((7, 5)))


@pytest.mark.parametrize("unfinished", ["calibrated"], indirect=True)
def test_a_calibrated_scan_is_finished_with_the_samples_that_it_drew(
    unfinished: tuple[Path, Stored],
) -> None:
    data = finish(*unfinished, sampler=ls.Grid((7, 5)), samples=ls.Calibrated(12, anchors=5))
    errors = np.abs(np.log(data["loss"] / exact_losses(data)))
    assert (errors <= data["loss_error"] + 1e-5).all()
    assert int((data["loss_error"] == 0).sum()) == 5  # the anchors
    assert data.attrs["cost"] == "35 of 35 points, 14 passes over the data"


@pytest.mark.parametrize("unfinished", ["adaptive"], indirect=True)
def test_an_adaptive_scan_is_finished_to_its_tolerance(unfinished: tuple[Path, Stored]) -> None:
    data = finish(*unfinished, sampler=ls.Adaptive(0.002, 17))
    errors = np.abs(np.log(data["loss"].values / exact_losses(data)))
    evaluated = data["evaluated"].values.astype(bool)
    assert errors[evaluated].max() < 1e-5
    assert errors.max() < 2 * 0.002


@pytest.mark.parametrize("unfinished", ["grid"], indirect=True)
def test_another_question_is_refused_with_a_sentence_and_nothing_is_mixed_in(
    unfinished: tuple[Path, Stored],
) -> None:
    path, stored = unfinished
    objective, _ = problem()
    other = ls.Plane(objective.center, weights(29), weights(17))
    with pytest.raises(JournalError, match=r"another scan: slice was Plane .*, now Plane .*"):
        ls.scan(objective, other, ls.Grid((7, 5)), journal=path)
    assert read(path) == stored
