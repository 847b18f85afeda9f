"""The commands demo and zoo, and networks of the zoo as targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import landscope as ls
from landscope.analysis.shape_statistics import shape
from landscope.cli import report

Command = Callable[..., Any]  # words -> code, out, err


def test_zoo_lists_every_network_with_its_size(command: Command) -> None:
    answer = command("zoo")
    assert answer.code == 0
    listed = [row.split() for row in answer.out.splitlines() if row.startswith("zoo:")]
    assert {row[0].removeprefix("zoo:") for row in listed} == set(ls.zoo.CATALOG)
    sizes = {row[0]: row[1:3] for row in listed}
    assert sizes["zoo:digits_mlp"] == ["3", f"{64 * 128 + 128 + 128 * 128 + 128 + 1290:,}"]


def test_zoo_targets_are_scanned(command: Command, tmp_path: Path) -> None:
    words = ("--x=-1:1:3", "--set", "epochs=1", "--set", "test=True", "--out", tmp_path / "run")
    answer = command("scan", "zoo:digits_mlp", *words)
    assert answer.code == 0, answer.err
    assert "train_loss" in answer.out
    assert "test_accuracy" in answer.out


def test_demo_announces_each_step(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    demo = __import__("landscope.cli.demo", fromlist=["demo"])
    loss = np.array([[9.0, 9.0, 9.0], [9.0, 1.0, 9.0], [9.0, 9.0, 9.0]])
    axes = {"x": [-1.0, 0.0, 1.0], "y": [0.0, 0.5, 1.0]}
    land = ls.Landscape(xr.Dataset({"loss": (("y", "x"), loss)}, axes))
    made = demo.Demo({}, {"A net": shape(land)}, [tmp_path / "a.png"])
    asked: dict[str, object] = {}

    def pretend(out: Path, **words: object) -> object:
        asked.update(words, out=out)
        return made

    monkeypatch.setattr(demo, "demo", pretend)
    answer = command("demo", "--out", tmp_path, "--resolution", 7, "--seed", 4, "--sequence")
    assert answer.code == 0
    asked_for = {"out": tmp_path, "resolution": 7, "seed": 4, "sequence": True}
    assert asked == {**asked_for, "announce": report.print_line}
    for text in ("A net", "1 at x = 0, y = 0.5; 9 at the rim", "0.0%", "a.png", "page.html"):
        assert text in answer.out
