"""Plans: the fastest way to make the passes of a scan on this machine, found by short measurement.

A plan changes values by rounding only. What it measured is kept in the cache folder, machine by
machine and network by network, so the same question gives the same surface bit for bit; a scan
keeps its plan in its journal as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import torch

from landscope import _version, fingerprint
from landscope.errors import EngineError
from landscope.files import cache_folder, write_once
from landscope.objective.nested import count_rows, iter_tensors
from landscope.slices.curves import ReusableSlice

if TYPE_CHECKING:
    from landscope.engines.job import Job
    from landscope.engines.threads import Team
    from landscope.objective.objective import Objective

WORTH = 20_000  # evaluations of single samples; for fewer nothing is measured
_SHARE = 0.04  # of the time of a scan, for choosing its plan
_CACHED = {"cpu": 2**21, "cuda": 2**26}  # bytes of a layer's outputs that are moved quickly
_TOGETHER = 64  # points in one pass, at most
_COPIES = 2**25  # bytes of their parameters, at most
_TOLERANCE = 3e-6  # between two ways to compute one value; promised are 1e-5
_PASSES = 40  # that trying takes, warm-ups included
_LEAST = 2.0  # seconds that trying may take in any case
_ROUND = 0.02  # seconds of points that are timed together
_GAIN = 0.95  # a plan must take less than this share of the time of the best so far
_LIKELY = 1.3  # the same of a plan that is expected to be the best
_CLEAR = 0.8  # the same of threads that wait for each other: on a busy machine they crawl
LONG = 1200.0  # seconds; a scan that takes longer is worth the minute of a compiler


@final
@dataclass(frozen=True)
class Plan:
    """How passes are made.

    Args:
        workers: points that are evaluated at the same time, each by a thread of its own.
        threads: of torch, in each worker; None leaves them as they are set.
        rows: a batch, at most; None takes the batches as the data give them.
        forward: "plain"; "fused" on a CPU (see :mod:`landscope.engines.fused`); "graphed" on a GPU
            (recorded as a CUDA graph); "compiled" (torch.compile).
        layout: "contiguous" or "channels_last", of images.
        points: evaluated together, in one pass (see :mod:`landscope.engines.vectorized`).
        plain: seconds that the plain pass took for a sample, where it was measured beside this.
    """

    workers: int = 1
    threads: int | None = None
    rows: int | None = None
    forward: str = "plain"
    layout: str = "contiguous"
    points: int = 1
    plain: float | None = dataclasses.field(default=None, compare=False)

    def __str__(self) -> str:
        """Say it in words."""
        words = [
            f"{self.workers} workers" if self.workers > 1 else "1 worker",
            *([f"{self.threads} threads each"] if self.threads else []),
            f"batches of {self.rows}" if self.rows else "batches as given",
            *([self.forward] if self.forward != "plain" else []),
            *([self.layout] if self.layout != "contiguous" else []),
            *([f"{self.points} points in a pass"] if self.points > 1 else []),
        ]
        return ", ".join(words)

    def dumps(self) -> str:
        """Return it as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def loads(cls, text: str) -> Self:
        """Return the plan of a text."""
        return cls(**json.loads(text))


Opened = Callable[
    [Plan, Mapping[str, Sequence[Any]] | None], contextlib.AbstractContextManager[Any]
]
"""From a plan, and data to try it on, to a team."""


def choose(job: Job, opened: Opened, *, workers: int | None, compiler: bool | None) -> Plan:
    """Return the plan for a job: the one that its journal or this machine remembers, or the best.

    Args:
        job: what is to be done.
        opened: makes a team for a plan.
        workers: how many, if the user said so.
        compiler: whether to use torch.compile; None: where a scan is long enough.

    Cost: the first time about two seconds, or 4% of a longer scan.
    """
    if job.plan:
        return Plan.loads(job.plan)
    given = Plan(workers=workers or 1, threads=_threads(workers) if workers else None)
    rows = job.objective.problem.rows
    if job.points * rows < WORTH and not compiler:
        return given
    place = cache_folder() / "plans" / f"{_key(job.objective, workers, compiler, job)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Plan.loads(place.read_text())
    found = _Trials(job, opened).best(given, workers, compiler)
    with contextlib.suppress(OSError):  # a cache that cannot be written is none
        write_once(place, found.dumps())
        return Plan.loads(place.read_text())  # of two that measured at the same time, the first
    return found


@final
class _Trials:
    """Plans tried on some of the data, each against the values of the plain pass."""

    def __init__(self, job: Job, opened: Opened) -> None:
        self.job, self.opened = job, opened
        self.probes = list(job.probes) or [(0.0,) * len(job.slice.dims)]
        self.expected: list[dict[str, float]] = []
        self.seconds: dict[Plan, float] = {}
        self.data: dict[str, list[Any]] = {}
        self.until = math.inf

    def best(self, given: Plan, workers: int | None, compiler: bool | None) -> Plan:
        """Return the fastest plan that gives the right values."""
        self._take_data(given)
        self.fastest = given
        self._try(given)
        if given not in self.seconds:
            raise EngineError(
                f"workers={workers} at the same time do not give the values of one: model, loss or"
                " data share something among threads; use one worker, or processes"
                " (ls.engines.Executor)."
            )
        for trial, gain in self._candidates(given, workers):
            if time.perf_counter() > self.until and gain != _LIKELY:
                break
            self._try(trial(self.fastest), gain)
        if compiler or (compiler is None and self._left() > LONG):
            self._try(dataclasses.replace(self.fastest, forward="compiled"))
        plain = self.seconds[given] / self._count()
        return dataclasses.replace(self.fastest, plain=plain)

    def _candidates(
        self, given: Plan, workers: int | None
    ) -> Iterator[tuple[Callable[[Plan], Plan], float]]:
        """Yield changes to try on the fastest plan so far, each with the share of its time to take.

        What is known to be faster nearly always is taken first, even where it seems a bit slower:
        on a busy machine a measurement says little, and the plan will be remembered.
        """

        def to(**changes: Any) -> Callable[[Plan], Plan]:
            return lambda plan: dataclasses.replace(plan, **changes)

        cpu = self.job.objective.device.type == "cpu"
        several = workers is None and cpu and self._may_be_shared()
        middle = self._middle()
        if several:
            yield to(workers=_cores(), threads=1), _LIKELY
        if cpu:
            yield to(rows=middle, forward="fused"), _LIKELY
        else:
            yield to(rows=middle), _GAIN
        if any(t.ndim == 4 for t in iter_tensors(self.data)):
            yield to(layout="channels_last"), _GAIN
        for factor in (2, 0.5, 4):
            if 1 <= factor * middle < 2 * self._count():
                yield to(rows=int(factor * middle)), _GAIN
        if several:
            yield to(workers=_cores(), threads=1), _GAIN
        yield to(workers=given.workers, threads=given.threads), _CLEAR
        yield to(forward="plain" if cpu else "graphed"), _GAIN
        if (points := self._points()) > 1:
            yield to(forward="plain", layout="contiguous", points=points), _GAIN

    def _take_data(self, given: Plan) -> None:
        """Keep as many rows of the data as can be tried often in the time that there is."""
        self.data = self._some(512)
        with self.opened(given, self.data) as team:
            self._evaluate(team, self.probes[:1])
            began = time.perf_counter()
            self._evaluate(team, self.probes[:1])
            once = time.perf_counter() - began
        affordable = _SHARE * self.job.points * self._total() / _PASSES
        self.data = self._some(max(512, min(int(affordable), 3600)))
        share = _SHARE * self.job.points * self._total() / self._count() * once
        self.until = time.perf_counter() + max(_LEAST, share)

    def _some(self, rows: int) -> dict[str, list[Any]]:
        """Return the first batches of the data, until they hold so many rows."""
        found: dict[str, list[Any]] = {}
        for name, batches in self.job.objective.problem.batches.items():
            found[name], seen = [], 0
            for batch in batches:
                found[name].append(batch)
                seen += count_rows(batch) or 1
                if seen >= rows:
                    break
        return found

    def _points(self) -> int:
        """Return how many points to evaluate in one pass, where a batch leaves room for several."""
        job, problem = self.job, self.job.objective.problem
        by_hand = problem.buffers == "recompute" or problem.weights is not None
        by_hand = by_hand or problem.precision == "bfloat16"
        if job.quantities or by_hand or not isinstance(job.slice, ReusableSlice):
            return 1
        room = self._room() // min(self.fastest.rows or self._count(), self._total())
        first = next(iter(job.slice.parts.values()))  # the center, or the first node
        size = sum(t.nbytes for t in first.values())
        return min(room, _COPIES // max(size, 1), _TOGETHER, job.points)

    def _middle(self) -> int:
        """Return rows a batch to begin with: as many as leave a layer's outputs in the cache."""
        return max(1, min(self._room(), self._count()))

    def _room(self) -> int:
        """Return how many rows leave the outputs of every layer in the cache."""
        widest = [1]

        def seen(_: object, __: object, outputs: object) -> None:
            widest.append(sum(t.nbytes for t in iter_tensors(outputs)))

        problem = self.job.objective.problem
        first = next(iter(next(iter(self.data.values()))))
        leaves = [m for m in problem.model.modules() if not list(m.children())]
        with problem.session(self.data) as session, torch.no_grad():
            session.borrowed.set_params(session.center)
            hooks = [leaf.register_forward_hook(seen) for leaf in leaves]
            try:
                session.evaluate_batch(first)
            finally:
                for hook in hooks:
                    hook.remove()
        row = max(widest) / (count_rows(first) or 1)
        return int(_CACHED.get(problem.device.type, 2**20) / row)

    def _count(self) -> int:
        first = next(iter(self.data.values()))
        return sum(count_rows(batch) or 1 for batch in first)  # as Batches.rows has it

    def _total(self) -> int:
        return self.job.objective.problem.rows

    def _left(self) -> float:
        """Return the seconds that the scan takes with the fastest plan."""
        once = self.seconds[self.fastest]
        return once * self.job.points * self._total() / self._count()

    def _try(self, trial: Plan, gain: float = 1.0) -> None:
        """Take a plan if it gives the right values, in at most a share of the time of the best."""
        if trial in self.seconds:
            return
        try:
            with self.opened(trial, self.data) as team:
                if self._right(team):
                    self.seconds[trial] = self._timed(team)
        except Exception:
            if trial == self.fastest:  # the plain pass itself
                raise
            return  # whatever it was, it works without this plan
        if trial == self.fastest:
            return
        if self.seconds.get(trial, math.inf) < gain * self.seconds[self.fastest]:
            self.fastest = trial

    def _timed(self, team: Team) -> float:
        """Return seconds a point, the least of three rounds."""
        best, count = math.inf, team.size
        for _ in range(3):
            points = [self.probes[k % len(self.probes)] for k in range(count)]
            began = time.perf_counter()
            self._evaluate(team, points)
            seconds = time.perf_counter() - began
            best = min(best, seconds / count)
            if best > 1.5 * self.seconds.get(self.fastest, math.inf):
                break
            if seconds < _ROUND:  # too short to be told from what starting takes
                count = team.size * min(math.ceil(_ROUND / best / team.size), 1000)
        return best

    def _right(self, team: Team) -> bool:
        """Whether a team gives the values of the plain pass, each of its workers."""
        found = [result.values for result in team.each(list(enumerate(self.probes)))]
        if not self.expected:
            self.expected = found[: len(self.probes)]
        expected = self.expected * team.size
        if team.size > 1:  # and at the same time
            found += self._evaluate(team, self.probes * team.size)
            expected = expected * 2
        return all(_close(one, other) for one, other in zip(found, expected, strict=True))

    def _evaluate(self, team: Team, points: Sequence[tuple[float, ...]]) -> list[dict[str, float]]:
        found = {r.point: r.values for rs in team.run(enumerate(points)) for r in rs}
        return [found[k] for k in range(len(points))]

    def _may_be_shared(self) -> bool:
        """Whether threads can evaluate at the same time: nothing draws from a global generator."""
        if _cores() < 2 or self.job.quantities:
            return False
        if self.job.objective.problem.streamed:
            return False  # an iterable of the user's may hold the place where a walk stands
        with self.job.objective.problem.session(self.data) as session:
            before = torch.get_rng_state()
            session.evaluate(None)
            return bool(torch.equal(before, torch.get_rng_state()))


def _close(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(
        v == other[n]
        or (math.isnan(v) and math.isnan(other[n]))
        or math.isclose(v, other[n], rel_tol=_TOLERANCE)
        for n, v in one.items()
    )


def _cores() -> int:
    return max(torch.get_num_threads(), 1)


def _threads(workers: int) -> int:
    return max(_cores() // workers, 1)


def _key(objective: Objective, workers: int | None, compiler: bool | None, job: Job) -> str:
    """Fingerprint what decides which plan is best, and what its values are."""
    asked = objective.problem.fingerprints()
    values = ("weights", "buffers and frozen parameters")
    same = {n: text for n, text in asked.items() if n not in values}
    quantities = [fingerprint.of_function(q) for q in job.quantities]
    return fingerprint.of_text(
        same, quantities, workers, compiler, _cores(), _version.__version__, torch.__version__,
        platform.processor(), _processor(),
    )  # fmt: skip


def _processor() -> str:
    """Return the name of the processor, where the system tells."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith("model name")), "")
    return platform.machine()
