"""The shape of a surface in numbers: how deep its basin is, and how much of it is not convex.

The numbers describe the slice, not the whole surface: a plane that looks convex may be in a space
that is not (section 6 of arXiv 1712.09913).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from landscope.errors import DrawError
from landscope.landscape import Landscape

_NEGLIGIBLE = 0.01  # of the largest curvature: below it second differences are rounding


@final
@dataclass(frozen=True)
class Shape:
    """The shape of a plane or a line, in numbers.

    Args:
        center: The value at the origin, never interpolated: NaN if the grid has no point there.
        lowest: The smallest finite value.
        at: The coordinates of the lowest value, x first.
        rim: The median of the finite values on the border.
        nonconvex: The fraction of the finite inner points at which the surface bends downwards
            along some direction of the slice: the smallest eigenvalue of the matrix of second
            differences is negative, by more than 1% of the largest absolute eigenvalue. NaN if
            there are no such points.
        holes: The number of points whose value is not finite.
    """

    center: float
    lowest: float
    at: tuple[float, ...]
    rim: float
    nonconvex: float
    holes: int


def shape(land: Landscape, quantity: str | None = None) -> Shape:
    """Return the shape of a quantity over a line or a plane.

    Args:
        land: The landscape.
        quantity: The name of the quantity; ``land.quantity`` if None.

    Raises:
        DrawError: For a volume, an unknown quantity, or when no value is finite.
    """
    name = quantity or land.quantity
    if name not in land.data or len(land.dims) > 2:
        raise DrawError(f"{name!r} is not a quantity of a line or a plane: there are"
                        f" {', '.join(map(str, land.data))} over {land.dims}.")  # fmt: skip
    values = np.asarray(land.data[name].values, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise DrawError(f"{name!r} has no finite value, so it has no shape.")
    lowest = np.unravel_index(np.argmin(np.where(finite, values, np.inf)), values.shape)
    axes = land.axes
    border = np.ones(values.shape, dtype=bool)
    border[_inner(values)] = False
    rim = values[border & finite]
    return Shape(
        center=_value_at_origin(values, axes),
        lowest=float(values[lowest]),
        at=tuple(float(axis[k]) for axis, k in zip(axes, lowest, strict=True))[::-1],
        rim=float(np.median(rim)) if rim.size else np.nan,
        nonconvex=_nonconvex_share(np.where(finite, values, np.nan), axes),
        holes=int((~finite).sum()),
    )


def _inner(values: np.ndarray) -> tuple[slice, ...]:
    """Return the index of the points that are not on the border."""
    return (slice(1, -1),) * values.ndim


def _value_at_origin(values: np.ndarray, axes: tuple[np.ndarray, ...]) -> float:
    zeros = [np.flatnonzero(axis == 0.0) for axis in axes]
    return float(values[tuple(k[0] for k in zeros)]) if all(map(len, zeros)) else np.nan


def _nonconvex_share(values: np.ndarray, axes: tuple[np.ndarray, ...]) -> float:
    """Return the fraction of the inner points whose smallest curvature is negative."""
    if min(values.shape) < 3:
        return float("nan")
    inner = _inner(values)
    steps = [axis[1] - axis[0] for axis in axes]
    second = [
        (np.roll(values, -1, k) - 2 * values + np.roll(values, 1, k))[inner] / step**2
        for k, step in enumerate(steps)
    ]
    if values.ndim == 1:
        smallest, largest = second[0], np.abs(second[0])
    else:
        smallest, largest = _extreme_curvatures(second, _mixed_difference(values, steps))
    known = np.isfinite(smallest) & np.isfinite(values[inner])
    negative = smallest[known] < -_NEGLIGIBLE * largest[known]
    return float(negative.mean()) if known.any() else float("nan")


def _mixed_difference(values: np.ndarray, steps: list[float]) -> np.ndarray:
    """Return the second difference by both axes."""
    up, down = np.roll(values, -1, 0), np.roll(values, 1, 0)
    mixed = np.roll(up, -1, 1) - np.roll(up, 1, 1) - np.roll(down, -1, 1) + np.roll(down, 1, 1)
    difference: np.ndarray = mixed[1:-1, 1:-1] / (4 * steps[0] * steps[1])
    return difference


def _extreme_curvatures(
    second: list[np.ndarray], mixed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest eigenvalue of each 2 x 2 matrix, and the largest in size."""
    mean, half = (second[0] + second[1]) / 2, (second[0] - second[1]) / 2
    root = np.hypot(half, mixed)
    return mean - root, np.maximum(np.abs(mean - root), np.abs(mean + root))
