"""The shape of a surface in numbers: how deep its basin is, and how much of it is not convex.

The numbers describe the slice, not the whole surface: a plane that looks convex may be in a space
that is not (section 6 of arXiv 1712.09913). They rest on evaluated cells, and say what the errors
of their values leave open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np

from landscope.analysis.bending import Bending, find_bending
from landscope.analysis.value_intervals import Intervals, find_intervals
from landscope.errors import DrawError
from landscope.landscape import Landscape


@final
@dataclass(frozen=True)
class Shape:
    """The shape of a plane or a line, in numbers.

    Args:
        center: The value at the origin, if it was evaluated; NaN if it was predicted, or if the
            grid has no point there.
        lowest: The smallest value that was evaluated.
        at: The coordinates of that value, x first.
        rivals: The number of other cells that may lie lower, within their errors, whether they were
            evaluated or not. The place of the basin is certain if there are none.
        rim: The median of the values on the border.
        rim_error: The largest error that the errors of those values can give the median.
        nonconvex: The share of the cells that can be judged that bend downwards along some
            direction of the slice, for certain: the smallest eigenvalue of the matrix of second
            differences is negative, by more than 1% of the largest absolute eigenvalue, whatever
            the errors of the values are. NaN if no cell can be judged.
        possible: The share of the cells that can be judged that bend downwards for some values
            within the errors; NaN if no cell can be judged.
        bending: The same cell by cell. A cell can be judged if it and all of its neighbors were
            evaluated; for predicted cells nothing is told.
        holes: The number of points whose value is not finite.
    """

    center: float
    lowest: float
    at: tuple[float, ...]
    rivals: int
    rim: float
    rim_error: float
    nonconvex: float
    possible: float
    bending: Bending = field(compare=False, repr=False)
    holes: int


def shape(land: Landscape, quantity: str | None = None) -> Shape:
    """Return the shape of a quantity over a line or a plane.

    Errors are propagated as intervals: 95% bars of predictions and of drawn samples, doubled, and
    the rounding of the precision in which the values were computed (see ``value_intervals``).

    Args:
        land: The landscape.
        quantity: The name of the quantity; ``land.quantity`` if None.

    Raises:
        DrawError: For a volume, an unknown quantity, or when no evaluated value is finite.
    """
    name = quantity or land.quantity
    if name not in land.data or len(land.dims) > 2:
        raise DrawError(f"{name!r} is not a quantity of a line or a plane: there are"
                        f" {', '.join(map(str, land.data))} over {land.dims}.")  # fmt: skip
    known = find_intervals(land, name)
    if not known.evaluated.any():
        raise DrawError(f"{name!r} has no finite value, so it has no shape.")
    axes = land.axes
    lowest = np.unravel_index(
        np.argmin(np.where(known.evaluated, known.values, np.inf)), known.values.shape
    )
    rim, rim_error = _measure_rim(known)
    bending = find_bending(known, axes)
    judged = int(bending.told.sum())
    return Shape(
        center=_value_at_origin(known, axes),
        lowest=float(known.values[lowest]),
        at=tuple(float(axis[k]) for axis, k in zip(axes, lowest, strict=True))[::-1],
        rivals=_count_rivals(known, tuple(int(k) for k in lowest)),
        rim=rim,
        rim_error=rim_error,
        nonconvex=float(bending.certain.sum()) / judged if judged else np.nan,
        possible=float(bending.possible.sum()) / judged if judged else np.nan,
        bending=bending,
        holes=int((~np.isfinite(known.values) & ~known.untold).sum()),
    )


def _count_rivals(known: Intervals, lowest: tuple[int, ...]) -> int:
    """Return how many other cells may lie lower than the lowest that was evaluated."""
    with np.errstate(invalid="ignore"):
        rivals = (known.lower < known.upper[lowest]) | known.untold
    rivals[lowest] = False
    return int(rivals.sum())


def _measure_rim(known: Intervals) -> tuple[float, float]:
    """Return the median on the border, and how far it may be from the exact one."""
    border = np.isfinite(known.values)
    border[(slice(1, -1),) * border.ndim] = False
    if not border.any():
        return np.nan, np.nan
    low, middle, high = (
        float(np.median(x[border])) for x in (known.lower, known.values, known.upper)
    )
    return middle, max(high - middle, middle - low)


def _value_at_origin(known: Intervals, axes: tuple[np.ndarray, ...]) -> float:
    zeros = [np.flatnonzero(axis == 0.0) for axis in axes]
    if not all(map(len, zeros)):
        return np.nan
    at = tuple(k[0] for k in zeros)
    return float(known.values[at]) if known.evaluated[at] else np.nan
