"""Files that appear whole or not at all, and the folder of what can be made again."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()  # read once: reading sets it for a moment, for every thread


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Lend a temporary file beside ``path`` that takes its place when the block ends well."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_UMASK)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_once(path: Path, text: str) -> None:
    """Write a small file, unless another process wrote it first."""
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
    """Return where trained networks and plans are kept: $LANDSCOPE_CACHE, or the user's cache."""
    named = os.environ.get("LANDSCOPE_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "landscope"
