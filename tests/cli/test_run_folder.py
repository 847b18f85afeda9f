"""The folder of a run; what it keeps is read back with the plain readers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import landscope as ls
from landscope.cli import run_folder
from landscope.engines.local import Local
from landscope.engines.tuning import Plan
from landscope.errors import FormatError, JournalError
from tests import cases


def test_a_run_keeps_landscape_directions_and_what_was_asked(tmp_path: Path) -> None:
    objective = cases.mlp().objective()
    plane = cases.plane(objective)
    land = run_folder.perform(objective, plane, ls.Grid(2), tmp_path / "run", record={"seed": 0})
    assert ls.load(tmp_path / "run").data.identical(land.data)
    assert run_folder.opened(tmp_path / "run").seconds == land.seconds
    assert run_folder.noted(tmp_path / "run")["asked"] == {"seed": 0}
    kept = run_folder.directions(tmp_path / "run", objective.center)
    for found, expected in zip(kept, (plane.dx, plane.dy), strict=True):
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


def test_folders_that_cannot_be_used_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be written to"):
        run_folder.made(tmp_path / "file")
    with pytest.raises(FormatError, match="is not the folder of a run"):
        run_folder.opened(tmp_path)


def test_a_picture_is_there_early_and_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "_FIRST_PREVIEW", 0.0)
    objective = cases.mlp().objective()
    seen: list[bool] = []

    def progress(_: object) -> None:
        seen.append((tmp_path / "run" / "preview.png").is_file())

    sampler = ls.Adaptive(resolution=9)
    run_folder.perform(
        objective, cases.plane(objective), sampler, tmp_path / "run", record={}, progress=progress
    )
    assert any(seen)
    assert not (tmp_path / "run" / "preview.png").exists()
    assert (tmp_path / "run" / "landscape.nc").is_file()


def test_a_scan_of_some_samples_does_not_tell_what_a_plain_loop_costs(tmp_path: Path) -> None:
    objective = cases.mlp().objective()
    plane, engine = cases.plane(objective), Local(plan=Plan())
    run_folder.perform(objective, plane, ls.Grid(5), tmp_path / "all", record={}, engine=engine)
    some = ls.Calibrated(8, 4)
    run_folder.perform(
        objective, plane, ls.Grid(5), tmp_path / "some", record={}, engine=engine, samples=some
    )
    assert run_folder.noted(tmp_path / "all")["naive_seconds"] > 0
    assert run_folder.noted(tmp_path / "some")["naive_seconds"] is None
