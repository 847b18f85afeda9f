"""The folder of a run of landscope 0.1: the same command goes on in it and adds nothing.

``tests/data/run_0_1`` was made by version 0.1 (commit b4a8763) in that folder::

    landscope scan target.py:make --x=-1:1:5 --y=-1:1:5 --seed 3 --out first
    landscope scan target.py:make --x=-1:1:5 --y=-1:1:5 --directions first --out run

Weights and data are exact in float32 and the directions are read, so every machine asks the same.
Pictures were deleted, and of the first run all but its directions.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import landscope as ls

Command = Callable[..., Any]  # words -> code, out, err
STORED = Path(__file__).parents[1] / "data" / "run_0_1"
WORDS = ("scan", "target.py:make", "--x=-1:1:5", "--y=-1:1:5", "--directions", "first")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, in the working directory."""
    shutil.copytree(STORED, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("landscope.cli.pictures.draw_pictures", lambda *_, **__: [])
    return tmp_path / "run"


def journaled(run: Path) -> dict[int, float]:
    with closing(sqlite3.connect(run / "journal.sqlite")) as file:
        return dict(file.execute("SELECT point, value FROM value WHERE quantity = 'loss'"))


def test_a_finished_run_is_complete_and_its_request_is_recorded_as_before(
    command: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a point was computed again")

    monkeypatch.setattr("landscope.objective.evaluation.Session.evaluate", never)
    answer = command(*WORDS, "--out", "run")
    assert answer.code == 0, answer.err
    before, after = ls.load(STORED / "run").data["loss"], ls.load(run).data["loss"]
    np.testing.assert_array_equal(after, before)
    asked = [
        json.loads((folder / "run.json").read_text())["asked"] for folder in (STORED / "run", run)
    ]
    assert asked[1] == asked[0]
    assert list(asked[1]) == list(asked[0])


def test_an_interrupted_run_goes_on_after_the_points_in_its_journal(
    command: Command, run: Path
) -> None:
    with closing(sqlite3.connect(run / "journal.sqlite")) as file, file:
        for table, column in (("point", "id"), ("value", "point")):
            file.execute(f"DELETE FROM {table} WHERE {column} >= 11")
    for name in ("landscape.nc", "run.json", "directions.safetensors"):  # written at the end
        (run / name).unlink()
    kept = journaled(run)
    assert len(kept) == 11
    answer = command(*WORDS, "--out", "run")
    assert answer.code == 0, answer.err
    losses = journaled(run)
    assert {point: losses[point] for point in kept} == kept
    np.testing.assert_allclose(
        ls.load(run).data["loss"], ls.load(STORED / "run").data["loss"], rtol=1e-6
    )


def test_another_request_is_refused_in_it(command: Command, run: Path) -> None:
    before = journaled(run)
    answer = command(*WORDS[:-2], "--seed", 3, "--normalize", "layer", "--out", "run")
    assert answer.code == 1
    assert "--directions was first, now not given" in answer.err
    assert "--normalize was not given, now layer" in answer.err
    assert "--seed was not given, now 3" in answer.err
    assert journaled(run) == before


def test_its_directions_and_values_are_read_by_the_other_commands(
    command: Command, run: Path
) -> None:
    answer = command("info", run)
    assert answer.code == 0, answer.err
    assert "x from -1 to 1 in 5, y from -1 to 1 in 5" in answer.out
    answer = command(*WORDS[:-1], run, "--out", run.parent / "again")
    assert answer.code == 0, answer.err
    np.testing.assert_allclose(
        ls.load(run.parent / "again").data["loss"], ls.load(run).data["loss"], rtol=1e-6
    )
