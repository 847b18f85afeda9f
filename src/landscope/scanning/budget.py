"""The best picture in a given time."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, final

from landscope.engines.job import Engine, Job, choose_probes
from landscope.errors import SamplerError
from landscope.progress import duration
from landscope.sampling.adaptive import Adaptive
from landscope.sampling.calibrated import Calibrated
from landscope.sampling.grid import Grid, Sampler
from landscope.scanning.cost import time_points

_UNITS = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
}
_USED = 0.88  # share of the time left that is planned for; the rest is a reserve
_MEASURED = 0.03  # share of the time that is spent on measuring how long a point takes
GRACE = 1.1  # a grid that is slower than measured may take this many times its budget
_FULL = 30  # points along each axis: a full grid of this size needs no prediction
_FEW = 120  # points: with fewer, drawing samples is better
_SIZE = 600  # the number of samples that are drawn then
_LARGEST = 501  # points along each axis: more than a screen shows


def parse_budget(budget: float | str) -> float:
    """Return a budget in seconds; texts are such as "90", "60s", "5m", "2h".

    Raises:
        SamplerError: When it is not a time, or not above 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(budget))
    value = float(match[1]) * _UNITS.get(match[2], 0.0) if match else 0.0
    if not 0 < value < math.inf:
        raise SamplerError(
            f"budget={budget!r}; expected seconds above 0, or a text such as '60s', '5m' or '2h'."
        )
    return value


@final
@dataclass(frozen=True)
class Choice:
    """How a scan uses the time of its budget: sampler and samples.

    Args:
        resolution: The number of points along each axis.
        adaptive: Whether points are chosen adaptively until the time is up; else a full grid.
        size: The number of samples that are drawn; 0 for all.
        anchors: The number of points at which all samples are evaluated, if some are drawn.
        note: The same in words.
    """

    resolution: int
    adaptive: bool
    size: int
    anchors: int
    note: str

    def dumps(self) -> str:
        """Return the choice as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def loads(cls, text: str) -> Self:
        """Return the choice of a text."""
        return cls(**json.loads(text))

    def make_sampler(self, given: Sampler, dims: Sequence[str]) -> Sampler:
        """Return the sampler that was chosen, on the span of a given one."""
        axes = given.axes(dims)
        span: Any = [(float(axis[0]), float(axis[-1])) for axis in axes]
        if self.adaptive:
            return Adaptive(tolerance=1e-3, resolution=self.resolution, span=span)
        return Grid(self.resolution, span)

    def make_samples(self) -> Calibrated | None:
        """Return how samples are drawn; None if all are evaluated."""
        return Calibrated(self.size, anchors=self.anchors) if self.size else None


def choose_sampling(
    job: Job, engine: Engine, sampler: Sampler, seconds_left: float
) -> tuple[Choice, str]:
    """Return what to do in the seconds that are left, and the engine's plan as text.

    A few points are timed. If the time allows 900 points (30 on a line), the finest grid for it is
    chosen; else points of a grid with 51 along each axis, where they are needed, until the time is
    up. If that would be fewer than 120 points, some samples of the data are drawn as well.

    Args:
        job: The job of the scan.
        engine: The engine that will evaluate points.
        sampler: The sampler whose span is used.
        seconds_left: The time that is left.
    """
    axes = sampler.axes(job.slice.dims)
    trial = dataclasses.replace(job, probes=choose_probes(axes))
    began = time.perf_counter()
    per_point, plan = time_points(trial, engine, seconds=_MEASURED * seconds_left)
    spent = time.perf_counter() - began
    dims = len(axes)
    points = max(_USED * (seconds_left - spent), per_point) / per_point
    problem = job.objective.problem
    rows = problem.rows
    timing = f"budget of {duration(seconds_left)} at {duration(per_point)} a point"
    if points >= _FULL ** min(dims, 2):
        count = min(int(points ** (1 / dims)), _LARGEST)
        count -= count % 2 == 0  # odd, so that the center is a point
        return Choice(
            count, False, 0, 0, f"{timing}: a grid of {count} points along each axis"
        ), plan
    if points >= _FEW or rows < 4 * _SIZE or not problem.can_be_sampled():
        note = f"{timing}: points where they are needed, until the time is up (about {points:.0f})"
        return Choice(51, True, 0, 0, note), plan
    anchors = max(4, min(36, int(points / 2)))
    note = f"{timing}: {_SIZE} of {rows:,} samples, all of them at {anchors} points"
    return Choice(51, True, _SIZE, anchors, note), plan
