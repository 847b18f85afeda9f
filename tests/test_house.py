"""The house: public names, what an import costs, errors, documentation."""

from __future__ import annotations

import builtins
import importlib
import inspect
import pkgutil
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

import landscope
from landscope import errors

SOURCE = Path(str(landscope.__file__)).parent
PUBLIC = {
    "Adaptive", "Calibrated", "Cost", "Curve", "Grid", "Journal", "Landscape", "Line", "Objective",
    "Plane", "Progress", "Recorder", "Trajectory", "Volume", "curvature", "directions", "draw",
    "engines", "ensemble", "errors", "estimate", "formats", "integrations", "load", "look",
    "loss_stderr", "losses", "neighborhood_average", "params", "paths", "representativeness",
    "scan", "zoo",
}  # fmt: skip
HEAVY = (
    "torch", "matplotlib", "xarray", "pandas", "plotly", "h5py", "sklearn", "transformers",
    "lightning", "accelerate",
)  # fmt: skip


def _after(code: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after some code."""
    text = f"{code}\nimport sys; print('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("LOADED"))
    return {name.split(".")[0] for name in line.split()[1:]}


def test_the_public_names_are_these_and_each_is_there() -> None:
    assert dir(landscope) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(landscope, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="attribute scanner"):
        getattr(landscope, "scanner")  # noqa: B009 - mypy knows that there is none


def test_scan_stays_the_function_when_the_module_beside_it_is_imported() -> None:
    scanning = importlib.import_module("landscope.scanning.loop")
    assert isinstance(landscope.scan, FunctionType)
    assert landscope.scan is scanning.scan


def test_page_stays_the_function_when_the_module_behind_it_is_imported() -> None:
    webpage = importlib.import_module("landscope.draw.webpage")
    assert isinstance(landscope.draw.page, FunctionType)
    assert landscope.draw.page is webpage.page


def test_importing_landscope_loads_nothing_heavy() -> None:
    assert not _after("import landscope") & {*HEAVY, "numpy", "typer", "rich", "safetensors"}


def test_importing_what_computes_loads_torch_and_nothing_that_draws_or_stores() -> None:
    loaded = _after("import landscope.objective.objective, landscope.scanning.loop")
    assert {"torch", "numpy"} <= loaded
    assert not loaded & ({*HEAVY, "typer", "rich"} - {"torch"})


def test_help_is_quick_because_it_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['landscope', '--help']; from landscope.cli import app\n"
        "try:\n    app.main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert not _after(program) & {*HEAVY, "numpy"}
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        seconds.append(time.perf_counter() - began)
        assert b"Usage" in done.stdout
    print(f"\nlandscope --help: {statistics.median(seconds):.2f} s, the median of 5")  # noqa: T201


def _everything() -> Iterator[tuple[str, object]]:
    for info in pkgutil.walk_packages([str(SOURCE)], "landscope."):
        module = importlib.import_module(info.name)
        yield info.name, module
        for name, thing in vars(module).items():
            if name[0] == "_" or getattr(thing, "__module__", None) != info.name:
                continue
            if inspect.isfunction(thing) or inspect.isclass(thing):
                yield f"{info.name}.{name}", thing
            if inspect.isclass(thing) and not issubclass(thing, tuple):
                for member, inner in vars(thing).items():
                    if member[0] != "_" and isinstance(inner, FunctionType | property):
                        yield f"{info.name}.{name}.{member}", inner


def test_everything_public_has_a_docstring() -> None:
    silent = [name for name, thing in _everything() if not (inspect.getdoc(thing) or "").strip()]
    assert silent == []


def _subclasses(kind: type) -> Iterator[type]:
    sub: type
    for sub in kind.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def test_every_error_is_a_builtin_error_too() -> None:
    assert len(list(_everything())) > 100  # all modules are loaded
    known = {e for e in vars(builtins).values() if isinstance(e, type)} - {Exception, BaseException}
    for error in _subclasses(errors.LandscopeError):
        assert known & {*error.__mro__} - {object}, error


def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    drawn = re.findall(r"[├└]── (\w+)\s+\((\w+)\)\s+(.+)", str(errors.__doc__))
    real = [
        (name, error.__bases__[1].__name__, str(error.__doc__).rstrip(".").lower())
        for name, error in vars(errors).items()
        if isinstance(error, type) and error is not errors.LandscopeError
    ]
    assert [(name, base, text.lower()) for name, base, text in drawn] == real
    assert len(real) == 16
