"""The command behind a run, and how another differs from it: compared with what was typed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from landscope.cli import run_folder
from landscope.cli.recorded_command import describe_command, describe_differences

Command = Callable[..., Any]  # words -> code, out, err


def asked(run: Path) -> dict[str, Any]:
    return dict(run_folder.read_metadata(run)["asked"])


@pytest.mark.parametrize(
    "options",
    [
        ("--x=-1:1:3", "--seed 3", "--normalize layer", "--no-orthogonal"),
        ("--x=-1:1:3", "--y=-0.5:1.5:2", "--set width=5", "--set seed=2", "--adaptive"),
        ("--x=-1:1:3", "--y 0:1:2", "--same", "--error-bars", "--average 0.1"),
    ],
)
def test_the_command_of_a_scan_is_that_which_was_typed(
    command: Command, target: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    words = [word for option in options for word in option.split()]
    assert command("scan", target, *words, "--out", tmp_path / "run").code == 0
    text = describe_command(asked(tmp_path / "run"), tmp_path / "run")
    assert set(shlex.split(text)) == {
        "landscope", "scan", target, *words, "--out", str(tmp_path / "run")
    }  # fmt: skip
    again = command(*shlex.split(text)[1:-1], tmp_path / "again")
    assert again.code == 0, again.err
    assert asked(tmp_path / "again") == asked(tmp_path / "run")


def test_a_changed_option_is_named_with_what_it_was() -> None:
    before = {"command": "scan", "target": "a.py:f", "checkpoint": "best.pt", "seed": 0,
              "spans": [[-1.0, 1.0, 5]], "set": None, "adaptive": False}  # fmt: skip
    assert describe_differences(before, before) == []
    now = {**before, "checkpoint": None, "spans": ((-1.0, 1.0, 7),), "adaptive": True,
           "set": ("width=3",)}  # fmt: skip
    assert describe_differences(before, now) == [
        "--x was -1:1:5, now -1:1:7",
        "--checkpoint was best.pt, now not given",
        "--set was not given, now width=3",
        "--adaptive was not given, now given",
    ]
    assert describe_differences(before, {**before, "target": "b.py:f"}) == [
        "TARGET was a.py:f, now b.py:f"
    ]


def test_a_forgotten_option_is_named_and_the_command_that_goes_on(
    command: Command, target: str, tmp_path: Path
) -> None:
    words = ("scan", target, "--x=-1:1:3", "--out", tmp_path / "run")
    assert command(*words, "--set", "seed=3").code == 0
    answer = command(*words)
    assert answer.code == 1
    assert "--set was seed=3, now not given" in answer.err
    assert f"landscope scan {target} --x=-1:1:3 --set seed=3" in answer.err
    assert "center" not in answer.err


def test_when_the_options_are_the_same_what_they_name_has_changed(
    command: Command, target: str, tmp_path: Path
) -> None:
    words = ("scan", target, "--x=-1:1:3", "--out", tmp_path / "run")
    assert command(*words).code == 0
    file = Path(target.partition(":")[0])
    file.write_text(file.read_text().replace("manual_seed(7)", "manual_seed(8)"))
    answer = command(*words)
    assert answer.code == 1
    assert "what they name has changed since: data" in answer.err


def test_the_request_of_a_scan_that_is_stopped_is_there(
    command: Command, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("landscope.scanning.journal.Journal.write", stop)
    answer = command("scan", target, "--x=-1:1:3", "--out", tmp_path / "run")
    assert answer.code == 130
    metadata = json.loads((tmp_path / "run" / "run.json").read_text())
    assert metadata["asked"]["target"] == target
    assert metadata["finished"] is None
