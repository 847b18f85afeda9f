"""Files that are written completely or not at all, and the cache folder."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from landscope.errors import FormatError

if TYPE_CHECKING:
    import h5py
    import xarray as xr


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_LONG = 200  # characters of a text that nobody reads
_FULL = ("no space left", "quota exceeded", "disk is full", "errno = 28", "errno = 122")
_UMASK = _read_umask()  # read once, because reading changes it briefly for every thread


def to_path(path: object) -> Path:
    """Return the path that an argument stands for.

    Raises:
        FormatError: When it is neither a text nor a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise FormatError(
            f"path is a {type(path).__name__}; expected the name of a file or folder, such as"
            " 'run/landscape.nc'."
        )
    return Path(path)


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces ``path`` when the block ends without an error."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_UMASK)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Create the folder of a file, and explain the errors of writing the file.

    Raises:
        FormatError: When the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        problem = shorten(error)
        raise FormatError(f"{path} cannot be written ({problem}): {advise(error)}.") from error


def shorten(error: Exception) -> str:
    """Return the text of an error in one line; HDF5 tells of every byte that it wrote."""
    text = " ".join(str(error).split())
    number = error.errno if isinstance(error, OSError) else None
    return (
        text if number is None or len(text) < _LONG else f"[Errno {number}] {os.strerror(number)}"
    )


def advise(error: Exception) -> str:
    """Return what to do about an error of the file system: make room, or choose another folder."""
    text = str(error).lower()
    if any(word in text for word in _FULL):
        return "the disk is full or your quota is used up; make room there, or choose another disk"
    if "file name too long" in text:
        return "choose a shorter name"
    return "choose a folder that you may write to"


def write_netcdf(data: xr.Dataset, path: Path) -> None:
    """Write a dataset as a netCDF-4 file, completely or not at all; equal data give equal bytes.

    Raises:
        OSError: When the file cannot be written.
    """
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    with (
        write_atomically(path) as part,
        _create_timeless_hdf5(part) as raw,
        h5netcdf.File(raw, "r+") as file,
    ):
        data.dump_to_store(H5NetCDFStore(file))


def read_netcdf(path: Path) -> xr.Dataset:
    """Return the dataset in a netCDF-4 file, in memory.

    Raises:
        OSError: When the file is not a netCDF-4 file.
        ValueError: When its variables cannot be decoded.
    """
    import xarray as xr

    with xr.open_dataset(path, engine="h5netcdf") as data:
        return data.load()


@contextlib.contextmanager
def _create_timeless_hdf5(path: Path) -> Iterator[h5py.File]:
    """Create an HDF5 file without its creation time."""
    import h5py

    properties = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    properties.set_obj_track_times(False)
    in_order = h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED  # netCDF-4 requires it
    properties.set_link_creation_order(in_order)
    properties.set_attr_creation_order(in_order)
    identifier = h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, fcpl=properties)
    with h5py.File(identifier) as file:
        yield file


@contextlib.contextmanager
def write_folder_atomically(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary folder that replaces ``path`` when the block ends well."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as outer:
        part = Path(outer) / path.name
        yield part
        if path.is_dir():
            path.replace(Path(outer) / "before")
        part.replace(path)


def write_once(path: Path, text: str) -> None:
    """Write a small text file completely; if another process wrote it first, its file is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        part.chmod(0o666 & ~_UMASK)
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink()


def cache_folder() -> Path:
    """Return the folder of trained networks and plans: $LANDSCOPE_CACHE, or the user's cache."""
    folder = os.environ.get("LANDSCOPE_CACHE")
    if folder:
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "landscope"
