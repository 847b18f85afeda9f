"""Chains of warm starts: each point of a grid starts from the result at a neighboring point.

A grid contains the grids of half, a quarter, ... of its resolution. The predecessor of a point is
the nearest point of the next coarser grid; the chain of a point leads from the middle of the grid
through its predecessors to the point itself. The chain depends only on the position of the point in
the grid. So a value does not depend on which worker computes it, nor on the points that were
evaluated before: any number of workers, and a resumed scan, give the same bits. A worker recomputes
the predecessors whose states it no longer has, at most log2(resolution) of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np

from landscope.objective.objective import Objective
from landscope.objective.quantities import Chained
from landscope.slices.slices import Slice

_REMEMBERED = 8  # minimum number of remembered states; few are needed in sorted order


@final
class WarmStartEvaluator:
    """Evaluates a chained quantity over a grid, and remembers the states of the last points.

    Args:
        quantity: The chained quantity.
        slice_: The slice.
        axes: The coordinates of the grid along each axis, x first.
    """

    def __init__(self, quantity: Chained, slice_: Slice, axes: Sequence[np.ndarray]) -> None:
        self.quantity, self.slice, self.axes = quantity, slice_, axes
        self.shape = tuple(len(axis) for axis in axes)
        # If a chain did not fit, its end would push out its beginning, again and again.
        self.capacity = max(_REMEMBERED, max(self.shape, default=1).bit_length() + 1)
        self.states: OrderedDict[int, tuple[dict[str, float], Any]] = OrderedDict()

    def values(self, objective: Objective, index: int) -> dict[str, float]:
        """Return the values at the point of the grid with a flat index."""
        state = None
        for step in find_chain(index, self.shape):
            if step not in self.states:
                params = self.slice.at(locate(step, self.axes))
                self.states[step] = self.quantity.follow(objective, params, state)
            self.states.move_to_end(step)
            while len(self.states) > self.capacity:
                self.states.popitem(last=False)
            values, state = self.states[step]
        return values


def find_chain(index: int, shape: Sequence[int]) -> list[int]:
    """Return the chain of a point: flat indices from the middle of the grid to the point itself.

    Args:
        index: The flat index of the point, x running fastest.
        shape: The number of points along each axis, x first.
    """
    steps = []
    rest = index
    for count in shape:
        rest, k = divmod(rest, count)
        steps.append(k - count // 2)
    chain = [index]
    while any(steps):
        level = min(step & -step for step in map(abs, steps) if step)
        steps = [s - level * (1 if s > 0 else -1) if abs(s) & level else s for s in steps]
        chain.append(_to_index(steps, shape))
    return chain[::-1]


def sort_by_chain(indices: Iterable[int], shape: Sequence[int]) -> list[int]:
    """Return flat indices in an order in which each comes soon after its predecessor."""
    return sorted(indices, key=lambda index: find_chain(index, shape))


def locate(index: int, axes: Sequence[np.ndarray]) -> tuple[float, ...]:
    """Return the coordinates at a flat index, x running fastest."""
    coordinates = []
    for axis in axes:
        index, k = divmod(index, len(axis))
        coordinates.append(float(axis[k]))
    return tuple(coordinates)


def _to_index(steps: Sequence[int], shape: Sequence[int]) -> int:
    """Return the flat index at whole steps from the middle of the grid."""
    index = 0
    for step, count in zip(reversed(steps), reversed(shape), strict=True):
        index = index * count + step + count // 2
    return index
