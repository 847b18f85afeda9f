"""The workers of the Ray engine. When one dies, its points are sent again and it is replaced."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, final

import numpy as np

from landscope.engines import remote_worker
from landscope.engines.job import Job, Point, Result
from landscope.engines.queues import drain
from landscope.engines.remote_job import (
    MAX_PER_SAMPLE_CHUNK,
    Answer,
    Failure,
    RemoteJob,
    collect_results,
)
from landscope.engines.scheduling import MAX_ATTEMPTS, MAX_CHUNK, Chunk, Scheduler
from landscope.engines.serialization import Payload
from landscope.errors import EngineError

_START_TIMEOUT = 600.0  # seconds to wait for a first worker; a cluster may have to boot a machine


class RayWorker:
    """A remote worker as a Ray actor."""

    def receive(self, payload: Payload, content: Any = None) -> Payload | None:
        """Return the payload as this machine sees it; None if its content must be sent."""
        local = payload.in_folder()
        if content is not None and not local.is_here:
            Path(local.path).parent.mkdir(parents=True, exist_ok=True)
            local.write(memoryview(content))
        return next((place for place in (payload, local) if place.is_here), None)

    def prepare(
        self,
        remote_job: RemoteJob,
        points: int,
        probes: Sequence[tuple[float, ...]],
        compiler: bool,
    ) -> str | Failure:
        """Return the plan for a job (see :func:`remote_worker.prepare`)."""
        return remote_worker.prepare(remote_job, points, probes, compiler)

    def evaluate(self, remote_job: RemoteJob, points: Sequence[Point], per_sample: bool) -> Answer:
        """Return the results at some points (see :func:`remote_worker.evaluate`)."""
        return remote_worker.evaluate(remote_job, points, per_sample=per_sample)


@dataclass(eq=False)
class _Call:
    """A call of an actor's method; if it evaluates points, their chunk and their scheduler."""

    method: str
    chunk: Chunk = ()
    scheduler: Scheduler | None = None


@dataclass(eq=False)
class _Slot:
    """The place of one worker in the pool; actors that die are replaced in their slot."""

    actor: Any = None
    payload: Payload | None = None  # as the actor's machine sees it; None: the actor is not ready
    calls: deque[_Call] = field(default_factory=deque)  # the first one is being executed
    deaths: int = 0  # successive actors that died without returning a result
    is_free: bool = False  # whether the pool lists it among those that can take points


class _Completion(NamedTuple):
    """A call that ended."""

    slot: _Slot
    actor: Any  # the actor that had the slot when the call was made
    call: _Call
    future: Any


@final
class RayPool:
    """A pool of Ray actors; those that are not ready yet join when they are.

    Args:
        ray: The module, connected.
        actor_class: The remote class of :class:`RayWorker`.
        remote_job: The job.
        workers: The number of workers.
    """

    def __init__(
        self, ray: ModuleType, actor_class: Any, remote_job: RemoteJob, workers: int
    ) -> None:
        self.ray, self.actor_class, self.remote_job = ray, actor_class, remote_job
        self._completed: queue.SimpleQueue[_Completion] = queue.SimpleQueue()
        self._free: deque[_Slot] = deque()
        self._ready = 0
        self._content: Any = None  # the file in the object store, once a machine lacks it
        self._plan: str | Failure | None = None
        self._scheduler: Scheduler | None = None
        self.slots = [_Slot() for _ in range(workers)]
        for slot in self.slots:
            self._start_actor(slot)

    @property
    def size(self) -> int:
        """The number of points that keep every worker busy."""
        return len(self.slots)

    @property
    def plan(self) -> str:
        """The plan that every worker follows, as text."""
        return self.remote_job.plan

    def choose_plan(self, job: Job, *, compiler: bool) -> None:
        """Let the first worker that is ready measure the fastest plan.

        Args:
            job: The job.
            compiler: Whether the plan may use torch.compile.
        """
        measuring: _Slot | None = None
        while self._plan is None:
            if self._free and (measuring is None or not measuring.calls):
                measuring = self._free[0]
                task = (self._job_for(measuring), job.points, tuple(job.probes), compiler)
                self._call(measuring, _Call("prepare"), *task)
            for _, answer in self._wait():
                if isinstance(answer, Failure):
                    answer.throw()
        if isinstance(self._plan, Failure):
            self._plan.throw()
        self.remote_job = dataclasses.replace(self.remote_job, plan=self._plan)

    def run(self, points: Iterable[Point], *, per_sample: bool = False) -> Generator[list[Result]]:
        """Yield results as they arrive."""
        max_size = MAX_PER_SAMPLE_CHUNK if per_sample else MAX_CHUNK
        scheduler = Scheduler(points, self.size, max_size=max_size)
        self._scheduler = scheduler
        try:
            while self._send_chunks(scheduler, per_sample=per_sample):
                yield from collect_results(scheduler, self._wait())
        finally:
            self._scheduler = None  # answers that arrive later are ignored

    def close(self) -> None:
        """Stop the actors."""
        for slot in self.slots:
            self._stop_actor(slot)

    def _send_chunks(self, scheduler: Scheduler, *, per_sample: bool) -> bool:
        """Send points to workers that can take some; return whether results will come."""
        while self._free and not scheduler.finished:
            slot = self._free[0]
            room = scheduler.prefetch - len(slot.calls)
            chunk = scheduler.next_chunk() if room > 0 else ()
            if room > 0 and not chunk:
                break
            self._free.popleft()
            slot.is_free = False
            if chunk:
                call = _Call("evaluate", chunk, scheduler)
                self._call(slot, call, self._job_for(slot), chunk, per_sample)
            if room > 1:
                self._mark_free(slot)
        return not scheduler.finished

    def _wait(self) -> list[tuple[Chunk, Answer | Failure]]:
        """Wait for calls to end, and return the answers of the current run and any failures."""
        answers: list[tuple[Chunk, Answer | Failure]] = []
        try:
            completions = drain(self._completed, None if self._ready else _START_TIMEOUT)
        except queue.Empty:
            raise EngineError(
                f"no worker was ready after {_START_TIMEOUT:g} seconds: Ray has"
                f" {self.ray.cluster_resources()}. Use smaller cpus= and gpus=, or start more"
                " machines."
            ) from None
        for slot, actor, call, future in completions:
            if slot.actor is actor:  # else it died meanwhile, and its points were sent again
                answers += self._complete(slot, call, future)
        return answers

    def _complete(
        self, slot: _Slot, call: _Call, future: Any
    ) -> list[tuple[Chunk, Answer | Failure]]:
        error = future.exception()
        if isinstance(error, self.ray.exceptions.RayTaskError):
            cause = error.cause
            failure = Failure(type(cause).__name__, str(cause), None, str(error))
            return [(call.chunk, failure)]
        if error is not None:
            return self._replace_actor(slot, error)
        slot.calls.remove(call)
        answer = future.result()
        if call.method == "receive":
            self._note_payload(slot, answer)
        elif call.method == "prepare":
            self._plan = answer
        self._mark_free(slot)
        if call.scheduler is None or call.scheduler is not self._scheduler:
            return []
        slot.deaths = 0
        return [(call.chunk, answer)]

    def _note_payload(self, slot: _Slot, payload: Payload | None) -> None:
        """Record that an actor can read the payload, or send it the content."""
        if payload is not None:
            slot.payload = payload
            self._ready += 1
            return
        if self._content is None:
            path = self.remote_job.payload.path
            self._content = self.ray.put(np.asarray(np.memmap(path, np.uint8, "r")))
        self._call(slot, _Call("receive"), self.remote_job.payload, self._content)

    def _replace_actor(
        self, slot: _Slot, error: BaseException
    ) -> list[tuple[Chunk, Answer | Failure]]:
        """Start a new actor in the slot of a dead one, and send its points again."""
        calls = list(slot.calls)
        slot.deaths += 1
        if slot.deaths >= MAX_ATTEMPTS and not calls[0].chunk:
            text = f"{MAX_ATTEMPTS} workers died before they could begin: {error}"
            return [((), Failure("EngineError", text, None, repr(error)))]
        self._stop_actor(slot)
        self._start_actor(slot)
        try:
            for k, call in enumerate(calls):
                if call.scheduler is not None and call.scheduler is self._scheduler:
                    call.scheduler.requeue(call.chunk, was_running=k == 0)
        except EngineError as failure:
            return [((), Failure("EngineError", str(failure), None, repr(error)))]
        return []

    def _job_for(self, slot: _Slot) -> RemoteJob:
        """Return the job with the payload as the machine of a worker sees it."""
        payload = slot.payload or self.remote_job.payload
        return dataclasses.replace(self.remote_job, payload=payload)

    def _start_actor(self, slot: _Slot) -> None:
        slot.actor, slot.payload, slot.calls = self.actor_class.remote(), None, deque()
        self._call(slot, _Call("receive"), self.remote_job.payload)

    def _stop_actor(self, slot: _Slot) -> None:
        self._ready -= slot.payload is not None
        if slot.is_free:
            self._free.remove(slot)
            slot.is_free = False
        with contextlib.suppress(Exception):  # the actor may be dead, or Ray may be stopped
            self.ray.kill(slot.actor)

    def _mark_free(self, slot: _Slot) -> None:
        """List a worker among those that can take points, idle ones first."""
        if slot.payload is None or slot.is_free:
            return
        slot.is_free = True
        if slot.calls:
            self._free.append(slot)
        else:
            self._free.appendleft(slot)

    def _call(self, slot: _Slot, call: _Call, *arguments: Any) -> None:
        slot.calls.append(call)
        actor = slot.actor
        future = getattr(actor, call.method).remote(*arguments).future()
        future.add_done_callback(
            lambda done: self._completed.put(_Completion(slot, actor, call, done))
        )
