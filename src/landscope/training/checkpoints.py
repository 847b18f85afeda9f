"""Recording: the checkpoints in a folder as one path: read, thinned, cut off where it was left."""

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
from landscope.training.tensorfile import damaged, header
from landscope.training.trajectory import drops

_NAME = re.compile(r"(\d{9,})\.safetensors")
_PART = ".[0-9]*-*.safetensors"  # what `files.whole` lends, left behind by a kill


@dataclass(frozen=True)
class Taken:
    """A checkpoint of a path."""

    file: Path
    step: int
    number: int  # 0 for the first; those that were thinned out since are counted
    epoch: float | None
    learning_rate: float | None
    stride: int = 1  # of the thinning when it was taken

    @property
    def whole_epoch(self) -> int | None:
        """The epoch without its fraction."""
        return None if self.epoch is None else math.floor(self.epoch)


@final
class Recording:
    """The path in a folder, which only one process may write into.

    Args:
        folder: of the checkpoints.

    Raises:
        FormatError: when a file with the name of a checkpoint is not whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path: list[Taken] = []
        self.stride = 1
        files = [(int(m[1]), p) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))]
        for step, file in sorted(files):
            about = _about(file)
            taken = Taken(
                file, step, about.get("number", self._next), about.get("epoch"),
                about.get("learning_rate"), about.get("stride", 1),
            )  # fmt: skip
            self.path.append(taken)
            self.stride = taken.stride

    @property
    def newest(self) -> Taken | None:
        """The last checkpoint; None in an empty folder."""
        return self.path[-1] if self.path else None

    def at(self, step: int) -> Taken | None:
        """Return the checkpoint of a step."""
        return next((t for t in self._since(step) if t.step == step), None)

    def before(self, step: int) -> Taken | None:
        """Return the last checkpoint before a step."""
        return next((t for t in reversed(self.path) if t.step < step), None)

    def since_epoch(self, epoch: int) -> Taken | None:
        """Return the first checkpoint of an epoch or later ones."""
        found = (t for t in self.path if t.whole_epoch is not None and t.whole_epoch >= epoch)
        return next(found, None)

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise a sentence unless the path is that of a model with these tensors.

        Raises:
            RecorderError: naming the first difference.
        """
        if self.newest is None:
            return
        entries = header(self.newest.file)[0]
        theirs = {name: list(entry.shape) for name, entry in entries.items()}
        mine = {name: list(tensor.shape) for name, tensor in tensors.items()}
        name = next((n for n in {**mine, **theirs} if mine.get(n) != theirs.get(n)), None)
        if name is not None:
            there, here = (
                f"has the shape {tuple(shapes[name])}" if name in shapes else "is not there"
                for shapes in (theirs, mine)
            )
            raise RecorderError(
                f"{self.folder} records another model: {name!r} {there} in"
                f" {self.newest.file.name} and {here} in this model. Nothing was written: record"
                " into another folder, or the same model with the same buffers=."
            )

    def add(
        self, step: int, *, epoch: float | None, learning_rate: float | None, keep: int | None
    ) -> tuple[Taken, list[Path]]:
        """Return the checkpoint of a new last step, and the files to go once it is written."""
        file = self.folder / f"{step:09d}.safetensors"
        taken = Taken(file, step, self._next, epoch, learning_rate)
        self.path.append(taken)
        if keep is None:
            self.stride = 1
            return taken, []
        before = self.path
        self.path, self.stride = thinned(before, self.stride, keep)
        stay = {t.number for t in self.path}
        return taken, [t.file for t in before if t.number not in stay]

    def abandon(self, step: int) -> None:
        """Move the checkpoints from a step on into a folder of their own; all must be written.

        Raises:
            RecorderError: when they cannot be moved.
        """
        later = list(self._since(step))
        if not later:
            return
        numbers = (n for n in itertools.count(1) if not (self.folder / f"abandoned-{n}").exists())
        place = self.folder / f"abandoned-{next(numbers)}"
        try:
            place.mkdir()
            for taken in later:  # the last first: at any moment the rest is one path
                taken.file.rename(place / taken.file.name)
                self.path.pop()
                self.stride = self.path[-1].stride if self.path else 1
        except OSError as error:
            raise RecorderError(
                f"{self.folder} holds later steps than {step}, which cannot be moved to"
                f" {place.name} ({error}): move them elsewhere, or record into another folder."
            ) from error

    def sweep(self) -> None:
        """Remove half-written files that a killed process left behind."""
        for part in self.folder.glob(_PART):
            part.unlink(missing_ok=True)

    def _since(self, step: int) -> Iterator[Taken]:
        return itertools.takewhile(lambda t: t.step >= step, reversed(self.path))

    @property
    def _next(self) -> int:
        return self.path[-1].number + 1 if self.path else 0


def _about(file: Path) -> dict[str, Any]:
    """Return what a checkpoint tells of itself."""
    told = header(file)[1].get("landscope", "{}")
    try:
        return dict(json.loads(told))
    except (ValueError, TypeError) as error:
        raise FormatError(damaged(file, error)) from error


def thinned(path: Sequence[Taken], stride: int, keep: int) -> tuple[list[Taken], int]:
    """Return at most ``keep`` checkpoints of a path, and the stride at which they stand.

    The stride is doubled until they are few enough. The first and the last stay, and the two at
    each drop of the learning rate unless those are more than a quarter of ``keep``.
    """
    falls = drops(taken.learning_rate for taken in path)
    at_drops = {path[k].number for index in falls for k in (index - 1, index)}
    fixed = {path[0].number, path[-1].number} | (at_drops if len(at_drops) <= keep // 4 else set())
    while True:
        stay = [t for t in path if t.number % stride == 0 or t.number in fixed]
        if len(stay) <= keep:
            return stay, stride
        stride *= 2
