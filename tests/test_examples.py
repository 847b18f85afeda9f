"""The examples run, on a smaller network and a coarser grid than they are meant for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import landscope as ls

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_whole_surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("whole", EXAMPLES / "whole_surface.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "NETWORKS", {"one": "digits_mlp"})
    monkeypatch.setattr(example, "MAP", ls.Grid(3))
    monkeypatch.setattr(example, "SAMPLES", 64)
    example.main(tmp_path)
    told = json.loads((tmp_path / "whole_surface.json").read_text())["one"]
    assert told["hessian_min"] < told["curvature_random_mean"] < told["hessian_max"]
    pictures = {p.name for p in tmp_path.glob("*.png")}
    assert pictures == {"whole_surface.png", "convexity.png"}


def test_what_they_found_is_beside_them() -> None:
    told = json.loads((EXAMPLES / "results" / "whole_surface.json").read_text())
    assert {one["planes"] for one in told.values()} == {10}
