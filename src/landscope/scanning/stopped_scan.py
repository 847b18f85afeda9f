"""The landscape of a scan that was stopped, from its journal alone."""

from __future__ import annotations

import ast
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from landscope.errors import JournalError, LandscopeError
from landscope.landscape import Landscape
from landscope.sampling import data_subset
from landscope.sampling.adaptive import Adaptive
from landscope.sampling.grid import Sampler
from landscope.scanning.dataset import build_landscape
from landscope.scanning.description import Description, loads
from landscope.scanning.journal import DESCRIPTION, Journal


@final
@dataclass(frozen=True, eq=False)
class StoppedScan:
    """The values in a journal.

    Args:
        landscape: The landscape of the values that are known; the others are predicted by the
            sampler, or NaN.
        done: The number of points that were evaluated.
        total: The number of points to evaluate; of an adaptive scan about that many.
        seconds_left: The time that the other points take, at the pace of the first ones.
    """

    landscape: Landscape
    done: int
    total: int
    seconds_left: float

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to evaluate."""
        return self.done >= self.total


def open_journal(path: str | os.PathLike[str]) -> StoppedScan:
    """Return what a journal knows of its scan, whether or not the scan has finished.

    Args:
        path: The journal of a scan; those of version 0.1 do not know units and labels.

    Raises:
        JournalError: When the file does not exist, is damaged, or holds no value yet.
    """
    path = Path(path)
    if not path.is_file():
        raise JournalError(f"{path} does not exist: check the name.")
    with Journal(path) as journal:
        values, question, settings = journal.values(), journal.question, journal.settings()
        notes, seconds = journal.notes, journal.seconds
    if not values:
        raise JournalError(f"{path} holds no value yet: the scan was stopped before its first one.")
    description = _describe(question, settings)
    shape = tuple(map(len, description.axes))
    sampler = _make_sampler(description.attributes.get("sampler", question.get("sampler", "")))
    total = _count_points(sampler, shape, values)
    subset = settings.get("subset")
    unfinished = f"not finished: {len(values):,} of {total:,} points ({len(values) / total:.0%})"
    land = build_landscape(
        description, values, sampler=sampler, seconds=seconds,
        subset=None if subset is None else data_subset.loads(subset),
        notes=[*([unfinished] if len(values) < total else []), *notes, *description.notes],
    )  # fmt: skip
    return StoppedScan(land, len(values), total, seconds / len(values) * (total - len(values)))


def _describe(question: Mapping[str, str], settings: Mapping[str, Any]) -> Description:
    """Return the description in a journal, or what the question of version 0.1 says of it."""
    if DESCRIPTION in settings:
        return loads(settings[DESCRIPTION])
    grid = json.loads(question.get("grid", "{}"))
    return Description(
        dims=tuple(grid),
        axes=tuple(np.linspace(*ends).tolist() for ends in grid.values()),
        attributes={"fingerprints": json.dumps(dict(question))},
    )


def _make_sampler(text: str) -> Sampler | None:
    """Return the adaptive sampler that a text describes; None for every other sampler."""
    if not text.startswith("Adaptive("):
        return None
    try:
        call: Any = ast.parse(text, mode="eval").body
        return Adaptive(**{word.arg: ast.literal_eval(word.value) for word in call.keywords})
    except (SyntaxError, ValueError, TypeError, LandscopeError):
        return None


def _count_points(sampler: Sampler | None, shape: tuple[int, ...], values: Any) -> int:
    """Return how many points there are to evaluate; those of an adaptive scan are an estimate."""
    if sampler is None:
        return math.prod(shape)
    if not sampler.ask(shape, values):
        return len(values)
    return max(sampler.expected_points(shape), len(values) + 1)
