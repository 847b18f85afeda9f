"""The local engine: the cores and the GPUs of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch

from landscope.engines.forward import forward_pass
from landscope.engines.in_place import Displaced, displaced
from landscope.engines.job import Job
from landscope.engines.threads import Team, Worker
from landscope.engines.tuning import Plan, choose
from landscope.errors import EngineError
from landscope.objective.global_state import preserve_global_state
from landscope.objective.objective import Objective
from landscope.objective.quantities import Chained


@final
@dataclass(frozen=True)
class Local:
    """Evaluates points on this machine, in the way that a short measurement found to be fastest.

    Args:
        workers: points evaluated at the same time, each in a thread with its share of the cores;
            None measures whether one worker or one a core is faster.
        compile: use torch.compile: True, False, or None: where the scan takes minutes.
        plan: how to make the passes; None measures it (see :mod:`landscope.engines.tuning`).
        devices: names of devices, one worker each, such as ("cuda:0", "cuda:1"); None: all GPUs of
            this machine when the objective is on a GPU, else the objective's device.

    Raises:
        EngineError: when workers is below 1.
    """

    workers: int | None = None
    compile: bool | None = None
    plan: Plan | None = None
    devices: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise EngineError(f"workers={self.workers}; expected 1 or more, or None to measure.")

    @contextmanager
    def open(self, job: Job) -> Iterator[Team]:
        """Lend a team for a job; the model is borrowed meanwhile."""
        if job.objective.problem.in_place:
            with _opened(job, [job.objective], _in_place(job, self), None) as team:
                yield team
            return
        _keep_memory()
        objectives = self._objectives(job.objective)
        bare = dataclasses.replace(job, quantities=())  # no plan changes what they take

        def opened(
            plan: Plan, data: Mapping[str, Sequence[Any]] | None
        ) -> AbstractContextManager[Team]:
            return _opened(job if data is None else bare, objectives, plan, data)

        plan = self.plan or choose(job, opened, workers=self.workers, compiler=self.compile)
        with opened(plan, None) as team:
            yield team

    def _objectives(self, objective: Objective) -> list[Objective]:
        """Return the objective on each device."""
        names: Sequence[str] | None = self.devices
        if names is None and objective.device == torch.device("cuda"):
            names = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
        if not names:
            return [objective]
        problem = objective.problem
        found = [problem.to(torch.device(name)) for name in names]
        found = [p if p not in found[:k] else p.clone() for k, p in enumerate(found)]
        return [objective if p is problem else Objective.of(p) for p in found]


def _in_place(job: Job, engine: Local) -> Plan:
    """Return how a model that fills the memory is evaluated: one pass after the other.

    Raises:
        EngineError: when more is asked for than one model can do.
    """
    if (engine.workers or 1) > 1 or len(engine.devices or ()) > 1:
        raise EngineError(
            f"workers={engine.workers}, devices={engine.devices}: an objective with in_place=True"
            " has one model, which evaluates one point after the other: leave them out."
        )
    odd = next((q for q in job.quantities if isinstance(q, Chained)), None)
    if odd is not None:
        raise EngineError(
            f"{getattr(odd, '__name__', type(odd).__name__)} starts from neighboring points, which"
            " an objective with in_place=True has no memory for: make it with in_place=False."
        )
    return Plan()


def _keep_memory() -> None:
    """Let this process keep memory that is freed, for the next activations: measured, 10 to 20%.

    The allocator of glibc gives each large block back to the system, and takes it again page by
    page, until it has seen a block of that size freed (mallopt(3), M_MMAP_THRESHOLD). It looks at
    blocks of up to 32 MiB; this is one, which is never touched.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


@contextmanager
def _opened(
    job: Job,
    objectives: Sequence[Objective],
    plan: Plan,
    data: Mapping[str, Sequence[Any]] | None,
) -> Iterator[Team]:
    """Lend a team that follows a plan; threads and global states are as before afterwards."""
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(preserve_global_state(*job.objective.problem.sources.values()))
        stack.callback(torch.set_num_threads, threads)
        if plan.threads:
            torch.set_num_threads(plan.threads)
        problems = [objective.problem for objective in objectives]
        batches = [p.rebatch(p.batches if data is None else data, plan.rows) for p in problems]
        devices = len(objectives)
        clones = [  # of the model, for more workers than devices
            Objective.of(problems[k % devices].clone()) for k in range(devices, plan.workers)
        ]
        workers = []
        for k, objective in enumerate([*objectives, *clones]):
            problem = objective.problem
            session = problem.session(batches[k % devices], forward_pass(plan))
            borrowed = stack.enter_context(session)
            moved: Displaced | None = None
            if problem.in_place:
                moved = stack.enter_context(displaced(problem.model, problem.center, job.slice))
            workers.append(Worker(objective, borrowed, job, plan, moved))
        yield stack.enter_context(contextlib.closing(Team(workers)))
