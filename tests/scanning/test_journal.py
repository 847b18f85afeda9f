"""The journal on disk; sqlite3 is the witness of what is in the file."""

from __future__ import annotations

import copy
import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import landscope as ls
from landscope.engines.job import Result
from landscope.errors import JournalError
from tests import cases

ODD = [0.0, -1.5, math.nan, math.inf, -math.inf, 5e-324, 0.1 + 0.2]


def test_every_float_comes_back_bit_for_bit(tmp_path: Path) -> None:
    with ls.Journal(tmp_path / "deep" / "journal.sqlite") as journal:
        for point, value in enumerate(ODD):
            journal.write([Result(point, {"loss": value, "other": -value}, 0.5)])
    with ls.Journal(tmp_path / "deep" / "journal.sqlite") as journal:
        known = journal.values()
        assert journal.seconds == 0.5 * len(ODD)
    for column, sign in (("loss", 1), ("other", -1)):
        found = np.array([known[k][column] for k in range(len(ODD))])
        np.testing.assert_array_equal(found, sign * np.array(ODD))


def test_a_point_is_in_the_file_as_soon_as_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with ls.Journal(path) as journal:
        journal.write([Result(7, {"loss": math.nan}, 0.25)])
        other = sqlite3.connect(path)
        assert other.execute("SELECT * FROM point").fetchall() == [(7, 0.25)]
        assert other.execute("SELECT * FROM value").fetchall() == [(7, "loss", None)]
        other.close()


def test_a_point_that_fails_half_way_is_not_there_at_all() -> None:
    journal = ls.Journal()
    with pytest.raises(JournalError, match="cannot be written"):
        journal.write([Result(1, {"loss": 1.0, ("not", "text"): 2.0}, 0.1)])  # type: ignore[dict-item]
    assert journal.values() == {}
    journal.write([Result(1, {"loss": 1.0}, 0.1)])
    assert journal.values() == {1: {"loss": 1.0}}
    journal.close()


def other_questions() -> dict[str, tuple[str, dict[str, Any]]]:
    weights = cases.mlp().model
    with torch.no_grad():
        next(weights.parameters()).add_(1e-3)
    case = cases.mlp()
    changed = case.inputs.clone()
    changed[0, 0] += 1
    deeper = copy.deepcopy(case.model)
    assert isinstance(deeper, nn.Sequential)
    deeper.append(nn.Identity())
    return {
        "weights": ("weights was", {"model": weights}),
        "model": ("model was", {"model": deeper}),
        "training mode": ("training mode was", {"model": cases.mlp().model.eval()}),
        "data": ("data was", {"data": (changed, case.targets)}),
        "loss": ("loss was", {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}),
        "class weights": ("loss was", {"loss": nn.CrossEntropyLoss(torch.ones(3))}),
        "buffers": ("buffer mode was keep, now recompute", {"buffers": "recompute"}),
        "penalty": ("penalty was none, now", {"penalty": ls.losses.weight_decay(0.1)}),
        "metrics": ("metrics was", {"metrics": {"a": ls.losses.accuracy}}),
        "precision": ("precision was", {"precision": "float64"}),
        "slice": ("slice was", {"seed": 1}),
        "grid": ("grid was", {"grid": ls.Grid(2, (-1, 2))}),
        "resolution": ("grid was", {"grid": ls.Grid((2, 3))}),
        "test data": ("test_data was not set", {"test_data": case.data}),
    }


def asked(path: Path, **changes: Any) -> ls.Landscape:
    case = cases.mlp()
    seed, grid = changes.pop("seed", 0), changes.pop("grid", ls.Grid(2))
    parts = {"model": case.model, "loss": nn.CrossEntropyLoss(), "data": case.data, **changes}
    objective = ls.Objective(**parts)
    return ls.scan(objective, cases.plane(objective, seed=seed), grid, journal=path)


@pytest.mark.parametrize("name", other_questions())
def test_a_journal_of_another_question_is_refused_and_each_difference_named(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "journal.sqlite"
    first = asked(path)
    sentence, changes = other_questions()[name]
    with pytest.raises(JournalError, match="holds another scan") as caught:
        asked(path, **changes)
    assert sentence in str(caught.value)
    again = asked(path)  # nothing was mixed in
    assert again.data.identical(first.data)


def test_only_what_differs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    asked(path)
    with pytest.raises(JournalError) as caught:
        asked(path, grid=ls.Grid(3), buffers="recompute")
    text = str(caught.value)
    assert "buffer mode was keep, now recompute; grid was" in text
    assert "weights was" not in text


def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database " * 100)
    with pytest.raises(JournalError, match="cannot be used"):
        ls.Journal(text)
    assert text.read_text().startswith("not a database")
    other = tmp_path / "other.sqlite"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE mine (a)")
    db.close()
    with pytest.raises(JournalError, match=r"\['mine'\], and not a landscope journal"):
        ls.Journal(other)


def test_a_damaged_journal_is_said_to_be_damaged_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with ls.Journal(path) as journal:
        journal.write([Result(k, {"loss": float(k)}, 0.1) for k in range(2000)])
    stored = bytearray(path.read_bytes())
    stored[4096:-4096] = bytes(len(stored) - 8192)
    path.write_bytes(stored)
    with pytest.raises(JournalError, match=r"is damaged \(.*malformed.*move it away"):
        ls.Journal(path).values()
    assert path.read_bytes() == stored


def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    with ls.Journal(tmp_path / "journal.sqlite") as journal:
        journal._db.execute("PRAGMA max_page_count = 20")
        with pytest.raises(JournalError, match=r"disk is full.*make room there"):
            journal.write([Result(k, {"loss": float(k)}, 0.1) for k in range(20_000)])
        assert journal.values() == {}
