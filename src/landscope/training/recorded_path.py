"""The checkpoints in a folder as one path that can be extended, thinned and cut off."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from landscope.errors import FormatError, RecorderError
from landscope.tensorfile import explain_damage, read_header
from landscope.training.trajectory import drops

_NAME = re.compile(r"(\d{9,})\.safetensors")
_PARTIAL = ".[0-9]*-*.safetensors"  # temporary files of `write_atomically` that a kill left


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint of a recorded path."""

    file: Path
    step: int
    number: int  # 0 for the first; checkpoints that were removed by thinning are counted, too
    epoch: float | None
    learning_rate: float | None
    stride: int = 1  # of the thinning when the checkpoint was taken

    @property
    def whole_epoch(self) -> int | None:
        """The epoch without its fraction."""
        return None if self.epoch is None else math.floor(self.epoch)


@final
class RecordedPath:
    """The recorded path in a folder; only one process may write into the folder.

    Args:
        folder: The folder of the checkpoints.

    Raises:
        FormatError: When a file with the name of a checkpoint is incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.snapshots: list[Snapshot] = []
        self.stride = 1
        files = [(int(m[1]), p) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))]
        for step, file in sorted(files):
            record = _read_record(file)
            snapshot = Snapshot(
                file, step, record.get("number", self._next_number), record.get("epoch"),
                record.get("learning_rate"), record.get("stride", 1),
            )  # fmt: skip
            self.snapshots.append(snapshot)
            self.stride = snapshot.stride

    @property
    def newest(self) -> Snapshot | None:
        """The last checkpoint; None in an empty folder."""
        return self.snapshots[-1] if self.snapshots else None

    def at(self, step: int) -> Snapshot | None:
        """Return the checkpoint of a step."""
        return next((s for s in self._from(step) if s.step == step), None)

    def before(self, step: int) -> Snapshot | None:
        """Return the last checkpoint before a step."""
        return next((s for s in reversed(self.snapshots) if s.step < step), None)

    def since_epoch(self, epoch: int) -> Snapshot | None:
        """Return the first checkpoint of an epoch or of a later one."""
        for snapshot in self.snapshots:
            if snapshot.whole_epoch is not None and snapshot.whole_epoch >= epoch:
                return snapshot
        return None

    def check_model(self, tensors: Mapping[str, Tensor]) -> None:
        """Check that the path is that of a model with these tensors.

        Raises:
            RecorderError: When the tensors differ; the text names the first difference.
        """
        if self.newest is None:
            return
        entries, _ = read_header(self.newest.file)
        recorded = {name: tuple(entry.shape) for name, entry in entries.items()}
        present = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        name = next((n for n in {**present, **recorded} if present.get(n) != recorded.get(n)), None)
        if name is not None:
            there, here = (
                f"has the shape {shapes[name]}" if name in shapes else "is not there"
                for shapes in (recorded, present)
            )
            raise RecorderError(
                f"{self.folder} records another model: {name!r} {there} in"
                f" {self.newest.file.name} and {here} in this model. Nothing was written: record"
                " into another folder, or the same model with the same buffers=."
            )

    def add(
        self, step: int, *, epoch: float | None, learning_rate: float | None, keep: int | None
    ) -> tuple[Snapshot, list[Path]]:
        """Append a checkpoint; return it, and the files to remove once it is written.

        Args:
            step: The step, later than all others.
            epoch: The epoch; None if it is unknown.
            learning_rate: The learning rate at this step; None if it is unknown.
            keep: The largest number of checkpoints; None for no limit.
        """
        file = self.folder / f"{step:09d}.safetensors"
        snapshot = Snapshot(file, step, self._next_number, epoch, learning_rate)
        self.snapshots.append(snapshot)
        if keep is None:
            self.stride = 1
            return snapshot, []
        before = self.snapshots
        self.snapshots, self.stride = thin(before, self.stride, keep)
        remaining = {s.number for s in self.snapshots}
        return snapshot, [s.file for s in before if s.number not in remaining]

    def abandon(self, step: int) -> None:
        """Move the checkpoints from a step on into a folder of their own; all must be on the disk.

        Raises:
            RecorderError: When the files cannot be moved.
        """
        later = list(self._from(step))
        if not later:
            return
        numbers = (n for n in itertools.count(1) if not (self.folder / f"abandoned-{n}").exists())
        target = self.folder / f"abandoned-{next(numbers)}"
        try:
            target.mkdir()
            for snapshot in later:  # the last first: at any moment the rest is one path
                snapshot.file.rename(target / snapshot.file.name)
                self.snapshots.pop()
                self.stride = self.snapshots[-1].stride if self.snapshots else 1
        except OSError as error:
            raise RecorderError(
                f"{self.folder} holds later steps than {step}, which cannot be moved to"
                f" {target.name} ({error}): move them elsewhere, or record into another folder."
            ) from error

    def remove_partial_files(self) -> None:
        """Remove incomplete files that a killed process left behind."""
        for part in self.folder.glob(_PARTIAL):
            part.unlink(missing_ok=True)

    def _from(self, step: int) -> Iterator[Snapshot]:
        """Yield the checkpoints from a step on, the last first."""
        return itertools.takewhile(lambda s: s.step >= step, reversed(self.snapshots))

    @property
    def _next_number(self) -> int:
        return self.snapshots[-1].number + 1 if self.snapshots else 0


def _read_record(file: Path) -> dict[str, Any]:
    """Return what was recorded with a checkpoint: step, epoch, learning rate, ..."""
    text = read_header(file)[1].get("landscope", "{}")
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise FormatError(explain_damage(file, error)) from error


def thin(path: Sequence[Snapshot], stride: int, keep: int) -> tuple[list[Snapshot], int]:
    """Return at most ``keep`` checkpoints of a path, and their stride.

    The stride is doubled until few enough are left. The first and the last stay, and the two at
    each drop of the learning rate, unless those are more than a quarter of ``keep``.

    Args:
        path: The checkpoints, by step.
        stride: The present stride: checkpoints stay whose numbers it divides.
        keep: The largest number of checkpoints, 2 or more.
    """
    falls = drops(snapshot.learning_rate for snapshot in path)
    at_drops = {path[k].number for index in falls for k in (index - 1, index)}
    fixed = {path[0].number, path[-1].number} | (at_drops if len(at_drops) <= keep // 4 else set())
    while True:
        remaining = [s for s in path if s.number % stride == 0 or s.number in fixed]
        if len(remaining) <= keep:
            return remaining, stride
        stride *= 2
