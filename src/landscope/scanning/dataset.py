"""Assembly: from the values of points to a Landscape with names, units, errors and provenance."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscope import _version
from landscope.objective.problem import Problem
from landscope.slices.slices import Slice

if TYPE_CHECKING:
    import xarray as xr

    from landscope.sampling.prediction import Filled

Known = Mapping[int, Mapping[str, float]]
"""Flat index of a point -> quantity -> value."""


def dataset(
    problem: Problem,
    slice_: Slice,
    axes: Sequence[np.ndarray],
    known: Known,
    question: Mapping[str, str],
    *,
    filled: Filled | None = None,
    spread: np.ndarray | None = None,
) -> xr.Dataset:
    """Return the values of a scan with their names.

    Args:
        problem: what was evaluated.
        slice_: where.
        axes: coordinates, x first.
        known: what came out.
        question: what was asked.
        filled: predictions for the points that were not evaluated.
        spread: flat, half the width of a 95% interval of ln(loss), where samples were drawn.
    """
    import xarray as xr

    dims = slice_.dims[::-1]
    shape = tuple(len(axis) for axis in axes)[::-1]
    columns = _columns(known, int(np.prod(shape))) if filled is None else filled.columns
    units = list_units(problem)
    variables = {
        name: (dims, columns[name].reshape(shape), _attributes(name, units))
        for name in _names(problem, columns)
    }
    main = next((n for n in ("loss", "train_loss") if n in variables), "")
    variables |= _errors(main, dims, shape, filled, spread)
    return xr.Dataset(
        variables,
        coords={
            dim: ((dim,), axis, axis_attributes(slice_, dim))
            for dim, axis in zip(slice_.dims, axes, strict=True)
        },
        attrs=_provenance(problem, question),
    )


def axis_attributes(slice_: Slice, dim: str) -> dict[str, str]:
    """Return the attributes of the coordinates along an axis."""
    labels = dict(zip(slice_.dims, getattr(slice_, "labels", ()), strict=False))
    return {"units": "1", "long_name": labels.get(dim, f"direction {dim}")}


def list_units(problem: Problem) -> dict[str, str]:
    """Return the units of the loss and of each metric, by name."""
    return {
        "loss": problem.loss.units,
        **{name: metric.units for name, metric in problem.metrics.items()},
    }


def is_replicate(name: str) -> bool:
    """Whether a column only serves to tell the error of another."""
    return "~" in name


def _columns(known: Known, cells: int) -> dict[str, np.ndarray]:
    found = dict.fromkeys(name for values in known.values() for name in values)
    columns = {name: np.full(cells, np.nan) for name in found}
    for index, values in known.items():
        for name, value in values.items():
            columns[name][index] = value
    return columns


def _names(problem: Problem, found: Mapping[str, object]) -> list[str]:
    """Return the names of columns in an order that is the same when a scan was resumed."""
    own = [prefix + n for prefix in problem.batches for n in ("loss", *problem.metrics)]
    others = sorted(n for n in found if n not in own and not is_replicate(n))
    return [*filter(found.__contains__, own), *others]


def _errors(
    main: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    filled: Filled | None,
    spread: np.ndarray | None,
) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]:
    """Return the variables that say how good the values are; none for a full, exact scan."""
    parts = [e for e in (None if filled is None else filled.error, spread) if e is not None]
    if not main or not parts:
        return {}
    scale = "log" if filled is None else filled.scale
    of = f"ln({main})" if scale == "log" else main
    told = {"units": "1" if scale == "log" else "", "long_name": f"estimated error of {of}"}
    found = {f"{main}_error": (dims, np.sum(parts, axis=0).reshape(shape), told)}
    if filled is not None:
        told = {"units": "1", "long_name": "evaluated (1), or predicted from its neighbors (0)"}
        found["evaluated"] = (dims, filled.evaluated.astype(np.int8).reshape(shape), told)
    return found


def _attributes(name: str, units: Mapping[str, str]) -> dict[str, str]:
    prefix, _, rest = name.partition("_")
    plain = rest if prefix in ("train", "test") else name
    of = plain.removesuffix("_stderr").removeprefix("averaged_")
    words = {"train": "training ", "test": "test "}.get(prefix, "") + plain.replace("_", " ")
    return {"units": units.get(of, ""), "long_name": words}


def _provenance(problem: Problem, question: Mapping[str, str]) -> dict[str, str]:
    """Return where a result comes from: nothing in it changes from one run to the next."""
    return {
        **problem.describe(),
        "fingerprints": json.dumps(dict(question)),
        "made_with": f"landscope {_version.__version__}, torch {torch.__version__},"
        f" numpy {np.__version__}, Python {platform.python_version()}",
    }
