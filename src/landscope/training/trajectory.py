"""Trajectories: the path that training took, as the checkpoints in a folder.

Two kinds of folders are trajectories:

    000001234.safetensors, ...   of ``ls.Recorder``: a step each, with what was noted of it
    model_0.t7, model_1.t7, ...  of the 2018 scripts: a state dict an epoch (or .pt, .pth)

A checkpoint is read when it is asked for.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from landscope.errors import FormatError, ParamsError
from landscope.formats import checkpoint as checkpoint_
from landscope.params import Layout, Params, wrap
from landscope.training.tensorfile import DTYPES, Entry, damaged, header, read

VERSION = 1  # of what a recorded checkpoint says of itself
_RECORDED = re.compile(r"\d+\.safetensors")
_OLD = re.compile(r"model_(\d+)\.(?:t7|pt|pth)")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_FALL = 0.99  # of the learning rate before, and less, is a fall and not rounding
_GLIDE = 3  # falls in a row, from which on a schedule glides and does not drop,
_STEEP = 0.34  # unless each is to about a third or less

_T = TypeVar("_T")


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One checkpoint of a trajectory: what is known of it, and its weights when they are asked for.

    Args:
        path: of the file.
        step: of training; in old folders the epoch, for a step is not told there.
        epoch: a whole number where an epoch ended; None where it is not known.
        learning_rate: at that step; None where it is not known.
        values: losses and metrics that were noted, by name.
        names: of the parameters, in the order of the model; empty where the file does not tell.
        layouts: of the parameters and buffers, as far as they are known.
    """

    path: Path
    step: int
    epoch: float | None = None
    learning_rate: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    layouts: Mapping[str, Layout] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The file's name, size and time: a text that changes when it is written again.

        Raises:
            FormatError: when the file is gone.
        """
        try:
            found = self.path.stat()
        except OSError as error:
            raise FormatError(damaged(self.path, error)) from error
        return f"{self.path.name} {found.st_size} {found.st_mtime_ns}"

    def params(self) -> Params:
        """Return the parameters, on the CPU, in the dtype in which they were kept.

        Raises:
            FormatError: when the file is gone, or is damaged.
            ParamsError: when it lacks a parameter.
        """
        return Params(self._tensors(self.parameters), self.layouts)

    def states(self) -> Params:
        """Return the parameters and the floating-point buffers.

        Raises:
            FormatError: when the file is gone, or is damaged.
        """
        return Params(self._tensors(dict), self.layouts)

    def entries(self) -> dict[str, Entry]:
        """Return where the parameters lie in a .safetensors file, in the order of the model.

        Raises:
            FormatError: when the file is gone, or is damaged.
            ParamsError: when it lacks a parameter.
        """
        return self.parameters(_floating(header(self.path)[0]))

    def parameters(self, found: Mapping[str, _T]) -> dict[str, _T]:
        """Return those of all named tensors that are parameters, in the order of the model.

        Raises:
            ParamsError: when one is missing.
        """
        if not self.names:
            return {n: t for n, t in found.items() if n.rpartition(".")[2] not in _STATISTICS}
        missing = next((name for name in self.names if name not in found), None)
        if missing is not None:
            raise ParamsError(
                f"{self.path} has no {missing!r}: the checkpoints of a trajectory are of one"
                " network, and like= are parameters of the same."
            )
        return {name: found[name] for name in self.names}

    def _tensors(self, chosen: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Tensor]:
        if self.path.suffix == ".safetensors":
            return read(self.path, chosen(_floating(header(self.path)[0])))
        return chosen(_untied(checkpoint_.read(self.path)))


@final
@dataclass(frozen=True, eq=False)
class Trajectory:
    """The path that training took: checkpoints in the order of their steps.

    Args:
        folder: where they are.
        name: for legends.
        checkpoints: one or more.
        notes: what was passed over when the folder was opened, in sentences.
    """

    folder: Path
    name: str
    checkpoints: tuple[Checkpoint, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        name: str | None = None,
        *,
        like: Mapping[str, Tensor] | None = None,
    ) -> Trajectory:
        """Return the trajectory in a folder.

        Files that are half written or damaged are passed over with a note, so that a run that was
        killed opens; folders within the folder are not looked at. Where there are both kinds of
        files, those of ``ls.Recorder`` are taken.

        Args:
            folder: of ``ls.Recorder``, or of files model_<epoch>.t7.
            name: for legends; that of the folder if not given.
            like: ``objective.center`` or ``objective.states``: which tensors of a checkpoint
                are the parameters, in their order, and which of them are vectors. If not given,
                those that the recorder noted; old files do not tell, and there it is all of
                them but running_mean, running_var and num_batches_tracked, and those of one
                dimension are the vectors.

        Raises:
            FormatError: when there is no checkpoint in the folder, or none is whole.

        Cost: the head of every file, some 0.1 ms each; old files are not opened at all.

        Example:
            >>> import tempfile, torch, landscope as ls
            >>> folder = tempfile.mkdtemp()
            >>> with ls.Recorder(folder, every=1) as recorder:
            ...     recorder(torch.nn.Linear(4, 3), step=0, learning_rate=0.1)
            True
            >>> trajectory = ls.Trajectory.open(folder)
            >>> len(trajectory), trajectory[-1].step, trajectory[-1].learning_rate
            (1, 0, 0.1)
        """
        place = Path(folder)
        paths = _files(place)
        shared = _Shared(like)
        found, notes = [], []
        for path in paths:
            try:
                found.append(_opened(path, shared))
            except FormatError as error:
                notes.append(str(error))
        if not found:
            raise FormatError(
                f"{place}: none of {len(paths)} checkpoints is whole. {notes[0]}"
                if notes
                else f"{place} holds no checkpoints: give a folder that ls.Recorder (or landscope"
                " train --record) wrote, or one of files model_<epoch>.t7."
            )
        found.sort(key=lambda c: (c.step, c.path.name))
        return cls(place, name or place.resolve().name, tuple(found), tuple(notes))

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __getitem__(self, index: int) -> Checkpoint:
        return self.checkpoints[index]

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    @property
    def drops(self) -> list[int]:
        """Indices at which the learning rate had dropped; see :func:`drops`."""
        return drops([checkpoint.learning_rate for checkpoint in self.checkpoints])


def drops(rates: Iterable[float | None]) -> list[int]:
    """Return the indices at which a learning rate had dropped since the one before.

    A schedule that falls three times in a row, or more (cosine, linear), glides: no drops there,
    unless each time it falls to a third or less, as a few epochs with a drop after each have it.
    Rates that are None or NaN are not known, and passed over.
    """
    known = [(k, r) for k, r in enumerate(rates) if r is not None and not math.isnan(r)]
    steps = [(k, rate, before) for (_, before), (k, rate) in itertools.pairwise(known)]
    found: list[int] = []
    for falls, group in itertools.groupby(steps, key=lambda step: step[1] < _FALL * step[2]):
        row = list(group)
        are_drops = len(row) < _GLIDE or all(rate <= _STEEP * before for _, rate, before in row)
        found += [k for k, _, _ in row] if falls and are_drops else []
    return found


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise FormatError(f"{folder} {found}: give the folder of the checkpoints.")
    paths = sorted(folder.iterdir())
    recorded = [path for path in paths if _RECORDED.fullmatch(path.name)]
    return recorded or [path for path in paths if _OLD.fullmatch(path.name)]


@final
class _Shared:
    """What the checkpoints of a trajectory have in common is kept once: names and layouts."""

    def __init__(self, like: Mapping[str, Tensor] | None) -> None:
        self._kept: dict[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], dict[str, Layout]]]
        self._kept = {}
        self.given: tuple[tuple[str, ...], dict[str, Layout]] | None = None
        if like is not None:
            known = wrap(like)
            self.given = tuple(known), {name: known.layout(name) for name in known}

    def of(
        self, names: Iterable[str] = (), vectors: Iterable[str] = ()
    ) -> tuple[tuple[str, ...], dict[str, Layout]]:
        """Return names of parameters, and layouts."""
        if self.given is not None:
            return self.given
        key = tuple(names), tuple(vectors)
        return self._kept.setdefault(key, (key[0], dict.fromkeys(key[1], Layout(vector=True))))


def _opened(path: Path, shared: _Shared) -> Checkpoint:
    """Return a checkpoint without its tensors."""
    old = _OLD.fullmatch(path.name)
    if old:
        _check_zip(path)
        names, layouts = shared.of()
        return Checkpoint(path, int(old[1]), float(old[1]), names=names, layouts=layouts)
    _, notes = header(path)
    try:
        told = json.loads(notes.get("landscope", "{}"))
        if told.get("version", VERSION) > VERSION:
            raise ValueError("a newer landscope wrote it")
        names, layouts = shared.of(told.get("parameters", ()), told.get("vectors", ()))
        return Checkpoint(
            path, int(told.get("step", path.stem)), _number(told.get("epoch")),
            _number(told.get("learning_rate")),
            {str(n): float("nan") if v is None else float(v)
             for n, v in told.get("values", {}).items()},
            names, layouts,
        )  # fmt: skip
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(damaged(path, error)) from error


def _check_zip(path: Path) -> None:
    """See that a file of torch since 1.6 has its end; older ones have no sign of it."""
    try:
        with path.open("rb") as file:
            first = file.read(2)
        if not first or (first == b"PK" and not zipfile.is_zipfile(path)):
            raise OSError("its end is missing")
    except OSError as error:
        raise FormatError(damaged(path, error)) from error


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _floating(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    return {name: entry for name, entry in entries.items() if entry.dtype in DTYPES}


def _untied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the floating-point tensors of a state dict; tied ones once, under the first name."""
    places: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            places.setdefault((tensor.data_ptr() or id(tensor), tensor.shape), name)
    return {name: state[name] for name in places.values()}
