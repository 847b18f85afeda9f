"""Jobs, results, and the two protocols of an engine: Engine and WorkerPool.

An engine is any object with a method ``open(job)`` that yields a worker pool; the pool evaluates
points in any order. One pool serves a whole scan, so that costly preparations (a copy of the model,
a connection, a compiled forward pass) are made once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from landscope.errors import EngineError
from landscope.objective.objective import Objective
from landscope.objective.quantities import Quantity
from landscope.slices.slices import Slice

Point = tuple[int, tuple[float, ...]]
"""A flat index into the grid, and the coordinates there, x first."""


@dataclass(frozen=True)
class Result:
    """The values at one point.

    Args:
        point: The flat index of the point.
        values: The loss, the metrics and the quantities by name.
        seconds: The time that the worker took.
        per_sample: The contributions of the samples to the loss and their weights, shape
            (2, samples), float64; None unless ``run(per_sample=True)``.
    """

    point: int
    values: dict[str, float]
    seconds: float
    per_sample: Any = None


@dataclass(frozen=True)
class Job:
    """The part of a scan that an engine needs to know.

    Args:
        objective: The objective to evaluate.
        slice: The slice that turns coordinates into parameters.
        quantities: The further quantities to measure at each point.
        points: The largest number of points to expect; it decides which preparations pay off.
        probes: The coordinates at which plans may be compared.
        axes: The coordinates of the grid along each axis, x first; empty if there is no grid.
        plan: The plan that a resumed scan followed before, as text; "" if there is none.
    """

    objective: Objective
    slice: Slice
    quantities: Sequence[Quantity] = ()
    points: int = 1
    probes: Sequence[tuple[float, ...]] = ()
    axes: Sequence[np.ndarray] = ()
    plan: str = ""


def choose_probes(axes: Sequence[np.ndarray]) -> list[tuple[float, ...]]:
    """Return the coordinates at which plans are compared: the middle and two opposite corners."""
    ends = ([float(axis[k]) for axis in axes] for k in (0, -1))
    middle = [float(axis[len(axis) // 2]) for axis in axes]
    return list(dict.fromkeys(map(tuple, (middle, *ends))))


class WorkerPool(Protocol):
    """A pool of workers that are ready for one job."""

    @property
    def size(self) -> int:
        """The number of points that keep every worker busy."""
        ...

    @property
    def plan(self) -> str:
        """The plan that the workers follow now, as text; ``Job.plan`` of a resumed scan."""
        ...

    def run(self, points: Iterable[Point], *, per_sample: bool = False) -> Generator[list[Result]]:
        """Yield results as they arrive, in any order, in groups of those that are ready.

        Args:
            points: The points; each is taken when a worker becomes free, by any thread.
            per_sample: Whether each result has the losses of the individual samples.
        """
        ...


class Engine(Protocol):
    """A source of worker pools."""

    def open(self, job: Job) -> AbstractContextManager[WorkerPool]:
        """Return a context manager that yields a worker pool for a job."""
        ...


def check_engine(engine: Any) -> None:
    """Check that an argument is an engine.

    Raises:
        EngineError: When it is not.
    """
    if not callable(getattr(engine, "open", None)) or isinstance(engine, type):
        raise EngineError(
            f"engine={engine!r}; expected an engine such as ls.engines.Local(workers=2),"
            " ls.engines.Executor(pool) or ls.engines.Ray()."
        )
