"""Batch normalization: a note on its training mode, and checks of recomputed statistics."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscope.errors import ObjectiveError
from landscope.objective.norm_inputs import find_norms


def note_training_mode(model: nn.Module) -> list[str]:
    """Return a note when a batch norm is in training mode, else no note."""
    training = (n for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training)
    return [
        f"{name or 'the model'} (batch norm) is in training mode, so the loss depends on how the"
        " data are batched: call model.eval(), or pass buffers='recompute'"
        for name in itertools.islice(training, 1)
    ]


def fix_statistics(model: nn.Module) -> None:
    """Make norms use their statistics as they are, not those of a batch, until modes are restored.

    Args:
        model: A borrowed model.
    """
    for norm in find_norms(model):
        norm.module.training = False


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
