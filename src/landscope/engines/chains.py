"""Chains: quantities that start at each point from what they found at a neighboring one.

Which neighbor that is depends on the place in the grid alone: grids of half, a quarter, ... of the
resolution lie in a grid, and a point follows the nearest one of the next coarser grid, up to the
middle. So a value does not depend on who evaluates it and on what was evaluated before: any number
of workers, and a scan that is resumed, find the same bits. What a worker has not in its memory it
computes again, at most log2(resolution) points.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np

from landscope.objective.objective import Objective
from landscope.objective.quantities import Chained
from landscope.slices.slices import Slice

_REMEMBERED = 8  # points whose states a worker keeps at least: in order few are needed


@final
class Chain:
    """A chained quantity over a grid, with the states of the last few points.

    Args:
        quantity: what to measure.
        slice_: where.
        axes: of the grid, x first.
    """

    def __init__(self, quantity: Chained, slice_: Slice, axes: Sequence[np.ndarray]) -> None:
        self.quantity, self.slice, self.axes = quantity, slice_, axes
        self.shape = tuple(len(axis) for axis in axes)
        # A way that does not fit would drive its own beginning out, again and again.
        self.most = max(_REMEMBERED, max(self.shape, default=1).bit_length() + 1)
        self.found: OrderedDict[int, tuple[dict[str, float], Any]] = OrderedDict()

    def values(self, objective: Objective, index: int) -> dict[str, float]:
        """Return the values at a point of the grid."""
        state = None
        for step in path(index, self.shape):
            if step not in self.found:
                place = coordinates(step, self.axes)
                self.found[step] = self.quantity.follow(objective, self.slice.at(place), state)
            self.found.move_to_end(step)
            while len(self.found) > self.most:
                self.found.popitem(last=False)
            values, state = self.found[step]
        return values


def path(index: int, shape: Sequence[int]) -> list[int]:
    """Return the points that lead to one, from the middle of the grid to itself.

    Args:
        index: flat, x running fastest.
        shape: points an axis, x first.
    """
    steps = []
    left = index
    for count in shape:
        left, k = divmod(left, count)
        steps.append(k - count // 2)
    found = [index]
    while any(steps):
        level = min(step & -step for step in map(abs, steps) if step)
        steps = [s - level * (1 if s > 0 else -1) if abs(s) & level else s for s in steps]
        found.append(_flat(steps, shape))
    return found[::-1]


def ordered(indices: Iterable[int], shape: Sequence[int]) -> list[int]:
    """Return points in an order in which each comes soon after the one that it follows."""
    return sorted(indices, key=lambda index: path(index, shape))


def coordinates(index: int, axes: Sequence[np.ndarray]) -> tuple[float, ...]:
    """Return the coordinates of a flat index, x running fastest."""
    found = []
    for axis in axes:
        index, k = divmod(index, len(axis))
        found.append(float(axis[k]))
    return tuple(found)


def _flat(steps: Sequence[int], shape: Sequence[int]) -> int:
    index = 0
    for step, count in zip(reversed(steps), reversed(shape), strict=True):
        index = index * count + step + count // 2
    return index
