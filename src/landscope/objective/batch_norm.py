"""Batch normalization: statistics of the data at a point, and a note on its training mode."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscope.errors import ObjectiveError
from landscope.objective.nested_batches import iter_tensors
from landscope.objective.torch_losses import count_samples


def note_training_mode(model: nn.Module) -> list[str]:
    """Return a note when a batch norm is in training mode, else no note."""
    training = (n for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training)
    return [
        f"{name or 'the model'} (batch norm) is in training mode, so the loss depends on how the"
        " data are batched: call model.eval(), or pass buffers='recompute'"
        for name in itertools.islice(training, 1)
    ]


def check_statistics_stay(params: Mapping[str, object]) -> None:
    """Check that a point does not set the statistics that are to be recomputed.

    Raises:
        ObjectiveError: When it does.
    """
    moving = [n for n in params if n.endswith(("running_mean", "running_var"))]
    if moving:
        raise ObjectiveError(
            f"buffers='recompute' computes the statistics that the slice moves ({moving[0]}):"
            " use a slice over objective.center, or buffers='keep'."
        )


def recompute_statistics(
    model: nn.Module, batches: Iterable[Any], evaluate: Callable[[Any], object]
) -> None:
    """Set the statistics of batch norms to their mean over batches, weighted by batch size.

    A batch of one row, whose variance may not exist, is left out unless it is the first.

    Args:
        model: The model at the point.
        batches: The data.
        evaluate: A function that runs the model on a batch.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    settings = [(m, m.training, m.momentum) for m in norms]
    try:
        for module in norms:
            module.reset_running_stats()
            module.training = True
        rows = 0
        for batch in batches:
            count = count_samples(next(iter_tensors(batch)))
            if count == 1 and rows > 0:
                continue
            rows += count
            for module in norms:
                module.momentum = count / rows
            evaluate(batch)
    finally:
        for module, training, momentum in settings:
            module.training, module.momentum = training, momentum
