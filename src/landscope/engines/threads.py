"""A pool of workers in this process: one runs in the calling thread, several get a thread each.

Memory: the model; for each worker a copy of the moving parameters and the activations of one batch.
It does not grow with the resolution. In a vectorized pass, which is used for small networks, each
point has its own copy of the moving parameters.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import final

import torch

from landscope.engines.job import Point, Result
from landscope.engines.local_worker import Worker
from landscope.engines.queues import drain


@final
class ThreadPool:
    """Workers of this process.

    Args:
        workers: The workers. One alone runs in the calling thread; more have a thread each.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self._threads: list[threading.Thread] = []
        self._runs: queue.SimpleQueue[_Run | None] = queue.SimpleQueue()

    @property
    def size(self) -> int:
        """The number of points that keep every worker busy."""
        return len(self.workers)

    @property
    def plan(self) -> str:
        """The plan that the workers follow now, as text."""
        return min((w.plan for w in self.workers), key=lambda plan: plan.rows or math.inf).dumps()

    def run_on_each_worker(self, points: Sequence[Point]) -> Iterator[Result]:
        """Yield the results of every worker at every point, one worker after the other."""
        for worker in self.workers:
            remaining = iter(points)
            while group := worker.take_points(remaining):
                yield from worker.evaluate_group(group, per_sample=False)

    def run(self, points: Iterable[Point], *, per_sample: bool = False) -> Generator[list[Result]]:
        """Yield results as they arrive."""
        if len(self.workers) == 1:
            remaining = iter(points)
            while group := self.workers[0].take_points(remaining):
                yield self.workers[0].evaluate_group(group, per_sample=per_sample)
            return
        if not self._threads:
            self._start()
        run = _Run(iter(points), per_sample=per_sample)
        for _ in self.workers:
            self._runs.put(run)
        try:
            yield from run.collect_results(len(self.workers))
        finally:
            run.stop.set()
            run.wait(len(self.workers))

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._runs.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        for worker in self.workers:
            thread = threading.Thread(target=self._work, args=(worker,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self, worker: Worker) -> None:
        if worker.plan.threads:
            torch.set_num_threads(worker.plan.threads)  # torch has a setting for each thread
        while (run := self._runs.get()) is not None:
            run.evaluate_points(worker)


@final
class _Run:
    """Points that several threads share, and the queue of their results."""

    def __init__(self, points: Iterator[Point], *, per_sample: bool) -> None:
        self.points, self.per_sample = points, per_sample
        self.stop = threading.Event()
        self._lock = threading.Lock()  # for the iterator of points
        self._results: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
        self._ended = 0

    def evaluate_points(self, worker: Worker) -> None:
        """Evaluate points until none remain; None in the queue marks the end of a thread."""
        try:
            while not self.stop.is_set():
                with self._lock:
                    points = worker.take_points(self.points)
                if not points:
                    break
                for result in worker.evaluate_group(points, per_sample=self.per_sample):
                    self._results.put(result)
        except BaseException as error:
            self.stop.set()
            self._results.put(error)
        finally:
            self._results.put(None)

    def collect_results(self, workers: int) -> Iterator[list[Result]]:
        """Yield the results of all threads, and raise the first error of a worker."""
        while self._ended < workers:
            items = drain(self._results)
            self._ended += items.count(None)
            results = [item for item in items if isinstance(item, Result)]
            if results:
                yield results
            for item in items:
                if isinstance(item, BaseException):
                    raise item

    def wait(self, workers: int) -> None:
        """Wait until every thread has left this run."""
        while self._ended < workers:
            self._ended += self._results.get() is None
