"""What a landscape says about its origin: made in Python, by the command line, and by version 0.1.

Witness: the arguments that were given, which are the words to be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import landscope as ls
from landscope.cli import run_folder
from landscope.scanning import provenance
from tests.toy_target import make

Command = Callable[..., Any]  # words -> code, out, err
OLD = Path(__file__).parents[1] / "data" / "run_0_1" / "run"


@pytest.fixture(scope="module")
def objective() -> ls.Objective:
    return make()


def described(objective: ls.Objective, *directions: Any) -> dict[str, str]:
    kind = ls.Plane if len(directions) == 2 else ls.Line
    return provenance.describe(ls.scan(objective, kind(objective.center, *directions), 2))


def test_a_scan_in_python_says_what_was_scanned_and_where(objective: ls.Objective) -> None:
    pair = ls.directions.random(
        objective.center, normalize="layer", ignore=None, seed=41, orthogonal=False, select="0.*"
    )
    words = described(objective, *pair)
    assert words["slice"] == "Plane"
    assert words["directions"] == (
        "x and y: random, seed 41, layer normalization of the direction, biases and batch norm move"
        " too, not orthogonal, only 0.*"
    )
    assert words["points"] == "every point of the grid"
    assert words["precision"] == "float32"
    assert words["device"] == "cpu"
    assert torch.__version__ in words["made with"]
    assert "weights " in words["fingerprints"]


def test_directions_of_every_kind_are_told_apart(objective: ls.Objective) -> None:
    center = objective.center
    other = ls.params.clone(center)
    other["0.weight"] += 1.0
    drawn = ls.directions.random(center, 1, seed=5)[0]
    hessian = ls.curvature.Hessian(objective)
    sharpest = ls.directions.eigenvectors(hessian, 1, "largest")[0]
    flat = ls.params.flatten(drawn)
    cases = {
        "from the center (0) to another model (1)": ls.directions.between(center, other),
        "eigenvector of the curvature": sharpest,
        "seed 5, filter normalization": drawn,
        "seed 6": ls.directions.seeded(center, 1, seed=6)[0],
        "; rescaled: no normalization": ls.directions.rescale(drawn, center, None),
        "given as tensors": ls.directions.from_vectors(center, [flat])[0],
    }
    for words, direction in cases.items():
        assert words in described(objective, direction)["directions"], words


def test_a_direction_that_was_changed_no_longer_says_how_it_was_made(
    objective: ls.Objective,
) -> None:
    replaced, written = ls.directions.random(objective.center, seed=5)
    replaced["0.weight"] = 2 * replaced["0.weight"]
    written["0.weight"].mul_(2)
    assert replaced.origin == written.origin == {}
    assert described(objective, replaced, written)["directions"] == "x and y: given as tensors"


def test_samples_and_an_adaptive_sampler_are_named(objective: ls.Objective) -> None:
    line = ls.Line(objective.center, *ls.directions.random(objective.center, 1))
    land = ls.scan(objective, line, ls.Adaptive(0.05, 9), samples=ls.Calibrated(20, anchors=4))
    words = provenance.describe(land)
    assert words["points"] == "adaptive, tolerance 0.05"
    assert "size=20" in words["samples"]


def test_the_command_line_adds_target_checkpoint_and_arguments(
    command: Command, target: str, tmp_path: Path
) -> None:
    file, run = tmp_path / "best.pt", tmp_path / "run"
    torch.save(make(seed=3).model.state_dict(), file)
    words = ("--x=-1:1:3", "--set", "width=6", "--seed", 17, "--checkpoint", file)
    assert command("scan", target, *words, "--out", run).code == 0
    for land in (ls.load(run), run_folder.open_run(run)):
        known = provenance.describe(land)
        assert known["target"] == target
        assert known["arguments"] == "width=6"
        assert known["checkpoint"] == str(file)
        assert "seed 17" in known["directions"]
    printed = command("info", run).out
    assert all(text in printed for text in (target, str(file), "width=6", "seed 17", "filter"))


def test_directions_of_another_run_keep_their_seed(
    command: Command, target: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert command("scan", target, "--x=-1:1:2", "--seed", 23, "--out", first).code == 0
    words = ("--x=-1:1:3", "--directions", first)
    assert command("scan", target, *words, "--out", second).code == 0
    assert "seed 23" in provenance.describe(ls.load(second))["directions"]


def test_a_run_of_version_0_1_takes_them_from_its_request() -> None:
    known = provenance.describe(run_folder.open_run(OLD))
    asked = json.loads((OLD / "run.json").read_text())["asked"]
    assert known["target"] == asked["target"]
    assert known["directions"] == f"x and y: read from {asked['directions']}"
    assert known["checkpoint"].startswith("none given")
