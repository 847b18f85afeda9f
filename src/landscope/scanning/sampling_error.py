"""Error bars of values that were computed from some of the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from landscope.sampling.data_subset import Subset

REPLICATE = "loss~"  # prefix of the losses with replicate weights: "loss~1", "loss~2", ...


def is_replicate(name: str) -> bool:
    """Return whether a column only serves to estimate the error of another."""
    return "~" in name


def half_widths(
    subset: Subset, values: Mapping[int, Mapping[str, float]], shape: Sequence[int]
) -> np.ndarray:
    """Return half the width of a 95% interval of ln(loss) in every cell, shape (cells,).

    A cell that was not evaluated gets the half-width of the nearest evaluated cell; a cell that was
    evaluated on all samples has 0.

    Args:
        subset: The samples that were drawn.
        values: The values of each evaluated point, by flat index.
        shape: The number of points along each axis, x first.
    """
    from scipy.spatial import cKDTree

    points = list(values)
    columns = {n for v in values.values() for n in v if n.startswith(REPLICATE)}
    names = sorted(columns, key=lambda name: int(name.removeprefix(REPLICATE)))
    widths = np.zeros(len(points))
    sampled = [k for k, point in enumerate(points) if names and names[0] in values[point]]
    if sampled:
        estimates = np.array([values[points[k]]["loss"] for k in sampled])
        replicates = np.array([[values[points[k]][n] for n in names] for k in sampled])
        widths[sampled] = subset.interval(estimates, replicates)
    cells = np.stack(np.unravel_index(np.arange(int(np.prod(shape))), shape[::-1]), axis=1)
    nearest = cKDTree(cells[points]).query(cells)[1]
    result: np.ndarray = widths[nearest]
    return result
