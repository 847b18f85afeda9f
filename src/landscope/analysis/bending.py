"""Where a surface bends downwards, for certain, possibly, or not told, from values with errors.

A cell bends downwards if the smallest eigenvalue of the 2 x 2 matrix of second differences around
it is negative, by more than 1% of the largest in size. From values with errors both eigenvalues
lie in intervals, which are computed exactly for independent errors of the entries. For `certain`
the cell must in addition lie above the chord between two cells on opposite sides, because only that
proves that no convex function has these values: at a kink, the matrix of a convex function can
have a negative eigenvalue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from landscope.analysis.value_intervals import Intervals

_NEGLIGIBLE = 0.01  # of the largest curvature: a smaller negative one is none
_CHORDS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))  # steps (y, x)
_REACH, _LARGE = (25, 8), 10_000  # steps of short chords; fewer on grids of more cells
_UNIFORM = 1e-6  # relative differences of the steps of an axis


@final
@dataclass(frozen=True, eq=False)
class Bending:
    """Which cells of a line or plane bend downwards; each array has the shape of the grid.

    Args:
        certain: The cells that bend downwards whatever the errors of the values are.
        possible: The cells that bend downwards for some values within the errors.
        told: The cells that can be judged: they and all of their neighbors were evaluated.
        inner: The cells that are not on the border of the grid.
        above: The cells that were evaluated and lie above the chord between two other evaluated
            cells, at any distance, for certain. One of them proves that the slice is not convex.
    """

    certain: np.ndarray
    possible: np.ndarray
    told: np.ndarray
    inner: np.ndarray
    above: np.ndarray


def find_bending(known: Intervals, axes: Sequence[np.ndarray]) -> Bending:
    """Return where a surface bends downwards.

    Args:
        known: The values, their errors, and which of them were evaluated.
        axes: The coordinates along each axis, in the order of the dimensions (y, x).
    """
    values = np.where(known.evaluated, known.values, np.nan)
    error = np.where(known.evaluated, known.error, np.nan)
    inner = np.zeros(values.shape, dtype=bool)
    inner[(slice(1, -1),) * values.ndim] = True
    above = _find_above_chords(values, error, axes)
    if min(values.shape) < 3:
        nothing = np.zeros_like(inner)
        return Bending(nothing, nothing, nothing, inner & False, above)
    with np.errstate(invalid="ignore", over="ignore"):
        second = [_second(values, error, axes, k) for k in range(values.ndim)]
        if values.ndim == 1:
            ((curvature, width),) = second
            highest, lowest = curvature + width, curvature - width
            largest, smallest = np.abs(curvature) + width, np.maximum(np.abs(curvature) - width, 0)
        else:
            bounds = _limit_eigenvalues(second, _take_mixed_difference(values, error, axes))
            highest, lowest, largest, smallest = bounds
        told = inner & np.isfinite(highest)
        certain = told & (highest < -_NEGLIGIBLE * largest)
        certain &= _lies_above(values, error, axes, _CHORDS)
        possible = told & ~certain & (lowest < -_NEGLIGIBLE * smallest)
    return Bending(certain, possible, told, inner, above)


def _second(
    values: np.ndarray, error: np.ndarray, axes: Sequence[np.ndarray], axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the second difference along an axis and its error, on the whole grid."""
    shape = [1] * values.ndim
    shape[axis] = -1
    steps = np.diff(axes[axis])
    before = np.append(np.nan, steps).reshape(shape)
    after = np.append(steps, np.nan).reshape(shape)
    step = tuple(int(k == axis) for k in range(values.ndim))
    weights = 2 / (after * (before + after)), 2 / (before * (before + after))
    total = weights[0] * _at(values, step, 1) + weights[1] * _at(values, step, -1)
    width = weights[0] * _at(error, step, 1) + weights[1] * _at(error, step, -1)
    weight = 2 / (before * after)
    return total - weight * values, width + weight * error


def _take_mixed_difference(
    values: np.ndarray, error: np.ndarray, axes: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the second difference by both axes, and its error."""
    rows, columns = (_span_of_two(axis) for axis in axes)
    area = rows[:, None] * columns[None, :]
    corners = [(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1)]
    mixed = sum(sign * _at(values, (j, i), 1) for j, i, sign in corners) / area
    width = sum(_at(error, (j, i), 1) for j, i, _ in corners) / area
    return np.asarray(mixed), np.asarray(width)


def _span_of_two(axis: np.ndarray) -> np.ndarray:
    """Return the distance between the neighbors of each point; NaN at the ends."""
    return np.concatenate([[np.nan], axis[2:] - axis[:-2], [np.nan]])


def _limit_eigenvalues(
    second: Sequence[tuple[np.ndarray, np.ndarray]], mixed: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return bounds of the smallest eigenvalue (above, below) and of the largest in size.

    The smallest eigenvalue grows with both diagonal entries and falls with the size of the third.
    """
    (a, da), (b, db) = second
    c, dc = np.abs(mixed[0]), mixed[1]
    highest = _smallest_eigenvalue(a + da, b + db, np.maximum(c - dc, 0.0))
    lowest = _smallest_eigenvalue(a - da, b - db, c + dc)
    size = np.abs((a + b) / 2) + np.hypot((a - b) / 2, c)
    width = (da + db) / 2 + np.hypot((da - db) / 2, dc)
    return highest, lowest, size + width, np.maximum(size - width, 0.0)


def _smallest_eigenvalue(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    result: np.ndarray = (a + b) / 2 - np.hypot((a - b) / 2, c)
    return result


def _find_above_chords(
    values: np.ndarray, error: np.ndarray, axes: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the cells above a chord: of any short step, or of steps that double."""
    longest = max(values.shape) // 2
    reach = min(longest, _REACH[values.size > _LARGE])
    down = reach if values.ndim == 2 else 0
    steps = [(j, i) for j in range(down + 1) for i in range(-reach, reach + 1) if j > 0 or i > 0]
    scales = [2**k for k in range(longest.bit_length())]
    steps += [(s * j, s * i) for s in scales for j, i in _CHORDS]
    return _lies_above(values, error, axes, steps)


def _lies_above(
    values: np.ndarray,
    error: np.ndarray,
    axes: Sequence[np.ndarray],
    steps: Sequence[tuple[int, int]],
) -> np.ndarray:
    """Return the cells that certainly lie above the middle of a chord.

    Args:
        values: The values, NaN where there is none.
        error: Their errors.
        axes: The coordinates; steps along an axis that is not uniform are left out.
        steps: From the cell to one end of the chord, (y, x); a line has those along x.
    """
    uniform = [_is_uniform(axis) for axis in axes]
    result = np.zeros(values.shape, dtype=bool)
    for step in steps:
        used = step[2 - values.ndim :]
        if any(step[: 2 - values.ndim]) or any(
            s and not u for s, u in zip(used, uniform, strict=True)
        ):
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            excess = 2 * values - _at(values, used, 1) - _at(values, used, -1)
            result |= excess > 2 * error + _at(error, used, 1) + _at(error, used, -1)
    return result


def _is_uniform(axis: np.ndarray) -> bool:
    steps = np.diff(axis)
    return bool(len(steps)) and bool(np.ptp(steps) <= _UNIFORM * np.abs(steps).max())


def _at(values: np.ndarray, step: Sequence[int], sign: int) -> np.ndarray:
    """Return the values of the cells that lie a step away, NaN beyond the border."""
    result = np.full(values.shape, np.nan)
    into, out = [], []
    for size, moved in zip(values.shape, (sign * s for s in step), strict=True):
        into.append(slice(max(-moved, 0), size - max(moved, 0)))
        out.append(slice(max(moved, 0), size + min(moved, 0)))
    if all(abs(s) < size for s, size in zip(step, values.shape, strict=True)):
        result[tuple(into)] = values[tuple(out)]
    return result
