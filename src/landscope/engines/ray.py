"""The Ray engine: workers on this machine or on a cluster, replaced when they die.

Each worker is an actor with CPUs and GPUs of its own. What it needs comes through one file that all
workers of a machine map into memory (:mod:`landscope.engines.serialization`); a machine that
does not see the file gets it once, through Ray's object store. A worker that dies costs the points
that it had: they are asked again, of the others and of the worker that takes its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import socket
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, final

import numpy as np

from landscope.engines import remote_worker
from landscope.engines.executor import FEW, harvest, ordered, taken
from landscope.engines.job import Job, Point, Result, Team
from landscope.engines.remote_worker import Answer, Failure, Order
from landscope.engines.scheduling import ATTEMPTS, MOST, Chunk, Dispatcher
from landscope.engines.serialization import Make, Parcel, pack
from landscope.engines.tuning import Plan
from landscope.errors import EngineError
from landscope.extras import import_optional

_PATIENCE = 600.0  # seconds to wait for a first worker; a cluster may have to start a machine
_STORE = 128 * 2**20  # bytes of Ray's object store on this machine: only results go through it


@final
@dataclass(frozen=True)
class Ray:
    """Evaluates points with Ray, on this machine or on a cluster.

    Args:
        address: of a cluster ("auto", "host:6379", "ray://host:10001"); None takes what
            $RAY_ADDRESS says, else starts Ray on this machine and stops it afterwards. Where
            ``ray.init`` was called before, that connection is used, and left open.
        workers: how many; None: as many as the cluster has room for now.
        gpus: of each worker; a fraction lets workers share one.
        cpus: of each worker, and its threads.
        runtime_env: what Ray is to set up for workers, such as {"pip": ["landscope[cluster]"]}.
        plan: how to make the passes; None lets a worker measure it.
        compile: whether it may be torch.compile, which takes each worker half a minute.
        folder: of the file that workers read; None: in the cache folder.
        make: a function that builds the objective in the worker, for objectives that cannot be
            pickled, or whose data are where the workers are.

    Raises:
        EngineError: when a number is out of range.

    Cost: starting Ray on this machine takes some 5 seconds, a worker 3; then about a millisecond
    a tenth of a second of work.
    """

    address: str | None = None
    _: dataclasses.KW_ONLY
    workers: int | None = None
    gpus: float = 0
    cpus: int = 1
    runtime_env: Mapping[str, Any] | None = None
    plan: Plan | None = None
    compile: bool = False
    folder: str | os.PathLike[str] | None = None
    make: Make | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise EngineError(f"workers={self.workers}; expected 1 or more, or None.")
        if self.cpus < 1 or self.gpus < 0:
            raise EngineError(
                f"cpus={self.cpus}, gpus={self.gpus}; expected 1 or more, and 0 or more."
            )

    @contextmanager
    def open(self, job: Job) -> Iterator[Team]:
        """Lend a team for a job; the model is not used here meanwhile."""
        with _connected(self) as ray:
            parcel = pack(job, folder=self.folder, make=self.make, cloudpickle=ray.cloudpickle)
            device = "cuda" if self.gpus else job.objective.device.type
            order = ordered(Order(parcel, threads=self.cpus, device=device), job, self.plan)
            count = self.workers or _room(ray, self)
            with contextlib.closing(_Crew(ray, _recipe(ray, self), order, count)) as crew:
                if not order.plan:
                    crew.choose(job, compiler=self.compile)
                yield crew


@contextmanager
def _connected(engine: Ray) -> Iterator[ModuleType]:
    """Lend Ray, connected; a connection that was there stays, one that was made here ends."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_optional("ray", extra="cluster")
    if ray.is_initialized():
        yield ray
        return
    address = engine.address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if engine.runtime_env is not None:
        options["runtime_env"] = dict(engine.runtime_env)
    if address == "local":
        cores = max(os.cpu_count() or 1, (engine.workers or 1) * engine.cpus)
        options |= {
            "num_cpus": cores, "include_dashboard": False, "object_store_memory": _STORE,
        }  # fmt: skip
    with _signals_kept():
        try:
            _knock(address)
            ray.init(address, **options)
        except (Exception, SystemExit) as error:  # Ray raises errors of many types
            raise EngineError(
                f"Ray cannot be reached at address={address!r} ({error}): start it there with"
                " `ray start --head --port 6379`, or pass address=None for this machine."
            ) from error
        try:
            _check_gpus(ray, engine, address)
            yield ray
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise when nobody listens at "host:port": Ray itself would try for two minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put the handler of SIGTERM back, which Ray replaces by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)


def _check_gpus(ray: ModuleType, engine: Ray, address: str) -> None:
    """Raise when this machine cannot have what a worker asks for; a cluster may grow."""
    there = ray.cluster_resources().get("GPU", 0)
    if address == "local" and engine.gpus > there:
        raise EngineError(
            f"this machine has {there:g} GPUs and a worker asks for gpus={engine.gpus:g}: ask for"
            " less, or pass the address of a cluster."
        )


def _room(ray: ModuleType, engine: Ray) -> int:
    """Return how many workers there is room for.

    Raises:
        EngineError: when there is room for none.
    """
    there = ray.available_resources()
    rooms = [there.get("CPU", 0.0) / engine.cpus]
    if engine.gpus:
        rooms.append(there.get("GPU", 0.0) / engine.gpus)
    if min(rooms) < 1:
        raise EngineError(
            f"Ray has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs free; a worker"
            f" asks for cpus={engine.cpus}, gpus={engine.gpus}. Ask for less; or pass workers=,"
            " and they will start when there is room."
        )
    return int(min(rooms))


def _recipe(ray: ModuleType, engine: Ray) -> Any:
    """Return what makes an actor."""
    options: dict[str, Any] = {"num_cpus": engine.cpus, "num_gpus": engine.gpus}
    if engine.runtime_env is not None:
        options["runtime_env"] = dict(engine.runtime_env)
    return ray.remote(**options)(_Actor)


class _Actor:
    """A worker in a process of Ray's."""

    def receive(self, parcel: Parcel, content: Any = None) -> Parcel | None:
        """Return where this machine has the parcel; None when it must be sent."""
        here = parcel.moved()
        if content is not None and not here.here:
            Path(here.path).parent.mkdir(parents=True, exist_ok=True)
            here.write(memoryview(content))
        return next((place for place in (parcel, here) if place.here), None)

    def prepare(
        self, order: Order, points: int, probes: Sequence[tuple[float, ...]], compiler: bool
    ) -> str | Failure:
        return remote_worker.prepare(order, points, probes, compiler)

    def evaluate(self, order: Order, points: Sequence[Point], terms: bool) -> Answer:
        return remote_worker.evaluate(order, points, terms=terms)


@dataclass(eq=False)
class _Call:
    """Something that an actor was asked; where it is about points, which, and for whom."""

    task: str
    chunk: Chunk = ()
    dispatcher: Dispatcher | None = None


@dataclass(eq=False)
class _Seat:
    """The place of a worker, whoever takes it."""

    actor: Any = None
    parcel: Parcel | None = None  # where its machine has it; None: not ready
    calls: deque[_Call] = field(default_factory=deque)  # the first is what it works on
    deaths: int = 0  # in a row, of actors that found nothing
    listed: bool = False  # among those that can take points


_Event = tuple[_Seat, Any, _Call, Any]  # a seat, its actor then, what that was asked, the future


@final
class _Crew:
    """Actors that are ready, or will be."""

    def __init__(self, ray: ModuleType, recipe: Any, order: Order, workers: int) -> None:
        self.ray, self.recipe, self.order = ray, recipe, order
        self._landed: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._free: deque[_Seat] = deque()
        self._ready = 0
        self._content: Any = None  # the file in the object store, once a machine lacks it
        self._plan: str | Failure | None = None
        self._dispatcher: Dispatcher | None = None
        self.seats = [_Seat() for _ in range(workers)]
        for seat in self.seats:
            self._fill(seat)

    @property
    def size(self) -> int:
        """How many points keep every worker busy."""
        return len(self.seats)

    @property
    def plan(self) -> str:
        """How every worker evaluates points, as text."""
        return self.order.plan

    def choose(self, job: Job, *, compiler: bool) -> None:
        """Let the first worker that is ready measure the plan."""
        asked: _Seat | None = None
        while self._plan is None:
            if self._free and (asked is None or not asked.calls):
                asked = self._free[0]
                task = (self._order(asked), job.points, tuple(job.probes), compiler)
                self._ask(asked, _Call("prepare"), *task)
            for _, answer in self._wait():
                if isinstance(answer, Failure):
                    answer.throw()
        if isinstance(self._plan, Failure):
            self._plan.throw()
        self.order = dataclasses.replace(self.order, plan=self._plan)

    def run(self, points: Iterable[Point], *, terms: bool = False) -> Generator[list[Result]]:
        """Yield results as they come."""
        dispatcher = Dispatcher(points, self.size, most=FEW if terms else MOST)
        self._dispatcher = dispatcher
        try:
            while self._send(dispatcher, terms=terms):
                yield from harvest(dispatcher, self._wait())
        finally:
            self._dispatcher = None  # what comes after this is nobody's

    def close(self) -> None:
        """End the actors."""
        for seat in self.seats:
            self._kill(seat)

    def _send(self, dispatcher: Dispatcher, *, terms: bool) -> bool:
        """Give points to workers that can take some; return whether there is more to come."""
        while self._free and not dispatcher.finished:
            seat = self._free[0]
            room = dispatcher.ahead - len(seat.calls)
            chunk = dispatcher.next_chunk() if room > 0 else ()
            if room > 0 and not chunk:
                break
            self._free.popleft()
            seat.listed = False
            if chunk:
                call = _Call("evaluate", chunk, dispatcher)
                self._ask(seat, call, self._order(seat), chunk, terms)
            if room > 1:
                self._list(seat)
        return not dispatcher.finished

    def _wait(self) -> list[tuple[Chunk, Answer | Failure]]:
        """Wait until something happens; return what was found, and why no more will be."""
        answers: list[tuple[Chunk, Answer | Failure]] = []
        try:
            events = taken(self._landed, None if self._ready else _PATIENCE)
        except queue.Empty:
            raise EngineError(
                f"no worker was ready after {_PATIENCE:g} seconds: Ray has"
                f" {self.ray.cluster_resources()}. Ask for less with cpus= and gpus=, or start"
                " more machines."
            ) from None
        for seat, actor, call, future in events:
            if seat.actor is actor:  # else it died meanwhile, and its points are asked again
                answers += self._taken_in(seat, call, future)
        return answers

    def _taken_in(
        self, seat: _Seat, call: _Call, future: Any
    ) -> list[tuple[Chunk, Answer | Failure]]:
        error = future.exception()
        if isinstance(error, self.ray.exceptions.RayTaskError):
            cause = error.cause
            failure = Failure(type(cause).__name__, str(cause), None, str(error))
            return [(call.chunk, failure)]
        if error is not None:
            return self._died(seat, error)
        seat.calls.remove(call)
        found = future.result()
        if call.task == "receive":
            self._received(seat, found)
        elif call.task == "prepare":
            self._plan = found
        self._list(seat)
        if call.dispatcher is None or call.dispatcher is not self._dispatcher:
            return []
        seat.deaths = 0
        return [(call.chunk, found)]

    def _received(self, seat: _Seat, place: Parcel | None) -> None:
        if place is not None:
            seat.parcel = place
            self._ready += 1
            return
        if self._content is None:
            path = self.order.parcel.path
            self._content = self.ray.put(np.asarray(np.memmap(path, np.uint8, "r")))
        self._ask(seat, _Call("receive"), self.order.parcel, self._content)

    def _died(self, seat: _Seat, error: BaseException) -> list[tuple[Chunk, Answer | Failure]]:
        """Let another take the seat, and ask for the points again."""
        calls = list(seat.calls)
        seat.deaths += 1
        if seat.deaths >= ATTEMPTS and not calls[0].chunk:
            text = f"{ATTEMPTS} workers died before they could begin: {error}"
            return [((), Failure("EngineError", text, None, repr(error)))]
        self._kill(seat)
        self._fill(seat)
        try:
            for k, call in enumerate(calls):
                if call.dispatcher is not None and call.dispatcher is self._dispatcher:
                    call.dispatcher.lost(call.chunk, guilty=k == 0)
        except EngineError as blame:
            return [((), Failure("EngineError", str(blame), None, repr(error)))]
        return []

    def _order(self, seat: _Seat) -> Order:
        """Return the order with the file where the machine of a worker has it."""
        return dataclasses.replace(self.order, parcel=seat.parcel or self.order.parcel)

    def _fill(self, seat: _Seat) -> None:
        """Put a new actor into a seat."""
        seat.actor, seat.parcel, seat.calls = self.recipe.remote(), None, deque()
        self._ask(seat, _Call("receive"), self.order.parcel)

    def _kill(self, seat: _Seat) -> None:
        self._ready -= seat.parcel is not None
        if seat.listed:
            self._free.remove(seat)
            seat.listed = False
        with contextlib.suppress(Exception):  # it may be dead, or Ray be gone
            self.ray.kill(seat.actor)

    def _list(self, seat: _Seat) -> None:
        """Note that a worker can take points, idle ones first."""
        if seat.parcel is None or seat.listed:
            return
        seat.listed = True
        if seat.calls:
            self._free.append(seat)
        else:
            self._free.appendleft(seat)

    def _ask(self, seat: _Seat, call: _Call, *given: Any) -> None:
        seat.calls.append(call)
        actor = seat.actor
        future = getattr(actor, call.task).remote(*given).future()
        future.add_done_callback(lambda done: self._landed.put((seat, actor, call, done)))
