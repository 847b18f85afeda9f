"""The README and the examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import tempfile
from pathlib import Path

import pytest

import landscope

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDES = [
    ROOT / "docs/architecture.md",
    *(p for p in (ROOT / "docs/guides").glob("*.md") if p.stem != "many-workers"),  # clusters
]
MODULES = [m.name for m in pkgutil.walk_packages(landscope.__path__, "landscope.")]


def test_the_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code) == 7  # train, look, steps, what it costs, what it hides, sequences, paths
    exec(compile("\n".join(code), "README.md", "exec"), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "averaged.png", "contour.png", "error.png", "landscape.nc", "look.png", "page.html", "path",
        "path.png", "scan.sqlite", "whole.png",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")  # peft asks
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_code_of_a_guide_runs(
    guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    assert code
    exec(compile("\n".join(code), guide.name, "exec"), {})


def test_the_pictures_of_the_readme_are_there() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    assert all((ROOT / name).is_file() for name in pictures)


def test_every_command_of_the_readme_exists() -> None:
    from landscope.cli.app import app

    known = {c.name or str(c.callback and c.callback.__name__) for c in app.registered_commands}
    blocks = "\n".join(README.split("```")[1::2])
    named = set(re.findall(r"(?:^|; )landscope (\w+)", blocks, re.MULTILINE))
    assert named
    assert named <= known


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run_and_write_nothing_into_the_current_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, temporary = tmp_path / "current", tmp_path / "temporary"
    current.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(current)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    module = importlib.import_module(name)
    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert outcome.failed == 0
    assert list(current.iterdir()) == []


def test_there_are_examples_to_run() -> None:
    finder = doctest.DocTestFinder()
    examples = [t for m in MODULES for t in finder.find(importlib.import_module(m)) if t.examples]
    assert len(examples) >= 6
