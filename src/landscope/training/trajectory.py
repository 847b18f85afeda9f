"""Trajectories: the checkpoints of a training run, read from a folder.

Three kinds of folders are trajectories:

    000001234.safetensors, ...   of ``ls.Recorder``: one file per step, with what was recorded there
    model_0.t7, model_1.t7, ...  of the 2018 scripts: one state dict per epoch (or .pt, .pth)
    epoch_3.pth, checkpoint-500/ of other tools: files, or folders, that are numbered in their names

The tensors of a checkpoint are read on demand.
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
from landscope.formats import checkpoint as checkpoint_file
from landscope.formats.tensor_names import match_names
from landscope.params import Layout, Params, wrap
from landscope.tensorfile import Entry, explain_damage, read_header, read_tensors
from landscope.training.checkpoint_series import NumberedFile, find_series

METADATA_VERSION = 1  # of the metadata "landscope" in recorded checkpoints
_RECORDED = re.compile(r"\d+\.safetensors")
_STATE_DICT = re.compile(r"model_(\d+)\.(?:t7|pt|pth)")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_FALL = 0.99  # a learning rate below this share of the one before has fallen; above is rounding
_DECAY = 3  # this many consecutive falls or more are a decay (cosine, linear) and not drops,
_STEEP = 0.34  # unless each of them is to this share of the rate before, or less
_T = TypeVar("_T")


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One checkpoint of a trajectory; its weights are read on demand.

    Args:
        path: The file.
        step: The step of training; for files that do not record it, the number in the name.
        epoch: The epoch, a whole number where an epoch ended; None if it is unknown.
        learning_rate: The learning rate at that step; None if it is unknown.
        values: The losses and metrics that were recorded, by name.
        names: The names of the parameters in the order of the model; empty if they are unknown.
        layouts: The layouts of the parameters and buffers, as far as they are known.
    """

    path: Path
    step: int
    epoch: float | None = None
    learning_rate: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    names: tuple[str, ...] = field(default=(), repr=False)
    layouts: Mapping[str, Layout] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> str:
        """The file's name, size and time: a text that changes when the file is written again.

        Raises:
            FormatError: When the file is missing.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise FormatError(explain_damage(self.path, error)) from error
        return f"{self.path.name} {status.st_size} {status.st_mtime_ns}"

    def params(self) -> Params:
        """Return the parameters on the CPU, in the dtype of the file.

        Raises:
            FormatError: When the file is missing or damaged.
            ParamsError: When a parameter is missing.
        """
        return Params(self._read(self.select_parameters), self.layouts)

    def states(self) -> Params:
        """Return the parameters and the floating-point buffers.

        Raises:
            FormatError: When the file is missing or damaged.
        """
        return Params(self._read(self._rename), self.layouts)

    def locate_parameters(self) -> dict[str, Entry]:
        """Return where the parameters lie in a .safetensors file, in the order of the model.

        Raises:
            FormatError: When the file is missing or damaged.
            ParamsError: When a parameter is missing.
        """
        return self.select_parameters(_floating_entries(self.path))

    def select_parameters(self, tensors: Mapping[str, _T]) -> dict[str, _T]:
        """Return the entries of a mapping that belong to parameters, in the order of the model.

        Args:
            tensors: Tensors, or anything else, by the names in the file.

        Raises:
            ParamsError: When a parameter is missing.
        """
        if not self.names:
            return {n: t for n, t in tensors.items() if n.rpartition(".")[2] not in _STATISTICS}
        tensors = self._rename(tensors)
        missing = next((name for name in self.names if name not in tensors), None)
        if missing is not None:
            raise ParamsError(
                f"{self.path} has no {missing!r}: all checkpoints of a trajectory must be of one"
                " network, and like= must be parameters of that network."
            )
        return {name: tensors[name] for name in self.names}

    def _rename(self, tensors: Mapping[str, _T]) -> dict[str, _T]:
        """Return the entries of the network by the names in the model."""
        match = match_names(dict.fromkeys(self.names), dict.fromkeys(tensors), strict=False)
        return {place: tensors[name] for name, place in match.places.items()}

    def _read(self, select: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Tensor]:
        if self.path.suffix == ".safetensors":
            return read_tensors(self.path, select(_floating_entries(self.path)))
        return select(_drop_tied(checkpoint_file.read(self.path)))


@final
@dataclass(frozen=True, eq=False)
class Trajectory:
    """The checkpoints of a training run in the order of their steps.

    Args:
        folder: The folder of the checkpoints.
        name: The name for legends.
        checkpoints: One or more checkpoints.
        notes: Sentences about the files that were skipped when the folder was opened.
        reading: A sentence on how the files of another tool were chosen and ordered; else empty.
    """

    folder: Path
    name: str
    checkpoints: tuple[Checkpoint, ...]
    notes: tuple[str, ...] = ()
    reading: str = ""

    def __repr__(self) -> str:
        return f"<Trajectory {self.name!r}: {len(self.checkpoints)} checkpoints in {self.folder}>"

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        name: str | None = None,
        *,
        like: Mapping[str, Tensor] | None = None,
        pattern: str | None = None,
    ) -> Trajectory:
        """Return the trajectory in a folder.

        Incomplete and damaged files are skipped with a note, so that the folder of a killed run
        opens. Where there are several kinds of files, those of ``ls.Recorder`` are used, and then
        files model_<epoch>.t7. Otherwise it is the largest series of files (or of folders that
        ``save_pretrained`` wrote) whose names differ in their numbers only, such as epoch_3.pth,
        epoch=3-step=100.ckpt or checkpoint-500/; a note says how they were read.

        Args:
            folder: A folder of checkpoints.
            name: The name for legends; by default that of the folder.
            like: ``objective.center`` or ``objective.states``: it says which tensors of a
                checkpoint are the parameters, in which order, and which of them are vectors. By
                default this is what was recorded; for other files it is all tensors except
                running_mean, running_var and num_batches_tracked, and the vectors are those of at
                most one dimension. Names that differ by wrappers of torch ("module.") or by one
                prefix ("model.") are read as these.
            pattern: The names of the files, such as "net_G_*.pth", where there are several series.

        Raises:
            FormatError: When there is no checkpoint in the folder, none is complete, or it is not
                clear which are meant.

        Cost: reading the header of every recorded file, about 0.1 ms each.

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
        directory = Path(folder)
        files, reading = _find_files(directory, pattern)
        shared = _SharedNames(like)
        checkpoints, notes = [], []
        for file in files:
            try:
                checkpoints.append(_read_checkpoint(file, shared))
            except FormatError as error:
                notes.append(str(error))
        if not checkpoints:
            raise FormatError(
                f"{directory}: none of {len(files)} checkpoints is complete. {notes[0]}"
                if notes
                else f"{directory} holds no checkpoints: give a folder that ls.Recorder (or"
                " landscope train --record) wrote, or one with files or folders that are numbered,"
                " such as model_3.t7, epoch_3.pth or checkpoint-500."
            )
        checkpoints.sort(key=lambda c: (c.step, c.path.name))
        name = name or directory.resolve().name
        return cls(directory, name, tuple(checkpoints), tuple(notes), reading)

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __getitem__(self, index: int) -> Checkpoint:
        return self.checkpoints[index]

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    @property
    def drops(self) -> list[int]:
        """The indices of the checkpoints at which the learning rate had dropped."""
        return drops(checkpoint.learning_rate for checkpoint in self.checkpoints)


def drops(rates: Iterable[float | None]) -> list[int]:
    """Return the indices at which a learning rate had dropped since the one before.

    Three or more consecutive falls are a decay (cosine, linear) and not drops, unless each of them
    is to a third or less, as when the rate drops after every epoch. Rates that are None or NaN are
    unknown and skipped.
    """
    known = [(k, r) for k, r in enumerate(rates) if r is not None and not math.isnan(r)]
    steps = [(k, rate, before) for (_, before), (k, rate) in itertools.pairwise(known)]
    indices: list[int] = []
    for falls, group in itertools.groupby(steps, key=lambda step: step[1] < _FALL * step[2]):
        run = list(group)
        are_drops = len(run) < _DECAY or all(rate <= _STEEP * before for _, rate, before in run)
        indices += [k for k, _, _ in run] if falls and are_drops else []
    return indices


def _find_files(folder: Path, pattern: str | None) -> tuple[list[NumberedFile], str]:
    """Return the checkpoints in a folder, and a sentence on how those of other tools were read."""
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise FormatError(f"{folder} {problem}: give the folder of the checkpoints.")
    if pattern is None:
        paths = sorted(folder.iterdir())
        recorded = [path for path in paths if _RECORDED.fullmatch(path.name)]
        if recorded:
            return [NumberedFile(path, int(path.stem), None) for path in recorded], ""
        epochs = {path: m[1] for path in paths if (m := _STATE_DICT.fullmatch(path.name))}
        if epochs:
            return [NumberedFile(p, int(n), float(n)) for p, n in epochs.items()], ""
    return find_series(folder, pattern)


_Names = tuple[tuple[str, ...], dict[str, Layout]]  # of the parameters; layouts by name


@final
class _SharedNames:
    """Names and layouts that the checkpoints of a trajectory share, in memory once."""

    def __init__(self, like: Mapping[str, Tensor] | None) -> None:
        self._known: dict[tuple[tuple[str, ...], ...], _Names] = {}
        self.given: _Names | None = None
        if like is not None:
            params = wrap(like)
            self.given = tuple(params), {name: params.layout(name) for name in params}

    def share(self, names: Iterable[str] = (), vectors: Iterable[str] = ()) -> _Names:
        """Return the names of the parameters, and the layouts: as given, or else as recorded."""
        if self.given is not None:
            return self.given
        key = tuple(names), tuple(vectors)
        return self._known.setdefault(key, (key[0], dict.fromkeys(key[1], Layout(vector=True))))


def _read_checkpoint(file: NumberedFile, shared: _SharedNames) -> Checkpoint:
    """Return a checkpoint without its tensors."""
    path = file.path
    if path.suffix != ".safetensors":
        _check_complete(path)
        names, layouts = shared.share()
        return Checkpoint(path, file.number, file.epoch, names=names, layouts=layouts)
    _, metadata = read_header(path)
    try:
        record = json.loads(metadata.get("landscope", "{}"))
        if record.get("version", METADATA_VERSION) > METADATA_VERSION:
            raise ValueError("a newer landscope wrote it")
        names, layouts = shared.share(record.get("parameters", ()), record.get("vectors", ()))
        return Checkpoint(
            path, int(record.get("step", file.number)),
            _parse_number(record.get("epoch", file.epoch)),
            _parse_number(record.get("learning_rate")),
            {str(n): float("nan") if v is None else float(v)
             for n, v in record.get("values", {}).items()},
            names, layouts,
        )  # fmt: skip
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(explain_damage(path, error)) from error


def _check_complete(path: Path) -> None:
    """Check that a file of torch is complete; only files since 1.6, zip archives, show it.

    Raises:
        FormatError: When the file is incomplete.
    """
    try:
        with path.open("rb") as file:
            first = file.read(2)
        if not first or (first == b"PK" and not zipfile.is_zipfile(path)):
            raise OSError("its end is missing")
    except OSError as error:
        raise FormatError(explain_damage(path, error)) from error


def _parse_number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _floating_entries(path: Path) -> dict[str, Entry]:
    entries, _ = read_header(path)
    return {name: entry for name, entry in entries.items() if entry.is_floating_point}


def _drop_tied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the floating-point tensors of a state dict; tied ones once, under the first name."""
    names: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            names.setdefault((tensor.data_ptr() or id(tensor), tensor.shape), name)
    return {name: state[name] for name in names.values()}
