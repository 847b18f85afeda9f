"""The local engine: one point after the other on this machine."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import final

from landscope.engines import Point, Quantity, Result
from landscope.errors import ObjectiveError
from landscope.objective import Objective
from landscope.params import Params
from landscope.slices import Slice


@final
@dataclass(frozen=True)
class Local:
    """Evaluates points one by one; torch uses the threads that it is set to."""

    def run(
        self,
        objective: Objective,
        slice: Slice,  # noqa: A002 - the field's word, and that of ls.scan
        points: Iterable[Point],
        quantities: Sequence[Quantity],
    ) -> Generator[Result]:
        """Yield the result of each point in order; the model is borrowed meanwhile."""
        with objective.session() as session:
            for index, coordinates in points:
                began = time.perf_counter()
                params = slice.at(coordinates)
                values = session.values(params)
                for quantity in quantities:
                    values |= _measured(quantity, objective, params)
                yield Result(index, values, time.perf_counter() - began)


def _measured(quantity: Quantity, objective: Objective, params: Params) -> dict[str, float]:
    found = quantity(objective, params)
    if not isinstance(found, dict):
        raise ObjectiveError(
            f"quantity {getattr(quantity, '__name__', quantity)!r} returned a"
            f" {type(found).__name__}; expected a dict of names and numbers."
        )
    return {str(name): float(value) for name, value in found.items()}
