"""The cost of a scan in seconds, memory and FLOPs, before it starts."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import nn

from landscope.engines.executor import as_engine
from landscope.engines.job import Engine, Job, Point, check_engine, choose_probes
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.objective.evaluation import Session
from landscope.objective.native_kernels import NATIVE
from landscope.objective.nested_batches import count_rows, iter_tensors
from landscope.objective.objective import Objective, check_objective
from landscope.objective.rows import count_bytes, shape_of
from landscope.params import Params, like
from landscope.progress import duration
from landscope.sampling.calibrated import Calibrated, check_samples
from landscope.sampling.grid import Sampler, as_sampler
from landscope.scanning.journal import Journal
from landscope.slices.curves import default_span
from landscope.slices.direction_checks import check_order
from landscope.slices.slices import Slice, check_slice

if TYPE_CHECKING:
    from landscope.engines.job import WorkerPool

_SHORT = 0.25  # seconds of measurement, at least, for each figure


@final
@dataclass(frozen=True)
class Cost:
    """The cost of a scan, and the cost of the plain loop over the whole grid.

    The plain loop sets the weights of a point and evaluates the data in the batches that were
    given, one point after the other.

    Args:
        points: The number of points that will be evaluated; approximate for an adaptive sampler.
        evaluations: The number of passes over all data: fewer than the points if samples are drawn,
            more if statistics are recomputed.
        seconds: The wall-clock time.
        bytes: The memory besides the data: parameters and one batch's activations, of all workers.
        flops: The floating-point operations; a multiply-add counts as two.
        naive_seconds: The wall-clock time of the plain loop.
        naive_evaluations: The number of passes over all data for the whole grid.
        naive_flops: The floating-point operations of the plain loop.
        plan: How the passes will be made.
    """

    points: int
    evaluations: float
    seconds: float
    bytes: int
    flops: float
    naive_seconds: float
    naive_evaluations: int
    naive_flops: float
    plan: str

    def __repr__(self) -> str:
        return f"<Cost of a scan>\n{self}"

    def __str__(self) -> str:
        """Return a table of six lines."""
        ratio = self.naive_seconds / max(self.seconds, 1e-9)
        rows = [
            ("time", duration(self.seconds), f"{duration(self.naive_seconds)}, {ratio:.3g} x"),
            ("passes", f"{self.evaluations:,.4g} over all data", f"{self.naive_evaluations:,}"),
            ("points", f"{self.points:,}", f"{self.naive_evaluations:,}"),
            ("operations", f"{amount(self.flops)}FLOP", f"{amount(self.naive_flops)}FLOP"),
            ("memory", f"{amount(self.bytes)}B besides the data", ""),
            ("how", self.plan, ""),
        ]
        return "\n".join(
            f"  {name:<11} {value}" + (f"   (plain loop: {naive})" if naive else "")
            for name, value, naive in rows
        )


def estimate(
    objective: Objective,
    slice: Slice,  # noqa: A002 - the usual word in this field; ls.scan has it too
    sampler: Sampler | int | None = None,
    *,
    samples: Calibrated | None = None,
    engine: Engine | None = None,
) -> Cost:
    """Return what a scan will cost, after timing a few points.

    Args:
        objective: The objective that will be evaluated.
        slice: The slice on which it will be evaluated.
        sampler: The points, as for ``ls.scan``: a sampler or a number of points along
            each axis; by default 51.
        samples: How samples are drawn, as for ``ls.scan``.
        engine: The engine that will evaluate points; this machine if not given.

    Cost: some passes over the data, and the choice of a plan, which the scan uses again.
    """
    check_objective(objective)
    check_slice(slice)
    check_samples(samples)
    check_order(objective.center, slice.parts)
    span = default_span(slice)
    sampler = as_sampler(sampler, span)
    engine = as_engine(engine)
    check_engine(engine)
    anywhere = [span] * len(slice.dims)  # any span will do: the cost does not depend on it
    axes = sampler.with_span(lambda: anywhere).axes(slice.dims)
    shape = tuple(len(axis) for axis in axes)
    cells = math.prod(shape)
    points = sampler.expected_points(shape)
    share = 1.0 if samples is None else min(samples.size / objective.problem.rows, 1.0)
    anchors = 0 if samples is None else min(samples.anchors, cells)
    evaluations = anchors + (points - anchors) * share
    job = Job(objective, slice, points=math.ceil(evaluations), probes=choose_probes(axes))
    seconds, text = time_points(job, engine)
    plan = Plan.loads(text)
    naive = plain_pass(objective, slice)
    flops, passes, bytes_ = _one_pass(objective, plan)
    return Cost(
        points, (1 + passes) * evaluations, evaluations * seconds, bytes_, evaluations * flops,
        cells * naive, (1 + passes) * cells, cells * flops, str(plan),
    )  # fmt: skip


def time_points(job: Job, engine: Engine, *, seconds: float = _SHORT) -> tuple[float, str]:
    """Return the seconds per point when all workers are busy, journal included, and the plan.

    Args:
        job: The job, which is timed at its probes.
        engine: The engine that evaluates points.
        seconds: About how long to measure; two points per worker in any case.
    """
    at = job.probes or [(0.0,) * len(job.slice.dims)]
    with engine.open(job) as pool, Journal() as journal:
        size = pool.size
        first = _run(pool, journal, at, size)
        if first > seconds:  # long passes need no warm-up
            return min(first, _run(pool, journal, at, size)) / size, pool.plan
        once = _run(pool, journal, at, size)
        rounds = max(1, min(math.ceil(seconds / 3 / max(once, 1e-6)), 20_000))
        times = [_run(pool, journal, at, rounds * size) / (rounds * size) for _ in range(3)]
        return sorted(times)[1], pool.plan


def plain_pass(objective: Objective, slice_: Slice) -> float:
    """Return the seconds of one point of the plain loop, on batches kept in memory.

    Cost: two passes, and about 0.02 s of further ones where a pass takes less than that.
    """
    return time_points(Job(objective, slice_), Local(plan=Plan()), seconds=0.02)[0]


def _run(pool: WorkerPool, journal: Journal, at: Sequence[tuple[float, ...]], count: int) -> float:
    def points() -> Iterator[Point]:
        for k in range(count):
            yield k, at[k % len(at)]

    began = time.perf_counter()
    for results in pool.run(points()):
        journal.write(results)
    return time.perf_counter() - began


def _one_pass(objective: Objective, plan: Plan) -> tuple[float, int, int]:
    """Return FLOPs of a point, its passes for statistics, and bytes that it needs besides the data.

    Operations of fused attention and recurrent kernels are not counted, so plain kernels are used.
    """
    from torch.utils.flop_counter import FlopCounterMode

    rows, widest = 0, 0
    seen: dict[Any, float] = {}  # FLOPs by shape: batches of equal shapes need equal numbers
    with objective.problem.session() as session:
        center = like(session.center, session.center)  # at the center itself, targets are checked
        session.move(center)
        with torch.no_grad():  # checks of the first batch are not counted
            session.sum_terms(next(iter(objective.problem.first_batches)))
        flops, passes = _count_statistics(session, center)
        with torch.no_grad(), NATIVE, _Widest(session.borrowed.model) as wide:
            for batch in itertools.chain.from_iterable(objective.problem.batches.values()):
                shape = tuple(map(shape_of, iter_tensors(batch)))
                if shape not in seen:
                    with FlopCounterMode(display=False) as counter:
                        session.sum_terms(batch)
                    seen[shape] = counter.get_total_flops()
                flops += seen[shape]
                rows, widest = max(rows, count_rows(batch) or 1), max(widest, wide.bytes)
    batch = widest / max(rows, 1) * (plan.rows or rows)
    moving = sum(t.nbytes for t in objective.center.values())
    return flops, passes, round(plan.workers * (moving + batch) + moving)


def _count_statistics(session: Session, center: Params) -> tuple[float, int]:
    """Return FLOPs and passes over the data that statistics of a point take."""
    from torch.utils.flop_counter import FlopCounterMode

    if session.statistics is None:
        return 0.0, 0
    with FlopCounterMode(display=False) as counter, NATIVE:
        session.move(center)
    return counter.get_total_flops(), session.statistics.passes


class _Widest:
    """Measures the largest sum of bytes of a layer's inputs and outputs in a pass."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.bytes = model, 0

    def __enter__(self) -> _Widest:
        leaves = [m for m in self.model.modules() if not list(m.children())]
        self.hooks = [m.register_forward_hook(self._seen) for m in leaves]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _seen(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        del module
        size = sum(map(count_bytes, iter_tensors((inputs, outputs))))
        self.bytes = max(self.bytes, size)


def amount(value: float) -> str:
    """Return a number with three digits and an SI prefix: 12.3 G."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "
