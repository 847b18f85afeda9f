"""Budgets: the best picture in a given time."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, final

from landscope.engines.job import Engine, Job, probes
from landscope.errors import SamplerError
from landscope.sampling.adaptive import Adaptive
from landscope.sampling.calibrated import Calibrated
from landscope.sampling.grid import Grid, Sampler
from landscope.scanning.cost import duration, time_points

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_USED = 0.88  # of the time that is left; the rest is for what cannot be foreseen
_MEASURED = 0.03  # of the time, for finding out how long a point takes
GRACE = 1.1  # a grid that takes longer than was foreseen may take so many times its budget
_FULL = 30  # points an axis: a full grid of so many needs no prediction
_FEW = 120  # points: with fewer, drawing samples is better
_SIZE = 600  # samples
_LARGEST = 501  # points an axis: more than a screen shows


def seconds(budget: float | str) -> float:
    """Return a budget in seconds; texts are such as "90", "60s", "5m", "2h".

    Raises:
        SamplerError: when it is no time, or not above 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|)\s*", str(budget))
    value = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < value < math.inf:
        raise SamplerError(
            f"budget={budget!r}; expected seconds above 0, or a text such as '60s', '5m' or '2h'."
        )
    return value


@final
@dataclass(frozen=True)
class Choice:
    """What a scan does with its time.

    Args:
        resolution: points an axis.
        adaptive: whether points are chosen one after the other until the time is up.
        size: samples drawn; 0 for all.
        anchors: points at which all samples are evaluated, where some are drawn.
        note: the same in words.
    """

    resolution: int
    adaptive: bool
    size: int
    anchors: int
    note: str

    def dumps(self) -> str:
        """Return it as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def loads(cls, text: str) -> Self:
        """Return the choice of a text."""
        return cls(**json.loads(text))

    def sampler(self, given: Sampler, dims: Sequence[str]) -> Sampler:
        """Return the sampler, on the span of the one that was given."""
        axes = given.axes(dims)
        span: Any = [(float(axis[0]), float(axis[-1])) for axis in axes]
        if self.adaptive:
            return Adaptive(tolerance=1e-3, resolution=self.resolution, span=span)
        return Grid(self.resolution, span)

    def samples(self) -> Calibrated | None:
        """Return how samples are drawn, if they are."""
        return Calibrated(self.size, anchors=self.anchors) if self.size else None


def choose(job: Job, engine: Engine, sampler: Sampler, left: float) -> tuple[Choice, str]:
    """Return what to do with the seconds that are left, and the engine's plan as text.

    It times a few points.

    A grid as fine as the time allows, where that is 30 x 30 or finer; else points where they are
    needed, of 51 an axis, until the time is up; and where even those are few, on drawn samples.

    Args:
        job: what is to be done.
        engine: who will do it.
        sampler: whose span is kept.
        left: seconds.
    """
    axes = sampler.axes(job.slice.dims)
    trial = dataclasses.replace(job, probes=probes(axes))
    began = time.perf_counter()
    one, plan = time_points(trial, engine, seconds=_MEASURED * left)
    spent = time.perf_counter() - began
    dims = len(axes)
    points = max(_USED * (left - spent), one) / one
    problem = job.objective.problem
    rows = problem.rows
    told = f"budget of {duration(left)} at {duration(one)} a point"
    if points >= _FULL ** min(dims, 2):
        count = min(int(points ** (1 / dims)), _LARGEST)
        count -= count % 2 == 0  # odd, so that the center is a point
        return Choice(count, False, 0, 0, f"{told}: a grid of {count} points an axis"), plan
    if points >= _FEW or rows < 4 * _SIZE or "" not in problem.batches:
        note = f"{told}: points where they are needed, until the time is up (about {points:.0f})"
        return Choice(51, True, 0, 0, note), plan
    anchors = max(4, min(36, int(points / 2)))
    note = f"{told}: {_SIZE} of {rows:,} samples, all of them at {anchors} points"
    return Choice(51, True, _SIZE, anchors, note), plan
