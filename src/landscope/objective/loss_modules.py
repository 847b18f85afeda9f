"""Losses of ``torch.nn`` as functions that return terms: with ``reduction="none"``, and weights.

The tables below say how each loss is called with outputs and targets, and what its targets are.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import loss as torch_modules
from torch.nn.modules.loss import _Loss

from landscope.errors import ObjectiveError
from landscope.objective.loss_terms import Loss, Terms, has_few_classes
from landscope.objective.output_checks import CHECKS
from landscope.objective.target_forms import Classes, Form, Labels, Numbers, Unclassed

_MODULES: dict[Any, type[nn.Module]] = {  # of functions whose terms need more than reduction="none"
    F.cross_entropy: nn.CrossEntropyLoss,
    F.nll_loss: nn.NLLLoss,
    F.gaussian_nll_loss: nn.GaussianNLLLoss,
    F.cosine_embedding_loss: nn.CosineEmbeddingLoss,
    F.margin_ranking_loss: nn.MarginRankingLoss,
    F.triplet_margin_loss: nn.TripletMarginLoss,
    F.triplet_margin_with_distance_loss: nn.TripletMarginWithDistanceLoss,
    F.ctc_loss: nn.CTCLoss,
}
_WITH_LAYER = getattr(nn, "LinearCrossEntropyLoss", None)  # since torch 2.13
_OF_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss, *([_WITH_LAYER] if _WITH_LAYER else []))
_UNITS = dict.fromkeys(
    (*_OF_CLASSES, nn.BCEWithLogitsLoss, nn.BCELoss, nn.KLDivLoss, nn.CTCLoss), "nat"
)
_FORMS: dict[type[nn.Module], Form] = {
    nn.MultiMarginLoss: Classes(),
    nn.KLDivLoss: Classes(),
    nn.BCELoss: Labels(0.5, 0.5),
    nn.BCEWithLogitsLoss: Labels(0.0, 0.5),
    nn.MultiLabelSoftMarginLoss: Labels(0.0, 0.5),
    nn.SoftMarginLoss: Labels(0.0, 0.0),
    nn.MSELoss: Numbers(),
    nn.L1Loss: Numbers(),
    nn.SmoothL1Loss: Numbers(),
    nn.HuberLoss: Numbers(),
    nn.PoissonNLLLoss: Unclassed("targets are counts"),
    nn.GaussianNLLLoss: Unclassed("targets are numbers to fit"),
    nn.HingeEmbeddingLoss: Unclassed("outputs are distances, without a threshold"),
    nn.MultiLabelMarginLoss: Unclassed("outputs are ranked, without a threshold"),
    nn.CosineEmbeddingLoss: Unclassed("outputs are pairs of vectors"),
    nn.MarginRankingLoss: Unclassed("outputs are pairs of scores"),
    nn.TripletMarginLoss: Unclassed("outputs are triples of vectors"),
    nn.TripletMarginWithDistanceLoss: Unclassed("outputs are triples of vectors"),
    nn.CTCLoss: Unclassed("targets are sequences without positions"),
}
_FUNCTIONAL_FORMS: dict[Any, Form] = {
    F.kl_div: Classes(),
    F.multi_margin_loss: Classes(),
    F.binary_cross_entropy: Labels(0.5, 0.5),
    F.binary_cross_entropy_with_logits: Labels(0.0, 0.5),
    F.multilabel_soft_margin_loss: Labels(0.0, 0.5),
    F.soft_margin_loss: Labels(0.0, 0.0),
    F.mse_loss: Numbers(),
    F.l1_loss: Numbers(),
    F.smooth_l1_loss: Numbers(),
    F.huber_loss: Numbers(),
    F.poisson_nll_loss: Unclassed("targets are counts"),
    F.hinge_embedding_loss: Unclassed("outputs are distances, without a threshold"),
    F.multilabel_margin_loss: Unclassed("outputs are ranked, without a threshold"),
}
# What the model returns, and the arguments of the loss made of it and of the targets.
_SEVERAL_INPUTS: dict[type[nn.Module], tuple[str, Callable[[Any, Any], tuple[Any, ...]]]] = {
    nn.CosineEmbeddingLoss: ("(input1, input2)", lambda o, t: (o[0], o[1], t)),
    nn.MarginRankingLoss: ("(input1, input2)", lambda o, t: (o[0], o[1], t)),
    nn.TripletMarginLoss: ("(anchor, positive, negative)", lambda o, _: tuple(o)),
    nn.TripletMarginWithDistanceLoss: ("(anchor, positive, negative)", lambda o, _: tuple(o)),
    nn.GaussianNLLLoss: ("(mean, variance)", lambda o, t: (o[0], t, o[1])),
}


def make_module_loss(loss: Any, name: str | None, identity: str) -> Loss | None:
    """Return a ``Loss`` made of a loss of ``torch.nn`` or ``torch.nn.functional``; None if another.

    Args:
        loss: What the user passed.
        name: The name in results and errors; that of the class or function if None.
        identity: The fingerprint.
    """
    module = _find_module(loss)
    if module is not None:
        kind = _class_of(module)
        return Loss(
            name or type(module).__name__.removesuffix("Loss"),
            functools.partial(_module_terms, module, _without_reduction(module)),
            _UNITS.get(kind, ""),
            identity,
            form=_form_of(module),
            check=CHECKS.get(kind),
            notes=_note_reduction(module, type(module).__name__, module.reduction),
        )
    if not _is_functional(loss):
        return None
    function = loss.func if isinstance(loss, functools.partial) else loss
    reduction = getattr(loss, "keywords", {}).get("reduction", "mean")
    single = functools.partial(loss, reduction="none")
    return Loss(
        name or str(getattr(loss, "__name__", type(loss).__name__)),
        functools.partial(_sample_means, single, reduction),
        "",
        identity,
        form=_FUNCTIONAL_FORMS.get(function),
        notes=_note_reduction(None, function.__name__, reduction),
    )


def _find_module(loss: Any) -> Any:
    """Return the module of torch that computes a loss, or None."""
    if isinstance(loss, _Loss):
        return loss if _class_of(loss) is not None else None
    keywords = {}
    if isinstance(loss, functools.partial) and not loss.args:
        loss, keywords = loss.func, loss.keywords
    kind = _MODULES.get(loss) if isinstance(loss, FunctionType) else None
    return kind(**keywords) if kind else None


def _class_of(module: _Loss) -> Any:
    """Return the class of torch whose ``forward`` a module has; None if it has its own."""
    forward: Any = type(module).forward
    owners = [base for base in type(module).__mro__ if vars(base).get("forward") is forward]
    return next((base for base in owners if base.__module__ == torch_modules.__name__), None)


def _form_of(module: Any) -> Form | None:
    kind = _class_of(module)
    if kind in (nn.CrossEntropyLoss, nn.NLLLoss):
        return Classes(int(module.ignore_index))
    if kind is not None and kind is _WITH_LAYER:
        return Unclassed("outputs are features, to which the loss applies a layer")
    return _FORMS.get(kind)


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


def _note_reduction(module: Any, name: str, reduction: str) -> tuple[str, ...]:
    """Return a note where the loss of an objective is not what the reduction says."""
    if reduction == "sum":
        return (
            f"{name} has reduction='sum': the loss is the sum over each sample, averaged over the"
            " samples, and not the sum over all of them, which grows with the data",
        )
    weight = getattr(module, "weight", None)
    if reduction == "none" and weight is not None and isinstance(_form_of(module), Classes):
        return (
            f"{name} has reduction='none' and class weights: the loss is their weighted mean, as"
            " with reduction='mean'",
        )
    return ()


def _module_terms(module: Any, single: Any, outputs: Any, targets: Any) -> Terms:
    kind = _class_of(module)
    if kind in _SEVERAL_INPUTS:
        arguments = _arrange(module, outputs, targets)
        return _row_terms(single(*arguments), module.reduction)
    if kind is nn.CTCLoss:
        return _ctc_terms(module, single, outputs, targets)
    check_tensor(outputs)
    if module.state_dict():  # class weights follow the outputs to their device and precision
        single = copy.deepcopy(single).to(outputs)
    if kind is nn.CrossEntropyLoss and has_few_classes(outputs, targets):
        values = single(outputs.t().contiguous()[None], targets[None])[0]
    else:
        values = single(outputs, targets)
    if kind in _OF_CLASSES:
        return _class_terms(module, values, targets)
    _check_row_weights(module, outputs)
    _check_pairs(values, outputs, targets)
    return _row_terms(values, module.reduction)


def _class_terms(module: Any, values: Tensor, targets: Tensor) -> Terms:
    """Weight terms as torch's mean does: by class weight, and 0 where the target is ignored."""
    if module.reduction == "sum":
        return _row_terms(values, "sum")
    if targets.is_floating_point():
        return Terms.from_values(values)
    ignored = module.ignore_index
    mask = torch.ones_like(targets, dtype=torch.bool) if ignored is None else targets != ignored
    weights = mask.to(values.dtype)
    if module.weight is not None:
        weights = weights * module.weight.to(values)[targets.where(mask, 0)]
    return Terms(values.where(mask, 0.0).reshape(-1), weights.reshape(-1))


def _arrange(module: Any, outputs: Any, targets: Any) -> tuple[Any, ...]:
    """Return the arguments of a loss of several outputs of the model."""
    expected, arrange = _SEVERAL_INPUTS[_class_of(module)]
    count = expected.count(",") + 1
    if not (
        isinstance(outputs, tuple | list)
        and len(outputs) == count
        and all(isinstance(output, Tensor) for output in outputs)
    ):
        given = type(outputs).__name__ + (
            f" of {len(outputs)}" if hasattr(outputs, "__len__") else ""
        )
        raise ObjectiveError(
            f"the model returned a {given}; {type(module).__name__} takes a tuple {expected} from"
            " it: return that from forward(), or compute the loss in ls.losses.custom(terms)."
        )
    return arrange(outputs, targets)


def _ctc_terms(module: Any, single: Any, outputs: Any, targets: Any) -> Terms:
    """Return the terms of CTC, whose mean divides each sample by the length of its target."""
    check_tensor(outputs)
    if not isinstance(targets, tuple | list) or len(targets) != 3:
        raise ObjectiveError(
            f"targets are a {type(targets).__name__}; CTCLoss takes (targets, input_lengths,"
            " target_lengths) as the targets of a batch: (inputs, (targets, input_lengths,"
            " target_lengths))."
        )
    values = single(outputs, *targets)
    if module.reduction != "sum":
        values = values / torch.as_tensor(targets[2]).to(values).clamp(min=1)
    return Terms.from_values(values)


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
            " logits in it use ls.losses.tokens(); for a loss that the model computes,"
            " ls.losses.custom(lambda model, batch: model(**batch).loss), or model(*batch)[1] where"
            " forward() returns (logits, loss)."
        )


def _check_pairs(values: Tensor, outputs: Tensor, targets: Tensor) -> None:
    """Check that outputs were not broadcast against the targets of all rows, as [n, 1] and [n]."""
    if values.numel() > max(outputs.numel(), targets.numel()):
        raise ObjectiveError(
            f"outputs have the shape {tuple(outputs.shape)} and targets {tuple(targets.shape)}, so"
            " that torch compares each row with all others; expected the same shape: reshape the"
            " targets, such as targets[:, None], or the outputs."
        )


def _check_row_weights(module: Any, outputs: Tensor) -> None:
    """Check that the weights of binary cross-entropy are not those of the rows of one batch."""
    weight = getattr(module, "weight", None)
    if _class_of(module) not in (nn.BCELoss, nn.BCEWithLogitsLoss) or weight is None:
        return
    if weight.ndim == outputs.ndim and len(weight) > 1:
        raise ObjectiveError(
            f"weight has the shape {tuple(weight.shape)}: a weight for each row of a batch, which"
            " would be the same in every batch. Put the weights of the samples in the data, and"
            " return (losses, weights) from a function for ls.losses.custom."
        )


def _row_terms(values: Tensor, reduction: str) -> Terms:
    """Return one term for each row; it has weight 1 where the loss sums over a sample's values."""
    rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    if reduction in ("sum", "batchmean"):
        return Terms.from_values(rows.sum(dim=1))
    return Terms(rows.sum(dim=1), torch.full_like(rows[:, 0], rows.shape[1]))
