"""The local engine: the cores and the GPUs of this machine.

Memory: the model, one copy of its moving parameters a worker, and one batch's activations a worker;
it does not grow with the resolution. Points that are evaluated together, which are those of small
networks, have a copy each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from landscope.batches import count_rows, mapped, tensors
from landscope.borrow import undisturbed
from landscope.displaced import Displaced, displaced
from landscope.engines import Job, Point, Quantity, Result
from landscope.engines.chains import Chain, Chained
from landscope.engines.fused import Fused
from landscope.engines.plans import Plan, choose
from landscope.engines.together import Together
from landscope.errors import EngineError, ObjectiveError
from landscope.objective import Objective
from landscope.params import Params
from landscope.session import Session
from landscope.slices import Affine


@final
@dataclass(frozen=True)
class Local:
    """Evaluates points on this machine, in the way that a short measurement found to be fastest.

    Args:
        workers: points evaluated at the same time, each in a thread with its share of the cores;
            None measures whether one worker or one a core is faster.
        compile: use torch.compile: True, False, or None: where the scan takes minutes.
        plan: how to make the passes; None measures it (see :mod:`landscope.engines.plans`).
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
        if job.objective.in_place:
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
        job.kept["plan"] = plan.dumps()
        with opened(plan, None) as team:
            yield team

    def _objectives(self, objective: Objective) -> list[Objective]:
        """Return the objective on each device."""
        names: Sequence[str] | None = self.devices
        if names is None and objective.device == torch.device("cuda"):
            names = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
        if not names:
            return [objective]
        found = [objective.on(torch.device(name)) for name in names]
        return [o if o not in found[:k] else o.twin() for k, o in enumerate(found)]


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
        stack.enter_context(undisturbed(*job.objective.sources.values()))
        stack.callback(torch.set_num_threads, threads)
        if plan.threads:
            torch.set_num_threads(plan.threads)
        batches = [_in_rows(o, o.batches if data is None else data, plan.rows) for o in objectives]
        own = [*objectives]  # and copies of the model for more workers than devices
        own += [objectives[k % len(own)].twin() for k in range(len(own), plan.workers)]
        workers = []
        for k, objective in enumerate(own):
            session = stack.enter_context(objective.session(batches[k % len(batches)]))
            moved: Displaced | None = None
            if objective.in_place:
                moved = stack.enter_context(displaced(objective.model, objective.center, job.slice))
            workers.append(_Worker(objective, session, job, plan, moved))
        yield stack.enter_context(contextlib.closing(Team(workers)))


def _in_rows(
    objective: Objective, data: Mapping[str, Any], rows: int | None
) -> Mapping[str, Iterable[Any]]:
    """Return the data in batches of so many rows, where that can be done."""
    if rows is None or not _is_by_row(objective):
        return data
    from landscope.batches import Batches, rebatched

    found = {}
    for name, batches in data.items():
        again = batches.in_rows(rows) if isinstance(batches, Batches) else rebatched(batches, rows)
        found[name] = batches if again is None else again
    return found


def _is_by_row(objective: Objective) -> bool:
    """Whether values cannot depend on how the data are batched."""
    losses = [objective.loss_terms, *objective.metrics.values()]
    return objective.buffers == "keep" and not any(getattr(x, "per_batch", False) for x in losses)


@final
class _Worker:
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
        if plan.forward != "plain" or plan.layout != "contiguous":
            session.loan.put(session.center)
            session.forward = _Pass(session.loan.model, plan)
        self.chains = {
            k: Chain(q, job.slice, job.axes)
            for k, q in enumerate(job.quantities)
            if isinstance(q, Chained) and job.axes
        }
        self.together: Together | None = None
        if plan.points > 1 and isinstance(self.slice, Affine) and not self.quantities:
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
            if not _is_out_of_memory(error):
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
                if not _is_out_of_memory(error) or not self._halve():
                    raise

    def _evaluate(self, point: Point, *, terms: bool) -> Result:
        began = time.perf_counter()
        index, coordinates = point
        samples: list[Tensor] | None = [] if terms else None
        params = self._params(coordinates)
        values = self.session.values(params, samples)
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
        if not isinstance(self.slice, Affine) or self.quantities:
            return self.slice.at(coordinates)
        self.params = self.slice.at(coordinates, self.params)
        return self.params

    def _halve(self) -> bool:
        """Halve the batches; False when they cannot get smaller."""
        data = {name: list(batches) for name, batches in self.session.data.items()}
        rows = max((count_rows(b) or 1 for batches in data.values() for b in batches), default=1)
        if rows < 2 or not _is_by_row(self.objective):
            return False
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.plan = dataclasses.replace(self.plan, rows=rows // 2)
        self.session.data = _in_rows(self.objective, data, rows // 2)
        self.job.kept["plan"] = self.plan.dumps()
        return True


@final
class _Pass:
    """A forward pass by a plan, in the place of the model's own."""

    def __init__(self, model: torch.nn.Module, plan: Plan) -> None:
        self.format = (
            torch.channels_last if plan.layout == "channels_last" else torch.contiguous_format
        )
        self.fused = Fused(model) if plan.forward == "fused" else None
        self.forward: Any = self.fused or model
        if plan.forward == "compiled":
            self.forward = torch.compile(model)
        if plan.forward == "graphed":
            self.forward = _Graphed(model)

    def refresh(self) -> None:
        if self.fused is not None:
            self.fused.refresh()

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if self.format is torch.channels_last:
            inputs, named = mapped(self._placed, inputs), mapped(self._placed, named)
        return self.forward(*inputs, **named)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.contiguous(memory_format=self.format) if tensor.ndim == 4 else tensor


@final
class _Graphed:
    """A forward pass on a GPU that is recorded once and played again: no step is launched singly.

    It reads the parameters where they lay when it was recorded, so points must be written in place.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.records: dict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        leaves = list(tensors((inputs, named)))
        key = tuple((t.shape, t.dtype, t.stride()) for t in leaves)
        if key not in self.records:
            self.records[key] = self._record(inputs, named)
        graph, held, outputs = self.records[key]
        torch._foreach_copy_(held, leaves)
        graph.replay()
        return outputs

    def _record(self, inputs: Any, named: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        inputs, named = mapped(torch.clone, inputs), mapped(torch.clone, named)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # kernels are chosen before they are recorded
            for _ in range(3):
                self.model(*inputs, **named)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.model(*inputs, **named)
        return graph, list(tensors((inputs, named))), outputs


@final
class Team:
    """Workers of one process: this thread when there is one, else a thread each."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self.workers = workers
        self._threads: list[threading.Thread] = []
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()

    @property
    def size(self) -> int:
        """How many points keep every worker busy."""
        return len(self.workers)

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

    def _work(self, worker: _Worker) -> None:
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

    def work(self, worker: _Worker) -> None:
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


def _is_out_of_memory(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return "can't allocate memory" in text or "not enough memory" in text


def _measured(quantity: Quantity, objective: Objective, params: Params) -> dict[str, float]:
    found = quantity(objective, params)
    if not isinstance(found, dict):
        raise ObjectiveError(
            f"quantity {getattr(quantity, '__name__', quantity)!r} returned a"
            f" {type(found).__name__}; expected a dict of names and numbers."
        )
    return {str(name): float(value) for name, value in found.items()}
