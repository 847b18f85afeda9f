"""The executor engine: any ``concurrent.futures.Executor`` evaluates the points.

A process pool of this machine, MPI (``mpi4py.futures.MPIPoolExecutor``), dask
(``Client.get_executor()``): what they have in common is ``submit``.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import queue
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, final

import torch

from landscope.engines import remote_worker
from landscope.engines.job import Job, Point, Result, Team
from landscope.engines.remote_worker import Answer, Failure, Order
from landscope.engines.scheduling import MOST, Chunk, Dispatcher
from landscope.engines.serialization import Make, pack
from landscope.engines.tuning import Plan
from landscope.errors import EngineError

T = TypeVar("T")
FEW = 4  # points a chunk where single terms come back with each
_BROKEN = (
    "a worker of the executor died, and with it the whole pool: what was found before is safe in"
    " the journal, where there is one. Start again with a new pool; when workers run out of memory,"
    " with fewer of them, or with smaller batches. ls.engines.Ray replaces workers that die."
)


@final
@dataclass(frozen=True)
class Executor:
    """Evaluates points in the workers of an executor.

    Args:
        executor: any concurrent.futures.Executor but one of threads; it stays open.
        workers: how many it has; None takes the number that it gives, or the cores of this
            machine.
        chunk: points a task; None makes tasks that take about a tenth of a second.
        threads: of torch in each worker; None: this machine's cores over the workers.
        plan: how to make the passes; None lets a worker measure it.
        compile: whether it may be torch.compile, which takes each worker half a minute.
        folder: where the file goes that all workers read; workers on other machines need a folder
            that they share. None: in the cache folder.
        make: a function at module level that builds the objective in the worker, for objectives
            that cannot be pickled, or whose data are where the workers are.

    Raises:
        EngineError: when this is no executor, or it has no processes.

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
                " ls.engines.Local(workers=n), or a ProcessPoolExecutor."
            )
        for name in ("workers", "chunk", "threads"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise EngineError(f"{name}={given}; expected 1 or more, or None.")

    @contextmanager
    def open(self, job: Job) -> Iterator[Team]:
        """Lend a team for a job; the model is not used here meanwhile."""
        count = self.workers or _count(self.executor)
        order = ordered(
            Order(
                pack(job, folder=self.folder, make=self.make),
                threads=self.threads or max(torch.get_num_threads() // count, 1),
                device=job.objective.device.type,
            ),
            job,
            self.plan,
        )
        task = (remote_worker.prepare, order, job.points, tuple(job.probes), self.compile)
        plan = _outcome(_submit(self.executor, *task))
        if isinstance(plan, Failure):
            plan.throw()
        yield _Pool(self.executor, dataclasses.replace(order, plan=plan), count, self.chunk)


@final
class _Pool:
    """The workers of an executor."""

    def __init__(
        self, executor: concurrent.futures.Executor, order: Order, workers: int, chunk: int | None
    ) -> None:
        self.executor, self.order, self.workers, self.chunk = executor, order, workers, chunk

    @property
    def size(self) -> int:
        """How many points keep every worker busy."""
        return self.workers

    @property
    def plan(self) -> str:
        """How every worker evaluates points, as text."""
        return self.order.plan

    def run(self, points: Iterable[Point], *, terms: bool = False) -> Generator[list[Result]]:
        """Yield results as they come."""
        most = FEW if terms else MOST
        dispatcher = Dispatcher(points, self.workers, size=self.chunk, most=most)
        flying: dict[Future[Answer], Chunk] = {}
        landed: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
        try:
            while True:
                room = dispatcher.ahead * self.workers
                while len(flying) < room and (chunk := dispatcher.next_chunk()):
                    future = _submit(
                        self.executor, remote_worker.evaluate, self.order, chunk, terms=terms
                    )
                    flying[future] = chunk
                    future.add_done_callback(landed.put)
                if not flying:
                    return
                answers = [(flying.pop(f), _outcome(f)) for f in taken(landed)]
                yield from harvest(dispatcher, answers)
        finally:
            for future in flying:
                future.cancel()


def harvest(
    dispatcher: Dispatcher, answers: Iterable[tuple[Chunk, Answer | Failure]]
) -> Iterator[list[Result]]:
    """Yield the results of some answers at once, then raise the first failure among them."""
    found: list[Result] = []
    failures: list[Failure] = []
    for chunk, answer in answers:
        rows, failure = ([], answer) if isinstance(answer, Failure) else answer
        results = remote_worker.results(rows)
        dispatcher.done(chunk, sum(result.seconds for result in results))
        found += results
        failures += [failure] if failure else []
    if found:
        yield found
    for failure in failures:
        failure.throw()


def taken(landed: queue.SimpleQueue[T], patience: float | None = None) -> list[T]:
    """Return what is in a queue, at least one thing.

    Raises:
        queue.Empty: when nothing came within so many seconds.
    """
    items = [landed.get(timeout=patience)]
    with contextlib.suppress(queue.Empty):
        while True:
            items.append(landed.get_nowait())
    return items


def ordered(order: Order, job: Job, plan: Plan | None) -> Order:
    """Return an order with the plan that the user or the journal names, where one does."""
    found = plan or (Plan.loads(job.plan) if job.plan else None)
    if found is None:
        return order
    threads = found.threads or order.threads
    text = dataclasses.replace(found, workers=1, threads=threads).dumps()
    return dataclasses.replace(order, plan=text, threads=threads)


def _submit(executor: concurrent.futures.Executor, *task: Any, **options: Any) -> Future[Any]:
    """Return the future of a task; one that has failed when the pool is broken already."""
    try:
        return executor.submit(*task, **options)
    except BrokenExecutor as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed


def _outcome(future: Future[Any]) -> Any:
    """Return what a task gave back, a failure when its worker died."""
    try:
        return future.result()
    except BrokenExecutor as error:
        return Failure("EngineError", _BROKEN, None, repr(error))


def _count(executor: concurrent.futures.Executor) -> int:
    """Return how many workers an executor has, by the names that pools use for it."""
    for name in ("num_workers", "_max_workers"):
        found = getattr(executor, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return os.cpu_count() or 1
