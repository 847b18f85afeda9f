"""Clusters of the data, from which the standard error of a mean is estimated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from landscope.objective import nested_batches
from landscope.objective.problem import Problem

Data = dict[str, list[Any]]
"""The name of a data set -> its batches."""

_CLUSTERS = 16  # the least number of batches for a standard error


class DirectionalCurvature(NamedTuple):
    """The curvature along a direction.

    Args:
        value: v^T A v / v^T v.
        stderr: The standard error of the value; NaN where it is not known.
    """

    value: float
    stderr: float


def divide_into_clusters(problem: Problem, data: Data | None) -> Data | None:
    """Return the data in at least 16 shuffled batches; None where they cannot be divided.

    Args:
        problem: The problem whose data are divided.
        data: The drawn samples; None for all data of the problem.
    """
    name = next(iter(problem.batches))
    batches = list(problem.batches[name]) if data is None else data[name]
    if getattr(problem.loss, "per_batch", False) or problem.buffers == "recompute":
        return None
    if problem.find_coupling():
        return None
    rows = sum(nested_batches.count_rows(batch) or 0 for batch in batches)
    whole = nested_batches.rebatch_evenly(batches, rows)
    if whole is None or len(batches) >= _CLUSTERS:
        return None
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    size = max(rows // _CLUSTERS, 1)
    return {name: nested_batches.rebatch_evenly(shuffle_rows(whole, order), size) or whole}


def shuffle_rows(batches: Sequence[Any], order: Tensor) -> list[Any]:
    """Return batches with their rows in another order.

    Batches are the clusters of a standard error: when the data are sorted, by class for example,
    each must have rows from everywhere.
    """
    return [nested_batches.index_rows(batch, order) for batch in batches]


def estimate_ratio(sums: np.ndarray, weights: np.ndarray, fraction: float) -> tuple[float, float]:
    """Return sum(sums) / sum(weights) over clusters, and its standard error.

    Args:
        sums: The sum over each cluster.
        weights: The total weight of each cluster.
        fraction: The fraction of the population that was sampled, 0 to 1.
    """
    mean = float(sums.sum() / weights.sum())
    count = len(sums)
    if count < 2:
        return mean, float("nan")
    residuals = sums - mean * weights
    correction = count / (count - 1)
    variance = (1.0 - fraction) * correction * float((residuals**2).sum()) / weights.sum() ** 2
    return mean, float(variance**0.5)
