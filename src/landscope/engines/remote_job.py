"""The messages between a driver and its remote workers: jobs, results and failures.

Replies consist of plain numbers, texts and arrays. So they can be unpickled, even if the user's
objective raises an error of an unknown type, and they share no memory with a process that may be
killed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, final

import torch

from landscope import errors
from landscope.engines.job import Job, Result
from landscope.engines.plan import Plan
from landscope.engines.scheduling import Chunk, Scheduler
from landscope.engines.serialization import Payload
from landscope.errors import EngineError

MAX_PER_SAMPLE_CHUNK = 4  # points in a chunk where each result carries its per-sample losses


@final
@dataclass(frozen=True)
class RemoteJob:
    """A job as a remote worker receives it.

    Args:
        payload: The file with the objective, the slice and the quantities.
        plan: The plan to follow, as text; "" before it is chosen.
        threads: The number of torch threads.
        device: "cuda" if the worker must use a GPU; "" for the device of the driver.
    """

    payload: Payload
    plan: str = ""
    threads: int = 1
    device: str = ""

    def with_plan_of(self, job: Job, plan: Plan | None) -> RemoteJob:
        """Return this job with the plan that the user or the journal gives, if either does."""
        plan = plan or (Plan.loads(job.plan) if job.plan else None)
        if plan is None:
            return self
        threads = plan.threads or self.threads
        text = dataclasses.replace(plan, workers=1, threads=threads).dumps()
        return dataclasses.replace(self, plan=text, threads=threads)


@final
@dataclass(frozen=True)
class Failure:
    """An exception of a worker, in words.

    Args:
        kind: The name of its type.
        text: Its message.
        coordinates: The coordinates of the point; None if it came before the first point.
        traceback: The traceback in the worker.
    """

    kind: str
    text: str
    coordinates: tuple[float, ...] | None
    traceback: str

    def throw(self) -> NoReturn:
        """Raise the exception in the driver.

        Raises:
            LandscopeError: An error of landscope as it was, a CallError with the point; an
                EngineError for any other type.
        """
        error_type = getattr(errors, self.kind, None)
        if isinstance(error_type, type) and issubclass(error_type, errors.LandscopeError):
            is_call = issubclass(error_type, errors.CallError) and self.coordinates is not None
            place = f" It was at the point {self.coordinates}." if is_call else ""
            error: Exception = error_type(self.text + place)
        elif self.coordinates is None:
            error = EngineError(f"a worker failed with {self.kind}: {self.text}.")
        else:
            error = EngineError(
                f"a worker, at the point {self.coordinates}, failed with {self.kind}: {self.text}."
                f" To see the cause, evaluate objective.loss(slice.at({self.coordinates}))."
            )
        error.add_note(f"In the worker:\n{self.traceback}")
        raise error


PlainResult = tuple[int, dict[str, float], float, Any]
"""The fields of a Result, with an array in the place of the tensor."""

Answer = tuple[list[PlainResult], Failure | None]
"""The results of a chunk, and the failure that ended it early."""


def collect_results(
    scheduler: Scheduler, answers: Iterable[tuple[Chunk, Answer | Failure]]
) -> Iterator[list[Result]]:
    """Yield the results of several answers together, then raise the first failure among them."""
    results: list[Result] = []
    failures: list[Failure] = []
    for chunk, answer in answers:
        rows, failure = ([], answer) if isinstance(answer, Failure) else answer
        chunk_results = _to_results(rows)
        scheduler.complete(chunk, sum(result.seconds for result in chunk_results))
        results += chunk_results
        failures += [failure] if failure else []
    if results:
        yield results
    for failure in failures:
        failure.throw()


def _to_results(rows: Sequence[PlainResult]) -> list[Result]:
    return [
        Result(index, values, seconds, None if per_sample is None else torch.tensor(per_sample))
        for index, values, seconds, per_sample in rows
    ]
