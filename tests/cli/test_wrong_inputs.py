"""Wrong inputs of the command line: each gets one sentence that names the cure in its own words.

The table is the list: what was typed, and the words of the answer. Faults of targets, checkpoints
and data are in ``tests/test_wrong_inputs.py``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import landscope as ls
from landscope.cli.recorded_scan import run_scan
from tests import toy_target

Command = Callable[..., Any]  # words -> code, out, err
PYTHON = re.compile(
    r"ls\.draw|ls\.formats|land\.|isel|\bNone\b|(?<![-\w])[a-z_]+=(?!\.\.\.)[\[\d'-]"
)
"""What is no language of a shell: names of Python, and arguments with their values."""

OWN_TARGETS = '''
import torch
from torch import nn
import landscope as ls

model = nn.Linear(4, 3)

def fails():
    raise ValueError("boom")

def leaves():
    raise SystemExit(3)

def number():
    return 42

def bad_loss():
    def loss(outputs, targets):
        raise RuntimeError("my loss is broken")
    return ls.Objective(nn.Linear(4, 3), loss, (torch.randn(9, 4), torch.zeros(9).long()))
'''  # fmt: skip
FAILS_AT, LOSS_FAILS_AT = (
    1 + OWN_TARGETS.splitlines().index(line)
    for line in ('    raise ValueError("boom")', '        raise RuntimeError("my loss is broken")')
)
SMALL = "--x=-1:1:3 --y=-1:1:3 --out new"

SCANS = [  # what follows "scan", the words of the answer
    ("", ["Missing", "TARGET"]),
    ("T", ["Missing option '--out'"]),
    ("nope.py:make --out new", ["nope.py does not exist", "file.py:function"]),
    ("toy.py --out new", ["TARGET", "file.py:function"]),
    ("no.such.module:make --out new", ["no.such.module", "cannot be imported"]),
    ("toy.py:nope --out new", ["no function 'nope'", "it has model, data, make"]),
    ("own.py:model --out new", ["Linear", "function that returns", "or such an objective"]),
    (f"own.py:fails {SMALL}", [f"ValueError: boom (own.py, line {FAILS_AT})"]),
    (f"own.py:leaves {SMALL}", ["own.py:leaves failed: SystemExit: 3", "own.py, line"]),
    (f"own.py:number {SMALL}", ["returned a int", "return ls.Objective(...)"]),
    (f"own.py:bad_loss {SMALL}", ["my loss is broken", f"own.py, line {LOSS_FAILS_AT}"]),
    (f"own.py:fails --set hidden=64 {SMALL}", ["it takes none, leave --set out"]),
    (f"T --set hidden=64 {SMALL}", ["no such argument", "it takes width, seed"]),
    (f"T --set hidden {SMALL}", ["--set 'hidden'", "name=value"]),
    (f"T --set width=many {SMALL}", ["TypeError", "(toy.py, line "]),
    ("zoo:nope --out new", ["not in the zoo", "landscope zoo"]),
    ("T --budget 5 minutes --out new", ["--budget 5m", "--budget '5 minutes'"]),
    ("T --budget soon --out new", ["--budget soon", "60s, 5m or 2h"]),
    ("T --budget 0 --out new", ["--budget 0", "above 0"]),
    ("T --x=-1:1:1 --out new", ["--x -1:1:1 has two ends and one point", "--x=-1:1:51"]),
    ("T --x=0.5:0.5:5 --out new", ["equal ends", "--x=0.5:0.5:1"]),
    ("T --x=-1:1:3 --y=2:1:3 --out new", ["--y 2:1:3 runs from 2 to 1: swap them", "--y=1:2:3"]),
    ("T --x=-1:1 --out new", ["--x", "'-1:1'", "first:last:points"]),
    ("T --x=-1:1:5.5 --out new", ["'-1:1:5.5'", "-1:1:51"]),
    ("T --x=-1,1,51 --out new", ["--x", "'-1,1,51'", "-1:1:51"]),
    ("T --x=-1:1:0 --out new", ["0 points", "1 or more"]),
    ("T --x=-1:nan:5 --out new", ["not finite", "two numbers"]),
    ("T --x auto:many --out new", ["auto:points"]),
    ("T --x auto:5 --y=-1:1:5 --out new", ["one axis is auto", "or of none"]),
    ("T --y=-1:1:5 --out new", ["--y is given without --x"]),
    ("T --x=-1:1:99999 --y=-1:1:99999 --out new", ["9,999,800,001 points", "fewer points"]),
    (f"T --samples 10 {SMALL}", ["--samples 10", "72 or more", "Leave it out"]),
    (f"T --samples many {SMALL}", ["--samples", "integer"]),
    (f"T --adaptive --tolerance 0 {SMALL}", ["--tolerance 0", "more than 0"]),
    (f"T --average -1 {SMALL}", ["--average -1", "such as 0.1"]),
    (f"T --workers 0 {SMALL}", ["--workers 0", "1 or more, or leave it out"]),
    (f"T --gpus 2 {SMALL}", ["--gpus", "add --engine ray"]),
    (f"T --engine cuda {SMALL}", ["'cuda'", "'local', 'ray'"]),
    (f"T --normalize fliter {SMALL}", ["'fliter'", "'filter', 'layer'"]),
    (f"T --select 'nothing.*' {SMALL}", ["--select", "nothing.*", "0.weight"]),
    (f"T --checkpoint nope.pt {SMALL}", ["nope.pt does not exist"]),
    (f"T --toward nope.pt {SMALL}", ["nope.pt does not exist"]),
    (f"T --directions nope {SMALL}", ["nope does not exist"]),
    ("T --x=-1:1:3 --directions plane --out new", ["2 directions", "1 axes", "add --y"]),
    ("T --x=-1:1:3 --y=-1:1:3 --out toy.py", ["toy.py", "choose another --out"]),
    ("T --x=-1:1:7 --out plane", ["plane holds another scan", "choose another --out"]),
    (f"T --nope {SMALL}", ["--nope"]),
]
OTHERS = [  # a whole command, the words of the answer
    ("scn T", ["No such command 'scn'", "'scan'"]),
    ("cost T --x=-1:1", ["--x", "first:last:points"]),
    ("cost T --samples 3", ["--samples 3", "72 or more"]),
    ("curvature T --count 1000 --out new", ["--count 1000", "1 to 63"]),
    ("curvature T --samples 100000 --out new", ["--samples 100000", "1 to 30"]),
    ("curvature T --kind jacobian --out new", ["'jacobian'", "'hessian', 'ggn', 'fisher'"]),
    ("convexity T --x=-1:1:2 --y=-1:1:2 --samples -1 --out c", ["--samples -1", "1 to 30"]),
    ("whole T --planes 1 --out new", ["--planes", "greater than or equal to 2"]),
    ("whole T --radius -1 --out new", ["--radius -1", "above 0"]),
    ("whole T --initialization nope.pt --out new", ["nope.pt does not exist"]),
    ("train T", ["--record FOLDER", "--out FILE.safetensors"]),
    ("train T --out a.pt", ["--out a.pt", ".safetensors"]),
    ("train T --out no/a.safetensors", ["no does not exist", "create it"]),
    ("train T --record new --epochs 0", ["--epochs 0", "1 or more"]),
    ("train T --record new --learning-rate -1", ["--learning-rate -1", "more than 0"]),
    ("train T --record new --drops 1,a", ["--drops 1,a", "15,22,27, or none"]),
    ("train T --record new --every week", ["--every week", "epoch, or a number"]),
    ("train T --record new --keep 0", ["--keep 0", "or leave it out"]),
    ("train T --record new --label-noise 2", ["--label-noise", "from 0 to 1"]),
    ("trajectory nope --out new", ["nope does not exist", "folder of the checkpoints"]),
    ("trajectory plane --out new", ["plane holds no checkpoints", "landscope train --record"]),
    ("trajectory plane --grid 2 --out new", ["--grid", "greater than or equal to 5"]),
    ("plot nope", ["nope does not exist", "check the name"]),
    ("plot toy.py", ["toy.py is not a landscape", ".nc"]),
    ("plot plane --quantity beauty", ["--quantity 'beauty'", "'loss', 'accuracy'"]),
    ("plot plane --format jpg", ["'jpg'", "'png', 'pdf', 'svg'"]),
    ("plot plane --dpi 1", ["--dpi 1", "10 to 1200"]),
    ("plot plane line", ["plane is a plane and line is a line", "lines, or planes"]),
    ("plot .", ["holds runs", "line", "plane"]),
    ("page volume", ["volume is a volume", "landscope plot volume", "volume.vts"]),
    ("page plane --out a.png", ["--out a.png", "ends in .html"]),
    ("page plane plane plane plane plane plane plane", ["7 planes", "at most 6"]),
    ("info nope.nc", ["nope.nc does not exist"]),
    ("info damaged.nc", ["cannot be read", "damaged", "repeat the scan"]),
    ("export plane", ["Missing argument 'FILE'"]),
    ("export plane a.obj", ["'.obj'", ".vtp .vts", ".h5", ".nc .zarr", ".csv", "plot plane"]),
    ("export plane a.png", ["a.png is a picture", "landscope plot plane"]),
    ("export plane a.html", ["landscope page plane --out a.html"]),
    ("export plane a.vtp --clip nan", ["--clip nan", "or leave it out"]),
    ("export plane a.vtp --quantity beauty", ["--quantity 'beauty'", "loss, accuracy"]),
    ("export plane a.csv --clip 3", ["--clip", ".vtp and .vts", "leave them out"]),
    ("export line a.vtp", ["a line has no surface", ".csv"]),
    ("export volume a.vtp", ["a volume", "choose the ending .vts"]),
    ("export volume a.h5", ["volume", "write .nc or .vts"]),
    ("import nope.h5 new", ["nope.h5 does not exist"]),
    ("import plane new", ["plane is a folder", "runs are ready"]),
    ("demo --resolution 2", ["--resolution", "greater than or equal to 5"]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plane, a line, a volume, a damaged file and two files of targets."""
    place = tmp_path_factory.mktemp("wrong")
    (place / "toy.py").write_text(toy_target.__loader__.get_source(toy_target.__name__))  # type: ignore[union-attr]
    (place / "own.py").write_text(OWN_TARGETS)
    (place / "damaged.nc").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    objective = toy_target.make()
    directions = ls.directions.random(objective.center, 3)
    for count, kind in enumerate((ls.Line, ls.Plane, ls.Volume), start=1):
        slice_ = kind(objective.center, *directions[:count])
        request = {"command": "scan", "target": "toy.py:make", "spans": [[-1.0, 1.0, 3]] * count}
        run_scan(objective, slice_, ls.Grid(3), place / kind.__name__.lower(), request=request)
    return place


@pytest.mark.parametrize(
    ("text", "words"), [*((f"scan {text}", words) for text, words in SCANS), *OTHERS]
)
def test_a_wrong_input_gets_one_sentence_with_the_cure(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*.nc"))
    answer = command(*("toy.py:make" if word == "T" else word for word in shlex.split(text)))
    assert answer.code in (1, 2), answer
    sentence = answer.err[answer.err.find("landscope: ") :] if answer.code == 1 else answer.err
    assert "Traceback" not in answer.err + answer.out
    assert "LANDSCOPE_TRACEBACK" not in answer.err
    for word in words:
        assert word in sentence, sentence
    if answer.code == 1:
        assert sentence.count("\n") == 1
        assert sentence.rstrip()[-1] in ".)"
        assert not PYTHON.search(sentence), sentence
    assert sorted(folder.rglob("*.nc")) == before


def test_the_table_has_a_hundred_entries_or_nearly_so() -> None:
    assert len({text for text, _ in [*SCANS, *OTHERS]}) >= 90
