"""What pip installs and what PyPI shows: declared libraries, no broken pictures."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import landscope

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()


def _declared_libraries() -> set[str]:
    """Names of the distributions that landscope or one of its extras for users requires."""
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [
        *PROJECT["project"]["dependencies"],
        *(x for e in extras if e != "dev" for x in extras[e]),
    ]
    return {_canonical(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines}


def _canonical(name: str) -> str:
    """The form of a distribution's name in which equal names are equal (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported_packages() -> Iterator[str]:
    """Top-level packages that a module of landscope imports, anywhere in it."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.module
                yield node.module.split(".")[0]


def test_every_library_that_is_imported_is_declared() -> None:
    imported = set(_imported_packages()) - {*sys.stdlib_module_names, "landscope"}
    distributions = packages_distributions()
    undeclared = {
        package
        for package in imported
        if not {*map(_canonical, distributions[package])} & _declared_libraries()
    }
    assert {"torch", "numpy", "pandas", "sklearn"} <= imported
    assert undeclared == set()


def test_the_changelog_begins_with_this_version_and_the_citation_names_it() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert newest is not None
    assert cited is not None
    assert newest[1] == cited[1] == landscope.__version__


def test_on_pypi_no_picture_of_the_readme_has_a_relative_address() -> None:
    hook = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    assert hook["fragments"] == [{"path": "README.md"}]
    text = README
    for substitution in hook["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    pictures = r"!\[.*?\]\((?!https?:)"
    assert len(re.findall(pictures, README)) > 5
    assert re.findall(pictures, text) == []
    assert "*[The same two networks as contour lines]*" in text
