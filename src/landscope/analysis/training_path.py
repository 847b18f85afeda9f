"""A training path: where the checkpoints of a trajectory lie on a slice, as a value with a file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from landscope.errors import FormatError, SliceError
from landscope.files import explain_write_errors, read_netcdf, write_netcdf

if TYPE_CHECKING:
    import xarray as xr


@final
@dataclass(frozen=True, eq=False)
class TrainingPath:
    """The checkpoints of a trajectory on a slice.

    Args:
        data: The values, one variable per quantity over the dimension "checkpoint": "x" (and "y",
            "z"), the coordinates; "distance", from the checkpoint to the point with these
            coordinates, and "relative_distance", its share of the distance between checkpoint and
            center (0 at the center); "step", "epoch" and "learning_rate", NaN if they were not
            recorded. With an objective there are also "loss", at the checkpoint, and
            "projected_loss", at its projection, and the same for each metric.

    Raises:
        FormatError: When the variables are not those of a path.
    """

    data: xr.Dataset

    def __post_init__(self) -> None:
        wrong = [str(n) for n, v in self.data.items() if v.dims != ("checkpoint",)]
        if wrong or "x" not in self.data:
            problem = f"{wrong[0]} is over {self.data[wrong[0]].dims}" if wrong else "there is no x"
            raise FormatError(
                f"these data are not a training path: {problem}; expected coordinates over"
                " 'checkpoint', as ls.paths.project returns them."
            )

    def __repr__(self) -> str:
        axes = ", ".join(name for name in ("x", "y", "z") if name in self.data)
        count, columns = self.data.sizes["checkpoint"], ", ".join(map(str, self.data))
        return f"<TrainingPath {self.name!r}: {count} checkpoints over {axes}; columns: {columns}>"

    @property
    def name(self) -> str:
        """The name of the trajectory, for legends."""
        return str(self.data.attrs.get("title", ""))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the path to a .nc file (netCDF-4), completely or not at all; return the file.

        Raises:
            FormatError: When the suffix is another one, or the file cannot be written.
        """
        file = Path(path)
        if file.suffix != ".nc":
            raise FormatError(f"path={str(path)!r}; a training path is saved as a .nc file.")
        with explain_write_errors(file):
            write_netcdf(self.data, file)
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrainingPath:
        """Return the path in a file that :meth:`save` wrote.

        Raises:
            FormatError: When the file does not exist or holds no path.
        """
        file = Path(path)
        if not file.is_file():
            raise FormatError(f"{path} does not exist or is not a file: check the name.")
        try:
            return cls(read_netcdf(file))
        except (OSError, KeyError, ValueError) as error:
            raise FormatError(f"{path} cannot be read as a training path ({error}).") from error


def spans(
    paths: TrainingPath | Iterable[TrainingPath], margin: float = 0.2
) -> list[tuple[float, float]]:
    """Return the ends (first, last) of each axis of a picture that shows whole paths.

    No axis is less than half as long as another, so that all axes of a picture can have one scale.

    Args:
        paths: One path, or several on one slice.
        margin: The free space on every side, as a share of the longest axis; 0 or more.

    Raises:
        SliceError: When no coordinate is finite, or the margin is out of range.
    """
    shown = [paths] if isinstance(paths, TrainingPath) else list(paths)
    dims = [dim for dim in ("x", "y", "z") if all(dim in path.data for path in shown)]
    axes = [np.concatenate([path.data[dim].values for path in shown]) for dim in dims if shown]
    finite = [coordinates[np.isfinite(coordinates)] for coordinates in axes]
    if not finite or not all(axis.size for axis in finite) or not 0 <= margin < math.inf:
        raise SliceError(
            f"{len(shown)} paths, margin={margin}; expected paths with finite coordinates, and a"
            " margin of 0 or more."
        )
    longest = max(float(np.ptp(axis)) for axis in finite) or 1.0
    return [_span(axis, longest, margin) for axis in finite]


def _span(coordinates: np.ndarray, longest: float, margin: float) -> tuple[float, float]:
    half = max(float(np.ptp(coordinates)), longest / 2) / 2 + margin * longest
    middle = float(coordinates.min() + coordinates.max()) / 2
    unit = 10.0 ** (math.floor(math.log10(half)) - 1)  # ends rounded to two digits are easy to read
    first, last = math.floor((middle - half) / unit), math.ceil((middle + half) / unit)
    return float(f"{first * unit:.12g}"), float(f"{last * unit:.12g}")
