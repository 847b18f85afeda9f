"""Landscape: the result of a scan, an xarray Dataset with units and provenance.

The dimensions are ("x",) for a line, ("y", "x") for a plane and ("z", "y", "x") for a volume.
Cells that were not evaluated, and cells whose loss is not a number, are NaN.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscope.errors import FormatError
from landscope.extras import optional
from landscope.files import whole

if TYPE_CHECKING:
    import h5py
    import xarray as xr

AXES = ("z", "y", "x")
SUFFIXES = (".nc", ".zarr", ".csv")
_CSV_HEADER = "# landscope "


@dataclass(frozen=True, eq=False)
class Landscape:
    """Values of a loss, and of metrics, over a slice of parameter space.

    Args:
        data: the values, one variable a quantity, with dims a tail of ("z", "y", "x"). Attributes
            of a variable: ``units`` and ``long_name``; attributes of the dataset: where it all
            came from (text, numbers, or JSON).
        seconds: wall-clock time that the values took, over all sessions; None where unknown.
            It is not stored with the data: the same question gives the same file, bit for bit.

    Raises:
        FormatError: when the dimensions are not those of a line, a plane or a volume.
    """

    data: xr.Dataset
    seconds: float | None = None

    def __post_init__(self) -> None:
        dims = self.dims
        if not dims or dims != AXES[-len(dims) :]:
            raise FormatError(
                f"data has the dimensions {dims}; a landscape has ('x',), ('y', 'x') or"
                " ('z', 'y', 'x'): rename or transpose the dataset."
            )

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes, slowest first."""
        return max((tuple(map(str, v.dims)) for v in self.data.values()), key=len, default=())

    @property
    def quantity(self) -> str:
        """The name of the quantity that is drawn when none is asked for: a loss if there is one."""
        names = [str(name) for name in self.data]
        return next((n for n in ("loss", "train_loss") if n in names), names[0])

    def axes(self) -> tuple[np.ndarray, ...]:
        """Coordinates along each axis, in the order of ``dims``."""
        return tuple(np.asarray(self.data[dim].values, dtype=np.float64) for dim in self.dims)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the landscape to a .nc (netCDF-4), .zarr (folder) or .csv file; return its path.

        A file appears whole or not at all.

        Raises:
            FormatError: when the ending is none of these, or the place cannot be written.
        """
        path = Path(path)
        writers = {".nc": self._write_netcdf, ".zarr": self._write_zarr, ".csv": self._write_csv}
        if path.suffix not in writers:
            raise FormatError(
                f"path={str(path)!r} ends in {path.suffix!r}; a landscape is saved as"
                f" {', '.join(SUFFIXES)}: choose one of these endings."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            writers[path.suffix](path)
        except OSError as error:
            raise FormatError(
                f"{path} cannot be written ({error}): choose a folder that you may write to."
            ) from error
        return path

    def _write_netcdf(self, path: Path) -> None:
        import h5netcdf
        from xarray.backends import H5NetCDFStore

        with (
            whole(path) as part,
            _timeless_hdf5(part) as raw,
            h5netcdf.File(raw, "r+") as file,
        ):
            self.data.dump_to_store(H5NetCDFStore(file))

    def _write_zarr(self, path: Path) -> None:
        optional("zarr", extra="zarr")
        self.data.to_zarr(path, mode="w", consolidated=False, zarr_format=3)

    def _write_csv(self, path: Path) -> None:
        frame = self.data.to_dataframe(dim_order=list(self.dims)).reset_index()
        notes = {
            "attributes": dict(self.data.attrs),
            "variables": {str(n): dict(v.attrs) for n, v in self.data.variables.items()},
            "dtypes": {str(n): str(v.dtype) for n, v in self.data.variables.items()},
            "dims": list(self.dims),
        }
        with whole(path) as part, part.open("w", newline="") as file:
            file.write(_CSV_HEADER + json.dumps(notes, default=_plain) + "\n")
            frame.to_csv(file, index=False, float_format="%.17g", na_rep="nan")


def load(path: str | os.PathLike[str]) -> Landscape:
    """Return the landscape stored in a file written by :meth:`Landscape.save`.

    Args:
        path: a .nc file, a .zarr folder, a .csv file, or a run folder of the command line.

    Raises:
        FormatError: when there is no such file or it holds no landscape.
    """
    path = Path(path)
    if path.is_dir() and path.suffix != ".zarr":
        path = path / "landscape.nc"
    readers = {".nc": _read_netcdf, ".zarr": _read_zarr, ".csv": _read_csv}
    if path.suffix not in readers:
        raise FormatError(
            f"path={str(path)!r} is not a landscape; expected a file ending in"
            f" {', '.join(SUFFIXES)}, or the folder of a run."
        )
    if not path.exists():
        raise FormatError(f"{path} does not exist: check the name, or make it with a scan.")
    try:
        return Landscape(readers[path.suffix](path))
    except (OSError, KeyError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as a landscape ({error}).") from error


@contextlib.contextmanager
def _timeless_hdf5(path: Path) -> Iterator[h5py.File]:
    """Make an HDF5 file without the time of its making, so that equal data give equal files."""
    import h5py

    created = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    created.set_obj_track_times(False)
    in_order = h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED  # netCDF-4 asks for it
    created.set_link_creation_order(in_order)
    created.set_attr_creation_order(in_order)
    made = h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, fcpl=created)
    with h5py.File(made) as file:
        yield file


def _read_netcdf(path: Path) -> xr.Dataset:
    import xarray as xr

    with xr.open_dataset(path, engine="h5netcdf") as data:
        return data.load()


def _read_zarr(path: Path) -> xr.Dataset:
    import xarray as xr

    optional("zarr", extra="zarr")
    with xr.open_zarr(path, consolidated=False) as data:
        loaded: xr.Dataset = data.load()
    return loaded


def _read_csv(path: Path) -> xr.Dataset:
    import pandas as pd

    with path.open() as file:
        header = file.readline()
        if not header.startswith(_CSV_HEADER):
            raise ValueError(f"its first line does not begin with {_CSV_HEADER!r}")
        notes = json.loads(header.removeprefix(_CSV_HEADER))
        texts = pd.read_csv(file, dtype=str, keep_default_na=False)
    # numpy reads a number as Python does, to the last bit; the default of pandas may not.
    numbers = {n: texts[n].to_numpy(str).astype(t) for n, t in notes["dtypes"].items()}
    frame = pd.DataFrame(numbers)
    data: xr.Dataset = frame.set_index(notes["dims"]).to_xarray()
    for name, attributes in notes["variables"].items():
        data[name].attrs.update(attributes)
    return data.assign_attrs(notes["attributes"])


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)
