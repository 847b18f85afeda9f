"""Engines: where points are evaluated.

An engine is anything with ``run(objective, slice, points, quantities)`` that yields a result a
point, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from landscope.objective import Objective
from landscope.params import Params
from landscope.slices import Slice

Point = tuple[int, tuple[float, ...]]
"""A flat index of the grid and its coordinates, x first."""

Quantity = Callable[[Objective, Params], dict[str, float]]
"""A further thing to measure at each point: its name -> its value."""


@dataclass(frozen=True)
class Result:
    """What came out at one point.

    Args:
        point: the flat index.
        values: quantity -> value.
        seconds: that it took.
    """

    point: int
    values: dict[str, float]
    seconds: float


class Engine(Protocol):
    """What a scan needs to know of an engine."""

    def run(
        self,
        objective: Objective,
        slice: Slice,  # noqa: A002 - the field's word, and that of ls.scan
        points: Iterable[Point],
        quantities: Sequence[Quantity],
    ) -> Generator[Result]:
        """Yield the result of each point, in any order."""
        ...
