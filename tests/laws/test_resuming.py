"""A scan that is killed with SIGKILL goes on, and its file is the undisturbed one, byte for byte.

Witnesses: filecmp on the files; a text file to which the loss itself appends a line a call, outside
of the journal, counts what was evaluated; sqlite3 reads the journal without landscope.
"""

from __future__ import annotations

import filecmp
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import landscope as ls

POINTS = 25
KILLS = 10

SCRIPT = '''
import sys, time
from pathlib import Path
import torch
from torch import nn
import landscope as ls
from landscope.cli.recorded_scan import run_scan

folder, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

def terms(model, batch):
    time.sleep(pause)
    with log.open("a") as file:
        file.write(f"{float(model[0].weight.detach().double().sum()):.17g}\\n")
    return (model(batch[0]) - batch[1]).square().reshape(-1)

class Named:
    """The same loss, whatever the pause is."""

    def __call__(self, model, batch):
        return terms(model, batch)

data = torch.randn(9, 4), torch.randn(9, 1)
objective = ls.Objective(model, ls.losses.custom(Named(), name="named"), data)
plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
run_scan(objective, plane, ls.Grid(5), folder, request={"seed": 0})
'''


def started(script: Path, folder: Path, log: Path, pause: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, script, folder, log, str(pause)])


def in_journal(path: Path) -> int:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            count = int(db.execute("SELECT COUNT(*) FROM point").fetchone()[0])
        db.close()
    except sqlite3.Error:
        return 0
    return count


def evaluated(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def killed_after(script: Path, folder: Path, log: Path, points: int, *, wait: float) -> None:
    """Start the scan, and kill it a moment after so many points are in its journal."""
    process = started(script, folder, log, 0.02)
    give_up = time.monotonic() + 60
    try:
        while in_journal(folder / "journal.sqlite") < points:
            assert process.poll() is None, "the scan ended before it could be killed"
            assert time.monotonic() < give_up, "the scan wrote nothing for a minute"
            time.sleep(0.001)
        time.sleep(wait)
    finally:
        process.kill()
        process.wait()


def test_a_scan_killed_at_ten_moments_ends_with_the_same_file(tmp_path: Path) -> None:
    script = tmp_path / "scan.py"
    script.write_text(SCRIPT)
    alone, folder, log = tmp_path / "alone", tmp_path / "killed", tmp_path / "killed.txt"
    undisturbed = started(script, alone, tmp_path / "alone.txt", 0.0)
    draw = random.Random(0)
    for points in sorted(draw.sample(range(POINTS - 2), KILLS)):
        killed_after(script, folder, log, points, wait=draw.uniform(0, 0.015))
        assert not (folder / "landscape.nc").exists()
        assert points <= in_journal(folder / "journal.sqlite") < POINTS
    last = started(script, folder, log, 0.0)
    assert last.wait(60) == 0
    assert undisturbed.wait(60) == 0

    assert filecmp.cmp(alone / "landscape.nc", folder / "landscape.nc", shallow=False)
    assert filecmp.cmp(
        alone / "directions.safetensors", folder / "directions.safetensors", shallow=False
    )
    # The center is looked at twice at every start; of the rest at most one point a kill is redone.
    assert len(evaluated(tmp_path / "alone.txt")) == POINTS + 2
    assert len(set(evaluated(log))) == POINTS
    probes = 2 * (KILLS + 1)
    assert len(evaluated(log)) <= POINTS + probes + KILLS

    before = len(evaluated(log))
    assert started(script, folder, log, 0.0).wait(60) == 0
    assert len(evaluated(log)) == before  # all is known: nothing is evaluated, nor probed
    assert filecmp.cmp(alone / "landscape.nc", folder / "landscape.nc", shallow=False)
    assert ls.load(folder).data["loss"].notnull().all()
