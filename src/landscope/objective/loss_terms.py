"""Terms: the individual losses that are averaged; losses and metrics as functions that return them.

A term is the loss of a sample, or of a token or pixel where a loss has one value for each. Means
are over terms and never over batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor

from landscope.errors import ObjectiveError
from landscope.objective.target_forms import Form

_FEW_CLASSES = 64


@final
@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of one batch; their mean is sum(values) / sum(weights).

    Args:
        values: Weight x loss of each term, shape (n,).
        weights: The weight of each term, shape (n,): 1 for most, 0 for an ignored one.
        joint: Whether this is one number for all rows of the batch, of weight n rows.
    """

    values: Tensor
    weights: Tensor
    joint: bool = False

    def __repr__(self) -> str:
        mean = float(self.values.detach().sum() / self.weights.detach().sum())
        return f"<Terms: {len(self.values)} terms of mean {mean:.4g}>"

    @staticmethod
    def from_values(values: Tensor) -> Terms:
        """Return terms of weight 1, one for each value."""
        flat = values.reshape(-1)
        return Terms(flat, torch.ones_like(flat))

    @staticmethod
    def from_mask(values: Tensor, mask: Tensor) -> Terms:
        """Return terms of weight 1 where ``mask``, of the same shape, is true, and 0 elsewhere."""
        weights = mask.to(values.dtype)
        return Terms(values.where(mask, 0.0).reshape(-1), weights.reshape(-1))

    @staticmethod
    def from_mean(mean: Tensor, rows: float) -> Terms:
        """Return the mean over the rows of a batch as one term, which has their weight."""
        weights = torch.full_like(mean.detach(), rows).reshape(1)
        return Terms(mean.reshape(1) * rows, weights, joint=True)

    def detach(self) -> Terms:
        """Return the terms without their graph."""
        return replace(self, values=self.values.detach(), weights=self.weights.detach())

    def totals(self) -> tuple[Tensor, Tensor]:
        """Return the sums of values and of weights, in float64."""
        return self.values.sum(dtype=torch.float64), self.weights.sum(dtype=torch.float64)

    def divide_into(self, rows: int | None) -> bool:
        """Return whether the terms can be divided equally among ``rows`` rows."""
        return bool(rows) and len(self.values) % (rows or 1) == 0

    def sum_by_row(self, rows: int | None) -> Tensor:
        """Return the sums over the terms of each row, of values and of weights, shape (2, rows).

        Raises:
            ObjectiveError: When the terms do not divide into the rows of the batch, or tensors of
                the batch differ in length (None).
        """
        if self.joint and rows != 1:
            raise ObjectiveError(
                "the loss is one number for a batch, so the terms of single samples are not known:"
                " return one value for each sample, with reduction='none' for example."
            )
        if rows is None or not self.divide_into(rows):
            raise ObjectiveError(
                f"the loss has {len(self.values)} terms for a batch of {rows or 'uneven'} rows, so"
                " the terms of single samples are not known: return one term (or as many) for each"
                " sample."
            )
        pairs = (self.values, self.weights)
        return torch.stack([t.detach().double().reshape(rows, -1).sum(dim=1) for t in pairs])


@final
@dataclass(frozen=True, eq=False, repr=False)
class Loss:
    """A loss or a metric as a function (outputs, targets) -> Terms.

    Args:
        name: The name in results and errors.
        function: The function from outputs and targets of a batch to its terms.
        units: The unit of the mean, e.g. "nat" or "%"; "" where unknown.
        identity: A fingerprint, which differs when the loss differs.
        per_batch: Whether the function gives one mean for a batch and not its terms.
        reduction: The value reported for the mean m over all terms: "mean" is m, "exp" is exp(m).
        form: What the targets are; None if unknown.
        fit: For a metric that depends on the loss: a function from the loss to the metric.
        check: A function (outputs, targets) for the first batch at the center: it returns a note
            or None, and raises an ObjectiveError where a value would be wrong.
        notes: What to know about the values.
    """

    name: str
    function: Callable[[Any, Any], Terms]
    units: str = ""
    identity: str = ""
    per_batch: bool = False
    reduction: Literal["mean", "exp"] = "mean"
    form: Form | None = None
    fit: Callable[[Any], Loss] | None = None
    check: Callable[[Any, Any], str | None] | None = None
    notes: tuple[str, ...] = ()

    def __call__(self, outputs: Any, targets: Any) -> Terms:
        """Return the terms of a batch."""
        return self.function(outputs, targets)

    def __repr__(self) -> str:
        # Part of the fingerprints of functions that hold a loss, in journals since version 0.1.
        return (
            f"Loss(name={self.name!r}, function={self.function!r}, units={self.units!r},"
            f" identity={self.identity!r}, per_batch={self.per_batch!r}, told={self.reduction!r})"
        )

    def transform(self, mean: float) -> float:
        """Return the value reported for the mean over all terms."""
        if self.reduction == "mean":
            return mean
        try:
            return math.exp(mean)
        except OverflowError:
            return math.inf


def has_few_classes(outputs: Tensor, targets: Tensor) -> bool:
    """Return whether outputs are many rows of few classes on a CPU, and targets class indices.

    For these a CPU computes exponentials six times as fast with the classes along the first axis.
    """
    if outputs.device.type != "cpu" or outputs.ndim != 2 or targets.ndim != 1:
        return False
    return outputs.shape[1] <= _FEW_CLASSES < outputs.shape[0] and len(targets) == len(outputs)


def stack_rows(terms: Iterable[Terms], rows: int | None) -> Tensor:
    """Return the sums by row of several functions of a batch, shape (functions, 2, rows)."""
    return torch.stack([t.sum_by_row(rows) for t in terms])


def sum_rows(by_batch: Iterable[tuple[Terms, int | None]]) -> Terms:
    """Return the terms of batches with known rows, summed by row; unsummed if rows are unknown."""
    pairs = list(by_batch)
    if all(terms.divide_into(rows) for terms, rows in pairs):
        sums = [terms.sum_by_row(rows) for terms, rows in pairs]
    else:
        sums = [torch.stack([t.values, t.weights]).double() for t, _ in pairs]
    return Terms(*torch.cat(sums, dim=1))
