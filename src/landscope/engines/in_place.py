"""Evaluation in place: a model's own weights are moved along a slice and restored bit for bit.

Adding a step and subtracting it again does not give the same number, so the original weights are
first written to a file (which is not memory-mapped). Memory: a few pieces of a tensor per thread.
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

_Piece = tuple[str, int, int]  # the name of a tensor, and a range of its rows: start, stop


@contextmanager
def borrow_in_place(model: nn.Module, live: Params, slice_: Slice) -> Iterator[InPlaceMover]:
    """Yield an object that moves a model's own tensors; afterwards they are as before.

    Args:
        model: The model that owns the tensors.
        live: The tensors of the model, not copies; offloaded ones as they are stored.
        slice_: A line, a plane or a volume around them.

    Raises:
        SliceError: When the slice is of another type, or moves other tensors.
        ParamsError: When tensors share memory, so that one cannot be moved without another.
        EngineError: When the disk has no room for the weights.
    """
    if not isinstance(slice_, Affine):
        raise SliceError(
            f"the slice is a {type(slice_).__name__}; an objective with in_place=True moves along a"
            " Line, a Plane or a Volume."
        )
    frozen = next((name for name in slice_.center if name not in live), None)
    if frozen is not None:
        raise SliceError(
            f"the slice moves {frozen!r}, which is not trainable; an objective with in_place=True"
            " moves its trainable parameters: use a slice over objective.center."
        )
    with ExitStack() as stack:
        offloaded_names = set(offloaded.list_names(model))
        names = [n for n in slice_.center if n not in offloaded_names]
        _check_memory({n: live[n] for n in names})
        backup = stack.enter_context(_Backup(live, names))
        threads = torch.get_num_threads()
        executor = stack.enter_context(
            ThreadPoolExecutor(threads, "landscope", torch.set_num_threads, (1,))
        )
        mover = InPlaceMover(live, slice_, backup, executor)
        stack.callback(mover.restore)
        if offloaded_names:
            stack.enter_context(offloaded.change_when_loaded(model, mover.move_loaded))
        yield mover


def _check_memory(tensors: Mapping[str, Tensor]) -> None:
    """Raise if elements of two tensors, or of one, have the same address."""
    farthest, end = "", ("", 0)  # the tensor that ends at the highest address, and that address
    starts = sorted((str(t.device), t.data_ptr(), n) for n, t in tensors.items() if t.numel())
    for device, start, name in starts:
        tensor = tensors[name]
        last = sum((s - 1) * step for s, step in zip(tensor.shape, tensor.stride(), strict=True))
        is_expanded = tensor.numel() > last + 1
        if is_expanded or (device, start) < end:
            reason = (
                "several of its elements share one memory location"
                if is_expanded
                else f"it shares memory with {farthest!r}"
            )
            raise ParamsError(
                f"{name!r} cannot be moved in place by itself, because {reason}: give it memory of"
                " its own (parameter.data = parameter.data.clone()), tie parameters by assigning"
                " the same nn.Parameter, or use in_place=False."
            )
        farthest, end = name, (device, start + (last + 1) * tensor.element_size())


@final
class InPlaceMover:
    """Moves the tensors of a model along a slice, piece by piece, from their backup.

    Args:
        live: The tensors of the model.
        slice_: The slice.
        backup: The original values.
        executor: The threads that move pieces.
    """

    def __init__(
        self, live: Params, slice_: Affine, backup: _Backup, executor: ThreadPoolExecutor
    ) -> None:
        self.live, self.slice, self.backup, self.executor = live, slice_, backup, executor
        self.steps = (0.0,) * len(slice_.directions)
        self._is_restored = False
        self._locks = {piece: RLock() for piece in backup.pieces}

    def move_to(self, coordinates: Sequence[float]) -> Params:
        """Move the tensors to a point and return them; offloaded ones move when they are loaded."""
        self.steps = self.slice.check_coordinates(coordinates)
        for _ in self.executor.map(self._move, self.backup.pieces):
            pass  # an exception of a task is raised here
        return self.live

    def restore(self) -> None:
        """Restore every tensor for good, however often the user interrupts.

        Threads may still be moving pieces; a piece is restored after its move, and not moved again.
        """
        self._is_restored = True
        try:
            for piece in self.backup.pieces:
                with self._locks[piece]:
                    self.backup.read(piece, self._rows(piece))
        except (KeyboardInterrupt, SystemExit):
            self.restore()
            raise

    def move_loaded(self, name: str, tensor: Tensor) -> None:
        """Move an offloaded tensor in place, after its stored values were loaded."""
        if name not in self.slice.center or not tensor.is_floating_point():
            return
        for start, stop in iter_pieces(tensor.shape):
            self._add_steps(name, start, _rows(tensor, start, stop))

    def _move(self, piece: _Piece) -> None:
        name, start, _ = piece
        with self._locks[piece]:
            if not self._is_restored:
                rows = self._rows(piece)
                self.backup.read(piece, rows)
                self._add_steps(name, start, rows)

    def _rows(self, piece: _Piece) -> Tensor:
        name, start, stop = piece
        return _rows(self.live[name], start, stop)

    @torch.no_grad()
    def _add_steps(self, name: str, start: int, rows: Tensor) -> None:
        """Move rows of a tensor, which have their original values, in place."""
        steps, stop = self.steps, start + (len(rows) if rows.ndim else 1)
        center = self.slice.center[name]
        if center.data_ptr() != self.live[name].data_ptr():  # the slice has another center
            rows.copy_(_rows(center, start, stop))
        moving = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        for basis, seeded_steps in self._group_by_seed():
            basis.add(moving, name, start, seeded_steps)
        for step, direction in zip(steps, self.slice.directions, strict=True):
            if step != 0.0 and not isinstance(direction, Seeded):
                moving.add_(_rows(direction[name], start, stop).to(moving), alpha=step)
        if moving is not rows:
            rows.copy_(moving)

    def _group_by_seed(self) -> Iterable[tuple[SeededBasis, dict[int, float]]]:
        """Return the steps along the directions of each seed, whose random numbers are shared."""
        groups: dict[int, tuple[SeededBasis, dict[int, float]]] = {}
        for step, direction in zip(self.steps, self.slice.directions, strict=True):
            if isinstance(direction, Seeded) and step != 0.0:
                _, steps = groups.setdefault(id(direction.basis), (direction.basis, {}))
                steps[direction.index] = steps.get(direction.index, 0.0) + step
        return groups.values()


@final
class _Backup:
    """An unnamed file that holds the bytes of some tensors; it vanishes when the process ends.

    Args:
        live: The tensors of the model.
        names: The names of those to write.
    """

    def __init__(self, live: Params, names: Sequence[str]) -> None:
        self.live = live
        moving = [n for n in names if live[n].is_floating_point()]
        self.pieces = [(n, *rows) for n in moving for rows in iter_pieces(live[n].shape)]
        sizes = {n: live[n].nbytes for n in moving}
        self._starts = dict(zip(sizes, _list_starts(sizes.values()), strict=True))
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Backup:
        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
            for piece in self.pieces:
                self._write(piece)
        except OSError as error:
            self.__exit__()
            size = sum(t.nbytes for t in self.live.values())
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
        """Fill rows of a tensor with their original values."""
        is_direct = rows.is_contiguous() and rows.device.type == "cpu"
        target = rows if is_direct else torch.empty(rows.shape, dtype=rows.dtype)
        view = as_bytes(target).numpy().data
        position = self._position(piece)
        while view:
            count = os.preadv(self._handle, [view], position)
            view, position = view[count:], position + count
        if not is_direct:
            rows.copy_(target)

    def _write(self, piece: _Piece) -> None:
        name, start, stop = piece
        rows = _rows(self.live[name], start, stop).detach().to("cpu").contiguous()
        view = as_bytes(rows).numpy().data
        position = self._position(piece)
        while view:
            count = os.pwrite(self._handle, view, position)
            view, position = view[count:], position + count

    def _position(self, piece: _Piece) -> int:
        """Return the position of a piece in the file, in bytes."""
        name, start, _ = piece
        tensor = self.live[name]
        row_size = tensor.nbytes // max(len(tensor) if tensor.ndim else 1, 1)
        return self._starts[name] + start * row_size


def _rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor[start:stop] if tensor.ndim else tensor


def _list_starts(sizes: Iterable[int]) -> Iterator[int]:
    """Yield the position at which each of several consecutive blocks begins."""
    position = 0
    for size in sizes:
        yield position
        position += size
