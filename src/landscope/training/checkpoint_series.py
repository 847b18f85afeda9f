"""Series: the checkpoints of a training run among the files of a folder, by the numbers in names.

``epoch_3.pth``, ``checkpoint-500/``, ``epoch=3-step=100.ckpt``: names of one series differ in their
numbers only. What counts is told by the word before a number ("epoch", "step", ...), or else by
its being the only one that changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from landscope.errors import FormatError
from landscope.formats.checkpoint_files import find_file

_SUFFIXES = re.compile(r"(\.pth?\.tar|\.t7|\.pth?|\.ckpt|\.bin|\.safetensors)$")
_NUMBER = re.compile(r"([A-Za-z]*)[-_=.]*(\d+(?:\.\d+)?)(?!\d)")  # with the word before it
_STEPS = {"step", "steps", "globalstep", "iter", "iters", "iteration", "it", "batch", "update"}
_EPOCHS = {"epoch", "epochs", "ep", "e"}
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|rng|training|trainer", re.IGNORECASE)
_COPIES = re.compile(r"ema|swa|teacher", re.IGNORECASE)
_MAX_NAMES = 3  # that a sentence lists


@final
@dataclass(frozen=True)
class NumberedFile:
    """A checkpoint of a series.

    Args:
        path: The file.
        number: The step, the epoch, or what else the files are counted by.
        epoch: The epoch, if the name says it.
    """

    path: Path
    number: int
    epoch: float | None


@final
@dataclass(frozen=True)
class _Name:
    """A name, split at its numbers."""

    entry: Path
    form: str  # the name, with * for each number
    words: tuple[str, ...]  # before each number
    numbers: tuple[str, ...]


def find_series(folder: Path, pattern: str | None = None) -> tuple[list[NumberedFile], str]:
    """Return the largest series of checkpoints in a folder, in ascending order, and a note.

    Args:
        folder: A folder of files, or of folders that ``save_pretrained`` wrote.
        pattern: The names to use, such as "net_G_*.pth"; by default all.

    Returns:
        The checkpoints, none if no name has a number; and a sentence on what was read.

    Raises:
        FormatError: When it is not clear which files are the series, or what they are counted by.
    """
    entries = sorted(folder.glob(pattern or "*"))
    names = [name for entry in entries if (name := _split(entry)) is not None]
    series: dict[str, list[_Name]] = {}
    for name in names:
        series.setdefault(name.form, []).append(name)
    if not series:
        return [], ""
    form = _choose(folder, series)
    files, counted = _order(folder, series[form])
    used = {name.entry for name in series[form]}
    others = [e.name for e in entries if e not in used and _is_weights(e)]
    left_out = f"; left out: {_list(others)}" if others else ""
    note = f"{len(files)} checkpoints {form} were read in the order of {counted}{left_out}"
    return files, note


def _is_weights(entry: Path) -> bool:
    is_kind = entry.is_dir() or _SUFFIXES.search(entry.name) is not None
    return is_kind and not entry.name.startswith(".") and not _NO_WEIGHTS.search(entry.name)


def _split(entry: Path) -> _Name | None:
    """Return a name split at its numbers; None if it is none of a numbered checkpoint."""
    stem = _SUFFIXES.sub("", entry.name)
    matches = list(_NUMBER.finditer(stem))
    if not matches or not _is_weights(entry):
        return None
    if entry.is_dir():
        try:
            find_file(entry)
        except FormatError:
            return None
    form = _NUMBER.sub(lambda m: m[0][: m.start(2) - m.start()] + "*", stem)
    words = tuple(re.sub(r"[^a-z]", "", match[1].lower()) for match in matches)
    suffix = entry.name[len(stem) :] + ("/" if entry.is_dir() else "")
    return _Name(entry, form + suffix, words, tuple(match[2] for match in matches))


def _choose(folder: Path, series: dict[str, list[_Name]]) -> str:
    """Return the form of the largest series; copies of the network, such as EMA, come second."""

    def rank(form: str) -> tuple[int, bool]:
        return len(series[form]), not _COPIES.search(form)

    best = max(series, key=rank)
    equal = [form for form in series if rank(form) == rank(best)]
    if len(equal) > 1:
        raise FormatError(
            f"{folder} holds {len(equal)} series of checkpoints, {_list(equal)}, with"
            f" {len(series[best])} files each: say which one is meant, with"
            f" pattern={equal[0]!r}, or move the others into a folder of their own."
        )
    return best


def _order(folder: Path, names: Sequence[_Name]) -> tuple[list[NumberedFile], str]:
    """Return the files in order, and a word for what they are counted by."""
    columns = {
        k: [name.numbers[k] for name in names]
        for k in range(len(names[0].numbers))
        if all(name.numbers[k].isdigit() for name in names)
    }
    words = names[0].words
    steps = next((k for k in columns if words[k] in _STEPS), None)
    epochs = next((k for k in columns if words[k] in _EPOCHS), None)
    changing = [k for k, column in columns.items() if len(set(column)) == len(names)]
    column = next((k for k in (steps, epochs) if k in changing), None)
    if column is None and len(changing) == 1:
        column = changing[0]
    if column is None:
        raise FormatError(
            f"{folder}: it is not clear what the checkpoints {_list([n.entry.name for n in names])}"
            " are counted by: name them epoch_<number> or step_<number>, followed by their ending."
        )
    files = [
        NumberedFile(
            find_file(name.entry),
            int(name.numbers[column]),
            None if epochs is None else float(name.numbers[epochs]),
        )
        for name in names
    ]
    kinds = {steps: "their steps", epochs: "their epochs"}
    return sorted(files, key=lambda file: file.number), kinds.get(column, "their numbers")


def _list(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
