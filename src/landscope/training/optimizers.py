"""Optimizers: how weights move from step to step, and how the learning rate falls.

The defaults are those of the 2018 scripts: SGD with Nesterov momentum, a learning rate of 0.1 that
falls to a tenth at 50%, 75% and 92% of the epochs (150, 225 and 275 of 300), weight decay 5e-4,
batches of 128.

Source: Li et al., 2018, arXiv 1712.09913, appendix; sharpness-aware minimization: Foret, Kleiner,
Mobahi, Neyshabur, 2020, arXiv 2010.01412.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from landscope.errors import TrainingError

_RATES = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "sam": 0.1}
_DECAYS = {"sgd": 5e-4, "adam": 5e-4, "adamw": 1e-2, "sam": 5e-4}
_FALLS = (6, 9, 11)  # of 12 parts of the epochs
_CHOSEN: Any = None  # what stands for "as suits the optimizer", and is filled in


@final
@dataclass(frozen=True)
class Course:
    """How a network is trained; what is left out suits the optimizer.

    Args:
        optimizer: "sgd", "adam", "adamw" (weight decay apart from the gradient), or "sam"
            (sharpness-aware minimization with SGD: two gradients a step).
        learning_rate: before it falls; 0.1, and 0.001 with "adam" and "adamw".
        momentum: of "sgd" and "sam", in [0, 1).
        nesterov: whether that momentum looks ahead.
        weight_decay: 5e-4, and 0.01 with "adamw".
        rho: how far "sam" climbs before it takes the gradient.
        batch_size: rows a step.
        epochs: walks through the data.
        drops: after so many epochs the learning rate falls; at 50%, 75% and 92% of them.
        factor: by which it is multiplied then.
        warmup: epochs in which it rises from 0 in a line.
        seed: of the order of the data, and of all else that is drawn in training.

    Raises:
        TrainingError: when a number is out of its range.

    Example:
        >>> from landscope.training.optimizers import Course
        >>> Course("adam", epochs=300).drops
        (150, 225, 275)
    """

    optimizer: str = "sgd"
    learning_rate: float = _CHOSEN
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = _CHOSEN
    rho: float = 0.05
    batch_size: int = 128
    epochs: int = 30
    drops: tuple[int, ...] = _CHOSEN
    factor: float = 0.1
    warmup: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in _RATES:
            raise TrainingError(
                f"optimizer={self.optimizer!r}; expected one of {', '.join(_RATES)}."
            )
        self._check_whole("epochs", 1)
        chosen = {
            "learning_rate": _RATES[self.optimizer],
            "weight_decay": _DECAYS[self.optimizer],
            "drops": tuple(sorted({self.epochs * part // 12 for part in _FALLS} - {0})),
        }
        for name, value in chosen.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        self._check_numbers()
        self._check_drops()

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: from 0.
            steps: that an epoch has.
        """
        fallen = sum(drop * steps <= step for drop in self.drops)
        risen = min(1.0, (step + 1) / (self.warmup * steps)) if self.warmup else 1.0
        return self.learning_rate * self.factor**fallen * risen

    def _check_numbers(self) -> None:
        for name in ("batch_size", "warmup", "seed"):
            self._check_whole(name, 1 if name == "batch_size" else 0)
        for name in ("learning_rate", "rho", "factor"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name}={getattr(self, name)}; expected more than 0.")
        if not 0.0 <= self.weight_decay < math.inf:
            raise TrainingError(f"weight_decay={self.weight_decay}; expected 0 or more.")
        if not 0.0 <= self.momentum < 1.0:
            raise TrainingError(f"momentum={self.momentum}; expected 0 or more, and less than 1.")

    def _check_whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or not least <= value < 2**63:
            raise TrainingError(f"{name}={value!r}; expected a whole number from {least}.")

    def _check_drops(self) -> None:
        drops = self.drops
        if any(later <= earlier for earlier, later in itertools.pairwise(drops)):
            raise TrainingError(
                f"drops={drops} are out of order: name the epochs from the first to the last, each"
                " once."
            )
        odd = next((drop for drop in drops if not 1 <= drop < self.epochs), None)
        if odd is not None:
            raise TrainingError(
                f"drops={drops}: the learning rate cannot fall after epoch {odd} of {self.epochs}:"
                f" name epochs from 1 to {self.epochs - 1}, or train for more epochs."
            )


def optimizer(course: Course, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a course over the trainable parameters of a model."""
    weights = [p for p in model.parameters() if p.requires_grad]
    rate, decay = course.learning_rate, course.weight_decay
    if course.optimizer == "adam":
        return torch.optim.Adam(weights, rate, weight_decay=decay)
    if course.optimizer == "adamw":
        return torch.optim.AdamW(weights, rate, weight_decay=decay)
    ahead = course.nesterov and course.momentum > 0  # torch refuses to look ahead without
    return torch.optim.SGD(weights, rate, course.momentum, weight_decay=decay, nesterov=ahead)


def sharpness_aware(model: nn.Module, gradient: Callable[[], Tensor], rho: float) -> Tensor:
    """Take the gradient where the loss is about the highest within a distance, and go back.

        g = grad L(w);  the new gradient is grad L(w + rho g / |g|)

    Weight decay is none of the loss that is climbed (Foret et al., equation 1). Batch-norm
    statistics are those of the pass at w.

    Args:
        model: whose parameters have no gradients yet; afterwards they have the new ones, and its
            weights and buffers are what the pass at w left, bit for bit.
        gradient: adds the gradient to that of each parameter, and returns the loss.
        rho: the distance.

    Returns:
        The loss at w.

    Cost: twice that of ``gradient``, and a copy of the weights.
    """
    loss = gradient()
    weights = [p for p in model.parameters() if p.grad is not None]
    slopes = [p.grad for p in weights if p.grad is not None]
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in slopes]))
    before = [(t, t.detach().clone()) for t in (*weights, *model.buffers())]
    with torch.no_grad():
        for weight, slope in zip(weights, slopes, strict=True):
            weight.add_(slope * (rho / (length + 1e-12)))  # where the slope is 0 it stays
            weight.grad = None
    gradient()
    with torch.no_grad():
        for tensor, value in before:
            tensor.copy_(value)
    return loss
