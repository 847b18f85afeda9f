"""Direction files of the 2018 scripts: random directions, or principal components."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import h5py
import numpy as np
import torch
from torch import Tensor

from landscope.errors import FormatError
from landscope.formats.hdf5 import create_file, list_members, open_file
from landscope.params import Params, like, wrap

_GROUPS = ("xdirection", "ydirection", "zdirection")
_EXPLAINED = ("explained_variance_ratio_", "explained_variance_", "singular_values_")


class Explained(NamedTuple):
    """The variance that principal components explain.

    Args:
        explained_variance_ratio: The shares of the total variance, shape (d,).
        explained_variance: The variances sigma^2 / (checkpoints - 1), shape (d,).
        singular_values: The singular values sigma of the centered checkpoints, shape (d,).
    """

    explained_variance_ratio: np.ndarray
    explained_variance: np.ndarray
    singular_values: np.ndarray


class _Components(Protocol):
    """Principal components with the fields of :class:`Explained`."""

    @property
    def explained_variance_ratio(self) -> np.ndarray: ...
    @property
    def explained_variance(self) -> np.ndarray: ...
    @property
    def singular_values(self) -> np.ndarray: ...


def read_directions(path: str | os.PathLike[str], params: Mapping[str, Tensor]) -> list[Params]:
    """Return the directions in a file of the 2018 scripts, one or two of them.

    Args:
        path: A direction file, or a file of PCA directions.
        params: ``objective.center`` for directions over parameters, ``objective.states`` for
            directions over states (their integer counters in the file are skipped), in the order
            of the model.

    Returns:
        Params on the device and in the dtype of ``params``.

    Raises:
        FormatError: When the file is not a direction file, or its tensors do not fit ``params``.
    """
    template = wrap(params)
    with open_file(path) as file:
        groups = [group for group in _GROUPS if group in file]
        if not groups:
            raise FormatError(
                f"{path} has no xdirection, so it holds no directions: it holds"
                f" {list_members(file)}."
            )
        return [
            _assign_names(_read_members(file[group]), template, f"{path}: {group}")
            for group in groups
        ]


def write_directions(
    directions: Sequence[Mapping[str, Tensor]],
    path: str | os.PathLike[str],
    *,
    states: Mapping[str, Tensor] | None = None,
    explained: _Components | None = None,
) -> Path:
    """Write one or two directions in the layout of the 2018 scripts; return the path.

    Args:
        directions: Params in the order of the model.
        path: The file.
        states: ``model.state_dict()``, for directions over states: entries that a direction does
            not have (integer counters) are then written as 0, as the layout demands.
        explained: The variance that principal components explain, an :class:`Explained` or what
            ``ls.directions.pca`` returned; None for other directions.

    Raises:
        FormatError: When there is no direction, or more than two, or when the file cannot be
            written.
    """
    given = [directions] if isinstance(directions, Mapping) else list(directions)
    if not 1 <= len(given) <= 2:
        raise FormatError(f"{len(given)} directions are given; the layout of 2018 holds 1 or 2.")
    path = Path(path)
    with create_file(path) as file:
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
    """Return the variance that the principal components in a direction file explain.

    Raises:
        FormatError: When the file does not contain it.
    """
    with open_file(path) as file:
        missing = next((name for name in _EXPLAINED if name not in file), None)
        if missing is not None:
            raise FormatError(
                f"{path} has no {missing}, so its directions are not principal components: it holds"
                f" {list_members(file)}."
            )
        return Explained(*(np.asarray(file[name], dtype=np.float64) for name in _EXPLAINED))


def _read_members(group: h5py.Group) -> list[np.ndarray]:
    return [np.asarray(group[str(index)]) for index in range(len(group))]


def _assign_names(members: list[np.ndarray], params: Params, source: str) -> Params:
    """Return the members under the names of params, in order; surplus counters are skipped.

    Args:
        members: The arrays in the file; a counter has no dimensions.
        params: The names and shapes.
        source: The place in the file, for errors.
    """
    remaining, surplus = iter(members), len(members) - len(params)
    tensors = {}
    for name, tensor in params.items():
        member = next(remaining, None)
        while member is not None and member.shape != tensor.shape and member.ndim == 0 < surplus:
            member, surplus = next(remaining, None), surplus - 1
        if member is None or member.shape != tuple(tensor.shape):
            raise FormatError(
                f"{source} has {len(members)} tensors, of which"
                f" {'none is left' if member is None else f'the next has shape {member.shape}'}"
                f" for {name!r} of shape {tuple(tensor.shape)}: pass objective.center for a file"
                " over weights, objective.states for one over states, of the same network."
            )
        tensors[name] = torch.from_numpy(member).to(tensor.device, tensor.dtype)
    rest = [member for member in remaining if member.ndim]
    if rest:
        raise FormatError(
            f"{source} has {len(rest)} tensors more than the {len(params)} parameters given: pass"
            " objective.states for a file over states."
        )
    return like(params, tensors)
