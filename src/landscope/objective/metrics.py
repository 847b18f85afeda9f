"""Metrics (accuracy, squared error of probabilities), and the penalty of weight decay."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from landscope.errors import ObjectiveError
from landscope.objective.loss_terms import Loss, Terms
from landscope.objective.predictions import check_labels, find_hits, read_classes
from landscope.objective.target_forms import Classes, Form
from landscope.params import Params

_FORMS_OF_0_1 = (None, Classes(), Classes(-100))  # read as in version 0.1: the same identity


def _accuracy(form: Form | None, loss: str, outputs: Any, targets: Any) -> Terms:
    hits, mask = find_hits(form, loss, outputs, targets)
    percent = 100.0 * hits.to(torch.float32)
    return Terms.from_values(percent) if mask is None else Terms.from_mask(percent, mask)


def _softmax_mse(form: Form | None, loss: str, outputs: Any, targets: Any) -> Terms:
    by_class = read_classes(form, loss, outputs, targets)
    scores, mask = by_class.scores, by_class.mask
    kept = by_class.classes if mask is None else by_class.classes.where(mask, 0)
    onehot = F.one_hot(kept.long(), scores.shape[-1]).to(scores.dtype)
    values = (scores.softmax(dim=-1) - onehot).square().mean(dim=-1)
    return Terms.from_values(values) if mask is None else Terms.from_mask(values, mask)


def _fit_to_loss(function: Any, metric: Loss, loss: Any) -> Loss:
    """Return a metric that reads outputs and targets as the loss of an objective does."""
    form = getattr(loss, "form", None)
    return replace(
        metric,
        function=functools.partial(function, form, loss.name),
        identity=metric.name if form in _FORMS_OF_0_1 else f"{metric.name} of {form}",
        check=functools.partial(check_labels, form, loss.name),
        fit=None,
    )


def _make_metric(function: Any, name: str, units: str, form: Form | None) -> Loss:
    """Return a metric, whose targets have a form unless the loss of an objective has another."""
    metric = Loss(name, functools.partial(function, form, "the loss"), units, name, form=form)
    return replace(metric, fit=functools.partial(_fit_to_loss, function, metric))


accuracy = _make_metric(_accuracy, "accuracy", "%", None)
"""The share of right classes in percent, over the terms that the loss counts.

The metric reads outputs and targets as the loss of the objective does: which targets are ignored,
along which axis the classes are, and whether outputs are logits or probabilities. The guide
``docs/guides/losses-and-metrics.md`` has a table of it. It raises an ObjectiveError where no class
follows from outputs and targets, as in a regression. For a loss that is a function of the user,
outputs [n, c, ...] or [n, ..., c] with whole numbers as targets are classes, of which negative ones
do not count, and a single output for each target is a logit.
"""

softmax_mse = _make_metric(_softmax_mse, "softmax_mse", "", Classes())
"""The mean over samples and classes of (softmax - one-hot)^2: the "mse" of the 2018 scripts.

It reads targets as :data:`accuracy` does.
"""


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
    if not isinstance(strength, int | float) or not 0 <= strength < float("inf"):
        raise ObjectiveError(f"strength={strength!r}; expected a finite number, 0 or more.")
    return WeightDecay(float(strength))
