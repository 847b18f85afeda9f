"""Quantities: what a scan measures at each point besides the loss and the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from landscope.objective.objective import Objective
from landscope.params import Params

Quantity = Callable[[Objective, Params], dict[str, float]]
"""A further thing to measure at each point: its name -> its value."""


class Chained(ABC):
    """A quantity of a scan that gains from starting near its result.

    It is a quantity like any other, ``quantity(objective, params) -> dict``, and can start from
    the state that it returned at another point.
    """

    @abstractmethod
    def follow(
        self, objective: Objective, params: Params, state: Any
    ) -> tuple[dict[str, float], Any]:
        """Return values and state at a point.

        Args:
            objective: what to measure.
            params: where.
            state: that of a point near by; None where there is none.
        """

    def __call__(self, objective: Objective, params: Params) -> dict[str, float]:
        """Return the values at a point that has no neighbor."""
        return self.follow(objective, params, None)[0]
