"""The folder of a run; what it keeps is read back with the plain readers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import landscope as ls
from landscope.cli import run_folder
from landscope.cli.recorded_scan import run_scan
from landscope.errors import FormatError, JournalError
from tests import cases


def test_a_run_records_landscape_directions_and_request(tmp_path: Path) -> None:
    objective = cases.mlp().objective()
    plane = cases.plane(objective)
    land = run_scan(objective, plane, ls.Grid(2), tmp_path / "run", request={"seed": 0})
    assert ls.load(tmp_path / "run").data.identical(land.data)
    assert run_folder.open_run(tmp_path / "run").seconds == land.seconds
    assert run_folder.read_metadata(tmp_path / "run")["asked"] == {"seed": 0}
    directions = run_folder.read_directions(tmp_path / "run", objective.center)
    for direction, expected in zip(directions, (plane.dx, plane.dy), strict=True):
        for name in expected:
            torch.testing.assert_close(direction[name], expected[name], rtol=0, atol=0)


def test_folders_that_cannot_be_used_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be written to"):
        run_folder.create_run(tmp_path / "file")
    with pytest.raises(FormatError, match="is not the folder of a run"):
        run_folder.open_run(tmp_path)
