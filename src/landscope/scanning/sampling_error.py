"""Error bars of the values of a scan: of predictions, of drawn samples, in one unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from landscope.sampling.data_subset import Subset

if TYPE_CHECKING:
    from landscope.sampling.prediction import Prediction, Values

REPLICATE = "loss~"  # prefix of the losses with replicate weights: "loss~1", "loss~2", ...


@final
@dataclass(frozen=True, eq=False)
class ErrorBars:
    """Half-widths of 95% intervals of the loss in every cell, all of them in one unit.

    Args:
        half_widths: Of ln(loss) if ``log``, else of the loss, shape (cells,): 0 where all samples
            were evaluated, NaN where there is no value.
        log: Whether the half-widths are those of ln(loss).
    """

    half_widths: np.ndarray
    log: bool


def is_replicate(name: str) -> bool:
    """Return whether a column only serves to estimate the error of another."""
    return "~" in name


def combine_errors(
    prediction: Prediction | None, subset: Subset | None, values: Values, shape: Sequence[int]
) -> ErrorBars | None:
    """Return the error bars of a scan; None if all of its values are exact.

    The error of a prediction and that of drawn samples are added, in the unit of the prediction. A
    scan without predictions has error bars of ln(loss), if no loss of a sample is negative and no
    value is 0 or below.

    Args:
        prediction: The predictions for cells that were not evaluated, if there are any.
        subset: The samples that were drawn, if there are any.
        values: The values of each evaluated point, by flat index.
        shape: The number of points along each axis, x first.
    """
    if prediction is None and subset is None:
        return None
    if prediction is not None:
        log = prediction.scale == "log"
    else:
        losses = np.array([point["loss"] for point in values.values()])
        assert subset is not None
        log = subset.positive and not bool((losses <= 0).any())
    parts = [] if prediction is None else [prediction.error]
    parts += [] if subset is None else [_half_widths(subset, values, shape, log=log)]
    return ErrorBars(np.sum(parts, axis=0), log)


def _half_widths(
    subset: Subset, values: Mapping[int, Mapping[str, float]], shape: Sequence[int], *, log: bool
) -> np.ndarray:
    """Return the half-widths of 95% intervals for drawn samples in every cell, shape (cells,).

    A cell that was evaluated on all samples has 0. A cell that was not evaluated gets the
    half-width of the nearest cell that was evaluated on drawn samples.
    """
    from scipy.spatial import cKDTree

    columns = {n for v in values.values() for n in v if n.startswith(REPLICATE)}
    names = sorted(columns, key=lambda name: int(name.removeprefix(REPLICATE)))
    cells = np.stack(np.unravel_index(np.arange(int(np.prod(shape))), shape[::-1]), axis=1)
    drawn = [k for k, point in values.items() if names and names[0] in point]
    if not drawn:
        return np.zeros(len(cells))
    estimates = np.array([values[k]["loss"] for k in drawn])
    replicates = np.array([[values[k][n] for n in names] for k in drawn])
    half_widths = subset.half_widths(estimates, replicates) / (estimates if log else 1.0)
    result: np.ndarray = half_widths[cKDTree(cells[drawn]).query(cells)[1]]
    result[[k for k, point in values.items() if names[0] not in point]] = 0.0
    return result
