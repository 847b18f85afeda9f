"""Runs of every kind are shown, or the command that shows them is named.

Witness: an undisturbed run, of which points are deleted as a kill would have left them away.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import landscope as ls
from landscope.cli.opened_run import open_landscape
from landscope.scanning.stopped_scan import open_journal

Command = Callable[..., Any]  # words -> code, out, err


def stop_after(run: Path, count: int) -> None:
    """Leave what a killed process leaves: the first points in the journal, and no result."""
    with closing(sqlite3.connect(run / "journal.sqlite")) as file, file:
        kept = [k for (k,) in file.execute("SELECT id FROM point ORDER BY rowid")][:count]
        marks = ",".join("?" * count)
        file.execute(f"DELETE FROM point WHERE id NOT IN ({marks})", kept)
        file.execute(f"DELETE FROM value WHERE point NOT IN ({marks})", kept)
    (run / "landscape.nc").unlink()


def test_an_unfinished_scan_is_shown_with_holes_and_the_command_that_goes_on(
    command: Command, plane: Path, target: str, tmp_path: Path
) -> None:
    before = ls.load(plane)
    stop_after(plane, 10)
    words = f"{plane} is not finished: 10 of 25 points (40%)"
    for arguments in (("info", plane), ("plot", plane, "--out", tmp_path / "art"),
                      ("page", plane), ("export", plane, tmp_path / "half.nc")):  # fmt: skip
        answer = command(*arguments)
        assert answer.code == 0, answer.err
        assert words in answer.err
        assert f"landscope scan {target} --x=-1:1:5 --y=-1:1:5 --out {plane}" in answer.err
    half = ls.load(tmp_path / "half.nc").data
    known = np.isfinite(half["loss"].values)
    assert known.sum() == 10
    np.testing.assert_array_equal(half["loss"].values[known], before.data["loss"].values[known])
    assert half["loss"].attrs == before.data["loss"].attrs
    assert half["x"].attrs == before.data["x"].attrs
    assert "not finished: 10 of 25 points (40%)" in half.attrs["notes"]
    assert half.attrs["target"] == target
    assert (tmp_path / "art" / "heatmap.png").is_file()
    assert (plane / "page.html").is_file()


def test_an_unfinished_adaptive_scan_is_predicted_from_what_is_known(
    command: Command, target: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("--x=-1:1:15", "--y=-1:1:15", "--adaptive")
    assert command("scan", target, *words, "--out", run).code == 0
    stop_after(run, 40)
    land = open_landscape(run)
    assert int(land.data["evaluated"].sum()) == 40
    assert np.isfinite(land.data["loss"].values).all()
    assert "40 of about" in command("info", run).err or "40 of" in command("info", run).err


@pytest.mark.parametrize("samples", [(), ("--samples", "80")])
def test_a_truncated_result_is_read_from_the_journal(
    command: Command, target: str, tmp_path: Path, samples: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    words = ("--x=-1:1:7", "--y=-1:1:7", *samples, "--set", "rows=200")
    assert command("scan", target, *words, "--out", run).code == 0
    before = ls.load(run).data
    stored = (run / "landscape.nc").read_bytes()
    (run / "landscape.nc").write_bytes(stored[: len(stored) // 2])
    answer = command("info", run)
    assert answer.code == 0, answer.err
    assert "landscape.nc is damaged: these are the values in the journal" in answer.err
    assert "to write its files again, run it (landscope scan" in answer.err
    assert open_landscape(run).data.identical(before)


def test_a_journal_of_a_scan_in_python_is_shown(command: Command, tmp_path: Path) -> None:
    from tests.toy_target import make

    objective = make()
    line = ls.Line(objective.center, *ls.directions.random(objective.center, 1, seed=9))
    path = tmp_path / "mine.sqlite"
    land = ls.scan(objective, line, 5, journal=path)
    assert open_journal(path).landscape.data.identical(land.data)
    answer = command("info", path)
    assert answer.code == 0, answer.err
    assert "seed 9" in answer.out


def test_a_journal_without_values_says_so(command: Command, plane: Path) -> None:
    stop_after(plane, 0)
    answer = command("info", plane)
    assert answer.code == 1
    assert "holds no value yet" in answer.err
    assert "landscope scan" in answer.err


def test_a_damaged_file_without_a_journal_gets_a_cure(command: Command, plane: Path) -> None:
    (plane / "landscape.nc").write_bytes((plane / "landscape.nc").read_bytes()[:500])
    (plane / "journal.sqlite").unlink()
    answer = command("plot", plane)
    assert answer.code == 1
    assert "damaged" in answer.err


def test_profiles_and_spectra_are_drawn_again(
    command: Command, target: str, tmp_path: Path
) -> None:
    whole, curvature = tmp_path / "whole", tmp_path / "curvature"
    words = ("--planes", 2, "--resolution", 5, "--out", whole)
    assert command("whole", target, *words).code == 0
    assert command("curvature", target, "--count", 2, "--out", curvature).code == 0
    for run, name in ((whole, "whole"), (curvature, "spectrum")):
        again = command("plot", run, "--out", tmp_path / "again")
        assert again.code == 0, again.err
        first, second = run / f"{name}.png", tmp_path / "again" / f"{name}.png"
        assert first.read_bytes() == second.read_bytes()
        for arguments in (("page", run), ("export", run, tmp_path / "a.csv")):
            answer = command(*arguments)
            assert answer.code == 1
            assert "landscope plot draws" in answer.err
            assert "landscope scan" in answer.err
        assert command("info", run).code == 0


def test_other_folders_are_named_with_the_command_that_shows_them(
    command: Command, plane: Path, tmp_path: Path
) -> None:
    training, empty = tmp_path / "sgd", tmp_path / "empty"
    for folder in (training, empty):
        folder.mkdir()
    (training / "training.json").write_text(json.dumps({"command": "train", "epochs": 3}))
    for verb in (("plot",), ("page",), ("export",)):
        last = (tmp_path / "a.csv",) if verb == ("export",) else ()
        sgd = command(*verb, training, *last)
        assert f"landscope trajectory {training} --out {training}-path" in sgd.err
        above = command(*verb, tmp_path, *last)
        assert f"name one or several of them ({plane}" in above.err
        assert "is not the folder of a run" in command(*verb, empty, *last).err
    assert "epochs" in command("info", training).out


def test_runs_of_two_kinds_are_told_apart(command: Command, plane: Path, line: Path) -> None:
    for verb in ("plot", "page"):
        answer = command(verb, plane, line)
        assert answer.code == 1
        assert f"{plane} is a plane and {line} is a line" in answer.err


def test_pictures_are_refused_by_export_with_the_command_that_draws(
    command: Command, plane: Path, tmp_path: Path
) -> None:
    for ending, verb in ((".png", "plot"), (".svg", "plot"), (".html", "page")):
        answer = command("export", plane, tmp_path / f"a{ending}")
        assert answer.code == 1
        assert f"landscope {verb} {plane}" in answer.err
    answer = command("export", plane, tmp_path / "a.obj")
    for name in (".vtp", ".vts", ".h5", ".nc", ".zarr", ".csv", "landscope plot"):
        assert name in answer.err
    answer = command("page", plane, "--out", tmp_path / "a.png")
    assert "ends in .html" in answer.err
