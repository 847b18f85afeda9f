"""The shape of a surface in numbers: how deep its basin is, and how much of it is not convex.

All of it speaks of the slice, not of the whole: a plane that looks convex may lie in a space that
is not (section 6 of arXiv 1712.09913).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscope.errors import DrawError
from landscope.landscape import Landscape

_NEGLIGIBLE = 0.01  # of the other curvature; below it differences are rounding, not shape


@dataclass(frozen=True)
class Shape:
    """A plane or a line in numbers.

    Args:
        center: value at the origin, interpolated never: NaN when the grid has no such point.
        lowest: smallest finite value.
        at: coordinates of the lowest value, x first.
        rim: median of the finite values on the border.
        nonconvex: share, 0 to 1, of the inner cells where some direction within the slice bends
            downwards: the smallest eigenvalue of the matrix of second differences is negative, by
            more than 1% of the largest in size. NaN when the grid has no inner cells.
        holes: cells that are not finite numbers.
    """

    center: float
    lowest: float
    at: tuple[float, ...]
    rim: float
    nonconvex: float
    holes: int


def shape(land: Landscape, quantity: str | None = None) -> Shape:
    """Return the shape of a quantity of a line or a plane.

    Raises:
        DrawError: for a volume, an unknown quantity, or when nothing is finite.
    """
    name = quantity or land.quantity
    if name not in land.data or len(land.dims) > 2:
        raise DrawError(f"{name!r} is not a quantity of a line or a plane: there are"
                        f" {', '.join(map(str, land.data))} over {land.dims}.")  # fmt: skip
    values = np.asarray(land.data[name].values, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise DrawError(f"{name!r} has no finite value, so it has no shape.")
    low = np.unravel_index(np.argmin(np.where(finite, values, np.inf)), values.shape)
    axes = land.axes
    origin = tuple(np.flatnonzero(axis == 0.0) for axis in axes)
    center = float(values[tuple(o[0] for o in origin)]) if all(map(len, origin)) else np.nan
    border = np.ones(values.shape, dtype=bool)
    border[(slice(1, -1),) * values.ndim] = False
    rim = values[border & finite]
    return Shape(
        center,
        float(values[low]),
        tuple(float(axis[k]) for axis, k in zip(axes, low, strict=True))[::-1],
        float(np.median(rim)) if rim.size else np.nan,
        _nonconvex(np.where(finite, values, np.nan), axes),
        int((~finite).sum()),
    )


def _nonconvex(values: np.ndarray, axes: tuple[np.ndarray, ...]) -> float:
    if min(values.shape) < 3:
        return float("nan")
    steps = [axis[1] - axis[0] for axis in axes]
    inner = values[(slice(1, -1),) * values.ndim]
    second = [
        (np.roll(values, -1, k) - 2 * values + np.roll(values, 1, k))[(slice(1, -1),) * values.ndim]
        / step**2
        for k, step in enumerate(steps)
    ]
    if values.ndim == 1:
        small, large = second[0], np.abs(second[0])
    else:
        up, down = np.roll(values, -1, 0), np.roll(values, 1, 0)
        mixed = np.roll(up, -1, 1) - np.roll(up, 1, 1) - np.roll(down, -1, 1) + np.roll(down, 1, 1)
        cross = mixed[1:-1, 1:-1] / (4 * steps[0] * steps[1])
        mean, half = (second[0] + second[1]) / 2, (second[0] - second[1]) / 2
        root = np.hypot(half, cross)
        small, large = mean - root, np.maximum(np.abs(mean - root), np.abs(mean + root))
    seen = np.isfinite(small) & np.isfinite(inner)
    return float((small[seen] < -_NEGLIGIBLE * large[seen]).mean()) if seen.any() else float("nan")
