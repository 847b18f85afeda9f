"""Scans into the folder of a run: previews, and the cost of a plain loop."""

from __future__ import annotations

from pathlib import Path

import pytest

import landscope as ls
from landscope.cli import recorded_scan
from landscope.cli.recorded_scan import run_scan
from landscope.cli.run_folder import read_metadata
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from tests import cases


def test_a_picture_is_there_early_and_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_scan, "_FIRST_PREVIEW", 0.0)
    objective = cases.mlp().objective()
    seen: list[bool] = []

    def progress(_: object) -> None:
        seen.append((tmp_path / "run" / "preview.png").is_file())

    sampler = ls.Adaptive(resolution=9)
    run_scan(
        objective, cases.plane(objective), sampler, tmp_path / "run", request={}, progress=progress
    )
    assert any(seen)
    assert not (tmp_path / "run" / "preview.png").exists()
    assert (tmp_path / "run" / "landscape.nc").is_file()


def test_a_scan_of_some_samples_does_not_tell_what_a_plain_loop_costs(tmp_path: Path) -> None:
    objective = cases.mlp().objective()
    plane, engine = cases.plane(objective), Local(plan=Plan())
    run_scan(objective, plane, ls.Grid(5), tmp_path / "all", request={}, engine=engine)
    some = ls.Calibrated(8, 4)
    run_scan(
        objective, plane, ls.Grid(5), tmp_path / "some", request={}, engine=engine, samples=some
    )
    assert read_metadata(tmp_path / "all")["naive_seconds"] > 0
    assert read_metadata(tmp_path / "some")["naive_seconds"] is None
