"""Losses of torch, and functions of the user, as functions that return terms.

A torch loss module gives its terms with ``reduction="none"``; :func:`as_loss` converts everything
else that a user may pass. The losses of sequence models are in
:mod:`landscope.objective.sequence_losses`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from landscope import fingerprint
from landscope.errors import ObjectiveError
from landscope.objective.loss_terms import Loss, Terms, has_few_classes

_CLASSIFIERS = {F.cross_entropy: nn.CrossEntropyLoss, F.nll_loss: nn.NLLLoss}
_UNITS = {
    nn.CrossEntropyLoss: "nat",
    nn.NLLLoss: "nat",
    nn.BCEWithLogitsLoss: "nat",
    nn.BCELoss: "nat",
    nn.KLDivLoss: "nat",
}


@final
@dataclass(frozen=True, eq=False)
class Custom:
    """A user's function (model, batch) -> terms; see :func:`custom`."""

    function: Callable[[nn.Module, Any], Any]
    name: str
    units: str
    identity: str

    def __call__(self, model: nn.Module, batch: Any) -> Terms:
        """Return the terms of a batch, which has the structure that it has in the user's data."""
        values = self.function(model, batch)
        if isinstance(values, tuple) and len(values) == 2:
            values, weights = (_to_tensor(v, self.name) for v in values)
            return Terms((values * weights).reshape(-1), weights.reshape(-1))
        tensor = _to_tensor(values, self.name)
        if tensor.ndim == 0:
            raise ObjectiveError(
                f"terms function {self.name!r} returned a single number; expected one value for"
                " each term, shape (n,): use reduction='none' inside it."
            )
        return Terms.from_values(tensor)


def custom(
    terms: Callable[[nn.Module, Any], Any], *, name: str | None = None, units: str = ""
) -> Custom:
    """Return a loss made from a function of the model and a batch.

    Args:
        terms: The function ``terms(model, batch)``. It returns a Tensor of any shape with one value
            for each term, or a pair (values, weights) of such tensors when terms have weights (0
            ignores a term). ``batch`` is an entry of the data, on the device of the objective.
        name: The name of the loss in results and errors; the function's name if None.
        units: The unit of the loss.

    Raises:
        ObjectiveError: When ``terms`` is not callable.

    Example:
        >>> import torch, landscope as ls
        >>> def terms(model, batch):
        ...     return (model(batch["x"]) - batch["y"]).square().mean(dim=1)
        >>> data = [{"x": torch.ones(4, 2), "y": torch.zeros(4, 1)}]
        >>> objective = ls.Objective(torch.nn.Linear(2, 1), ls.losses.custom(terms), data)
        >>> objective.terms().shape
        torch.Size([4])
    """
    if not callable(terms):
        raise ObjectiveError(f"terms={terms!r}; expected a function (model, batch) -> Tensor[n].")
    title = name or str(getattr(terms, "__name__", type(terms).__name__))
    return Custom(terms, title, units, fingerprint.of_function(terms))


def as_loss(loss: Any, name: str | None = None) -> Loss:
    """Return a ``Loss``, made from the function or module that a user passes.

    Args:
        loss: A torch loss module, a function of torch.nn.functional that takes ``reduction``, or
            any function (outputs, targets) that returns one value (or more) for each sample, or the
            mean over the samples of the batch.
        name: The name in results and errors; that of the function or class if None.

    Raises:
        ObjectiveError: When the loss is not callable.
    """
    if isinstance(loss, Loss):
        return loss if name is None else replace(loss, name=name)
    if not callable(loss):
        raise ObjectiveError(
            f"loss={loss!r} is a {type(loss).__name__}; expected a torch loss such as"
            " nn.CrossEntropyLoss(), a function (outputs, targets), or ls.losses.custom(terms)."
        )
    identity = fingerprint.of_function(loss)
    module = _find_module(loss)
    if module is not None:
        units = _UNITS.get(type(module), "")
        title = name or type(module).__name__.removesuffix("Loss")
        function = functools.partial(_module_terms, module, _without_reduction(module))
        return Loss(title, function, units, identity)
    title = name or str(getattr(loss, "__name__", type(loss).__name__))
    if _is_functional(loss):
        single = functools.partial(loss, reduction="none")
        reduction = getattr(loss, "keywords", {}).get("reduction", "mean")
        mean = functools.partial(_sample_means, single, reduction)
        return Loss(title, mean, "", identity)
    return Loss(title, functools.partial(_free_terms, loss, title), "", identity, per_batch=True)


def depends_on_batches(loss: Loss | Custom) -> bool:
    """Return whether a loss or metric may depend on how the data are batched."""
    return isinstance(loss, Loss) and loss.per_batch


def _find_module(loss: Any) -> nn.Module | None:
    """Return the torch module that computes a loss, or None."""
    if isinstance(loss, _Loss) and type(loss).__module__ == _Loss.__module__:
        return loss
    keywords = {}
    if isinstance(loss, functools.partial) and not loss.args:
        loss, keywords = loss.func, loss.keywords
    kind = _CLASSIFIERS.get(loss) if isinstance(loss, FunctionType) else None
    return kind(**keywords) if kind else None


def _is_functional(loss: Any) -> bool:
    function = loss.func if isinstance(loss, functools.partial) else loss
    if getattr(function, "__module__", None) != F.__name__:
        return False
    return "reduction" in function.__code__.co_varnames if hasattr(function, "__code__") else False


def _without_reduction(module: Any) -> Any:
    """Return the module with reduction="none"; its class weights are the user's tensors."""
    single = copy.copy(module)
    single.reduction = "none"
    return single


def _module_terms(module: Any, single: Any, outputs: Any, targets: Any) -> Terms:
    check_tensor(outputs)
    if module.state_dict():  # class weights follow the outputs to their device and precision
        single = copy.deepcopy(single).to(outputs)
    if isinstance(module, nn.CrossEntropyLoss) and has_few_classes(outputs, targets):
        values = single(outputs.t().contiguous()[None], targets[None])[0]
    else:
        values = single(outputs, targets)
    if isinstance(module, nn.CrossEntropyLoss | nn.NLLLoss):
        return _class_terms(module, values, targets)
    _check_pairs(values, outputs, targets)
    return _row_terms(values, module.reduction)


def _class_terms(module: Any, values: Tensor, targets: Tensor) -> Terms:
    """Weight terms as torch's mean does: by class weight, and 0 where the target is ignored."""
    if targets.is_floating_point() or module.reduction == "sum":
        return Terms.from_values(values)
    mask = targets != module.ignore_index
    weights = mask.to(values.dtype)
    if module.weight is not None:
        weights = weights * module.weight.to(values)[targets.where(mask, 0)]
    return Terms(values.where(mask, 0.0).reshape(-1), weights.reshape(-1))


def _sample_means(
    function: Callable[..., Tensor], reduction: str, outputs: Any, targets: Any
) -> Terms:
    check_tensor(outputs)
    values = function(outputs, targets)
    _check_pairs(values, outputs, targets)
    return _row_terms(values, reduction)


def check_tensor(outputs: Any) -> None:
    """Check that a model returned a tensor and not, for example, a ``ModelOutput``.

    Raises:
        ObjectiveError: When it did not.
    """
    if not isinstance(outputs, Tensor):
        raise ObjectiveError(
            f"the model returned a {type(outputs).__name__}, and this loss takes a tensor: for the"
            " logits in it use ls.losses.tokens(), for anything else ls.losses.custom(terms)."
        )


def _check_pairs(values: Tensor, outputs: Tensor, targets: Tensor) -> None:
    """Check that outputs were not broadcast against the targets of all rows, as [n, 1] and [n]."""
    if values.numel() > max(outputs.numel(), targets.numel()):
        raise ObjectiveError(
            f"outputs have the shape {tuple(outputs.shape)} and targets {tuple(targets.shape)}, so"
            " that torch compares each row with all others; expected the same shape: reshape the"
            " targets, such as targets[:, None], or the outputs."
        )


def _row_terms(values: Tensor, reduction: str) -> Terms:
    """Return one term for each row; it has weight 1 where the loss sums over a sample's values."""
    rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    if reduction in ("sum", "batchmean"):
        return Terms.from_values(rows.sum(dim=1))
    return Terms(rows.sum(dim=1), torch.full_like(rows[:, 0], rows.shape[1]))


def _free_terms(function: Callable[..., Any], name: str, outputs: Any, targets: Any) -> Terms:
    """Return the terms of any function: its values, or its mean as one term of weight n samples."""
    value = _to_tensor(function(outputs, targets), name)
    if value.ndim:
        return Terms.from_values(value)
    count = count_samples(outputs)
    weight = torch.full_like(value, count).reshape(1)
    return Terms(value.reshape(1) * count, weight)


def _to_tensor(value: Any, name: str) -> Tensor:
    """Return the value of a loss as a real floating-point tensor."""
    if isinstance(value, int | float):
        value = torch.tensor(float(value))
    if not isinstance(value, Tensor) or value.is_complex():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ObjectiveError(
            f"loss {name!r} returned a {kind}; expected a number, or a Tensor with one value for"
            " each sample: return the loss itself."
        )
    return value if value.is_floating_point() else value.to(torch.float32)


def count_samples(outputs: Any) -> int:
    """Return the number of samples in the outputs of a batch: the length of the first tensor.

    Raises:
        ObjectiveError: When the outputs are neither tensors nor containers of tensors.
    """
    if isinstance(outputs, Tensor):
        return len(outputs) if outputs.ndim else 1
    if isinstance(outputs, Mapping):
        return count_samples(next(iter(outputs.values())))
    if isinstance(outputs, tuple | list) and outputs:
        return count_samples(outputs[0])
    raise ObjectiveError(
        f"the model returned a {type(outputs).__name__}, in which samples cannot be counted:"
        " wrap a function (model, batch) -> Tensor[n] with ls.losses.custom."
    )


def evaluate_by_sample(loss: Loss, outputs: Any, targets: Any) -> Terms:
    """Return one term for each sample of a loss that gives only the mean of a batch.

    Raises:
        ObjectiveError: When outputs or targets are not tensors, which can be split.
    """
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        raise ObjectiveError(
            f"loss {loss.name!r} gives one number for each batch, which cannot be separated into"
            " its terms: wrap a function (model, batch) -> Tensor[n] with ls.losses.custom."
        )
    terms = [loss(o, t) for o, t in zip(outputs.split(1), targets.split(1), strict=True)]
    return Terms(torch.cat([t.values for t in terms]), torch.cat([t.weights for t in terms]))


@torch.no_grad()
def note_unless_mean(loss: Loss, outputs: Any, targets: Any) -> str | None:
    """Return a note when a loss with one number for each batch is not the mean over its samples."""
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)) or len(outputs) < 2:
        return None
    whole = loss(outputs, targets)
    middle = len(outputs) // 2
    halves = [loss(outputs[:middle], targets[:middle]), loss(outputs[middle:], targets[middle:])]
    sum_of_halves = sum(float(terms.values.sum()) for terms in halves)
    total = float(whole.values.sum())
    if len(whole.values) != 1 or abs(sum_of_halves - total) <= 1e-4 * max(abs(total), 1e-12):
        return None
    return (
        f"loss {loss.name!r} is not the mean over the samples of a batch (halves of the first batch"
        f" give {sum_of_halves / len(outputs):.6g}, the whole {total / len(outputs):.6g}), so its"
        " mean depends on how the data are batched: return one value for each sample, or use"
        " ls.losses.custom"
    )
