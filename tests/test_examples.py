"""The examples run, on a smaller network and a coarser grid than they are meant for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import landscope as ls
from landscope.training.optimizers import Course

EXAMPLES = Path(__file__).parents[1] / "examples"


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_the_whole_surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = _load("whole_surface")
    monkeypatch.setattr(example, "NETWORKS", {"one": "digits_mlp"})
    monkeypatch.setattr(example, "MAP", ls.Grid(3))
    monkeypatch.setattr(example, "SAMPLES", 64)
    example.main(tmp_path)
    numbers = json.loads((tmp_path / "whole_surface.json").read_text())["one"]
    assert numbers["hessian_min"] < numbers["curvature_random_mean"] < numbers["hessian_max"]
    pictures = {p.name for p in tmp_path.glob("*.png")}
    assert pictures == {"whole_surface.png", "convexity.png"}


def test_the_paths_of_optimizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = _load("paths")
    monkeypatch.setattr(example, "NETWORKS", ("digits_mlp",))
    monkeypatch.setattr(example, "COURSES", {"SGD": Course(epochs=15, drops=(4,))})
    monkeypatch.setattr(example, "POINTS", 5)
    example.main(tmp_path)
    numbers = json.loads((tmp_path / "paths.json").read_text())
    assert set(numbers) == {"digits_mlp, SGD", "digits_mlp, together"}
    assert 0.4 < sum(numbers["digits_mlp, SGD"]["shares"]) < 1
    assert numbers["digits_mlp, SGD"]["accuracy"] > 90
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_what_they_found_is_beside_them() -> None:
    numbers = json.loads((EXAMPLES / "results" / "whole_surface.json").read_text())
    assert {network["planes"] for network in numbers.values()} == {10}
