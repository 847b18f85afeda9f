"""Quantities: what a scan measures at each point besides the loss and the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from landscope.objective.objective import Objective
from landscope.params import Params

Quantity = Callable[[Objective, Params], dict[str, float]]
"""A function (objective, params) -> {name: value}, evaluated at each point of a scan."""


class Chained(ABC):
    """A quantity that is cheaper to compute from its result at a nearby point.

    It is a function ``quantity(objective, params) -> dict`` like any other quantity, and can also
    start from the state that it returned at another point.
    """

    @abstractmethod
    def follow(
        self, objective: Objective, params: Params, state: Any
    ) -> tuple[dict[str, float], Any]:
        """Return (values, state) at a point.

        Args:
            objective: The objective.
            params: The point.
            state: The state of a nearby point; None if there is none.
        """

    def __call__(self, objective: Objective, params: Params) -> dict[str, float]:
        """Return the values at a point, without the state of another one."""
        return self.follow(objective, params, None)[0]
