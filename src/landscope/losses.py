"""Losses, metrics and penalties, as ``ls.losses``: names only."""

from __future__ import annotations

from landscope.objective.metrics import accuracy, softmax_mse, weight_decay
from landscope.objective.sequence_losses import perplexity, token_accuracy, tokens
from landscope.objective.torch_losses import custom

__all__ = [
    "accuracy",
    "custom",
    "perplexity",
    "softmax_mse",
    "token_accuracy",
    "tokens",
    "weight_decay",
]


def __dir__() -> list[str]:
    return __all__
