"""The program: its help, its version, its exit status."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import landscope as ls

Command = Callable[..., Any]  # words -> code, out, err
COMMANDS = ("demo", "scan", "cost", "plot", "page", "info", "export", "import", "zoo")


def test_the_version_is_printed(command: Command) -> None:
    assert command("--version") == (0, f"landscope {ls.__version__}\n", "")


def test_without_a_command_the_help_is_shown(command: Command) -> None:
    answer = command()
    assert "Usage" in answer.out + answer.err
    assert all(name in answer.out + answer.err for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_explains_itself(command: Command, name: str, option: str) -> None:
    answer = command(name, option)
    assert answer.code == 0
    assert f"landscope {name}" in answer.out
    assert answer.err == ""


@pytest.mark.parametrize("words", [["scan"], ["paint"], ["zoo", "--loud"], ["scan", "a.py:f"]])
def test_wrong_usage_is_exit_status_2(command: Command, words: list[str]) -> None:
    answer = command(*words)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert "Usage" in answer.err


def test_an_unforeseen_error_is_one_line_that_says_how_to_see_more(
    command: Command, monkeypatch: pytest.MonkeyPatch, line: Path
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("by a test")

    monkeypatch.setattr("landscope.cli.run_folder.open_run", fails)
    answer = command("info", line)
    assert answer.code == 1
    line_number = fails.__code__.co_firstlineno + 1
    assert answer.err == (
        f"landscope: ZeroDivisionError: by a test (test_app.py, line {line_number};"
        " LANDSCOPE_TRACEBACK=1 shows where it happened)\n"
    )
    monkeypatch.setenv("LANDSCOPE_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError, match="by a test"):
        command("info", line)


def test_info_reads_a_run_without_torch(plane: Path) -> None:
    script = (
        "import sys; from landscope.cli import app\n"
        f"sys.argv = ['landscope', 'info', {str(plane)!r}]\n"
        "app.app(standalone_mode=False)\nassert 'torch' not in sys.modules"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "basin" in done.stdout
