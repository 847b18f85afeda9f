"""Surface files of the 2018 scripts: values over a line or a plane.

A two-dimensional surface has the *shape* (nx, ny) but the *order* of (ny, nx): flat index k belongs
to (x[k % nx], y[k // nx]).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from landscope.errors import FormatError
from landscope.formats.hdf5 import create_file, list_members, open_file
from landscope.landscape import Landscape, check_landscape

if TYPE_CHECKING:
    import xarray as xr

    Variable = tuple[tuple[str, ...], np.ndarray, dict[str, str]]  # dims, values, attributes

_NAMES = {"loss": "loss", "acc": "accuracy"}
_EIGENVALUES = {"min_eig": "hessian_min", "max_eig": "hessian_max"}
_UNFILLED = {"min_eig": 1.0}  # what the scripts write to cells without a value; all others: -1
_SUM = "sum over the batches of the script, not the mean: read it with batches=their number"
_MEAN = "of the mean loss: the sum in the file over {} batches"


def read_surface(path: str | os.PathLike[str], *, batches: int | None = None) -> Landscape:
    """Return the surface in a file of the 2018 scripts.

    Training values are named ``loss`` and ``accuracy``, or ``train_loss``, ``test_loss``,
    ``train_accuracy``, ``test_accuracy`` when the file has test values too. Accuracies are in
    percent. Eigenvalues are named ``hessian_min`` and ``hessian_max``, and their ratio
    ``convexity``. Cells without a value are NaN.

    Args:
        path: The file.
        batches: The number of batches over which the script summed its Hessian, which is not in the
            file; the eigenvalues are divided by it, and are then those of the mean loss. By default
            the eigenvalues remain those of the sum, as their attributes say.

    Raises:
        FormatError: When the file does not exist or is not a surface, or batches is below 1.
    """
    import xarray as xr

    if batches is not None and batches < 1:
        raise FormatError(f"batches={batches}; expected 1 or more, or None to leave sums as sums.")

    with open_file(path) as file:
        if "xcoordinates" not in file:
            raise FormatError(
                f"{path} has no xcoordinates, so it is not a surface: it holds"
                f" {list_members(file)}. Directions are read with read_directions, projections with"
                " read_projection."
            )
        axes = {  # slowest first
            dim: np.asarray(file[f"{dim}coordinates"], dtype=np.float64)
            for dim in ("y", "x")
            if f"{dim}coordinates" in file
        }
        names = sorted(filter(_is_value, file), key=lambda name: not name.endswith("loss"))
        values = {name: np.asarray(file[name], dtype=np.float64) for name in names}
        attributes = _read_attributes(file)
    _check_sizes(values, int(np.prod([len(axis) for axis in axes.values()])), path)
    data = xr.Dataset(
        _variables(values, axes, batches),
        coords={
            dim: (dim, axes[dim], {"units": "1", "long_name": f"direction {dim}"})
            for dim in reversed(axes)
        },
        attrs={**attributes, "file": Path(path).name},
    )
    return Landscape(data)


def write_surface(
    land: Landscape, path: str | os.PathLike[str], *, dir_file: str | None = None
) -> Path:
    """Write a line or a plane as a surface file of the 2018 scripts; return its path.

    Args:
        land: The landscape, whose losses and accuracies are written. An accuracy whose unit is not
            "%" and whose values all lie in [0, 1] is multiplied by 100.
        path: The file.
        dir_file: The path of the direction file that the surface refers to; by default the one in
            the file that the landscape was read from.

    Raises:
        FormatError: When the landscape is a volume or has no loss, or when the file cannot be
            written.
    """
    check_landscape(land)
    if len(land.dims) > 2:
        raise FormatError(
            f"a {len(land.dims)}-dimensional landscape has no 2018 layout: write it with"
            " land.save('a.nc') or ls.formats.vtk.write(land, 'a.vts')."
        )
    columns = {new: _flatten(land.data[old]) for old, new in _file_names(land).items()}
    if not any(name.endswith("loss") for name in columns):
        raise FormatError(f"the landscape holds {list(land.data)}; a surface file needs a loss.")
    path = Path(path)
    shape = land.data[land.quantity].shape[::-1]
    with create_file(path) as file:
        source = str(land.data.attrs.get("dir_file", "")) if dir_file is None else dir_file
        file.create_dataset("dir_file", data=source, dtype=h5py.string_dtype())
        for dim in land.dims:
            file.create_dataset(f"{dim}coordinates", data=land.data[dim].values, dtype="f8")
        for name, values in columns.items():
            file.create_dataset(name, data=values.reshape(shape), dtype="f8")
        for name, value in land.data.attrs.items():  # the 2018 scripts read no attributes
            file.attrs[str(name)] = str(value)
    return path


def _read_attributes(file: h5py.File) -> dict[str, str]:
    """Return where a surface comes from; landscope's own files hold their attributes as well."""
    source = _read_text(file["dir_file"]) if "dir_file" in file else ""
    attributes = {name: str(value) for name, value in file.attrs.items()}
    return {"source": "file of the 2018 scripts", **attributes, "dir_file": source}


def _is_value(name: str) -> bool:
    prefix, _, rest = name.partition("_")
    return name in _EIGENVALUES or (prefix in ("train", "test") and rest in _NAMES)


def _check_sizes(values: Mapping[str, np.ndarray], size: int, path: str | os.PathLike[str]) -> None:
    wrong = next((name for name, column in values.items() if column.size != size), None)
    if wrong is not None or not values:
        problem = f"{wrong} has {values[wrong].size} values" if wrong else "there is no loss"
        raise FormatError(f"{path}: {problem}; expected {size} values of a loss.")


def _variables(
    values: Mapping[str, np.ndarray], axes: Mapping[str, np.ndarray], batches: int | None
) -> dict[str, Variable]:
    has_test = any(name.startswith("test_") for name in values)
    empty = _find_empty(values)
    dims, shape = tuple(axes), tuple(map(len, axes.values()))
    variables: dict[str, Variable] = {}
    for name, column in values.items():
        flat = np.where(empty[name], np.nan, column.reshape(-1))
        if name in _EIGENVALUES:
            meaning = _SUM if batches is None else _MEAN.format(batches)
            title, attributes = _EIGENVALUES[name], {"units": "", "long_name": f"{name}: {meaning}"}
            flat = flat / (batches or 1)
        else:
            prefix, _, rest = name.partition("_")
            title = f"{prefix}_{_NAMES[rest]}" if has_test else _NAMES[rest]
            words = {"train": "training ", "test": "test "}[prefix] if has_test else ""
            units = "%" if rest == "acc" else ""
            attributes = {"units": units, "long_name": f"{words}{_NAMES[rest]}"}
        variables[title] = (dims, flat.reshape(shape), attributes)
    if variables.keys() >= {"hessian_min", "hessian_max"}:
        variables["convexity"] = _convexity(variables["hessian_min"], variables["hessian_max"])
    return variables


def _convexity(smallest: Variable, largest: Variable) -> Variable:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(smallest[1] / largest[1])
    return smallest[0], ratio, {
        "units": "1", "long_name": "|min / max| eigenvalue of the Hessian"}  # fmt: skip


def _find_empty(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the cells without a value: those where every column of a kind has its mark.

    A loss can really be -1: it is a value if the accuracy of the same cell has no mark.
    """
    marks = {n: v.reshape(-1) == _UNFILLED.get(n, -1.0) for n, v in values.items()}
    kinds = {n: "eig" if n in _EIGENVALUES else n.partition("_")[0] for n in values}
    return {
        name: np.logical_and.reduce([marks[other] for other in values if kinds[other] == kind])
        for name, kind in kinds.items()
    }


def _file_names(land: Landscape) -> dict[str, str]:
    """Return the name in the file for each quantity that the layout can hold."""
    names = {}
    for name in map(str, land.data):
        prefix, _, rest = name.partition("_")
        data, quantity = (prefix, rest) if prefix in ("train", "test") else ("train", name)
        short = {"loss": "loss", "accuracy": "acc"}.get(quantity)
        if short:
            names[name] = f"{data}_{short}"
    eigenvalues = {new: old for old, new in _EIGENVALUES.items() if new in land.data}
    return {**names, **eigenvalues}


def _flatten(variable: xr.DataArray) -> np.ndarray:
    """Return the values in one row, accuracies in percent."""
    values = np.asarray(variable.values, dtype=np.float64).reshape(-1)
    finite = values[np.isfinite(values)]
    may_be_share = "accuracy" in str(variable.name) and variable.attrs.get("units") != "%"
    if may_be_share and finite.size and finite.min() >= 0 and finite.max() <= 1:
        return 100.0 * values
    return values


def _read_text(dataset: h5py.Dataset) -> str:
    value = dataset[()]
    return value.decode() if isinstance(value, bytes) else str(value)
