"""Files of the 2018 scripts (Li, Xu, Taylor, Studer, Goldstein, arXiv 1712.09913): HDF5.

Surfaces, directions and projections, read and written in their layout:

    surface     xcoordinates (nx,), ycoordinates (ny,), dir_file, train_loss, train_acc (percent),
                test_loss, test_acc, min_eig, max_eig; float64; a cell not filled yet is -1
    directions  groups xdirection, ydirection with members "0", "1", ... in parameter (or state)
                order, float32; counters of states are numbers without dimensions
                PCA directions have explained_variance_ratio_, explained_variance_ and
                singular_values_ (2,) as well
    projection  proj_xcoord, proj_ycoord (checkpoints,)

A two-dimensional surface has the *shape* (nx, ny) but the *order* of (ny, nx): flat index k belongs
to (x[k % nx], y[k // nx]).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from landscope.errors import FormatError
from landscope.files import whole
from landscope.landscape import Landscape
from landscope.params import Params, like, wrap

if TYPE_CHECKING:
    import xarray as xr

    from landscope.training.principal_components import PCA

__all__ = [
    "Explained",
    "Projection",
    "read_directions",
    "read_explained",
    "read_projection",
    "read_surface",
    "write_directions",
    "write_projection",
    "write_surface",
]

_NAMES = {"loss": "loss", "acc": "accuracy"}
_EIGENVALUES = {"min_eig": "hessian_min", "max_eig": "hessian_max"}
_UNFILLED = {"min_eig": 1.0}  # all others: -1
_GROUPS = ("xdirection", "ydirection", "zdirection")
_EXPLAINED = ("explained_variance_ratio_", "explained_variance_", "singular_values_")
_SUM = "sum over the batches of the script, not the mean: read it with batches=their number"
_MEAN = "of the mean loss: the sum in the file over {} batches"


class Projection(NamedTuple):
    """Coordinates of checkpoints along one or two directions.

    Args:
        x: shape (checkpoints,).
        y: shape (checkpoints,), or None in a file of one direction.
    """

    x: np.ndarray
    y: np.ndarray | None


class Explained(NamedTuple):
    """What principal components hold of a path; each of shape (d,).

    Args:
        explained_variance_ratio: shares of the total variance.
        explained_variance: sigma^2 / (checkpoints - 1).
        singular_values: sigma, of the centered checkpoints.
    """

    explained_variance_ratio: np.ndarray
    explained_variance: np.ndarray
    singular_values: np.ndarray


def read_surface(path: str | os.PathLike[str], *, batches: int | None = None) -> Landscape:
    """Return the surface in a file of the 2018 scripts.

    Training values are named ``loss`` and ``accuracy``, or ``train_loss``, ``test_loss``,
    ``train_accuracy``, ``test_accuracy`` when the file holds test values too. Accuracies are in
    percent. Eigenvalues are named ``hessian_min`` and ``hessian_max``, beside their ratio
    ``convexity``. Cells that were not filled are NaN.

    Args:
        path: the file.
        batches: over how many batches the script summed its Hessian, which the file does not say:
            eigenvalues are divided by it and so those of the mean loss. If not given they are left
            as they are, which their attributes say.

    Raises:
        FormatError: when the file is not there or is not a surface, or batches is below 1.
    """
    import xarray as xr

    if batches is not None and batches < 1:
        raise FormatError(f"batches={batches}; expected 1 or more, or None to leave sums as sums.")

    with _opened(path) as file:
        if "xcoordinates" not in file:
            raise FormatError(
                f"{path} has no xcoordinates, so it is no surface: it holds {_listed(file)}."
                " Directions are read with read_directions, projections with read_projection."
            )
        x = np.asarray(file["xcoordinates"], dtype=np.float64)
        y = np.asarray(file["ycoordinates"], dtype=np.float64) if "ycoordinates" in file else None
        names = sorted(filter(_is_value, file), key=lambda name: not name.endswith("loss"))
        columns = {name: np.asarray(file[name], dtype=np.float64) for name in names}
        source = _text(file["dir_file"]) if "dir_file" in file else ""
    shape, dims = ((len(x),), ("x",)) if y is None else ((len(y), len(x)), ("y", "x"))
    odd = next((n for n, v in columns.items() if v.size != np.prod(shape)), None)
    if odd is not None or not columns:
        what = f"{odd} has {columns[odd].size} values" if odd else "there is no loss"
        raise FormatError(f"{path}: {what}; expected {int(np.prod(shape))} values of a loss.")
    data = xr.Dataset(
        _variables(columns, shape, dims, batches),
        coords={"x": ("x", x, _axis("x")), **({} if y is None else {"y": ("y", y, _axis("y"))})},
        attrs={"source": "file of the 2018 scripts", "file": Path(path).name, "dir_file": source},
    )
    return Landscape(data)


def write_surface(
    land: Landscape, path: str | os.PathLike[str], *, dir_file: str | None = None
) -> Path:
    """Write a line or a plane as a surface file of the 2018 scripts; return its path.

    Args:
        land: its losses and accuracies are written. An accuracy whose unit is not "%" and whose
            values all lie in [0, 1] is taken for a share and written in percent.
        path: the file.
        dir_file: the path of the direction file that the surface is said to belong to; that of
            the file that the landscape was read from if not given.

    Raises:
        FormatError: for a volume, when there is no loss to write, or when the place cannot be
            written.
    """
    if len(land.dims) > 2:
        raise FormatError(
            f"a {len(land.dims)}-dimensional landscape has no 2018 layout: write it with"
            " land.save('a.nc') or ls.formats.vtk.write(land, 'a.vts')."
        )
    columns = {new: _column(land.data[old]) for old, new in _file_names(land).items()}
    if not any(name.endswith("loss") for name in columns):
        raise FormatError(f"the landscape holds {list(land.data)}; a surface file needs a loss.")
    path = Path(path)
    shape = land.data[land.quantity].shape[::-1]
    with _made(path) as file:
        named = str(land.data.attrs.get("dir_file", "")) if dir_file is None else dir_file
        file.create_dataset("dir_file", data=named, dtype=h5py.string_dtype())
        for dim in land.dims:
            file.create_dataset(f"{dim}coordinates", data=land.data[dim].values, dtype="f8")
        for name, values in columns.items():
            file.create_dataset(name, data=values.reshape(shape), dtype="f8")
    return path


def read_directions(path: str | os.PathLike[str], params: Mapping[str, Tensor]) -> list[Params]:
    """Return the directions in a file of the 2018 scripts, one or two of them.

    Args:
        path: a direction file, or a file of PCA directions.
        params: ``objective.center`` for directions over parameters, ``objective.states`` for
            directions over states (their integer counters, which the file holds too, are left
            out), in the order of the model.

    Returns:
        Params on the device and in the dtype of ``params``.

    Raises:
        FormatError: when the file is no direction file, or its tensors do not fit ``params``.
    """
    known = wrap(params)
    with _opened(path) as file:
        groups = [group for group in _GROUPS if group in file]
        if not groups:
            raise FormatError(
                f"{path} has no xdirection, so it holds no directions: it holds {_listed(file)}."
            )
        return [_matched(_members(file[group]), known, f"{path}: {group}") for group in groups]


def write_directions(
    directions: Sequence[Mapping[str, Tensor]],
    path: str | os.PathLike[str],
    *,
    states: Mapping[str, Tensor] | None = None,
    explained: Explained | PCA | None = None,
) -> Path:
    """Write one or two directions in the layout of the 2018 scripts; return the path.

    Args:
        directions: Params in the order of the model.
        path: the file.
        states: ``model.state_dict()``, for directions over states: entries that a direction does
            not hold (integer counters) are then written as 0, as the layout asks.
        explained: for principal components, what they hold: that of ``ls.directions.pca``.

    Raises:
        FormatError: when there is none, or more than two, or when the place cannot be written.
    """
    given = [directions] if isinstance(directions, Mapping) else list(directions)
    if not 1 <= len(given) <= 2:
        raise FormatError(f"{len(given)} directions are given; the layout of 2018 holds 1 or 2.")
    path = Path(path)
    with _made(path) as file:
        for group, direction in zip(_GROUPS, given, strict=False):
            names = list(direction if states is None else states)
            for index, name in enumerate(names):
                tensor = direction.get(name, torch.zeros(()))
                values = tensor.detach().cpu().float().numpy()
                file.create_dataset(f"{group}/{index}", data=values, dtype="f4")
        for name in _EXPLAINED if explained is not None else ():
            values = np.asarray(getattr(explained, name.removesuffix("_")))[: len(given)]
            file.create_dataset(name, data=values, dtype="f4")
    return path


def read_explained(path: str | os.PathLike[str]) -> Explained:
    """Return what the principal components in a direction file hold of their path.

    Raises:
        FormatError: when the file says nothing of it.
    """
    with _opened(path) as file:
        missing = next((name for name in _EXPLAINED if name not in file), None)
        if missing is not None:
            raise FormatError(
                f"{path} has no {missing}, so its directions are no principal components: it holds"
                f" {_listed(file)}."
            )
        return Explained(*(np.asarray(file[name], dtype=np.float64) for name in _EXPLAINED))


def read_projection(path: str | os.PathLike[str]) -> Projection:
    """Return the coordinates of checkpoints in a projection file of the 2018 scripts.

    Raises:
        FormatError: when the file is no projection.
    """
    with _opened(path) as file:
        if "proj_xcoord" not in file:
            raise FormatError(f"{path} has no proj_xcoord: it holds {_listed(file)}.")
        y = np.asarray(file["proj_ycoord"]) if "proj_ycoord" in file else None
        return Projection(np.asarray(file["proj_xcoord"]), y)


def write_projection(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray | None,
    path: str | os.PathLike[str],
) -> Path:
    """Write the coordinates of checkpoints as a projection file of the 2018 scripts.

    Args:
        x: shape (checkpoints,), such as ``ls.paths.project(...).data["x"]``.
        y: the same; None for one direction.
        path: the file.

    Returns:
        The path.

    Raises:
        FormatError: when x and y have not one number a checkpoint each, or when the place cannot
            be written.
    """
    columns = {"proj_xcoord": x} if y is None else {"proj_xcoord": x, "proj_ycoord": y}
    shapes = {np.shape(column) for column in columns.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise FormatError(
            f"x and y have the shapes {sorted(shapes)}; expected one number a checkpoint in each."
        )
    path = Path(path)
    with _made(path) as file:
        for name, column in columns.items():
            file.create_dataset(name, data=np.asarray(column), dtype="f8")
    return path


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    if not Path(path).is_file():
        raise FormatError(f"{path} does not exist or is no file: check the name.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"{path} is not an HDF5 file ({error}).") from error
    with file:
        yield file


@contextmanager
def _made(path: Path) -> Iterator[h5py.File]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part, h5py.File(part, "w") as file:
            yield file
    except OSError as error:
        raise FormatError(
            f"{path} cannot be written ({error}): choose a folder that you may write to."
        ) from error


def _is_value(name: str) -> bool:
    prefix, _, rest = name.partition("_")
    return name in _EIGENVALUES or (prefix in ("train", "test") and rest in _NAMES)


def _variables(
    columns: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    batches: int | None,
) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]:
    both = any(name.startswith("test_") for name in columns)
    empty = _unfilled(columns)
    found = {}
    for name, values in columns.items():
        flat = np.where(empty[name], np.nan, values.reshape(-1))
        if name in _EIGENVALUES:
            what = _SUM if batches is None else _MEAN.format(batches)
            title, notes = _EIGENVALUES[name], {"units": "", "long_name": f"{name}: {what}"}
            flat = flat / (batches or 1)
        else:
            prefix, _, rest = name.partition("_")
            title = f"{prefix}_{_NAMES[rest]}" if both else _NAMES[rest]
            words = {"train": "training ", "test": "test "}[prefix] if both else ""
            units = "%" if rest == "acc" else ""
            notes = {"units": units, "long_name": f"{words}{_NAMES[rest]}"}
        found[title] = (dims, flat.reshape(shape), notes)
    if set(_EIGENVALUES.values()) <= set(found):
        low, high = (found[name][1] for name in ("hessian_min", "hessian_max"))
        with np.errstate(divide="ignore", invalid="ignore"):
            notes = {"units": "1", "long_name": "|min / max| eigenvalue of the Hessian"}
            found["convexity"] = (dims, np.abs(low / high), notes)
    return found


def _unfilled(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return which cells hold no value yet: those where every column of a kind has its mark.

    A loss may truly be -1: where the accuracy beside it is there, it is a value.
    """
    marks = {n: v.reshape(-1) == _UNFILLED.get(n, -1.0) for n, v in columns.items()}
    kinds = {n: "eig" if n in _EIGENVALUES else n.partition("_")[0] for n in columns}
    return {
        name: np.logical_and.reduce([marks[other] for other in columns if kinds[other] == kind])
        for name, kind in kinds.items()
    }


def _axis(dim: str) -> dict[str, str]:
    return {"units": "1", "long_name": f"direction {dim}"}


def _file_names(land: Landscape) -> dict[str, str]:
    """Return the landscape's name -> the file's name for all that the layout can hold."""
    found = {}
    for name in map(str, land.data):
        prefix, _, rest = name.partition("_")
        split = (prefix, rest) if prefix in ("train", "test") else ("train", name)
        short = {"loss": "loss", "accuracy": "acc"}.get(split[1])
        if short:
            found[name] = f"{split[0]}_{short}"
    eigenvalues = {new: old for old, new in _EIGENVALUES.items() if new in land.data}
    return {**found, **eigenvalues}


def _column(variable: xr.DataArray) -> np.ndarray:
    values = np.asarray(variable.values, dtype=np.float64).reshape(-1)
    finite = values[np.isfinite(values)]
    share = "accuracy" in str(variable.name) and variable.attrs.get("units") != "%"
    if share and finite.size and finite.min() >= 0 and finite.max() <= 1:
        return 100.0 * values
    return values


def _members(group: h5py.Group) -> list[np.ndarray]:
    return [np.asarray(group[str(index)]) for index in range(len(group))]


def _matched(members: list[np.ndarray], params: Params, what: str) -> Params:
    """Give the members, in order, the names of params; counters (no dimensions) are passed over."""
    left, surplus = iter(members), len(members) - len(params)
    found = {}
    for name, tensor in params.items():
        member = next(left, None)
        while member is not None and member.shape != tensor.shape and member.ndim == 0 < surplus:
            member, surplus = next(left, None), surplus - 1
        if member is None or member.shape != tuple(tensor.shape):
            raise FormatError(
                f"{what} has {len(members)} tensors, of which"
                f" {'none is left' if member is None else f'the next has shape {member.shape}'}"
                f" for {name!r} of shape {tuple(tensor.shape)}: pass objective.center for a file"
                " over weights, objective.states for one over states, of the same network."
            )
        found[name] = torch.from_numpy(member).to(tensor.device, tensor.dtype)
    rest = [member for member in left if member.ndim]
    if rest:
        raise FormatError(
            f"{what} has {len(rest)} tensors more than the {len(params)} parameters given: pass"
            " objective.states for a file over states."
        )
    return like(params, found)


def _text(dataset: h5py.Dataset) -> str:
    value = dataset[()]
    return value.decode() if isinstance(value, bytes) else str(value)


def _listed(file: h5py.File) -> str:
    return ", ".join(list(file)[:6]) or "nothing"


def __dir__() -> list[str]:
    return __all__
