"""Tuning: a short measurement that finds the fastest plan for a scan on this machine.

The result is stored in the cache folder, by machine and by network, so the same scan gives the same
surface bit for bit; a scan stores its plan in its journal as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch

from landscope import _version, fingerprint
from landscope.engines.plan import Plan
from landscope.errors import EngineError
from landscope.files import cache_folder, write_once
from landscope.objective.nested_batches import count_rows, iter_tensors
from landscope.objective.rows import count_bytes
from landscope.slices.curves import ReusableSlice

if TYPE_CHECKING:
    from landscope.engines.job import Job
    from landscope.engines.threads import ThreadPool

MIN_EVALUATIONS = 20_000  # points times samples; a shorter scan is not worth a measurement
_SHARE = 0.04  # the fraction of a scan's time that may be spent on choosing its plan
_CACHE_BYTES = {"cpu": 2**21, "cuda": 2**26}  # for a layer's outputs, in a fast cache
_MAX_POINTS = 64  # maximum in a vectorized pass
_MAX_COPIES = 2**25  # bytes, for the parameters of these points together
_TOLERANCE = 3e-6  # relative difference from the plain pass; landscope promises 1e-5
_PASSES = 40  # over the data in a measurement, warm-ups included
_LEAST_SECONDS = 2.0  # a measurement may always take this long
_ROUND_SECONDS = 0.02  # minimum duration of a timed round of points
# A plan replaces the fastest so far if it takes less than this share of its time.
_RATIO = 0.95
_RATIO_IF_LIKELY = 1.3  # for a plan that is nearly always the fastest
_RATIO_IF_UNLIKELY = 0.8  # for a return to one worker: threads are slow only while others compute
_LONG_SECONDS = 1200.0  # a longer scan is worth the minute that a compiler takes

OpenPool = Callable[
    [Plan, Mapping[str, Sequence[Any]] | None], contextlib.AbstractContextManager[Any]
]
"""A function from a plan, and data to try it on (None: all data), to a worker pool."""


def choose(job: Job, open_pool: OpenPool, *, workers: int | None, compiler: bool | None) -> Plan:
    """Return the plan for a job: from its journal, from the cache, or the fastest measured one.

    Args:
        job: The job.
        open_pool: A function that opens a worker pool for a plan.
        workers: The number of workers, if the user chose it.
        compiler: Whether to use torch.compile; None uses it if the scan is long enough.

    Raises:
        EngineError: When several workers do not give the values of one.

    Cost: about two seconds the first time, or 4% of a longer scan.
    """
    if job.plan:
        return Plan.loads(job.plan)
    plain = Plan(workers=workers or 1, threads=_threads_per_worker(workers) if workers else None)
    rows = job.objective.problem.rows
    if job.points * rows < MIN_EVALUATIONS and not compiler:
        return plain
    path = cache_folder() / "plans" / f"{_fingerprint(job, workers, compiler)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Plan.loads(path.read_text())
    fastest = _Trials(job, open_pool).find_fastest(plain, workers, compiler)
    with contextlib.suppress(OSError):  # without a writable cache, a plan is measured each time
        write_once(path, fastest.dumps())
        return Plan.loads(path.read_text())  # the first, if two processes measured it
    return fastest


@final
class _Trials:
    """Trials of plans on some of the data, whose values are compared with the plain pass."""

    def __init__(self, job: Job, open_pool: OpenPool) -> None:
        self.job, self.open_pool = job, open_pool
        self.probes = list(job.probes) or [(0.0,) * len(job.slice.dims)]
        self.expected: list[dict[str, float]] = []
        self.seconds: dict[Plan, float] = {}
        self.data: dict[str, list[Any]] = {}
        self.deadline = math.inf

    def find_fastest(self, plain: Plan, workers: int | None, compiler: bool | None) -> Plan:
        """Return the fastest plan with the right values (arguments: see :func:`choose`)."""
        self._choose_data(plain)
        self.fastest = plain
        self._try(plain)
        if plain not in self.seconds:
            raise EngineError(
                f"workers={workers} at the same time do not give the values of one: model, loss or"
                " data share something among threads; use one worker, or processes"
                " (ls.engines.Executor)."
            )
        for change, ratio in self._list_changes(plain, workers):
            if time.perf_counter() > self.deadline and ratio != _RATIO_IF_LIKELY:
                break
            self._try(change(self.fastest), ratio)
        if compiler or (compiler is None and self._estimate_scan() > _LONG_SECONDS):
            self._try(dataclasses.replace(self.fastest, forward="compiled"))
        seconds_per_sample = self.seconds[plain] / self._count_rows()
        return dataclasses.replace(self.fastest, plain=seconds_per_sample)

    def _list_changes(
        self, plain: Plan, workers: int | None
    ) -> Iterator[tuple[Callable[[Plan], Plan], float]]:
        """Yield changes to try on the fastest plan so far, each with the ratio that it must reach.

        A change that is nearly always faster is accepted even if it seems a bit slower: on a busy
        machine one measurement says little, and the plan will be used again.
        """

        def to(**changes: Any) -> Callable[[Plan], Plan]:
            return lambda plan: dataclasses.replace(plan, **changes)

        cpu = self.job.objective.device.type == "cpu"
        several = workers is None and cpu and self._is_thread_safe()
        rows = self._choose_batch_size()
        if several:
            yield to(workers=_count_cores(), threads=1), _RATIO_IF_LIKELY
        if cpu:
            yield to(rows=rows, forward="fused"), _RATIO_IF_LIKELY
        elif rows:
            yield to(rows=rows), _RATIO
        if any(t.ndim == 4 for t in iter_tensors(self.data)):
            yield to(layout="channels_last"), _RATIO
        for factor in (2, 0.5, 4):
            if rows and 1 <= factor * rows < 2 * self._count_rows():
                yield to(rows=int(factor * rows)), _RATIO
        if several:
            yield to(workers=_count_cores(), threads=1), _RATIO
        yield to(workers=plain.workers, threads=plain.threads), _RATIO_IF_UNLIKELY
        yield to(forward="plain" if cpu else "graphed"), _RATIO
        if (points := self._count_vectorized_points()) > 1:
            yield to(forward="plain", layout="contiguous", points=points), _RATIO

    def _choose_data(self, plain: Plan) -> None:
        """Take as many rows of the data as the time allows to evaluate often, and set the deadline.

        Args:
            plain: The plan with which a first pass is timed.
        """
        self.data = self._take_batches(512)
        with self.open_pool(plain, self.data) as pool:
            self._evaluate(pool, self.probes[:1])
            began = time.perf_counter()
            self._evaluate(pool, self.probes[:1])
            seconds = time.perf_counter() - began
        affordable = _SHARE * self.job.points * self._count_all_rows() / _PASSES
        self.data = self._take_batches(max(512, min(int(affordable), 3600)))
        passes = self.job.points * self._count_all_rows() / self._count_rows()
        self.deadline = time.perf_counter() + max(_LEAST_SECONDS, _SHARE * passes * seconds)

    def _take_batches(self, rows: int) -> dict[str, list[Any]]:
        """Return the first batches of the data, until they have the given number of rows."""
        data: dict[str, list[Any]] = {}
        for name, batches in self.job.objective.problem.batches.items():
            data[name], count = [], 0
            for batch in batches:
                data[name].append(batch)
                count += count_rows(batch) or 1
                if count >= rows:
                    break
        return data

    def _count_vectorized_points(self) -> int:
        """Return the number of points in a vectorized pass; 1 if batches alone fill the cache."""
        job, problem = self.job, self.job.objective.problem
        plain_only = problem.buffers == "recompute" or problem.weights is not None
        plain_only = plain_only or problem.precision == "bfloat16"
        if job.quantities or plain_only or not isinstance(job.slice, ReusableSlice):
            return 1
        rows = min(self.fastest.rows or self._count_rows(), self._count_all_rows())
        first = next(iter(job.slice.parts.values()))  # the center, or the first node
        size = sum(t.nbytes for t in first.values())
        return min(
            self._count_cached_rows() // rows, _MAX_COPIES // max(size, 1), _MAX_POINTS, job.points
        )

    def _choose_batch_size(self) -> int | None:
        """Return the first batch size to try: the largest whose outputs stay in the cache.

        None where batches must stay as they are.
        """
        if self.job.objective.problem.needs_given_batches():
            return None
        return max(1, min(self._count_cached_rows(), self._count_rows()))

    def _count_cached_rows(self) -> int:
        """Return the number of rows for which the outputs of every layer stay in the cache."""
        sizes = [1]

        def measure(_: object, __: object, outputs: object) -> None:
            sizes.append(sum(map(count_bytes, iter_tensors(outputs))))

        problem = self.job.objective.problem
        batch = next(iter(next(iter(self.data.values()))))
        layers = [m for m in problem.model.modules() if not list(m.children())]
        with problem.session(self.data) as session, torch.no_grad():
            session.borrowed.set_params(session.center)
            hooks = [layer.register_forward_hook(measure) for layer in layers]
            try:
                session.sum_terms(batch)
            finally:
                for hook in hooks:
                    hook.remove()
        row_size = max(sizes) / (count_rows(batch) or 1)
        return int(_CACHE_BYTES.get(problem.device.type, 2**20) / row_size)

    def _count_rows(self) -> int:
        """Return the number of rows in the data of the trials."""
        batches = next(iter(self.data.values()))
        return sum(count_rows(batch) or 1 for batch in batches)  # as Batches.rows counts them

    def _count_all_rows(self) -> int:
        return self.job.objective.problem.rows

    def _estimate_scan(self) -> float:
        """Return the seconds that the scan takes with the fastest plan so far."""
        seconds = self.seconds[self.fastest]
        return seconds * self.job.points * self._count_all_rows() / self._count_rows()

    def _try(self, plan: Plan, ratio: float = 1.0) -> None:
        """Time a plan, and make it the fastest if its values are right and it is fast enough.

        Args:
            plan: The plan.
            ratio: The largest share of the time of the fastest plan so far.
        """
        if plan in self.seconds:
            return
        try:
            with self.open_pool(plan, self.data) as pool:
                if self._is_right(pool):
                    self.seconds[plan] = self._time_point(pool)
        except Exception:
            if plan == self.fastest:  # the plain pass itself
                raise
            return  # a plan may fail in any way; then it is not used
        if plan == self.fastest:
            return
        if self.seconds.get(plan, math.inf) < ratio * self.seconds[self.fastest]:
            self.fastest = plan

    def _time_point(self, pool: ThreadPool) -> float:
        """Return the seconds per point, the least of three rounds."""
        least, count = math.inf, pool.size
        for _ in range(3):
            points = [self.probes[k % len(self.probes)] for k in range(count)]
            began = time.perf_counter()
            self._evaluate(pool, points)
            seconds = time.perf_counter() - began
            least = min(least, seconds / count)
            if least > 1.5 * self.seconds.get(self.fastest, math.inf):
                break
            if seconds < _ROUND_SECONDS:  # too short: the start of the round would count
                count = pool.size * min(math.ceil(_ROUND_SECONDS / least / pool.size), 1000)
        return least

    def _is_right(self, pool: ThreadPool) -> bool:
        """Whether each worker gives the values of the plain pass, alone and at the same time."""
        points = list(enumerate(self.probes))
        values = [result.values for result in pool.run_on_each_worker(points)]
        if not self.expected:
            self.expected = values[: len(self.probes)]
        expected = self.expected * pool.size
        if pool.size > 1:
            values += self._evaluate(pool, self.probes * pool.size)
            expected = expected * 2
        return all(_is_close(v, e) for v, e in zip(values, expected, strict=True))

    def _evaluate(
        self, pool: ThreadPool, points: Sequence[tuple[float, ...]]
    ) -> list[dict[str, float]]:
        values = {r.point: r.values for rs in pool.run(enumerate(points)) for r in rs}
        return [values[k] for k in range(len(points))]

    def _is_thread_safe(self) -> bool:
        """Whether several threads may evaluate: the model uses no global random generator."""
        if _count_cores() < 2 or self.job.quantities:
            return False
        if self.job.objective.problem.streamed:
            return False  # an iterable of the user may store the position of its iteration
        with self.job.objective.problem.session(self.data) as session:
            before = torch.get_rng_state()
            session.evaluate(None)
            return bool(torch.equal(before, torch.get_rng_state()))


def _is_close(values: Mapping[str, float], expected: Mapping[str, float]) -> bool:
    return values.keys() == expected.keys() and all(
        v == expected[n]
        or (math.isnan(v) and math.isnan(expected[n]))
        or math.isclose(v, expected[n], rel_tol=_TOLERANCE)
        for n, v in values.items()
    )


def _count_cores() -> int:
    return max(torch.get_num_threads(), 1)


def _threads_per_worker(workers: int) -> int:
    return max(_count_cores() // workers, 1)


def _fingerprint(job: Job, workers: int | None, compiler: bool | None) -> str:
    """Return a fingerprint of everything that decides which plan is fastest, and its values."""
    fingerprints = job.objective.problem.fingerprints()
    values = ("weights", "buffers and frozen parameters")
    structure = {n: text for n, text in fingerprints.items() if n not in values}
    quantities = [fingerprint.of_function(q) for q in job.quantities]
    return fingerprint.of_text(
        structure, quantities, workers, compiler, _count_cores(), _version.__version__,
        torch.__version__, platform.processor(), _processor_name(),
    )  # fmt: skip


def _processor_name() -> str:
    """Return the name of the processor, if the system reports one."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith("model name")), "")
    return platform.machine()
