"""Projection files of the 2018 scripts: the coordinates of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from landscope.errors import FormatError
from landscope.formats.hdf5 import create_file, list_members, open_file


class Projection(NamedTuple):
    """The coordinates of checkpoints along one or two directions.

    Args:
        x: The coordinates along the first direction, shape (checkpoints,).
        y: The coordinates along the second one; None in a file of one direction.
    """

    x: np.ndarray
    y: np.ndarray | None


def read_projection(path: str | os.PathLike[str]) -> Projection:
    """Return the coordinates of checkpoints in a projection file of the 2018 scripts.

    Raises:
        FormatError: When the file is not a projection file.
    """
    with open_file(path) as file:
        if "proj_xcoord" not in file:
            raise FormatError(f"{path} has no proj_xcoord: it holds {list_members(file)}.")
        y = np.asarray(file["proj_ycoord"]) if "proj_ycoord" in file else None
        return Projection(np.asarray(file["proj_xcoord"]), y)


def write_projection(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray | None,
    path: str | os.PathLike[str],
) -> Path:
    """Write the coordinates of checkpoints as a projection file of the 2018 scripts.

    Args:
        x: The coordinates along the first direction, shape (checkpoints,), such as
            ``ls.paths.project(...).data["x"]``.
        y: The coordinates along the second one; None for one direction.
        path: The file.

    Returns:
        The path.

    Raises:
        FormatError: When x and y do not have one number per checkpoint, or when the file cannot be
            written.
    """
    coordinates = {"proj_xcoord": x} if y is None else {"proj_xcoord": x, "proj_ycoord": y}
    shapes = {np.shape(values) for values in coordinates.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise FormatError(
            f"x and y have the shapes {sorted(shapes)}; expected one number per checkpoint in each."
        )
    path = Path(path)
    with create_file(path) as file:
        for name, values in coordinates.items():
            file.create_dataset(name, data=np.asarray(values), dtype="f8")
    return path
