"""Terms: what a mean is over, and losses and metrics as functions that give them.

A term is what a loss averages over: a sample, or a token or pixel where the loss has one value for
each. Means are over terms and never over batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

_NARROW = 64  # classes


@final
@dataclass(frozen=True, eq=False)
class Terms:
    """Single terms of one batch; the mean over terms is sum(values) / sum(weights).

    Args:
        values: shape (n,), what each term adds: weight x loss.
        weights: shape (n,), what each term counts: 1 for most, 0 for one that is ignored.
    """

    values: Tensor
    weights: Tensor

    @staticmethod
    def even(values: Tensor) -> Terms:
        """Return terms that count alike."""
        flat = values.reshape(-1)
        return Terms(flat, torch.ones_like(flat))

    @staticmethod
    def kept(values: Tensor, kept: Tensor) -> Terms:
        """Return terms of which only some count; ``kept`` is boolean, of the same shape."""
        counted = kept.to(values.dtype)
        return Terms(values.where(kept, 0.0).reshape(-1), counted.reshape(-1))


@final
@dataclass(frozen=True, eq=False)
class Loss:
    """A loss or a metric as a function (outputs, targets) -> Terms.

    Args:
        name: for people.
        function: from outputs and targets of a batch to its terms.
        units: of the mean, e.g. "nat" or "%"; "" where unknown.
        identity: a fingerprint; differs when the loss differs.
        per_batch: True when the function gives one mean a batch rather than its terms.
        told: what is told of the mean m over all terms: "mean" is m, "exp" is exp(m).
    """

    name: str
    function: Callable[[Any, Any], Terms]
    units: str = ""
    identity: str = ""
    per_batch: bool = False
    told: Literal["mean", "exp"] = "mean"

    def __call__(self, outputs: Any, targets: Any) -> Terms:
        """Return the terms of a batch."""
        return self.function(outputs, targets)

    def finish(self, mean: float) -> float:
        """Return what is told of the mean over all terms."""
        if self.told == "mean":
            return mean
        try:
            return math.exp(mean)
        except OverflowError:
            return math.inf


def narrow(outputs: Tensor, targets: Tensor) -> bool:
    """Return whether outputs are rows of few classes, on a CPU, with one class a row as target.

    Over rows side by side a CPU takes the exponentials of few classes six times as fast.
    """
    if outputs.device.type != "cpu" or outputs.ndim != 2 or targets.ndim != 1:
        return False
    return outputs.shape[1] <= _NARROW < outputs.shape[0] and len(targets) == len(outputs)
