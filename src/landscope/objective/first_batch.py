"""The first batches: what a loss and metrics say about the values that they will give."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import nn

from landscope.objective import batch_means, nested_batches
from landscope.objective.borrowed_model import BorrowedModel
from landscope.objective.joint_metrics import Metric
from landscope.objective.loss_terms import Loss, Terms
from landscope.objective.torch_losses import Custom

_ROWS = 16  # that show what outputs are; fewer logits may all be in [0, 1] by chance


def watch(borrowed: BorrowedModel, run: Callable[[], list[Terms]]) -> list[Terms]:
    """Return the terms of the first batch; afterwards ``borrowed.written`` says what changed."""
    with borrowed.watch():
        terms = run()
    if borrowed.changed and not borrowed.written:
        again = run()
        if not all(torch.equal(a.values, b.values) for a, b in zip(terms, again, strict=True)):
            borrowed.written += borrowed.changed  # and it reads them
    return terms


def note_batching(
    loss: Loss | Custom, metrics: Iterable[Loss], model: nn.Module, batch: Any, outputs: Any
) -> list[str]:
    """Return notes on functions of the user whose mean depends on how the data are batched.

    Args:
        loss: The loss.
        metrics: The metrics that have terms.
        model: The model at some point.
        batch: The first batch, as a custom loss takes it.
        outputs: The outputs and targets of this batch; None if nothing needs them.

    Cost: for a custom loss that returns one number, two passes over half of the batch.
    """
    notes: list[str | None] = []
    if isinstance(loss, Custom) and loss.per_batch:
        notes.append(batch_means.note_unless_mean_of_rows(loss, model, batch))
    functions = [("loss", loss), *(("metric", metric) for metric in metrics)]
    notes += [
        batch_means.note_unless_mean(function, outputs, kind)
        for kind, function in functions
        if isinstance(function, Loss) and function.per_batch
    ]
    return [note for note in notes if note is not None]


@final
class TargetCheck:
    """The checks of loss and metrics on outputs and targets at the center, made once.

    Args:
        loss: The loss.
        metrics: The metrics.
    """

    def __init__(self, loss: Loss | Custom, metrics: Iterable[Metric]) -> None:
        parts = [part for part in (loss, *metrics) if isinstance(part, Loss)]
        self._checks = [part.check for part in parts if part.check is not None]
        self._pairs: list[Any] = []
        self.is_wanted = bool(self._checks)

    @torch.no_grad()
    def add(self, pair: Any) -> list[str]:
        """Return notes on the batches so far, once they have enough rows.

        Args:
            pair: The outputs and the targets of the next batch.

        Raises:
            ObjectiveError: When a metric would read them as what they are not.
        """
        self._pairs.append(pair)
        rows = [nested_batches.count_rows(p) or _ROWS for p in self._pairs]
        if sum(rows) < _ROWS:
            return []
        with contextlib.suppress(RuntimeError, ValueError):  # batches of other shapes: the last
            pair = nested_batches.join(self._pairs)
        self._pairs, self.is_wanted = [], False
        return [note for check in self._checks if (note := check(*pair)) is not None]
