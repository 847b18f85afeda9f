"""The local engine: the cores and the GPUs of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch

from landscope.engines.forward import make_forward
from landscope.engines.in_place import InPlaceMover, borrow_in_place
from landscope.engines.job import Job
from landscope.engines.local_worker import Worker
from landscope.engines.plan import Plan
from landscope.engines.threads import ThreadPool
from landscope.engines.tuning import choose
from landscope.errors import EngineError
from landscope.objective.global_state import preserve_global_state
from landscope.objective.objective import Objective
from landscope.objective.quantities import Chained


@final
@dataclass(frozen=True)
class Local:
    """Evaluates points on this machine, by the plan that a short measurement finds fastest.

    Args:
        workers: The number of points that are evaluated at the same time, each in a thread with
            its share of the cores. None measures whether one worker or one per core is faster.
        compile: Whether to use torch.compile; None uses it if the scan takes minutes.
        plan: The plan; None measures it (see :mod:`landscope.engines.tuning`).
        devices: The names of devices, one worker each, such as ("cuda:0", "cuda:1"). None takes
            all GPUs of this machine if the objective is on "cuda", else the objective's device.

    Raises:
        EngineError: When workers is below 1.
    """

    workers: int | None = None
    compile: bool | None = None
    plan: Plan | None = None
    devices: Sequence[str] | None = None

    def __post_init__(self) -> None:
        workers: Any = self.workers
        if workers is not None and not (isinstance(workers, int) and workers >= 1):
            raise EngineError(f"workers={workers!r}; expected 1 or more, or None to measure.")

    @contextmanager
    def open(self, job: Job) -> Iterator[ThreadPool]:
        """Yield a worker pool for a job, which borrows the model."""
        if job.objective.problem.in_place:
            with _open_pool(job, [job.objective], _plan_in_place(job, self), None) as pool:
                yield pool
            return
        _retain_freed_memory()
        objectives = self._place_objectives(job.objective)
        without_quantities = dataclasses.replace(job, quantities=())  # plans do not affect them

        def open_pool(
            plan: Plan, data: Mapping[str, Sequence[Any]] | None
        ) -> AbstractContextManager[ThreadPool]:
            return _open_pool(job if data is None else without_quantities, objectives, plan, data)

        plan = self.plan or choose(job, open_pool, workers=self.workers, compiler=self.compile)
        with open_pool(plan, None) as pool:
            yield pool

    def _place_objectives(self, objective: Objective) -> list[Objective]:
        """Return the objective on each device."""
        names: Sequence[str] | None = self.devices
        if names is None and objective.device == torch.device("cuda"):
            names = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
        if not names:
            return [objective]
        problem = objective.problem
        problems = [problem.to(torch.device(name)) for name in names]
        problems = [p if p not in problems[:k] else p.clone() for k, p in enumerate(problems)]
        return [objective if p is problem else Objective.of(p) for p in problems]


def _plan_in_place(job: Job, engine: Local) -> Plan:
    """Return the plan for a model that fills the memory: one plain pass after the other.

    Raises:
        EngineError: When the job or the engine needs more than one model.
    """
    if (engine.workers or 1) > 1 or len(engine.devices or ()) > 1:
        raise EngineError(
            f"workers={engine.workers}, devices={engine.devices}: an objective with in_place=True"
            " has one model, which evaluates one point after the other: leave them out."
        )
    chained = next((q for q in job.quantities if isinstance(q, Chained)), None)
    if chained is not None:
        raise EngineError(
            f"{getattr(chained, '__name__', type(chained).__name__)} starts from neighboring"
            " points, for which an objective with in_place=True has no memory: use in_place=False."
        )
    return Plan()


def _retain_freed_memory() -> None:
    """Make the allocator keep freed memory for the next activations: measured, 10 to 20% faster.

    The allocator of glibc returns each large block to the system, and requests it again page by
    page, until it has seen a block of that size freed (mallopt(3), M_MMAP_THRESHOLD). It observes
    blocks of up to 32 MiB; this function frees one of that size, which is never written to.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


@contextmanager
def _open_pool(
    job: Job,
    objectives: Sequence[Objective],
    plan: Plan,
    data: Mapping[str, Sequence[Any]] | None,
) -> Iterator[ThreadPool]:
    """Yield a pool that follows a plan; thread counts and global states are restored afterwards.

    Args:
        job: The job.
        objectives: The objective on each device.
        plan: The plan.
        data: The batches to evaluate; None takes those of the objective.
    """
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(preserve_global_state(*job.objective.problem.sources.values()))
        stack.callback(torch.set_num_threads, threads)
        if plan.threads:
            torch.set_num_threads(plan.threads)
        problems = [objective.problem for objective in objectives]
        batches = [p.rebatch(p.batches if data is None else data, plan.rows) for p in problems]
        devices = len(objectives)
        clones = [  # further copies of the model, if there are more workers than devices
            Objective.of(problems[k % devices].clone()) for k in range(devices, plan.workers)
        ]
        workers = []
        for k, objective in enumerate([*objectives, *clones]):
            problem = objective.problem
            session = problem.session(batches[k % devices], make_forward(plan))
            borrowed = stack.enter_context(session)
            mover: InPlaceMover | None = None
            if problem.in_place:
                mover = stack.enter_context(
                    borrow_in_place(problem.model, problem.center, job.slice)
                )
            workers.append(Worker(objective, borrowed, job, plan, mover))
        yield stack.enter_context(contextlib.closing(ThreadPool(workers)))
