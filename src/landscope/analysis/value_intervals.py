"""Which values of a landscape were evaluated, and within which bounds each of them lies.

A statement on the shape of a surface rests on differences of values, which may be smaller than
their errors. The landscape states those of predicted cells and of drawn samples. The rounding of
the model's arithmetic is estimated here, as the larger of two numbers:

    eps (64 |f| + 8 sqrt(|f| m))    for a value f among values of median size m; networks in float32
                                    differ from float64 by less, also where the loss is small,
                                    because it is a difference of larger numbers (outputs and
                                    targets, logits);
    3 sigma                         with sigma from the differences of order 3 to 6 of neighboring
                                    values, which vanish for smooth surfaces, but not for noise.

Source: J. J. More, S. M. Wild, *Estimating computational noise*, SIAM J. Sci. Comput. 33 (2011),
section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from landscope.landscape import Landscape

# The unit roundoff of each precision; values of unknown origin count as float32.
_EPS = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-9,
        "float16": 2.0**-12}  # fmt: skip
_ROUNDINGS, _CANCELLATIONS = 64, 8  # of the loss, and of sqrt(loss x median loss)
_DEVIATIONS = 3.0  # standard deviations of rounding that are allowed for
_ORDERS = range(3, 7)  # of the differences that show rounding
_TILE = 8  # cells; rounding is estimated for each tile of the grid
_FEWEST = 8  # differences from which it can be estimated
_BARS = 2.0  # 95% intervals are doubled, because a statement rests on many cells at once


@final
@dataclass(frozen=True, eq=False)
class Intervals:
    """The values of a quantity and the bounds between which they lie.

    Args:
        values: The values, NaN where there is none, shape of the grid.
        error: The half-width of the interval of each value: the doubled 95% bar and the rounding.
        evaluated: Whether a cell holds an evaluated, finite value.
        untold: Whether a cell was neither evaluated nor predicted.
    """

    values: np.ndarray
    error: np.ndarray
    evaluated: np.ndarray
    untold: np.ndarray

    @property
    def lower(self) -> np.ndarray:
        """The lower bounds."""
        bounds: np.ndarray = self.values - self.error
        return bounds

    @property
    def upper(self) -> np.ndarray:
        """The upper bounds."""
        bounds: np.ndarray = self.values + self.error
        return bounds


def find_intervals(land: Landscape, name: str) -> Intervals:
    """Return the values of a quantity, their bounds, and which of them were evaluated."""
    values = np.asarray(land.data[name].values, dtype=np.float64)
    known = np.ones(values.shape, dtype=bool)
    if "evaluated" in land.data:
        known = np.asarray(land.data["evaluated"].values) != 0
    finite = np.isfinite(values)
    values = np.where(finite, values, np.nan)
    evaluated = known & finite
    bars = np.nan_to_num(land.half_widths(name), nan=0.0) if finite.any() else np.zeros(1)
    bars = np.broadcast_to(bars, values.shape)
    error = _BARS * bars + _estimate_rounding(land, np.where(evaluated, values, np.nan), values)
    return Intervals(values, error, evaluated, ~known & ~finite)


def _estimate_rounding(land: Landscape, evaluated: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the rounding of each value, the larger of both estimates."""
    eps = _EPS.get(str(land.data.attrs.get("precision", "")), _EPS["float32"])
    size = np.abs(values)
    usual = float(np.nanmedian(size)) if np.isfinite(size).any() else 0.0
    with np.errstate(over="ignore"):
        bound = eps * (_ROUNDINGS * size + _CANCELLATIONS * np.sqrt(size) * math.sqrt(usual))
    result: np.ndarray = np.maximum(bound, _DEVIATIONS * _measure_noise(evaluated) * size)
    return result


def _measure_noise(values: np.ndarray) -> np.ndarray:
    """Return the noise of each value relative to it, one standard deviation, tile by tile."""
    lowest = np.full(values.shape, np.inf)
    for order in _ORDERS:
        differences = [_difference(values, order, axis) for axis in range(values.ndim)]
        stacked = np.stack(differences) / (0.6745 * math.sqrt(math.comb(2 * order, order)))
        everywhere = _median(stacked)
        for tile in _list_tiles(values.shape):
            local = _median(stacked[(slice(None), *tile)])
            here = everywhere if math.isnan(local) else local
            if not math.isnan(here):
                lowest[tile] = np.minimum(lowest[tile], here)
    return np.where(np.isinf(lowest), 0.0, lowest)


def _difference(values: np.ndarray, order: int, axis: int) -> np.ndarray:
    """Return |differences| relative to the values, at the middle cell of each, else NaN."""
    result = np.full(values.shape, np.nan)
    if values.shape[axis] > order:
        middle = [slice(None)] * values.ndim
        first = order // 2
        middle[axis] = slice(first, first + values.shape[axis] - order)
        at = tuple(middle)
        with np.errstate(divide="ignore", invalid="ignore"):
            result[at] = np.abs(np.diff(values, order, axis) / values[at])
    return np.where(np.isfinite(result), result, np.nan)


def _median(differences: np.ndarray) -> float:
    """Return the median of finite differences; NaN if there are too few."""
    finite = differences[np.isfinite(differences)]
    return float(np.median(finite)) if finite.size >= _FEWEST else math.nan


def _list_tiles(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    starts = [range(0, n, _TILE) for n in shape]
    grids = np.meshgrid(*starts, indexing="ij")
    corners = np.stack([g.ravel() for g in grids], axis=1)
    return [tuple(slice(k, k + _TILE) for k in corner) for corner in corners.tolist()]
