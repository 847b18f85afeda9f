"""The workers of one process: each evaluates points with a model of its own.

Memory: the model, one copy of its moving parameters a worker, and one batch's activations a worker;
it does not grow with the resolution. Points that are evaluated together, which are those of small
networks, have a copy each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import final

import torch
from torch import Tensor

from landscope.engines.chains import Chain
from landscope.engines.in_place import Displaced
from landscope.engines.job import Job, Point, Result
from landscope.engines.tuning import Plan
from landscope.engines.vectorized import Together
from landscope.errors import ObjectiveError
from landscope.objective.evaluation import Session
from landscope.objective.memory import is_out_of_memory
from landscope.objective.objective import Objective
from landscope.objective.quantities import Chained, Quantity
from landscope.params import Params
from landscope.slices.curves import ReusableSlice


@final
class Team:
    """Workers of one process: this thread when there is one, else a thread each."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self._threads: list[threading.Thread] = []
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()

    @property
    def size(self) -> int:
        """How many points keep every worker busy."""
        return len(self.workers)

    @property
    def plan(self) -> str:
        """The plan that the workers follow now, as text."""
        return min((w.plan for w in self.workers), key=lambda plan: plan.rows or math.inf).dumps()

    def each(self, points: Sequence[Point]) -> Iterator[Result]:
        """Yield the result of every worker at every point, one after the other."""
        for worker in self.workers:
            left = iter(points)
            while taken := worker.take(left):
                yield from worker.evaluate_all(taken, terms=False)

    def run(self, points: Iterable[Point], *, terms: bool = False) -> Generator[list[Result]]:
        """Yield results as they come."""
        if len(self.workers) == 1:
            left = iter(points)
            while taken := self.workers[0].take(left):
                yield self.workers[0].evaluate_all(taken, terms=terms)
            return
        if not self._threads:
            self._start()
        task = _Task(iter(points), terms=terms)
        for _ in self.workers:
            self._tasks.put(task)
        try:
            yield from task.results(len(self.workers))
        finally:
            task.stop.set()
            task.wait(len(self.workers))

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        for worker in self.workers:
            thread = threading.Thread(target=self._work, args=(worker,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self, worker: Worker) -> None:
        if worker.plan.threads:
            torch.set_num_threads(worker.plan.threads)  # each thread has a number of its own
        while (task := self._tasks.get()) is not None:
            task.work(worker)


@final
class _Task:
    """Points for several threads, and what they found."""

    def __init__(self, points: Iterator[Point], *, terms: bool) -> None:
        self.points, self.terms = points, terms
        self.stop = threading.Event()
        self._taking = threading.Lock()
        self._found: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
        self._ended = 0

    def work(self, worker: Worker) -> None:
        """Evaluate points until there are none."""
        try:
            while not self.stop.is_set():
                with self._taking:
                    points = worker.take(self.points)
                if not points:
                    break
                for result in worker.evaluate_all(points, terms=self.terms):
                    self._found.put(result)
        except BaseException as error:
            self.stop.set()
            self._found.put(error)
        finally:
            self._found.put(None)

    def results(self, workers: int) -> Iterator[list[Result]]:
        """Yield what is found; an error of a worker is raised here."""
        while self._ended < workers:
            items = [self._found.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    items.append(self._found.get_nowait())
            self._ended += items.count(None)
            results = [item for item in items if isinstance(item, Result)]
            if results:
                yield results
            for item in items:
                if isinstance(item, BaseException):
                    raise item

    def wait(self, workers: int) -> None:
        """Wait until every thread is done with this."""
        while self._ended < workers:
            self._ended += self._found.get() is None


@final
class Worker:
    """One model, borrowed, with the parameters of one point in it."""

    def __init__(
        self,
        objective: Objective,
        session: Session,
        job: Job,
        plan: Plan,
        moved: Displaced | None = None,
    ) -> None:
        self.objective, self.session, self.moved = objective, session, moved
        self.job, self.slice, self.quantities, self.plan = job, job.slice, job.quantities, plan
        self.params: Params | None = None
        self.chains = {
            k: Chain(q, job.slice, job.axes)
            for k, q in enumerate(job.quantities)
            if isinstance(q, Chained) and job.axes
        }
        self.together: Together | None = None
        if plan.points > 1 and isinstance(self.slice, ReusableSlice) and not self.quantities:
            self.together = Together(session, self.slice, plan.points)

    def take(self, points: Iterator[Point]) -> list[Point]:
        """Take the points that are evaluated next, at once."""
        return list(itertools.islice(points, self.together.points if self.together else 1))

    def evaluate_all(self, points: Sequence[Point], *, terms: bool) -> list[Result]:
        """Return what comes out at points that were taken at once."""
        if self.together is None or terms:
            return [self.evaluate(point, terms=terms) for point in points]
        began = time.perf_counter()
        try:
            found = self.together.values([coordinates for _, coordinates in points])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self.together = None  # one by one, then
            return self.evaluate_all(points, terms=terms)
        seconds = (time.perf_counter() - began) / len(points)
        return [Result(k, v, seconds) for (k, _), v in zip(points, found, strict=True)]

    def evaluate(self, point: Point, *, terms: bool) -> Result:
        """Return what comes out at a point; with half the batch when memory does not suffice."""
        while True:
            try:
                return self._evaluate(point, terms=terms)
            except RuntimeError as error:
                if not is_out_of_memory(error) or not self._halve():
                    raise

    def _evaluate(self, point: Point, *, terms: bool) -> Result:
        began = time.perf_counter()
        index, coordinates = point
        samples: list[Tensor] | None = [] if terms else None
        params = self._params(coordinates)
        values = self.session.evaluate(params, samples)
        for k, quantity in enumerate(self.quantities):
            if k in self.chains:
                values |= self.chains[k].values(self.objective, index)
            else:
                values |= _measured(quantity, self.objective, params)
        found = torch.cat(samples, dim=1).cpu() if samples else None
        return Result(index, values, time.perf_counter() - began, found)

    def _params(self, coordinates: tuple[float, ...]) -> Params:
        if self.moved is not None:
            return self.moved.at(coordinates)
        if not isinstance(self.slice, ReusableSlice) or self.quantities:
            return self.slice.at(coordinates)
        self.params = self.slice.at(coordinates, self.params)
        return self.params

    def _halve(self) -> bool:
        """Halve the batches; False when they cannot get smaller."""
        rows = self.session.halve_batches()
        if rows is None:
            return False
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.plan = dataclasses.replace(self.plan, rows=rows)
        return True


def _measured(quantity: Quantity, objective: Objective, params: Params) -> dict[str, float]:
    found = quantity(objective, params)
    if not isinstance(found, dict):
        raise ObjectiveError(
            f"quantity {getattr(quantity, '__name__', quantity)!r} returned a"
            f" {type(found).__name__}; expected a dict of names and numbers."
        )
    return {str(name): float(value) for name, value in found.items()}
