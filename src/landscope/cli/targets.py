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

from torch import nn

from landscope import zoo
from landscope.cli import report
from landscope.errors import LandscopeError, TargetError
from landscope.formats import checkpoint as checkpoint_
from landscope.objective.objective import Objective
from landscope.params import Params, clone, like, parameters

_FORM = "expected file.py:function, package.module:function, or zoo:NAME"


def load_objective(
    target: str,
    *,
    arguments: Iterable[str] = (),
    checkpoint: str | os.PathLike[str] | None = None,
) -> Objective:
    """Return the objective that a target names.

    Args:
        target: ``file.py:function`` or ``package.module:function``, a function that returns an
            Objective, or ``zoo:NAME``.
        arguments: ``name=value`` texts for the function; a value that is no Python literal is
            passed as text.
        checkpoint: The weights to load into the model.

    Raises:
        TargetError: When the target does not exist, or returns no Objective.
        FormatError: When the checkpoint does not fit the model.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise TargetError(f"TARGET={target!r}; {_FORM}.")
    values = dict(_parse_argument(text) for text in arguments)
    if place == "zoo":
        _check_arguments(zoo.objective, values, f"zoo:{name}")
        return zoo.objective(name, checkpoint=checkpoint, **values)
    objective = _make_objective(_import_target(place, name), values, target)
    return objective if checkpoint is None else _load_checkpoint(objective, checkpoint)


def find_initialization(
    target: str,
    objective: Objective,
    arguments: Iterable[str],
    checkpoint: str | os.PathLike[str] | None,
    path: str | os.PathLike[str] | None,
) -> Params | None:
    """Return the parameters from before training; None if they are unknown.

    Args:
        target: As for :func:`load_objective`.
        objective: The objective of the target.
        arguments: As for :func:`load_objective`.
        checkpoint: As for :func:`load_objective`.
        path: A checkpoint of the initial weights.

    Raises:
        FormatError: When the checkpoint does not fit the model.
    """
    if path is not None:
        copy = objective.problem.clone()
        _load_weights(copy.model, path)
        return copy.recenter().center
    place, _, name = target.rpartition(":")
    if place != "zoo" or checkpoint is not None:
        return None
    values = dict(_parse_argument(text) for text in arguments)
    model = zoo.initial(name, seed=values.get("seed", 0))
    return None if model is None else clone(like(objective.center, parameters(model)))


def _load_checkpoint(objective: Objective, checkpoint: str | os.PathLike[str]) -> Objective:
    """Return the objective with the weights of a checkpoint in its model."""
    _load_weights(objective.model, checkpoint)
    return Objective.of(objective.problem.recenter())


def _load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a checkpoint, and print how its names were read if they are not the model's."""
    for note in checkpoint_.load(model, path):
        report.print_warning(f"{Path(path).name}: {note}")


def _parse_argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise TargetError(f"--set {text!r}; expected name=value.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _import_target(place: str, name: str) -> Any:
    """Return the function of a file or module, or the objective that it holds by this name."""
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    if not hasattr(module, name):
        names = [n for n, f in vars(module).items() if _is_target(f) and n[0] != "_"]
        raise TargetError(
            f"{place} has no function {name!r}: it has {', '.join(names[:8]) or 'no functions'}."
        )
    return getattr(module, name)


def _is_target(thing: Any) -> bool:
    return inspect.isfunction(thing) or isinstance(thing, Objective)


def _make_objective(thing: Any, values: dict[str, Any], target: str) -> Objective:
    """Return the objective of a target: the object itself, or what its function returns."""
    if isinstance(thing, Objective):
        if values:
            raise TargetError(
                f"--set {next(iter(values))}=...: {target} is an objective, which takes no"
                " arguments: leave --set out, or write a function that returns the objective."
            )
        return thing
    if isinstance(thing, nn.Module) or not callable(thing):
        place, _, name = target.rpartition(":")
        raise TargetError(
            f"{place} has no function {name!r} but a {type(thing).__name__}; expected a function"
            " that returns an ls.Objective(model, loss, data), or such an objective."
        )
    _check_arguments(thing, values, target)
    try:
        objective = thing(**values)
    except LandscopeError:
        raise
    except (Exception, SystemExit) as error:
        raise TargetError(f"{target} failed: {_describe(error)}.") from error
    if not isinstance(objective, Objective):
        raise TargetError(
            f"{target} returned a {type(objective).__name__}; expected an ls.Objective(model, loss,"
            " data): end the function with return ls.Objective(...)."
        )
    return objective


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise TargetError(f"{path} does not exist: {_FORM}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} cannot be imported: {_FORM}.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # as `python file.py` does
    sys.modules[path.stem] = module  # classes look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(path.stem, None)
        raise TargetError(f"{path} cannot be imported: {_describe(error)}.") from error
    return module


def _import_module(name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise TargetError(f"module {name!r} cannot be imported: {_describe(error)}.") from error


def _describe(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")


def _check_arguments(function: Any, values: dict[str, Any], target: str) -> None:
    accepted = inspect.signature(function).parameters
    missing = next((n for n, p in accepted.items() if _is_needed(p) and n not in values), None)
    if missing is not None and target.partition(":")[0] != "zoo":
        raise TargetError(f"{target} needs the argument {missing!r}: pass --set {missing}=VALUE.")
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values()):
        return
    unknown = next((n for n in values if n not in accepted), None)
    if unknown is not None:
        known = f"it takes {', '.join(accepted)}" if accepted else "it takes none, leave --set out"
        raise TargetError(f"--set {unknown}=...: {target} has no such argument; {known}.")


def _is_needed(parameter: inspect.Parameter) -> bool:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind not in variadic
