"""Optimizers and learning-rate schedules.

The defaults are those of the 2018 scripts: SGD with Nesterov momentum, a learning rate of 0.1 that
drops to a tenth at 50%, 75% and 92% of the epochs (150, 225 and 275 of 300), weight decay 5e-4,
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
_DROPS = (6, 9, 11)  # in twelfths of the epochs
_DEFAULT: Any = None  # stands for a default that depends on other fields


@final
@dataclass(frozen=True)
class Course:
    """How a network is trained: optimizer, learning-rate schedule, epochs and seed.

    Args:
        optimizer: "sgd", "adam", "adamw" (with decoupled weight decay), or "sam" (sharpness-aware
            minimization with SGD: two gradients per step).
        learning_rate: The initial learning rate; by default 0.1, or 0.001 with "adam" and "adamw".
        momentum: The momentum of "sgd" and "sam", in [0, 1).
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: The weight decay; by default 5e-4, or 0.01 with "adamw".
        rho: The distance at which "sam" computes its second gradient.
        batch_size: The batch size.
        epochs: The number of epochs.
        drops: The epochs after which the learning rate drops; by default 50%, 75% and 92% of all.
        factor: The factor of the learning rate at each drop.
        warmup: The number of epochs in which the learning rate rises linearly from 0.
        seed: The seed of the random order of the data, and of all other random numbers.

    Raises:
        TrainingError: When a number is out of range.

    Example:
        >>> from landscope.training import Course
        >>> Course("adam", epochs=300).drops
        (150, 225, 275)
    """

    optimizer: str = "sgd"
    learning_rate: float = _DEFAULT
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = _DEFAULT
    rho: float = 0.05
    batch_size: int = 128
    epochs: int = 30
    drops: tuple[int, ...] = _DEFAULT
    factor: float = 0.1
    warmup: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in _RATES:
            raise TrainingError(
                f"optimizer={self.optimizer!r}; expected one of {', '.join(_RATES)}."
            )
        self._check_whole("epochs", 1)
        defaults = {
            "learning_rate": _RATES[self.optimizer],
            "weight_decay": _DECAYS[self.optimizer],
            "drops": tuple(sorted({self.epochs * part // 12 for part in _DROPS} - {0})),
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        self._check_numbers()
        self._check_drops()

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: The step, 0 for the first.
            steps: The number of steps in an epoch.
        """
        drops = sum(drop * steps <= step for drop in self.drops)
        warmup = min(1.0, (step + 1) / (self.warmup * steps)) if self.warmup else 1.0
        return self.learning_rate * self.factor**drops * warmup

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
            raise TrainingError(f"{name}={value!r}; expected a whole number of {least} or more.")

    def _check_drops(self) -> None:
        drops = self.drops
        if any(later <= earlier for earlier, later in itertools.pairwise(drops)):
            raise TrainingError(
                f"drops={drops} are out of order: name the epochs from the first to the last, each"
                " once."
            )
        wrong = next((drop for drop in drops if not 1 <= drop < self.epochs), None)
        if wrong is not None:
            raise TrainingError(
                f"drops={drops}: the learning rate cannot drop after epoch {wrong} of"
                f" {self.epochs}: name epochs from 1 to {self.epochs - 1}, or train for more"
                " epochs."
            )


def make_optimizer(course: Course, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a course over the trainable parameters of a model."""
    weights = [p for p in model.parameters() if p.requires_grad]
    rate, decay = course.learning_rate, course.weight_decay
    if course.optimizer == "adam":
        return torch.optim.Adam(weights, rate, weight_decay=decay)
    if course.optimizer == "adamw":
        return torch.optim.AdamW(weights, rate, weight_decay=decay)
    nesterov = course.nesterov and course.momentum > 0  # torch refuses it without momentum
    return torch.optim.SGD(weights, rate, course.momentum, weight_decay=decay, nesterov=nesterov)


def backpropagate_sharpness_aware(
    model: nn.Module, backpropagate: Callable[[], Tensor], rho: float
) -> Tensor:
    """Compute the gradient at approximately the point of the highest loss within a distance.

        gradient = grad L(w + rho g / |g|),  g = grad L(w)

    Weight decay is not a part of L (Foret et al., equation 1). Batch-norm statistics are those of
    the pass at w.

    Args:
        model: The model, whose parameters have no gradients yet. Afterwards they have the new
            ones; its weights and buffers are those after the pass at w, bit for bit.
        backpropagate: A function that adds the gradient of each parameter to its ``grad`` and
            returns the loss.
        rho: The distance.

    Returns:
        The loss at w.

    Cost: two calls of ``backpropagate``, and a copy of the weights.
    """
    loss = backpropagate()
    weights = [p for p in model.parameters() if p.grad is not None]
    gradients = [p.grad for p in weights if p.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients])
    norm = torch.linalg.vector_norm(norms)
    before = [(t, t.detach().clone()) for t in (*weights, *model.buffers())]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.add_(gradient * (rho / (norm + 1e-12)))  # a gradient of 0 moves nothing
            weight.grad = None
    backpropagate()
    with torch.no_grad():
        for tensor, value in before:
            tensor.copy_(value)
    return loss
