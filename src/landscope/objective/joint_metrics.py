"""Joint metrics: one number for all rows of a data set together, such as F1, AUC or R^2.

They are not means over rows, so no mean over batches gives them. An object with ``update``,
``compute`` and ``reset`` (torchmetrics, torcheval) is updated batch by batch; a function that
returns one number for a batch is called once, with the outputs and targets of all batches.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from landscope import fingerprint
from landscope.errors import ObjectiveError
from landscope.objective import nested_batches
from landscope.objective.loss_terms import Loss, Terms
from landscope.objective.torch_losses import as_loss, to_tensor

_MAX_BYTES = 2**30  # outputs that are kept for a function


@runtime_checkable
class Updatable(Protocol):
    """A metric object of torchmetrics, torcheval, and libraries like them."""

    def reset(self) -> Any:
        """Forget all batches."""

    def update(self, outputs: Any, targets: Any, /) -> Any:
        """Add a batch."""

    def compute(self) -> Any:
        """Return the metric of all batches since the last reset."""


@final
@dataclass(frozen=True, eq=False)
class JointMetric:
    """A metric object of the user, which is only copied.

    Args:
        name: The name in results and errors.
        metric: A copy of the object, without batches.
        identity: A fingerprint.
    """

    name: str
    metric: Updatable
    identity: str

    units = ""
    notes: tuple[str, ...] = ()


Metric = Loss | JointMetric


def as_metric(metric: Any, name: str, loss: Any) -> Metric:
    """Return a metric of an objective, made from what a user passes.

    Args:
        metric: A function (outputs, targets) that returns one value for each sample (or more), or
            one number for all samples; a torch loss; or an object with ``update``, ``compute`` and
            ``reset``.
        name: The name in results and errors.
        loss: The loss of the objective, by which ``ls.losses.accuracy`` reads the targets.

    Raises:
        ObjectiveError: When it is none of these, or takes the targets first.
    """
    if isinstance(metric, type):
        raise ObjectiveError(
            f"metrics[{name!r}] is the class {metric.__name__}; expected an object or a function:"
            f" {metric.__name__}(...)."
        )
    if isinstance(metric, Updatable):
        copied = _copy(metric, name)
        return JointMetric(name, copied, fingerprint.of_function(copied))
    if not callable(metric):
        raise ObjectiveError(
            f"metrics[{name!r}]={metric!r} is a {type(metric).__name__}; expected a function"
            " (outputs, targets), such as ls.losses.accuracy, or a metric object of torchmetrics."
        )
    _check_order(metric, name)
    converted = as_loss(metric, name)
    return converted if converted.fit is None else replace(converted.fit(loss), name=name)


def _copy(metric: Updatable, name: str) -> Updatable:
    try:
        copied = copy.deepcopy(metric)
        copied.reset()
    except Exception as error:  # of the user's object, of any type
        raise ObjectiveError(
            f"metrics[{name!r}] is a {type(metric).__name__} that cannot be copied and reset:"
            f" {error}. The object itself is left as it is: pass one that copy.deepcopy takes."
        ) from error
    return copied


def _check_order(metric: Any, name: str) -> None:
    """Check that a function is not one of scikit-learn's, which take the targets first."""
    function = getattr(metric, "func", metric)
    if str(getattr(function, "__module__", "")).startswith("sklearn."):
        title = getattr(function, "__name__", type(function).__name__)
        raise ObjectiveError(
            f"metrics[{name!r}]={title} of scikit-learn takes the targets first, and predictions in"
            " place of outputs; expected a function (outputs, targets), such as lambda outputs,"
            f" targets: {title}(targets.cpu(), outputs.argmax(1).cpu())."
        )


@final
class MetricPass:
    """The metrics of a session: the terms of some, and one number for all rows of the others.

    Args:
        metrics: Name -> metric.
        device: The device of the outputs; None where there is no single one.
    """

    def __init__(self, metrics: Mapping[str, Metric], device: torch.device | None) -> None:
        self.by_terms = {n: m for n, m in metrics.items() if isinstance(m, Loss)}
        self.joint: dict[str, _Updated | _Collected] = {
            n: _Updated(m, device) for n, m in metrics.items() if isinstance(m, JointMetric)
        }

    def reset(self) -> None:
        """Forget the batches of the last pass over the data."""
        for metric in self.joint.values():
            metric.reset()

    def terms(self, outputs: Any, targets: Any, function: Any, first: Terms) -> list[Terms]:
        """Return the terms of a batch, for each metric in ``by_terms``; add it to the others.

        Args:
            outputs: The outputs of the model.
            targets: The targets.
            function: The function of the loss; a metric that has it too has the same terms.
            first: The terms of the loss.
        """
        for metric in self.joint.values():
            metric.update(outputs, targets)
        terms = []
        for name, loss in list(self.by_terms.items()):
            of_loss = first if loss.function is function else loss(outputs, targets)
            if of_loss.joint:  # the first batch shows it
                self.joint[name] = _Collected(self.by_terms.pop(name))
                self.joint[name].update(outputs, targets)
            else:
                terms.append(of_loss)
        return terms

    def average(self, sums: Tensor) -> dict[str, float]:
        """Return the loss and all metrics of the batches since the last reset.

        Args:
            sums: The sums of values and of weights, in turn, of the loss and of each metric that
                has terms, shape (2 (1 + metrics),).
        """
        names = ("loss", *self.by_terms)
        pairs = zip(names, sums.reshape(-1, 2).tolist(), strict=True)
        means = {name: _divide(value, weight, name) for name, (value, weight) in pairs}
        joint = {name: metric.compute() for name, metric in self.joint.items()}
        return {name: self.transform(name, mean) for name, mean in means.items()} | joint

    def weigh(self, sums: Tensor, weights: Tensor) -> dict[str, float]:
        """Return the loss and all metrics with the first set of weights, and further losses.

        Args:
            sums: The sums of values and of weights over the terms of each row, of the loss and of
                each metric, shape (1 + metrics, 2, rows).
            weights: The weights of the rows, shape (sets, rows).

        Raises:
            ObjectiveError: When a metric has one number for all rows.
        """
        self.check_separable()
        values, counts = sums.unbind(dim=1)  # each (names, rows)
        first = weights[:1]
        means = ((values @ first.T) / (counts @ first.T)).flatten().tolist()
        pairs = zip(("loss", *self.by_terms), means, strict=True)
        result = {name: self.transform(name, mean) for name, mean in pairs}
        further = ((weights[1:] @ values[0]) / (weights[1:] @ counts[0])).tolist()
        return result | {f"loss~{k}": value for k, value in enumerate(further, start=1)}

    def transform(self, name: str, mean: float) -> float:
        """Return the value that is reported for the mean of the loss or of a metric."""
        return self.by_terms[name].transform(mean) if name in self.by_terms else mean

    def check_separable(self) -> None:
        """Check that all metrics have terms, which drawn samples can stand for.

        Raises:
            ObjectiveError: When a metric has one number for all rows.
        """
        for name in self.joint:
            raise ObjectiveError(
                f"metric {name!r} is one number for all samples together, which drawn samples do"
                " not give: leave samples= out, or this metric, or return one value for each"
                " sample."
            )


@final
class _Updated:
    """A metric object that batches update."""

    def __init__(self, metric: JointMetric, device: torch.device | None) -> None:
        self.name, self.metric = metric.name, copy.deepcopy(metric.metric)
        if device is not None and isinstance(self.metric, nn.Module):
            self.metric.to(device)

    def reset(self) -> None:
        self.metric.reset()

    def update(self, outputs: Any, targets: Any) -> None:
        try:
            self.metric.update(outputs, targets)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise ObjectiveError(
                f"metric {self.name!r} ({type(self.metric).__name__}) cannot be updated with"
                f" outputs {_describe(outputs)} and targets {_describe(targets)}: {error}"
            ) from error

    def compute(self) -> float:
        return _to_number(self.metric.compute(), self.name)


@final
class _Collected:
    """A function of the outputs and targets of all rows."""

    def __init__(self, metric: Loss) -> None:
        self.metric = metric
        self.batches: list[Any] = []
        self.bytes = 0

    def reset(self) -> None:
        self.batches, self.bytes = [], 0

    def update(self, outputs: Any, targets: Any) -> None:
        pair = (nested_batches.map_tensors(_copy_values, outputs), targets)
        self.batches.append(pair)
        self.bytes += sum(t.nbytes for t in nested_batches.iter_tensors(pair[0]))
        if self.bytes > _MAX_BYTES:
            self.batches.clear()
            raise ObjectiveError(
                f"metric {self.metric.name!r} returns one number for a batch, so it is called once"
                f" with the outputs of all data, which take more than {_MAX_BYTES:.1e} bytes:"
                " return one value for each sample, or pass an object with update, compute and"
                " reset, such as those of torchmetrics."
            )

    def compute(self) -> float:
        try:
            outputs, targets = nested_batches.join(self.batches)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ObjectiveError(
                f"metric {self.metric.name!r} returns one number for a batch, and the outputs of"
                f" the batches cannot be joined ({error}): return one value for each sample, or"
                " pass an object with update, compute and reset, such as those of torchmetrics."
            ) from error
        terms = self.metric(outputs, targets)
        return float(terms.values.sum() / terms.weights.sum())


def _divide(value: float, weight: float, name: str) -> float:
    if weight == 0:
        raise ObjectiveError(
            f"{name} has no terms: every one is ignored (ignore_index, or weights of 0)."
        )
    return value / weight


def _copy_values(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()  # a recorded forward pass writes into the same memory again


def _to_number(value: Any, name: str) -> float:
    if isinstance(value, Mapping | tuple | list):
        keys = list(value) if isinstance(value, Mapping) else f"{len(value)} values"
        raise ObjectiveError(
            f"metric {name!r} returned several values ({keys}): pass each by itself, such as"
            " metrics=dict(collection) of a MetricCollection."
        )
    tensor = to_tensor(value, f"metric {name!r}")
    if tensor.numel() != 1:
        raise ObjectiveError(
            f"metric {name!r} returned {tensor.numel()} values; expected one number: choose an"
            " average, such as average='macro'."
        )
    return float(tensor)


def _describe(value: Any) -> str:
    shapes = [tuple(t.shape) for t in nested_batches.iter_tensors(value)]
    return str(shapes[0]) if len(shapes) == 1 else f"{type(value).__name__} of {shapes}"
