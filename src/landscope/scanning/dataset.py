"""The dataset of a scan: values of points with names, units, errors and provenance."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscope import _version
from landscope.objective.problem import Problem
from landscope.sampling.prediction import Values
from landscope.scanning.sampling_error import ErrorBars, is_replicate
from landscope.slices.slices import Slice

if TYPE_CHECKING:
    import xarray as xr

    from landscope.sampling.prediction import Prediction


def build_dataset(
    problem: Problem,
    slice_: Slice,
    axes: Sequence[np.ndarray],
    values: Values,
    fingerprints: Mapping[str, str],
    *,
    prediction: Prediction | None = None,
    errors: ErrorBars | None = None,
) -> xr.Dataset:
    """Return the values of a scan as a labeled dataset.

    Args:
        problem: The problem that was evaluated.
        slice_: The slice on which it was evaluated.
        axes: The coordinates along each axis, x first.
        values: The values of each evaluated point.
        fingerprints: What identifies the scan.
        prediction: Predictions for the points that were not evaluated.
        errors: The error bars, if values are predicted or samples were drawn.
    """
    import xarray as xr

    dims = slice_.dims[::-1]
    shape = tuple(len(axis) for axis in axes)[::-1]
    columns = _columns(values, int(np.prod(shape))) if prediction is None else prediction.columns
    units = list_units(problem)
    variables = {
        name: (dims, columns[name].reshape(shape), _attributes(name, units))
        for name in _names(problem, columns)
    }
    main = next((n for n in ("loss", "train_loss") if n in variables), "")
    if main and errors is not None:
        attributes = _error_attributes(main, errors, variables[main][2]["units"])
        variables[f"{main}_error"] = (dims, errors.half_widths.reshape(shape), attributes)
    if main and prediction is not None:
        flag = {"units": "1", "long_name": "evaluated (1), or predicted from its neighbors (0)"}
        variables["evaluated"] = (dims, prediction.evaluated.astype(np.int8).reshape(shape), flag)
    return xr.Dataset(
        variables,
        coords={
            dim: ((dim,), axis, axis_attributes(slice_, dim))
            for dim, axis in zip(slice_.dims, axes, strict=True)
        },
        attrs=_provenance(problem, fingerprints),
    )


def axis_attributes(slice_: Slice, dim: str) -> dict[str, str]:
    """Return the attributes of the coordinates along an axis."""
    labels = dict(zip(slice_.dims, slice_.labels, strict=False))
    return {"units": "1", "long_name": labels.get(dim, f"direction {dim}")}


def list_units(problem: Problem) -> dict[str, str]:
    """Return the units of the loss and of each metric, by name."""
    return {
        "loss": problem.loss.units,
        **{name: metric.units for name, metric in problem.metrics.items()},
    }


def _columns(values: Values, cells: int) -> dict[str, np.ndarray]:
    """Return one array per quantity, NaN in the cells that were not evaluated."""
    names = dict.fromkeys(name for point in values.values() for name in point)
    columns = {name: np.full(cells, np.nan) for name in names}
    for index, point in values.items():
        for name, value in point.items():
            columns[name][index] = value
    return columns


def _names(problem: Problem, columns: Mapping[str, object]) -> list[str]:
    """Return the names of the columns, in the same order whether or not a scan was resumed."""
    standard = [prefix + n for prefix in problem.batches for n in ("loss", *problem.metrics)]
    further = sorted(n for n in columns if n not in standard and not is_replicate(n))
    return [*filter(columns.__contains__, standard), *further]


def _error_attributes(main: str, errors: ErrorBars, units: str) -> dict[str, str]:
    """Return the unit of error bars and what they are of: the loss, or its logarithm."""
    of = f"ln({main})" if errors.log else main
    name = f"half-width of the 95% interval of {of}"
    return {"units": "1" if errors.log else units, "long_name": name, "interval_of": of}


def _attributes(name: str, units: Mapping[str, str]) -> dict[str, str]:
    prefix, _, rest = name.partition("_")
    plain = rest if prefix in ("train", "test") else name
    of = plain.removesuffix("_stderr").removeprefix("averaged_")
    words = {"train": "training ", "test": "test "}.get(prefix, "") + plain.replace("_", " ")
    return {"units": units.get(of, ""), "long_name": words}


def _provenance(problem: Problem, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """Return where a result comes from; nothing in it changes from one run to the next."""
    return {
        **problem.describe(),
        "fingerprints": json.dumps(dict(fingerprints)),
        "made_with": f"landscope {_version.__version__}, torch {torch.__version__},"
        f" numpy {np.__version__}, Python {platform.python_version()}",
    }
