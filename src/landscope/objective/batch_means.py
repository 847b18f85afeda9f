"""Functions of the user that return one number for a batch: its terms, and whether it is a mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from landscope.errors import ObjectiveError
from landscope.objective import nested_batches
from landscope.objective.loss_terms import Loss, Terms
from landscope.objective.torch_losses import Custom

_TOLERANCE = 1e-4  # relative, of the mean over halves


def evaluate_by_sample(loss: Loss, outputs: Any, targets: Any, whole: Terms) -> Terms:
    """Return one term for each sample of a loss that gives only the mean of a batch.

    Args:
        loss: The loss.
        outputs: The outputs of a batch.
        targets: Its targets.
        whole: The terms of the whole batch, which has one.

    Raises:
        ObjectiveError: When tensors in outputs and targets differ in length, or the number of a
            batch is not the mean over its samples.
    """
    rows = _split_rows((outputs, targets), loss.name)
    return _join([loss(*row) for row in rows], whole, loss.name)


def evaluate_rows(loss: Custom, model: nn.Module, batch: Any, whole: Terms) -> Terms:
    """Return one term for each row of a batch whose loss is one number: a pass for each row.

    Args:
        loss: The loss.
        model: The model at some point.
        batch: The batch.
        whole: The terms of the whole batch, which has one.

    Raises:
        ObjectiveError: As :func:`evaluate_by_sample`.
    """
    rows = _split_rows(batch, loss.name)
    return _join([loss(model, row) for row in rows], whole, loss.name)


def _split_rows(batch: Any, name: str) -> list[Any]:
    rows = nested_batches.count_rows(batch)
    if rows is None:
        raise ObjectiveError(
            f"loss {name!r} gives one number for each batch, which cannot be separated into"
            " its terms: wrap a function (model, batch) -> Tensor[n] with ls.losses.custom."
        )
    return [nested_batches.index_rows(batch, torch.tensor([k])) for k in range(rows)]


def _join(parts: list[Terms], whole: Terms, name: str) -> Terms:
    """Return the terms of rows as one, after a check that their mean is that of the batch."""
    terms = Terms(torch.cat([t.values for t in parts]), torch.cat([t.weights for t in parts]))
    values = terms.values.detach()
    mean, expected = (float(v.sum() / t.weights.sum()) for v, t in (
        (values, terms), (whole.values.detach(), whole)
    ))  # fmt: skip
    scale = float(values.abs().sum() / terms.weights.sum())
    if abs(mean - expected) > _TOLERANCE * max(scale, 1e-12):
        raise ObjectiveError(
            f"loss {name!r} is not the mean over the samples of a batch (it is {expected:.6g}, and"
            f" {mean:.6g} for samples one by one), so it has no terms: return one value for each"
            " sample."
        )
    return terms


def note_unless_mean(loss: Loss, pair: Any, kind: str = "loss") -> str | None:
    """Return a note when the value of a batch is not the mean over its samples.

    Args:
        loss: A function of the user.
        pair: The outputs and the targets of a batch.
        kind: What it is called in the note: "loss" or "metric".
    """
    return _note_halves(lambda part: loss(*part), pair, f"{kind} {loss.name!r}")


def note_unless_mean_of_rows(loss: Custom, model: nn.Module, batch: Any) -> str | None:
    """Return a note when one number for a batch is not the mean over its samples."""
    with torch.random.fork_rng(devices=[]):
        return _note_halves(lambda part: loss(model, part), batch, f"loss {loss.name!r}")


def _note_halves(evaluate: Callable[[Any], Terms], batch: Any, source: str) -> str | None:
    rows = nested_batches.count_rows(batch) or 0
    if rows < 2:
        return None
    halves = torch.arange(rows).tensor_split(2)
    try:
        whole = evaluate(batch).detach()
        parts = [evaluate(nested_batches.index_rows(batch, half)).detach() for half in halves]
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return None  # the batch cannot be divided
    if not whole.joint:
        return _note_lengths(whole, parts, rows, source)
    total, sum_of_parts = float(whole.values.sum()), sum(float(t.values.sum()) for t in parts)
    weight = float(whole.weights.sum())
    if not math.isfinite(total) or abs(sum_of_parts - total) <= _TOLERANCE * max(abs(total), 1e-12):
        return None
    sum_of_means = sum(float(t.values.sum() / t.weights.sum()) for t in parts)
    if abs(sum_of_means - total / weight) <= _TOLERANCE * abs(total / weight):
        return (
            f"{source} is not the mean over the samples of a batch but their sum, so its mean"
            " depends on how the data are batched: use reduction='mean', or return one value for"
            " each sample"
        )
    return (
        f"{source} is not the mean over the samples of a batch (halves of the first batch"
        f" give {sum_of_parts / weight:.6g}, the whole {total / weight:.6g}), so its"
        " mean depends on how the data are batched: return one value for each sample, or use"
        " ls.losses.custom"
    )


def _note_lengths(whole: Terms, parts: list[Terms], rows: int, source: str) -> str | None:
    """Return a note when a function returns values that are not those of single samples."""
    lengths = [len(t.values) for t in (whole, *parts)]
    if lengths[0] == sum(lengths[1:]):
        return None
    return (
        f"{source} returned {lengths[0]} values for {rows} samples, and {lengths[1]} and"
        f" {lengths[2]} for the halves of the batch, so its mean depends on how the data are"
        " batched: return one number, or one value for each sample"
    )
