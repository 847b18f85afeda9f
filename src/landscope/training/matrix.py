"""Columns: the weights of many checkpoints as one matrix that stays on disk.

Row k is checkpoint k, and a column is one weight of all of them. The matrix is read by ranges of
columns, with plain reads at offsets, so that memory holds a part of every checkpoint and never a
whole one. Columns stand in the order of the first file, where neighbors are read in one go.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, final

import numpy as np
from torch import Tensor

from landscope.errors import FormatError, ParamsError
from landscope.params import Layout, as_bytes
from landscope.training.tensorfile import DTYPES, Entry, fill
from landscope.training.trajectory import Checkpoint

_OPEN = 100  # files that a reader keeps open; those of the checkpoints beyond are opened anew
_KINDS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Piece = tuple[str, int, int, int]
"""A tensor, its first and last column in a block, and its first entry there."""
_Run = tuple[int, int, int, str]  # first and last column, first byte after the base, dtype
_Cut = tuple[int, int, int, memoryview, np.ndarray]  # as a run; bytes, and the same as numbers
_Row = tuple[Path, int, tuple[_Run, ...]]  # file, base: its first byte of interest, runs


@contextlib.contextmanager
def opened(checkpoints: Sequence[Checkpoint], ignore: str | None = None) -> Iterator[Columns]:
    """Lend the weights of checkpoints as a matrix [n, p].

    Old files cannot be read in parts: they are loaded once, one by one, and their weights put into
    a temporary file.

    Args:
        checkpoints: the rows; all with the names and shapes of the first.
        ignore: "biasbn" puts vectors (biases, batch norm) last, beyond ``moving``.

    Raises:
        ParamsError: when the checkpoints do not have the same parameters.
        FormatError: when a file is gone or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="landscope-") as folder:
        places = [_place(checkpoint, Path(folder) / "weights") for checkpoint in checkpoints]
        yield Columns(checkpoints, places, ignore)


@final
class Columns:
    """The weights of checkpoints, [n, p]: columns that move first, then those that are ignored.

    Args:
        checkpoints: the rows.
        places: the file of each, and where its tensors are, in the order of the model.
        ignore: as for :func:`opened`.
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        places: Sequence[tuple[Path, dict[str, Entry]]],
        ignore: str | None,
    ) -> None:
        self.checkpoints = list(checkpoints)
        self._check([entries for _, entries in places])
        first = places[0][1]
        vectors = {n for n in first if _is_vector(self.checkpoints[0], n, first[n])}
        still = vectors if ignore == "biasbn" else set()
        self.shapes = {name: entry.shape for name, entry in first.items()}
        self.dtypes = {name: DTYPES[entry.dtype] for name, entry in first.items()}
        order = sorted(first, key=lambda name: (name in still, first[name].start))
        ends = list(itertools.accumulate(math.prod(self.shapes[name]) for name in order))
        self.starts = dict(zip(order, [0, *ends[:-1]], strict=True))
        self.ends = dict(zip(order, ends, strict=True))
        self.total = ends[-1]
        self.moving = max((self.ends[name] for name in order if name not in still), default=0)
        self.bytes = sum(first[name].size for name in order if name not in still)
        shared: dict[tuple[_Run, ...], tuple[_Run, ...]] = {}
        self._rows: list[_Row] = []
        for path, entries in places:
            base = min(entry.start for entry in entries.values())  # heads differ in length
            runs = self._runs(base, [(name, entries[name]) for name in order])
            self._rows.append((path, base, shared.setdefault(runs, runs)))

    def __len__(self) -> int:
        return len(self._rows)

    def pieces(self, first: int, last: int) -> Iterator[Piece]:
        """Yield which tensors a range of columns belongs to."""
        for name, start in self.starts.items():
            low, high = max(first, start), min(last, self.ends[name])
            if low < high:
                yield name, low - first, high - first, low - start

    @contextlib.contextmanager
    def reader(self, width: int) -> Iterator[Reader]:
        """Lend what reads up to ``width`` columns at a time, for one thread."""
        with contextlib.ExitStack() as files:
            yield Reader(self._rows, width, files)

    def _check(self, places: Sequence[dict[str, Entry]]) -> None:
        first = places[0]
        for entries, checkpoint in zip(places, self.checkpoints, strict=True):
            odd = next((n for n in {**first, **entries} if _differs(n, first, entries)), None)
            if odd is None:
                continue
            shapes = [e[odd].shape if odd in e else "none" for e in (entries, first)]
            raise ParamsError(
                f"{odd!r} has the shape {shapes[0]} in {checkpoint.path} and {shapes[1]} in"
                f" {self.checkpoints[0].path}: checkpoints in one basis are of one network."
            )

    def _runs(self, base: int, entries: Sequence[tuple[str, Entry]]) -> tuple[_Run, ...]:
        """Return the ranges of columns that lie side by side in a file."""
        found: list[_Run] = []
        for name, entry in entries:
            run = (self.starts[name], self.ends[name], entry.start - base, entry.dtype)
            if found and _follows(run, found[-1]):
                run = (found[-1][0], run[1], found[-1][2], run[3])
                found.pop()
            found.append(run)
        return tuple(found)


@final
class Reader:
    """Reads ranges of columns, with files of its own.

    Args:
        rows: where the columns of each row lie.
        width: columns at a time, at most.
        files: where files that are kept open are registered.
    """

    def __init__(self, rows: Sequence[_Row], width: int, files: contextlib.ExitStack) -> None:
        self.width, self._rows, self._files = width, rows, files
        self._open: dict[Path, Any] = {}
        self._bytes = room(width).view(np.uint8)
        self._range = (0, 0)
        self._cuts: dict[int, list[_Cut]] = {}

    def row(self, index: int, first: int, last: int, out: np.ndarray) -> None:
        """Read the columns from first to last of one checkpoint into ``out``, float64.

        Raises:
            FormatError: when the file is gone or is shorter than it was.
        """
        path, base, runs = self._rows[index]
        if (first, last) != self._range:
            self._range, self._cuts = (first, last), {}
        cuts = self._cuts.get(id(runs))
        if cuts is None:
            cuts = self._cuts[id(runs)] = [self._cut(r) for r in runs if _meets(r, first, last)]
        for low, high, start, view, values in cuts:
            self._fill(path, base + start, view)
            out[low:high] = _wide(values) if values.dtype == np.uint16 else values

    def _cut(self, run: _Run) -> _Cut:
        """Return the part of a run in the range, counted from its first column."""
        begin, end, start, dtype = run
        first, last = self._range
        low, high = max(begin, first), min(end, last)
        size = DTYPES[dtype].itemsize
        part = self._bytes[: (high - low) * size]
        return low - first, high - first, start + (low - begin) * size, part.data, part.view(
            _KINDS[dtype])  # fmt: skip

    def _fill(self, path: Path, start: int, view: memoryview) -> None:
        try:
            file = self._open.get(path)
            if file is None and len(self._open) < _OPEN:
                file = self._files.enter_context(path.open("rb", buffering=0))
                self._open[path] = file
            with contextlib.nullcontext(file) if file else path.open("rb", buffering=0) as file:
                file.seek(start)
                fill(file, view)
        except OSError as error:
            raise FormatError(
                f"{path} cannot be read any more ({error}): open the trajectory again."
            ) from error


def room(size: int) -> np.ndarray:
    """Return zeros, float64, in memory that goes back to the system when it is not used any more.

    What ``malloc`` gives may stay with the process, and would count when the results are there.
    """
    return np.frombuffer(mmap.mmap(-1, max(8 * size, 1)), np.float64, size)


def _meets(run: _Run, first: int, last: int) -> bool:
    return run[0] < last and first < run[1]


def _wide(values: np.ndarray) -> np.ndarray:
    """Return bfloat16 numbers, given as their bits, as float32: they are its upper half."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def _follows(run: _Run, before: _Run) -> bool:
    """Whether one range begins where another ends, in the file too."""
    end = before[2] + (before[1] - before[0]) * DTYPES[before[3]].itemsize
    return run[3] == before[3] and run[0] == before[1] and run[2] == end


def _place(checkpoint: Checkpoint, spool: Path) -> tuple[Path, dict[str, Entry]]:
    """Return where the parameters of a checkpoint lie: in its file, or else in the spool."""
    if checkpoint.path.suffix == ".safetensors":
        return checkpoint.path, checkpoint.entries()
    with spool.open("ab") as file:
        written = {n: _written(t, file, checkpoint.path) for n, t in checkpoint.params().items()}
    return spool, written


def _written(tensor: Tensor, file: IO[bytes], path: Path) -> Entry:
    if tensor.dtype not in _NAMES:
        raise FormatError(f"{path} holds {tensor.dtype}; expected float16, 32 or 64, or bfloat16.")
    start = file.tell()
    flat = as_bytes(tensor)
    file.write(flat.numpy().data)
    return Entry(_NAMES[tensor.dtype], tuple(tensor.shape), start, flat.numel())


def _differs(name: str, first: dict[str, Entry], other: dict[str, Entry]) -> bool:
    return name not in first or name not in other or first[name].shape != other[name].shape


def _is_vector(checkpoint: Checkpoint, name: str, entry: Entry) -> bool:
    return checkpoint.layouts.get(name, Layout(vector=len(entry.shape) <= 1)).vector
