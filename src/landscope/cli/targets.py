"""Targets of the command line: ``file.py:function``, ``package.module:function``, ``zoo:NAME``."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from landscope import zoo
from landscope.errors import TargetError
from landscope.formats import checkpoint as checkpoint_
from landscope.objective.objective import Objective
from landscope.params import Params, clone, like, parameters

_FORM = "expected file.py:function, package.module:function, or zoo:NAME"


def objective(
    target: str,
    *,
    arguments: Iterable[str] = (),
    checkpoint: str | os.PathLike[str] | None = None,
) -> Objective:
    """Return the objective that a target names.

    Args:
        target: ``file.py:function`` or ``package.module:function``, a function that returns an
            Objective, or ``zoo:NAME``.
        arguments: ``name=value`` texts, passed to the function; values are read as Python
            literals, and as text where they are none.
        checkpoint: weights to load into the model.

    Raises:
        TargetError: when the target is not there, or returns no Objective.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise TargetError(f"TARGET={target!r}; {_FORM}.")
    given = dict(_argument(text) for text in arguments)
    if place == "zoo":
        _check_arguments(zoo.objective, given, f"zoo:{name}")
        return zoo.objective(name, checkpoint=checkpoint, **given)
    function = _function(place, name)
    _check_arguments(function, given, target)
    made = function(**given)
    if not isinstance(made, Objective):
        raise TargetError(
            f"{target} returned a {type(made).__name__}; expected an ls.Objective(model, loss,"
            " data)."
        )
    return made if checkpoint is None else reloaded(made, checkpoint)


def initialization(
    target: str,
    made: Objective,
    arguments: Iterable[str],
    checkpoint: str | os.PathLike[str] | None,
    path: str | os.PathLike[str] | None,
) -> Params | None:
    """Return the parameters that training began with, where they are known.

    Args:
        target: as for :func:`objective`.
        made: its objective.
        arguments: as for :func:`objective`.
        checkpoint: as for :func:`objective`.
        path: a checkpoint of the initial weights.

    Raises:
        FormatError: when the checkpoint does not fit the model.
    """
    if path is not None:
        copy = made.problem.clone()
        checkpoint_.load(copy.model, path)
        return copy.recenter().center
    place, _, name = target.rpartition(":")
    if place != "zoo" or checkpoint is not None:
        return None
    given = dict(_argument(text) for text in arguments)
    model = zoo.initial(name, seed=given.get("seed", 0))
    return None if model is None else clone(like(made.center, parameters(model)))


def reloaded(made: Objective, checkpoint: str | os.PathLike[str]) -> Objective:
    """Return the objective with weights from a checkpoint in its model."""
    checkpoint_.load(made.model, checkpoint)
    return Objective.of(made.problem.recenter())


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise TargetError(f"--set {text!r}; expected name=value.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _function(place: str, name: str) -> Any:
    module = _from_file(Path(place)) if place.endswith(".py") else _from_package(place)
    function = getattr(module, name, None)
    if not callable(function):
        there = [n for n, f in vars(module).items() if inspect.isfunction(f) and n[0] != "_"]
        raise TargetError(
            f"{place} has no function {name!r}: it has {', '.join(there[:8]) or 'no functions'}."
        )
    return function


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise TargetError(f"{path} does not exist: {_FORM}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} cannot be imported: {_FORM}.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # as `python file.py` has it
    sys.modules[path.stem] = module  # so that its classes find their module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(path.stem, None)
        raise TargetError(f"{path} cannot be imported: {_told(error)}.") from error
    return module


def _from_package(name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise TargetError(f"module {name!r} cannot be imported: {_told(error)}.") from error


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")


def _check_arguments(function: Any, given: dict[str, Any], target: str) -> None:
    names = inspect.signature(function).parameters
    lacking = next((n for n, p in names.items() if _is_needed(p) and n not in given), None)
    if lacking is not None and target.partition(":")[0] != "zoo":
        raise TargetError(f"{target} needs the argument {lacking!r}: pass --set {lacking}=VALUE.")
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in names.values()):
        return
    odd = next((n for n in given if n not in names), None)
    if odd is not None:
        raise TargetError(
            f"--set {odd}=...: {target} has no such argument; it takes {', '.join(names)}."
        )


def _is_needed(parameter: inspect.Parameter) -> bool:
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind not in many
