"""Metrics (accuracy, squared error of probabilities), and the penalty of weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from landscope.errors import ObjectiveError
from landscope.objective.loss_terms import Loss, Terms
from landscope.objective.torch_losses import check_tensor
from landscope.params import Params


def _accuracy(outputs: Any, targets: Any) -> Terms:
    check_tensor(outputs)
    if outputs.ndim > 1 and outputs.shape[1] > 1:
        predictions = outputs.argmax(dim=1)
        classes = targets.argmax(dim=1) if targets.shape == outputs.shape else targets
    else:
        predictions, classes = outputs.reshape(targets.shape) > 0, targets > 0.5
    if targets.numel() == classes.numel():
        weights = (targets >= 0).to(torch.float32).reshape(-1)
    else:
        weights = torch.ones_like(classes, dtype=torch.float32).reshape(-1)
    hits = (predictions == classes).to(torch.float32).reshape(-1)
    return Terms(100.0 * hits * weights, weights)


accuracy = Loss("accuracy", _accuracy, "%", "accuracy")
"""The share of correct classes in percent; negative targets (ignored tokens) do not count. For two
classes the output may also be one logit, whose sign is the prediction."""


def _softmax_mse(outputs: Tensor, targets: Tensor) -> Terms:
    check_tensor(outputs)
    onehot = F.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
    return Terms.from_values((outputs.softmax(dim=1) - onehot).square().mean(dim=1))


softmax_mse = Loss("softmax_mse", _softmax_mse, "", "softmax_mse")
"""The mean over samples and classes of (softmax - one-hot)^2: the "mse" of the 2018 scripts."""


@final
@dataclass(frozen=True)
class WeightDecay:
    """The penalty strength / 2 x |params|^2, whose gradient is what SGD's weight decay adds.

    Args:
        strength: The ``weight_decay`` of torch.optim.SGD.
    """

    strength: float

    @property
    def name(self) -> str:
        """The name in results."""
        return f"weight decay {self.strength:g} / 2 x |params|^2"

    def __call__(self, params: Params) -> Tensor:
        """Return the penalty of the trainable parameters."""
        return self.strength / 2 * torch.stack([p.square().sum() for p in params.values()]).sum()


def weight_decay(strength: float) -> WeightDecay:
    """Return the penalty that weight decay adds to a loss, for ``Objective(penalty=...)``.

        strength / 2 x |params|^2

    Args:
        strength: The ``weight_decay`` of torch.optim.SGD, at least 0.

    Raises:
        ObjectiveError: When the strength is negative.
    """
    if strength < 0:
        raise ObjectiveError(f"strength={strength}; expected 0 or more.")
    return WeightDecay(float(strength))
