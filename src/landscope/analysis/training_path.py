"""A training path: where the checkpoints of a trajectory lie on a slice, as a value with a file."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from landscope.errors import FormatError, SliceError
from landscope.files import whole

if TYPE_CHECKING:
    import xarray as xr


@final
@dataclass(frozen=True, eq=False)
class TrainingPath:
    """The checkpoints of a trajectory on a slice.

    Args:
        data: variables over the one dim "checkpoint": "x" (and "y", "z"), the coordinates;
            "distance" from the checkpoint to the point with these coordinates, and
            "relative_distance", its share of the distance to the center (0 at the center);
            "step", "epoch" and "learning_rate", NaN where they were not recorded; and, where an
            objective was given, "loss" at the checkpoint and "projected_loss" at its projection,
            and so with each metric.

    Raises:
        FormatError: when these are not the variables of a path.
    """

    data: xr.Dataset

    def __post_init__(self) -> None:
        odd = [str(n) for n, v in self.data.items() if v.dims != ("checkpoint",)]
        if odd or "x" not in self.data:
            what = f"{odd[0]} is over {self.data[odd[0]].dims}" if odd else "there is no x"
            raise FormatError(
                f"these are no data of a path: {what}; expected coordinates over 'checkpoint', as"
                " ls.paths.project returns them."
            )

    @property
    def name(self) -> str:
        """The name of the trajectory, for legends."""
        return str(self.data.attrs.get("title", ""))

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the path to a .nc file (netCDF-4), which appears whole or not at all; return it.

        Raises:
            FormatError: when the ending is another, or the place cannot be written.
        """
        place = pathlib.Path(path)
        if place.suffix != ".nc":
            raise FormatError(f"path={str(path)!r}; a path of training is saved as a .nc file.")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with whole(place) as part:
                self.data.to_netcdf(part, engine="h5netcdf")
        except OSError as error:
            raise FormatError(
                f"{place} cannot be written ({error}): choose a folder that you may write to."
            ) from error
        return place

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrainingPath:
        """Return the path in a file that :meth:`save` wrote.

        Raises:
            FormatError: when there is no such file, or it holds no path.
        """
        import xarray as xr

        if not pathlib.Path(path).is_file():
            raise FormatError(f"{path} does not exist or is no file: check the name.")
        try:
            with xr.open_dataset(path, engine="h5netcdf") as data:
                return cls(data.load())
        except (OSError, KeyError, ValueError) as error:
            raise FormatError(f"{path} cannot be read as a path of training ({error}).") from error


def spans(
    paths: TrainingPath | Iterable[TrainingPath], margin: float = 0.2
) -> list[tuple[float, float]]:
    """Return (first, last) of each axis of a picture that shows whole paths.

    No axis is less than half as long as another, so that pictures can have one unit of length.

    Args:
        paths: one path, or several on one slice.
        margin: what is left free on every side, as a share of the longest axis.

    Raises:
        SliceError: when no coordinate is finite, or margin is negative or infinite.
    """
    found = [paths] if isinstance(paths, TrainingPath) else list(paths)
    dims = [dim for dim in ("x", "y", "z") if all(dim in path.data for path in found)]
    columns = [np.concatenate([path.data[dim].values for path in found]) for dim in dims if found]
    finite = [column[np.isfinite(column)] for column in columns]
    if not finite or not all(column.size for column in finite) or not 0 <= margin < math.inf:
        raise SliceError(
            f"{len(found)} paths, margin={margin}; expected paths with finite coordinates, and a"
            " margin of 0 or more."
        )
    longest = max(float(np.ptp(column)) for column in finite) or 1.0
    return [_span(column, longest, margin) for column in finite]


def _span(values: np.ndarray, longest: float, margin: float) -> tuple[float, float]:
    half = max(float(np.ptp(values)), longest / 2) / 2 + margin * longest
    middle = float(values.min() + values.max()) / 2
    unit = 10.0 ** (math.floor(math.log10(half)) - 1)  # two digits: axes that can be read
    ends = math.floor((middle - half) / unit), math.ceil((middle + half) / unit)
    return float(f"{ends[0] * unit:.12g}"), float(f"{ends[1] * unit:.12g}")
