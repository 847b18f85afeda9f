"""HDF5 files, opened and created with errors that say what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from landscope.errors import FormatError
from landscope.files import explain_write_errors, write_atomically


@contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """Yield an open file, to read from.

    Raises:
        FormatError: When the file does not exist or is not an HDF5 file.
    """
    if not Path(path).is_file():
        raise FormatError(f"{path} does not exist or is not a file: check the name.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"{path} is not an HDF5 file ({error}).") from error
    with file:
        yield file


@contextmanager
def create_file(path: Path) -> Iterator[h5py.File]:
    """Yield an empty file, which is written completely or not at all.

    Raises:
        FormatError: When the file cannot be written.
    """
    with explain_write_errors(path), write_atomically(path) as part, h5py.File(part, "w") as file:
        yield file


def list_members(file: h5py.File) -> str:
    """Return the names of the first members of a file, for error messages."""
    return ", ".join(list(file)[:6]) or "nothing"
