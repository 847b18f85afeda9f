"""The dataset of a scan: values of points with names, units, errors and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from landscope.landscape import Landscape
from landscope.sampling.data_subset import Subset
from landscope.sampling.grid import Sampler
from landscope.sampling.prediction import Values
from landscope.scanning.description import Description, axis_attributes
from landscope.scanning.sampling_error import ErrorBars, combine_errors, is_replicate

if TYPE_CHECKING:
    import xarray as xr

    from landscope.sampling.prediction import Prediction


def build_landscape(
    description: Description,
    values: Values,
    *,
    sampler: Sampler | None,
    subset: Subset | None = None,
    notes: Sequence[str] = (),
    seconds: float | None = None,
) -> Landscape:
    """Return the landscape of the values that are known.

    Args:
        description: The axes, names, units and origin of the values.
        values: The values of each evaluated point.
        sampler: The sampler, which predicts the other values; None leaves them empty.
        subset: The samples of the data that were drawn.
        notes: Notes on the result.
        seconds: The time that the points took.
    """
    shape = tuple(map(len, description.axes))
    values = dict(sorted(values.items()))
    columns = {
        k: {name: v for name, v in point.items() if not is_replicate(name)}
        for k, point in values.items()
    }
    prediction = sampler.fill(shape, columns) if values and sampler is not None else None
    errors = combine_errors(prediction, subset, values, shape) if values else None
    data = _build_dataset(description, values, prediction=prediction, errors=errors)
    notes = [*notes, *(prediction.notes if prediction else ()), *(subset.notes if subset else ())]
    data.attrs["cost"] = _describe_cost(description, len(values), int(np.prod(shape)), subset)
    data.attrs["notes"] = "; ".join(notes)
    return Landscape(data, seconds)


def _describe_cost(description: Description, points: int, total: int, subset: Subset | None) -> str:
    """Return what was evaluated, in words that are the same for the same question."""
    passes = float(points)
    if subset is not None and description.anchors:
        share = len(subset.rows) / description.rows
        passes = description.anchors + (points - description.anchors) * share
    return f"{points:,} of {total:,} points, {passes:,.4g} passes over the data"


def _build_dataset(
    description: Description,
    values: Values,
    *,
    prediction: Prediction | None,
    errors: ErrorBars | None,
) -> xr.Dataset:
    """Return the values of a scan as a labeled dataset.

    Args:
        description: The axes, names, units and origin of the values.
        values: The values of each evaluated point.
        prediction: Predictions for the points that were not evaluated.
        errors: The error bars, if values are predicted or samples were drawn.
    """
    import xarray as xr

    dims = description.dims[::-1]
    shape = tuple(map(len, description.axes))[::-1]
    columns = _columns(values, int(np.prod(shape))) if prediction is None else prediction.columns
    variables = {
        name: (dims, columns[name].reshape(shape), _attributes(name, description.units))
        for name in _names(description, columns)
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
            dim: ((dim,), np.asarray(axis, np.float64), axis_attributes(description, dim))
            for dim, axis in zip(description.dims, description.axes, strict=True)
        },
        attrs=dict(description.attributes),
    )


def _columns(values: Values, cells: int) -> dict[str, np.ndarray]:
    """Return one array per quantity, NaN in the cells that were not evaluated."""
    names = dict.fromkeys(name for point in values.values() for name in point)
    columns = {name: np.full(cells, np.nan) for name in names}
    for index, point in values.items():
        for name, value in point.items():
            columns[name][index] = value
    return columns


def _names(description: Description, columns: Mapping[str, object]) -> list[str]:
    """Return the names of the columns, in the same order whether or not a scan was resumed."""
    standard = description.quantities
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
