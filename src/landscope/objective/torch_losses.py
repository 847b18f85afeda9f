"""Losses and metrics as single terms, so that means are over terms and never over batches.

A torch loss module knows how to give its single terms (``reduction="none"``); what else a user may
pass becomes terms in :func:`of`. Those of sequence models are in
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
from landscope.objective.terms import Loss, Terms, narrow

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
        """Return the terms of a batch, which holds whatever the data gave."""
        values = self.function(model, batch)
        if isinstance(values, tuple) and len(values) == 2:
            values, weights = (_number(v, self.name) for v in values)
            return Terms((values * weights).reshape(-1), weights.reshape(-1))
        tensor = _number(values, self.name)
        if tensor.ndim == 0:
            raise ObjectiveError(
                f"terms function {self.name!r} returned a single number; expected one value a"
                " term, shape (n,): use reduction='none' inside it."
            )
        return Terms.even(tensor)


def custom(
    terms: Callable[[nn.Module, Any], Any], *, name: str | None = None, units: str = ""
) -> Custom:
    """Return a loss made from a function of the model and a batch.

    Args:
        terms: ``terms(model, batch)`` returns a Tensor of any shape with one value a term, or a
            pair (values, weights) of such tensors when terms count differently (0 ignores one).
            ``batch`` is what the data gave, on the right device.
        name: for people; the function's name if not given.
        units: of the loss.

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
    found = name or str(getattr(terms, "__name__", type(terms).__name__))
    return Custom(terms, found, units, fingerprint.of_function(terms))


def of(loss: Any, name: str | None = None) -> Loss:
    """Return a loss or metric in terms, made from what a user passes.

    Args:
        loss: a torch loss module, a function of torch.nn.functional that takes ``reduction``, or
            any function (outputs, targets) that returns one value a sample (or more), or the mean
            over the samples of the batch.
        name: for people.

    Raises:
        ObjectiveError: when it is not callable.
    """
    if isinstance(loss, Loss):
        return loss if name is None else replace(loss, name=name)
    if not callable(loss):
        raise ObjectiveError(
            f"loss={loss!r} is a {type(loss).__name__}; expected a torch loss such as"
            " nn.CrossEntropyLoss(), a function (outputs, targets), or ls.losses.custom(terms)."
        )
    identity = fingerprint.of_function(loss)
    module = _as_module(loss)
    if module is not None:
        units = _UNITS.get(type(module), "")
        title = name or type(module).__name__.removesuffix("Loss")
        return Loss(
            title, functools.partial(_module_terms, module, _single(module)), units, identity
        )
    title = name or str(getattr(loss, "__name__", type(loss).__name__))
    if _is_functional(loss):
        bare = functools.partial(loss, reduction="none")
        reduction = getattr(loss, "keywords", {}).get("reduction", "mean")
        mean = functools.partial(_sample_means, bare, reduction)
        return Loss(title, mean, "", identity)
    return Loss(title, functools.partial(_free_terms, loss, title), "", identity, per_batch=True)


def _as_module(loss: Any) -> nn.Module | None:
    """Return the torch module that computes this loss, or None."""
    if isinstance(loss, _Loss) and type(loss).__module__ == _Loss.__module__:
        return loss
    keywords = {}
    if isinstance(loss, functools.partial) and not loss.args:
        loss, keywords = loss.func, loss.keywords
    kind = _CLASSIFIERS.get(loss) if isinstance(loss, FunctionType) else None
    return kind(**keywords) if kind else None


def _is_functional(loss: Any) -> bool:
    bare = loss.func if isinstance(loss, functools.partial) else loss
    if getattr(bare, "__module__", None) != F.__name__:
        return False
    return "reduction" in bare.__code__.co_varnames if hasattr(bare, "__code__") else False


def _single(module: Any) -> Any:
    """Return the module with reduction="none"; its class weights are the user's own."""
    single = copy.copy(module)
    single.reduction = "none"
    return single


def _module_terms(module: Any, single: Any, outputs: Any, targets: Any) -> Terms:
    check_tensor(outputs)
    if module.state_dict():  # class weights follow the outputs to their device and precision
        single = copy.deepcopy(single).to(outputs)
    if isinstance(module, nn.CrossEntropyLoss) and narrow(outputs, targets):
        values = single(outputs.t().contiguous()[None], targets[None])[0]
    else:
        values = single(outputs, targets)
    if isinstance(module, nn.CrossEntropyLoss | nn.NLLLoss):
        return _class_terms(module, values, targets)
    _check_pairs(values, outputs, targets)
    return _row_terms(values, module.reduction)


def _class_terms(module: Any, values: Tensor, targets: Tensor) -> Terms:
    """Weigh terms as torch's mean does: by class weight, and 0 where the target is ignored."""
    if targets.is_floating_point() or module.reduction == "sum":
        return Terms.even(values)
    kept = targets != module.ignore_index
    weights = kept.to(values.dtype)
    if module.weight is not None:
        weights = weights * module.weight.to(values)[targets.where(kept, 0)]
    return Terms(values.where(kept, 0.0).reshape(-1), weights.reshape(-1))


def _sample_means(
    function: Callable[..., Tensor], reduction: str, outputs: Any, targets: Any
) -> Terms:
    check_tensor(outputs)
    values = function(outputs, targets)
    _check_pairs(values, outputs, targets)
    return _row_terms(values, reduction)


def check_tensor(outputs: Any) -> None:
    """Raise a sentence for what models return that is no tensor, such as a ``ModelOutput``."""
    if not isinstance(outputs, Tensor):
        raise ObjectiveError(
            f"the model returned a {type(outputs).__name__}, and this loss takes a tensor: for the"
            " logits in it use ls.losses.tokens(), for anything else ls.losses.custom(terms)."
        )


def _check_pairs(values: Tensor, outputs: Tensor, targets: Tensor) -> None:
    """Raise a sentence when each output met the targets of all rows, as [n, 1] and [n] do."""
    if values.numel() > max(outputs.numel(), targets.numel()):
        raise ObjectiveError(
            f"outputs have the shape {tuple(outputs.shape)} and targets {tuple(targets.shape)}, so"
            " that torch compares each row with all others; expected the same shape: reshape the"
            " targets, such as targets[:, None], or the outputs."
        )


def _row_terms(values: Tensor, reduction: str) -> Terms:
    """Return one term a row; it counts once where the loss sums over a sample's values."""
    rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    if reduction in ("sum", "batchmean"):
        return Terms.even(rows.sum(dim=1))
    return Terms(rows.sum(dim=1), torch.full_like(rows[:, 0], rows.shape[1]))


def _free_terms(function: Callable[..., Any], name: str, outputs: Any, targets: Any) -> Terms:
    """Return terms of any function: those that it gives, or its one mean as a term of n samples."""
    value = _number(function(outputs, targets), name)
    if value.ndim:
        return Terms.even(value)
    count = samples(outputs)
    size = torch.full_like(value, count).reshape(1)
    return Terms(value.reshape(1) * count, size)


def _number(value: Any, name: str) -> Tensor:
    """Return what a loss gave as a real floating-point tensor, or say what it was."""
    if isinstance(value, int | float):
        value = torch.tensor(float(value))
    if not isinstance(value, Tensor) or value.is_complex():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ObjectiveError(
            f"loss {name!r} returned a {kind}; expected a number or a Tensor with one value a"
            " sample: return the loss itself."
        )
    return value if value.is_floating_point() else value.to(torch.float32)


def samples(outputs: Any) -> int:
    """Return the number of samples of a batch of outputs: the length of its first tensor."""
    if isinstance(outputs, Tensor):
        return len(outputs) if outputs.ndim else 1
    if isinstance(outputs, Mapping):
        return samples(next(iter(outputs.values())))
    if isinstance(outputs, tuple | list) and outputs:
        return samples(outputs[0])
    raise ObjectiveError(
        f"the model returned a {type(outputs).__name__}, in which samples cannot be counted:"
        " wrap a function (model, batch) -> Tensor[n] with ls.losses.custom."
    )


def one_by_one(loss: Loss, outputs: Any, targets: Any) -> Terms:
    """Return one term a sample of a loss that only gives the mean of a batch.

    Raises:
        ObjectiveError: when the mean over the samples is not the loss of the batch.
    """
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        raise ObjectiveError(
            f"loss {loss.name!r} gives one number a batch, and its single terms cannot be taken"
            " apart: wrap a function (model, batch) -> Tensor[n] with ls.losses.custom."
        )
    parts = [loss(o, t) for o, t in zip(outputs.split(1), targets.split(1), strict=True)]
    return Terms(torch.cat([p.values for p in parts]), torch.cat([p.weights for p in parts]))


@torch.no_grad()
def note_unless_mean(loss: Loss, outputs: Any, targets: Any) -> str | None:
    """Return a remark when a loss that gives one number a batch is not the mean over samples."""
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)) or len(outputs) < 2:
        return None
    whole = loss(outputs, targets)
    half = len(outputs) // 2
    parts = [loss(outputs[:half], targets[:half]), loss(outputs[half:], targets[half:])]
    halves = sum(float(p.values.sum()) for p in parts)
    total = float(whole.values.sum())
    if len(whole.values) != 1 or abs(halves - total) <= 1e-4 * max(abs(total), 1e-12):
        return None
    return (
        f"loss {loss.name!r} is not the mean over the samples of a batch (halves of the first batch"
        f" give {halves / len(outputs):.6g}, the whole {total / len(outputs):.6g}), so its mean"
        " depends on how the data are batched: return one value a sample, or use ls.losses.custom"
    )
