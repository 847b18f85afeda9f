"""Checks that outputs are what a loss of torch takes: logits, log-probabilities, and 0 or 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_FEW_VALUES = 8  # fewer logits may all be in [0, 1] by chance


@torch.no_grad()
def _note_softmax(outputs: Any, _: Any) -> str | None:
    """Return a note when rows are probabilities already, and the loss takes logits."""
    if not _are_shares(outputs) or outputs.ndim < 2 or outputs.shape[1] < 2:
        return None
    if bool((outputs.sum(dim=1) - 1).abs().max() > 1e-3):
        return None
    return (
        "the outputs of the model are probabilities, and CrossEntropyLoss takes logits, so softmax"
        " is applied twice: take it out of the model, or use nn.NLLLoss with log_softmax"
    )


@torch.no_grad()
def _note_sigmoid(outputs: Any, targets: Any) -> str | None:
    """Return a note when outputs may be probabilities already, or targets are no probabilities."""
    if isinstance(targets, Tensor) and bool(((targets < 0) | (targets > 1)).any()):
        return (
            "targets are outside [0, 1], and BCEWithLogitsLoss takes 0 and 1: for -1 and +1 use"
            " nn.SoftMarginLoss"
        )
    if not _are_shares(outputs) or bool((outputs == 0).any()):
        return None
    return (
        "all outputs of the model are in [0, 1], and BCEWithLogitsLoss takes logits: if the model"
        " ends in a sigmoid, it is applied twice; take it out of the model, or use nn.BCELoss"
    )


@torch.no_grad()
def _note_positive(outputs: Any, _: Any) -> str | None:
    """Return a note when outputs are no log-probabilities, which the loss takes."""
    if not isinstance(outputs, Tensor) or not bool((outputs > 1e-3).any()):
        return None
    return (
        "the outputs of the model have positive values, and this loss takes log-probabilities: end"
        " the model in nn.LogSoftmax(dim=1), or use nn.CrossEntropyLoss for logits"
    )


def _are_shares(outputs: Any) -> bool:
    """Return whether outputs are many numbers, all of them in [0, 1]."""
    if not isinstance(outputs, Tensor) or outputs.numel() < _FEW_VALUES:
        return False
    return bool(((outputs >= 0) & (outputs <= 1)).all())


CHECKS: dict[type[nn.Module], Callable[[Any, Any], str | None]] = {
    nn.CrossEntropyLoss: _note_softmax,
    nn.BCEWithLogitsLoss: _note_sigmoid,
    nn.NLLLoss: _note_positive,
    nn.KLDivLoss: _note_positive,
}
"""A loss of torch -> a function from outputs and targets of a batch to a note, or None."""
