"""Engines: where points are evaluated.

An engine is anything with ``open(job)`` that lends a team of workers; a team evaluates points, in
any order. One team serves a whole scan, so that what is costly (a copy
of the model, a connection, a compiled pass) is made once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from landscope.objective.objective import Objective
from landscope.objective.quantities import Quantity
from landscope.slices.slices import Slice

Point = tuple[int, tuple[float, ...]]
"""A flat index of the grid and its coordinates, x first."""


@dataclass(frozen=True)
class Result:
    """What came out at one point.

    Args:
        point: the flat index.
        values: quantity -> value.
        seconds: that it took its worker.
        terms: where they were asked for, what each sample adds to the loss and how much it counts,
            shape (2, samples), float64.
    """

    point: int
    values: dict[str, float]
    seconds: float
    terms: Any = None


@dataclass(frozen=True)
class Job:
    """What an engine needs to know of a scan.

    Args:
        objective: what to evaluate.
        slice: where.
        quantities: further things to measure.
        points: how many points there will be at most: what preparations are worth.
        axes: of the grid that the points are of, x first; none where they are of no grid.
        probes: coordinates at which different ways to compute may be compared.
        plan: The plan that a scan which is resumed followed before, as text; "" if none.
    """

    objective: Objective
    slice: Slice
    quantities: Sequence[Quantity] = ()
    points: int = 1
    probes: Sequence[tuple[float, ...]] = ()
    axes: Sequence[np.ndarray] = ()
    plan: str = ""


def probes(axes: Sequence[np.ndarray]) -> list[tuple[float, ...]]:
    """Return three coordinates to compare values at: the middle and two opposite corners."""
    ends = ([float(axis[k]) for axis in axes] for k in (0, -1))
    middle = [float(axis[len(axis) // 2]) for axis in axes]
    return list(dict.fromkeys(map(tuple, (middle, *ends))))


class Team(Protocol):
    """Workers that are ready."""

    @property
    def size(self) -> int:
        """How many points keep every worker busy."""
        ...

    @property
    def plan(self) -> str:
        """How the points are evaluated now, as text: ``Job.plan`` of a scan that is resumed."""
        ...

    def run(self, points: Iterable[Point], *, terms: bool = False) -> Generator[list[Result]]:
        """Yield results as they come, in any order, several at once where several are there.

        Args:
            points: taken one by one as workers become free; any thread may take one.
            terms: give the single terms of the loss as well.
        """
        ...


class Engine(Protocol):
    """What a scan needs to know of an engine."""

    def open(self, job: Job) -> AbstractContextManager[Team]:
        """Lend a team for a job."""
        ...
