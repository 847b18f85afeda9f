"""What several tests of the command line share: a finished plane and a finished line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]  # words -> code, out, err
SMALL = ("--x=-1:1:5", "--y=-1:1:5")


@pytest.fixture
def plane(command: Command, target: str, tmp_path: Path) -> Path:
    """A finished run over a plane of 5 x 5."""
    answer = command("scan", target, *SMALL, "--out", tmp_path / "plane")
    assert answer.code == 0, answer.err
    return tmp_path / "plane"


@pytest.fixture
def line(command: Command, target: str, tmp_path: Path) -> Path:
    """A finished run over a line of 5."""
    answer = command("scan", target, "--x=-1:1:5", "--out", tmp_path / "line")
    assert answer.code == 0, answer.err
    return tmp_path / "line"
