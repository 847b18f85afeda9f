"""The weights of many checkpoints as one matrix [n, p] that stays on the disk.

Row k holds the weights of checkpoint k. The matrix is read in blocks of columns, with plain reads
at offsets, so memory holds a part of every checkpoint and never a whole one. The columns are in the
order of the first file, so that adjacent columns are read at once.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, final

import numpy as np
from torch import Tensor

from landscope.errors import FormatError, ParamsError
from landscope.params import Layout, as_bytes
from landscope.tensorfile import DTYPES, FLOATING, NAMES, Entry, read_into
from landscope.training.trajectory import Checkpoint

_MAX_OPEN = 100  # files that a reader keeps open; the others are opened for each read
_BITS = {"BF16": np.uint16}  # what is read instead of a dtype that NumPy does not have


class TensorPart(NamedTuple):
    """The part of a tensor that lies in a block of columns."""

    name: str  # of the tensor
    start: int  # its first column in the block
    stop: int  # the column after its last one
    offset: int  # the index of its first weight in the flattened tensor


class _Run(NamedTuple):
    """A range of columns that are adjacent in a file and have one dtype."""

    start: int  # the first column
    stop: int  # the column after the last one
    offset: int  # bytes, from the base of the file
    dtype: str  # as in `tensorfile.DTYPES`


class _Read(NamedTuple):
    """A read of the part of a run that lies in a block of columns."""

    start: int  # its first column in the block
    stop: int  # the column after its last one
    offset: int  # bytes, from the base of the file
    buffer: memoryview  # for the bytes
    values: np.ndarray  # the same memory as numbers


class _Row(NamedTuple):
    """Where the weights of a checkpoint lie."""

    path: Path
    base: int  # bytes; the first weight in the file
    runs: tuple[_Run, ...]


@contextlib.contextmanager
def open_matrix(
    checkpoints: Sequence[Checkpoint], ignore: str | None = None
) -> Iterator[CheckpointMatrix]:
    """Yield the weights of checkpoints as a matrix [n, p].

    Files of ``torch.save`` cannot be read in parts: each is loaded once, and its weights are
    written to a temporary file.

    Args:
        checkpoints: The rows, all with the names and shapes of the first.
        ignore: "biasbn" puts vectors (biases, batch norm) in the last columns, after the first
            ``included`` ones.

    Raises:
        ParamsError: When the checkpoints do not have the same parameters.
        FormatError: When a file is missing or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="landscope-") as folder:
        places = [_locate(checkpoint, Path(folder) / "weights") for checkpoint in checkpoints]
        yield CheckpointMatrix(checkpoints, places, ignore)


@final
class CheckpointMatrix:
    """The weights of checkpoints, [n, p]; the ignored weights are the last columns.

    Args:
        checkpoints: The rows.
        places: For each row its file, and where its tensors lie, in the order of the model.
        ignore: As in :func:`open_matrix`.
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        places: Sequence[tuple[Path, dict[str, Entry]]],
        ignore: str | None,
    ) -> None:
        self.checkpoints = list(checkpoints)
        self._check_shapes([entries for _, entries in places])
        first = places[0][1]
        vectors = {n for n in first if _is_vector(self.checkpoints[0], n, first[n])}
        ignored = vectors if ignore == "biasbn" else set()
        self.shapes = {name: entry.shape for name, entry in first.items()}
        self.dtypes = {name: DTYPES[entry.dtype] for name, entry in first.items()}
        order = sorted(first, key=lambda name: (name in ignored, first[name].start))
        stops = list(itertools.accumulate(math.prod(self.shapes[name]) for name in order))
        self.starts = dict(zip(order, [0, *stops[:-1]], strict=True))
        self.stops = dict(zip(order, stops, strict=True))
        self.columns = stops[-1]  # p
        included = [name for name in order if name not in ignored]
        self.included = max((self.stops[name] for name in included), default=0)  # columns
        self.row_bytes = sum(first[name].size for name in included)
        self._rows = self._locate_rows(places, order)

    def __len__(self) -> int:
        return len(self._rows)

    def tensor_parts(self, start: int, stop: int) -> Iterator[TensorPart]:
        """Yield the parts of tensors in the block of columns from ``start`` to ``stop``."""
        for name, begin in self.starts.items():
            low, high = max(start, begin), min(stop, self.stops[name])
            if low < high:
                yield TensorPart(name, low - start, high - start, low - begin)

    @contextlib.contextmanager
    def reader(self, width: int) -> Iterator[ColumnReader]:
        """Yield a reader of at most ``width`` columns at a time, for one thread."""
        with contextlib.ExitStack() as files:
            yield ColumnReader(self._rows, width, files)

    def _check_shapes(self, places: Sequence[dict[str, Entry]]) -> None:
        first = places[0]
        for entries, checkpoint in zip(places, self.checkpoints, strict=True):
            different = (n for n in {**first, **entries} if _differs(n, first, entries))
            name = next(different, None)
            if name is None:
                continue
            shapes = [e[name].shape if name in e else "none" for e in (entries, first)]
            raise ParamsError(
                f"{name!r} has the shape {shapes[0]} in {checkpoint.path} and {shapes[1]} in"
                f" {self.checkpoints[0].path}: all checkpoints must be of one network."
            )

    def _locate_rows(
        self, places: Sequence[tuple[Path, dict[str, Entry]]], order: Sequence[str]
    ) -> list[_Row]:
        shared: dict[tuple[_Run, ...], tuple[_Run, ...]] = {}  # equal runs are kept once
        rows = []
        for path, entries in places:
            base = min(entry.start for entry in entries.values())  # headers differ in length
            runs = self._merge_runs(base, [(name, entries[name]) for name in order])
            rows.append(_Row(path, base, shared.setdefault(runs, runs)))
        return rows

    def _merge_runs(self, base: int, entries: Sequence[tuple[str, Entry]]) -> tuple[_Run, ...]:
        """Return the columns of a file in as few runs as possible."""
        runs: list[_Run] = []
        for name, entry in entries:
            run = _Run(self.starts[name], self.stops[name], entry.start - base, entry.dtype)
            if runs and _is_adjacent(runs[-1], run):
                run = runs.pop()._replace(stop=run.stop)
            runs.append(run)
        return tuple(runs)


@final
class ColumnReader:
    """Reads blocks of columns, with open files of its own.

    Args:
        rows: Where the weights of each row lie.
        width: The largest number of columns in a block.
        files: The stack that closes the open files.
    """

    def __init__(self, rows: Sequence[_Row], width: int, files: contextlib.ExitStack) -> None:
        self.width, self._rows, self._files = width, rows, files
        self._open: dict[Path, Any] = {}
        self._bytes = allocate_zeros(width).view(np.uint8)
        self._block = (0, 0)
        self._reads: dict[int, list[_Read]] = {}  # by the identity of the runs

    def read(self, row: int, start: int, stop: int, out: np.ndarray) -> None:
        """Read the columns from ``start`` to ``stop`` of a row.

        Args:
            row: The index of the checkpoint.
            start: The first column.
            stop: The column after the last one.
            out: The result, shape (stop - start,), float64.

        Raises:
            FormatError: When the file is missing, or shorter than before.
        """
        path, base, runs = self._rows[row]
        if (start, stop) != self._block:
            self._block, self._reads = (start, stop), {}
        reads = self._reads.get(id(runs))
        if reads is None:
            reads = [self._plan(r) for r in runs if r.start < stop and start < r.stop]
            self._reads[id(runs)] = reads
        for first, last, offset, buffer, values in reads:
            self._read_bytes(path, base + offset, buffer)
            out[first:last] = _widen(values) if values.dtype == np.uint16 else values

    def _plan(self, run: _Run) -> _Read:
        """Return the read of the part of a run that lies in the block."""
        start, stop = self._block
        low, high = max(run.start, start), min(run.stop, stop)
        dtype = DTYPES[run.dtype]
        numbers = _BITS.get(run.dtype) or np.dtype(str(dtype).removeprefix("torch."))
        part = self._bytes[: (high - low) * dtype.itemsize]
        offset = run.offset + (low - run.start) * dtype.itemsize
        return _Read(low - start, high - start, offset, part.data, part.view(numbers))

    def _read_bytes(self, path: Path, offset: int, buffer: memoryview) -> None:
        try:
            file = self._open.get(path)
            if file is None and len(self._open) < _MAX_OPEN:
                file = self._files.enter_context(path.open("rb", buffering=0))
                self._open[path] = file
            with contextlib.nullcontext(file) if file else path.open("rb", buffering=0) as file:
                file.seek(offset)
                read_into(buffer, file)
        except OSError as error:
            raise FormatError(
                f"{path} cannot be read any more ({error}): open the trajectory again."
            ) from error


def allocate_zeros(size: int) -> np.ndarray:
    """Return zeros, float64, in memory that goes back to the system when it is freed.

    Memory of ``malloc`` may stay with the process, and would add to the peak, with the results.
    """
    return np.frombuffer(mmap.mmap(-1, max(8 * size, 1)), np.float64, size)


def _widen(values: np.ndarray) -> np.ndarray:
    """Return bfloat16 numbers, given as their bits, as float32: they are its upper half."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def _is_adjacent(run: _Run, following: _Run) -> bool:
    """Whether a run follows another in the columns and in the file, with the same dtype."""
    end = run.offset + (run.stop - run.start) * DTYPES[run.dtype].itemsize
    return (following.start, following.offset, following.dtype) == (run.stop, end, run.dtype)


def _locate(checkpoint: Checkpoint, spool: Path) -> tuple[Path, dict[str, Entry]]:
    """Return where the parameters of a checkpoint lie: in its file, or else in the spool file."""
    if checkpoint.path.suffix == ".safetensors":
        return checkpoint.path, checkpoint.locate_parameters()
    with spool.open("ab") as file:
        params = checkpoint.params()
        return spool, {n: _append(t, file, checkpoint.path) for n, t in params.items()}


def _append(tensor: Tensor, file: IO[bytes], source: Path) -> Entry:
    """Write a tensor to the end of a file and return where it lies."""
    if tensor.dtype not in FLOATING.values():
        raise FormatError(
            f"{source} holds {tensor.dtype}; expected float16, 32 or 64, or bfloat16."
        )
    start = file.tell()
    content = as_bytes(tensor)
    file.write(content.numpy().data)
    return Entry(NAMES[tensor.dtype], tuple(tensor.shape), start, content.numel())


def _differs(name: str, first: dict[str, Entry], second: dict[str, Entry]) -> bool:
    return name not in first or name not in second or first[name].shape != second[name].shape


def _is_vector(checkpoint: Checkpoint, name: str, entry: Entry) -> bool:
    return checkpoint.layouts.get(name, Layout(vector=len(entry.shape) <= 1)).vector
