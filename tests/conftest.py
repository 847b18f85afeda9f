"""Fixtures of all tests: a temporary cache, the command line, a small target."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TARGET = Path(__file__).parent / "toy_target.py"


class Answer(NamedTuple):
    """What a command gave back."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep trained networks away from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """``command("scan", ...)``: the whole program, as a shell starts it."""
    from landscope.cli import app

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)

    def run(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["landscope", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            app.main()
        except SystemExit as end:
            code = 0 if end.code is None else int(end.code)
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    yield run
    for name in set(sys.modules) - modules:
        if not name.startswith("landscope") and getattr(sys.modules[name], "CALLS", None) == []:
            del sys.modules[name]


@pytest.fixture
def target(tmp_path: Path) -> str:
    """``file.py:make``: an MLP with batch norm for three classes of four numbers."""
    (tmp_path / "toy_target.py").write_text(TARGET.read_text())
    return f"{tmp_path / 'toy_target.py'}:make"
