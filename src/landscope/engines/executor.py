"""The executor engine: any ``concurrent.futures.Executor`` evaluates the points.

A process pool of this machine, MPI (``mpi4py.futures.MPIPoolExecutor``) and dask
(``Client.get_executor()``) have the method ``submit`` in common.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import queue
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch

from landscope.engines import remote_worker
from landscope.engines.job import Job, Point, Result, WorkerPool
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.engines.queues import drain
from landscope.engines.remote_job import (
    MAX_PER_SAMPLE_CHUNK,
    Answer,
    Failure,
    RemoteJob,
    collect_results,
)
from landscope.engines.scheduling import MAX_CHUNK, Chunk, Scheduler
from landscope.engines.serialization import Make, pack
from landscope.errors import EngineError

_BROKEN = (
    "a worker of the executor died, and with it the whole pool. The results so far are in the"
    " journal, if there is one. Start again with a new pool. If workers run out of memory, use"
    " fewer of them or smaller batches. ls.engines.Ray replaces workers that die."
)


@final
@dataclass(frozen=True)
class Executor:
    """Evaluates points in the workers of an executor.

    Args:
        executor: A concurrent.futures.Executor, but not one of threads; it stays open.
        workers: The number of its workers; None takes the number that the executor reports, else
            the number of cores of this machine.
        chunk: The points per task; None makes tasks that take about a tenth of a second.
        threads: The torch threads of each worker; None divides the cores of this machine.
        plan: The plan for evaluation; None lets a worker measure the fastest.
        compile: Whether the plan may use torch.compile, which takes half a minute in each worker.
        folder: The folder of the file that all workers read; workers on other machines need a
            shared folder. None takes the cache folder.
        make: A module-level function that builds the objective in the worker, for objectives that
            cannot be pickled, or whose data are where the workers are.

    Raises:
        EngineError: When ``executor`` is not an executor, or has threads instead of processes.

    Example:
        >>> import concurrent.futures, multiprocessing, landscope as ls
        >>> spawn = multiprocessing.get_context("spawn")
        >>> with concurrent.futures.ProcessPoolExecutor(2, spawn) as pool:
        ...     engine = Executor(pool)  # for ls.scan(..., engine=engine)
    """

    executor: concurrent.futures.Executor
    _: dataclasses.KW_ONLY
    workers: int | None = None
    chunk: int | None = None
    threads: int | None = None
    plan: Plan | None = None
    compile: bool = False
    folder: str | os.PathLike[str] | None = None
    make: Make | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.executor, concurrent.futures.Executor):
            raise EngineError(
                f"executor is a {type(self.executor).__name__}; expected a"
                " concurrent.futures.Executor, such as a ProcessPoolExecutor."
            )
        if isinstance(self.executor, ThreadPoolExecutor):
            raise EngineError(
                "executor has threads, which would share the state of this process: use"
                " ls.engines.Local(workers=n), or ls.engines.Executor(pool) with a"
                " ProcessPoolExecutor."
            )
        for name in ("workers", "chunk", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EngineError(f"{name}={value}; expected 1 or more, or None.")

    @contextmanager
    def open(self, job: Job) -> Iterator[WorkerPool]:
        """Yield a worker pool for a job; the pool has copies of the model."""
        workers = self.workers or _count_workers(self.executor)
        remote_job = RemoteJob(
            pack(job, folder=self.folder, make=self.make),
            threads=self.threads or max(torch.get_num_threads() // workers, 1),
            device=job.objective.device.type,
        ).with_plan_of(job, self.plan)
        task = (remote_worker.prepare, remote_job, job.points, tuple(job.probes), self.compile)
        plan = _result_of(_submit(self.executor, *task))
        if isinstance(plan, Failure):
            plan.throw()
        remote_job = dataclasses.replace(remote_job, plan=plan)
        yield _ExecutorPool(self.executor, remote_job, workers, self.chunk)


def as_engine(engine: Any) -> Any:
    """Return an engine from what a user passes: this machine if None, an executor as its engine."""
    if engine is None:
        return Local()
    return Executor(engine) if isinstance(engine, concurrent.futures.Executor) else engine


@final
class _ExecutorPool:
    """The workers of an executor."""

    def __init__(
        self,
        executor: concurrent.futures.Executor,
        remote_job: RemoteJob,
        workers: int,
        chunk: int | None,
    ) -> None:
        self.executor, self.remote_job = executor, remote_job
        self.workers, self.chunk = workers, chunk

    @property
    def size(self) -> int:
        """The number of points that keep every worker busy."""
        return self.workers

    @property
    def plan(self) -> str:
        """The plan that every worker follows, as text."""
        return self.remote_job.plan

    def run(self, points: Iterable[Point], *, per_sample: bool = False) -> Generator[list[Result]]:
        """Yield results as they arrive."""
        max_size = MAX_PER_SAMPLE_CHUNK if per_sample else MAX_CHUNK
        scheduler = Scheduler(points, self.workers, size=self.chunk, max_size=max_size)
        pending: dict[Future[Answer], Chunk] = {}
        completed: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
        task = remote_worker.evaluate, self.remote_job
        try:
            while True:
                room = scheduler.prefetch * self.workers
                while len(pending) < room and (chunk := scheduler.next_chunk()):
                    future = _submit(self.executor, *task, chunk, per_sample=per_sample)
                    pending[future] = chunk
                    future.add_done_callback(completed.put)
                if not pending:
                    return
                answers = [(pending.pop(f), _result_of(f)) for f in drain(completed)]
                yield from collect_results(scheduler, answers)
        finally:
            for future in pending:
                future.cancel()


def _submit(executor: concurrent.futures.Executor, *task: Any, **options: Any) -> Future[Any]:
    """Return the future of a task; a failed one if the pool is already broken."""
    try:
        return executor.submit(*task, **options)
    except BrokenExecutor as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed


def _result_of(future: Future[Any]) -> Any:
    """Return the result of a task, or a failure if its worker died."""
    try:
        return future.result()
    except BrokenExecutor as error:
        return Failure("EngineError", _BROKEN, None, repr(error))


def _count_workers(executor: concurrent.futures.Executor) -> int:
    """Return the number of workers of an executor, by the names that pools use for it."""
    for name in ("num_workers", "_max_workers"):
        count = getattr(executor, name, None)
        if isinstance(count, int) and count > 0:
            return count
    return os.cpu_count() or 1
