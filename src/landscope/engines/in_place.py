"""Displaced: a model whose own weights are moved along a slice, and moved back bit for bit.

Adding a step and taking it away again does not give the same number back, so the weights are kept
in a file meanwhile, which nothing maps into memory. Memory: a few pieces of a tensor a thread.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import RLock
from typing import IO, final

import torch
from torch import Tensor, nn

from landscope.errors import EngineError, ParamsError, SliceError
from landscope.files import cache_folder
from landscope.objective import offloaded
from landscope.params import Params, as_bytes
from landscope.slices.seeded_directions import Seeded, SeededBasis, iter_pieces
from landscope.slices.slices import Affine, Slice

_Piece = tuple[str, int, int]  # a tensor, and its rows: start, stop


@contextmanager
def displaced(model: nn.Module, alive: Params, slice_: Slice) -> Iterator[Displaced]:
    """Lend what moves a model's own tensors; they are as before afterwards, whatever happens.

    Args:
        model: whose tensors they are.
        alive: the tensors of the model, not copies; offloaded ones as they are stored.
        slice_: a line, a plane or a volume around them.

    Raises:
        SliceError: when the slice is none of these, or moves anything else.
        ParamsError: when tensors share memory, so that one cannot be moved without another.
        EngineError: when there is no room on the disk for the weights.
    """
    if not isinstance(slice_, Affine):
        raise SliceError(
            f"the slice is a {type(slice_).__name__}; an objective with in_place=True moves along a"
            " Line, a Plane or a Volume."
        )
    other = next((name for name in slice_.center if name not in alive), None)
    if other is not None:
        raise SliceError(
            f"the slice moves {other!r}, which is not trainable; an objective with in_place=True"
            " moves its trainable parameters: use a slice over objective.center."
        )
    with ExitStack() as stack:
        away = set(offloaded.list_names(model))
        here = [n for n in slice_.center if n not in away]
        _check_memory({n: alive[n] for n in here})
        originals = stack.enter_context(_Originals(alive, here))
        threads = torch.get_num_threads()
        pool = stack.enter_context(
            ThreadPoolExecutor(threads, "landscope", torch.set_num_threads, (1,))
        )
        found = Displaced(alive, slice_, originals, pool)
        stack.callback(found.put_back)
        if away:
            stack.enter_context(offloaded.change_when_loaded(model, found.load))
        yield found


def _check_memory(tensors: Mapping[str, Tensor]) -> None:
    """Raise a sentence when numbers of two tensors, or of one, lie in the same place."""
    before, end = "", ("", 0)  # the tensor that reaches farthest, and where it ends
    ordered = sorted((str(t.device), t.data_ptr(), n) for n, t in tensors.items() if t.numel())
    for device, start, name in ordered:
        tensor = tensors[name]
        last = sum((s - 1) * step for s, step in zip(tensor.shape, tensor.stride(), strict=True))
        expanded = tensor.numel() > last + 1
        if expanded or (device, start) < end:
            same = (
                "one number stands for several" if expanded else f"it shares memory with {before!r}"
            )
            raise ParamsError(
                f"{name!r} cannot be moved in place by itself, for {same}: give it memory of its"
                " own (parameter.data = parameter.data.clone()), tie what is to be one by assigning"
                " the parameter, or use in_place=False."
            )
        before, end = name, (device, start + (last + 1) * tensor.element_size())


@final
class Displaced:
    """Moves tensors in place, piece by piece, from where they are kept."""

    def __init__(
        self, alive: Params, slice_: Affine, originals: _Originals, pool: ThreadPoolExecutor
    ) -> None:
        self.alive, self.slice, self.originals, self.pool = alive, slice_, originals, pool
        self.steps = (0.0,) * len(slice_.directions)
        self._left = False
        self._turns = {piece: RLock() for piece in originals.pieces}

    def at(self, coordinates: Sequence[float]) -> Params:
        """Move the tensors to a point and return them; offloaded ones move when they are read."""
        self.steps = self.slice.check_coordinates(coordinates)
        for _ in self.pool.map(self._move, self.originals.pieces):
            pass  # an exception of a task is raised here
        return self.alive

    def put_back(self) -> None:
        """Put every tensor back for good, however often the user interrupts.

        Threads may be moving pieces yet: a piece is waited for, and not moved again.
        """
        self._left = True
        try:
            for piece in self.originals.pieces:
                with self._turns[piece]:
                    self.originals.read(piece, self._rows(piece))
        except (KeyboardInterrupt, SystemExit):
            self.put_back()
            raise

    def load(self, name: str, tensor: Tensor) -> None:
        """Move a tensor that holds what is stored of it, in place."""
        if name not in self.slice.center or not tensor.is_floating_point():
            return
        for start, stop in iter_pieces(tensor.shape):
            self._step(name, start, _rows(tensor, start, stop))

    def _move(self, piece: _Piece) -> None:
        name, start, _ = piece
        with self._turns[piece]:
            if not self._left:
                rows = self._rows(piece)
                self.originals.read(piece, rows)
                self._step(name, start, rows)

    def _rows(self, piece: _Piece) -> Tensor:
        name, start, stop = piece
        return _rows(self.alive[name], start, stop)

    @torch.no_grad()
    def _step(self, name: str, start: int, rows: Tensor) -> None:
        """Move rows of a tensor from where they were, in place."""
        steps, stop = self.steps, start + (len(rows) if rows.ndim else 1)
        center = self.slice.center[name]
        if center.data_ptr() != self.alive[name].data_ptr():  # the slice begins elsewhere
            rows.copy_(_rows(center, start, stop))
        moved = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        for drawn, own in self._drawn():
            drawn.add(moved, name, start, own)
        for step, direction in zip(steps, self.slice.directions, strict=True):
            if step != 0.0 and not isinstance(direction, Seeded):
                moved.add_(_rows(direction[name], start, stop).to(moved), alpha=step)
        if moved is not rows:
            rows.copy_(moved)

    def _drawn(self) -> Iterable[tuple[SeededBasis, dict[int, float]]]:
        """Return the steps along directions of one seed together: they share what is drawn."""
        found: dict[int, tuple[SeededBasis, dict[int, float]]] = {}
        for step, direction in zip(self.steps, self.slice.directions, strict=True):
            if isinstance(direction, Seeded) and step != 0.0:
                _, own = found.setdefault(id(direction.basis), (direction.basis, {}))
                own[direction.index] = own.get(direction.index, 0.0) + step
        return found.values()


@final
class _Originals:
    """A file without a name, with the bytes of some tensors; it ends with the process."""

    def __init__(self, alive: Params, names: Sequence[str]) -> None:
        self.alive = alive
        moving = [n for n in names if alive[n].is_floating_point()]
        self.pieces = [(n, *rows) for n in moving for rows in iter_pieces(alive[n].shape)]
        sizes = {n: alive[n].nbytes for n in moving}
        self._starts = dict(zip(sizes, _running(sizes.values()), strict=True))
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Originals:
        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
            for piece in self.pieces:
                self._write(piece)
        except OSError as error:
            self.__exit__()
            size = sum(t.nbytes for t in self.alive.values())
            raise EngineError(
                f"the weights ({size / 2**30:.3g} GiB) cannot be kept in {Path(folder)} ({error})"
                " while they are moved: set LANDSCOPE_CACHE to a folder with room for them."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def _handle(self) -> int:
        assert self._file is not None  # it is open from entering to leaving
        return self._file.fileno()

    def read(self, piece: _Piece, rows: Tensor) -> None:
        """Fill rows of a tensor with what they were."""
        direct = rows.is_contiguous() and rows.device.type == "cpu"
        into = rows if direct else torch.empty(rows.shape, dtype=rows.dtype)
        view = as_bytes(into).numpy().data
        place = self._place(piece)
        while view:
            count = os.preadv(self._handle, [view], place)
            view, place = view[count:], place + count
        if not direct:
            rows.copy_(into)

    def _write(self, piece: _Piece) -> None:
        name, start, stop = piece
        rows = _rows(self.alive[name], start, stop).detach().to("cpu").contiguous()
        view = as_bytes(rows).numpy().data
        place = self._place(piece)
        while view:
            count = os.pwrite(self._handle, view, place)
            view, place = view[count:], place + count

    def _place(self, piece: _Piece) -> int:
        name, start, _ = piece
        tensor = self.alive[name]
        row = tensor.nbytes // max(len(tensor) if tensor.ndim else 1, 1)
        return self._starts[name] + start * row


def _rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor[start:stop] if tensor.ndim else tensor


def _running(sizes: Iterable[int]) -> Iterator[int]:
    """Yield where each of several blocks begins."""
    total = 0
    for size in sizes:
        yield total
        total += size
