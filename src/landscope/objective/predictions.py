"""Predictions of classes, compared with targets that are read as the loss reads them.

The form of the targets follows from the loss, see :mod:`landscope.objective.target_forms`. Where
the loss is a function of the user, it follows from shapes and values; forms that fit two readings
are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from landscope.errors import ObjectiveError
from landscope.objective.loss_modules import check_tensor
from landscope.objective.sequence_losses import align
from landscope.objective.target_forms import Classes, Form, Labels, Tokens, Unclassed

_CURE = (
    "pass a function (outputs, targets) that returns one value for each sample, such as"
    " {'accuracy': lambda outputs, targets: 100.0 * (outputs.argmax(1) == targets)}"
)
_FEW_VALUES = 8  # fewer logits may all be in [0, 1] by chance


@final
@dataclass(frozen=True, eq=False)
class ByClass:
    """Scores of classes with their targets.

    Args:
        scores: The outputs, shape [..., c].
        classes: The index of the right class, shape [...].
        mask: Whether the target counts, shape [...]; None if each does.
    """

    scores: Tensor
    classes: Tensor
    mask: Tensor | None


def find_hits(form: Form | None, loss: str, outputs: Any, targets: Any) -> tuple[Tensor, Any]:
    """Return which predictions are right, and which targets count (None: all), shape [...] each.

    Args:
        form: What the targets are; None if unknown.
        loss: The name of the loss, for errors.
        outputs: The outputs of the model.
        targets: The targets.

    Raises:
        ObjectiveError: When no class follows from outputs and targets.
    """
    labels = form if isinstance(form, Labels) else None
    if form is None and _is_binary(outputs, targets):
        labels = _infer_labels(targets)
    if labels is not None:
        check_tensor(outputs)
        yes = targets > labels.target_threshold
        hits = (outputs.reshape(targets.shape) > labels.threshold) == yes
        return hits, (targets >= 0 if form is None and not _are_signs(targets) else None)
    by_class = read_classes(form, loss, outputs, targets)
    return by_class.scores.argmax(dim=-1) == by_class.classes, by_class.mask


def read_classes(form: Form | None, loss: str, outputs: Any, targets: Any) -> ByClass:
    """Return scores, classes and mask (arguments and errors: see :func:`find_hits`)."""
    if isinstance(form, Unclassed | Labels):
        reason = form.reason if isinstance(form, Unclassed) else "targets are yes or no"
        raise ObjectiveError(f"{loss} has no classes for this metric: {reason}; {_CURE}.")
    if isinstance(form, Tokens):
        logits, classes, mask = align(form.shift, form.ignored, outputs, targets)
        return ByClass(logits, classes, mask)
    _check_tensors(loss, outputs, targets)
    if isinstance(form, Classes):
        return _read_by_axis(form, outputs, targets)
    if targets.shape == outputs.shape and outputs.ndim > 1:
        return _read_shares(form, loss, outputs, targets)
    if form is not None:
        raise ObjectiveError(f"{loss} has numbers as targets, and not classes; {_CURE}.")
    return _read_indices(loss, outputs, targets)


def check_labels(form: Form | None, loss: str, outputs: Any, targets: Any) -> None:
    """Check that outputs of an unknown loss are not probabilities, whose sign says nothing.

    Raises:
        ObjectiveError: When all of them are in [0, 1], and at least 8.
    """
    if form is not None or not _is_binary(outputs, targets) or outputs.numel() < _FEW_VALUES:
        return
    if bool(((outputs >= 0) & (outputs <= 1)).all()) and bool((outputs > 0).any()):
        raise ObjectiveError(
            f"all outputs are in [0, 1]: probabilities, or logits? {loss} is a function that does"
            " not tell. Use nn.BCELoss() or nn.BCEWithLogitsLoss() as loss, or pass a function as"
            " metric, such as lambda outputs, targets: 100.0 * ((outputs > 0.5) == (targets > 0.5))"
        )


def _check_tensors(loss: str, outputs: Any, targets: Any) -> None:
    if not isinstance(outputs, Tensor):
        raise ObjectiveError(
            f"the model returned a {type(outputs).__name__}, in which this metric of {loss} finds"
            f" no classes: for the logits of tokens use ls.losses.token_accuracy(), else {_CURE}."
        )
    if not isinstance(targets, Tensor):
        raise ObjectiveError(f"targets are a {type(targets).__name__}, and no tensor; {_CURE}.")


def _read_by_axis(form: Classes, outputs: Tensor, targets: Tensor) -> ByClass:
    """Read class indices, or probabilities of classes, against outputs [n, c, ...] or [c]."""
    axis = form.axis if outputs.ndim > 1 else 0
    scores = outputs.movedim(axis, -1)
    if targets.is_floating_point() and targets.shape == outputs.shape:
        return ByClass(scores, targets.movedim(axis, -1).argmax(dim=-1), None)
    mask = None if form.ignored is None else targets != form.ignored
    return ByClass(scores, targets, mask)


def _read_shares(form: Form | None, loss: str, outputs: Tensor, targets: Tensor) -> ByClass:
    """Read one-hot targets, or probabilities of classes where the loss is unknown."""
    sums = targets.sum(dim=1)
    are_shares = bool(((targets >= 0) & (targets <= 1)).all())
    are_shares = are_shares and bool(((sums - 1).abs() < 1e-3).all())
    if form is not None:
        are_shares = are_shares and bool(((targets == 0) | (targets == 1)).all())
    if targets.shape[1] < 2:
        raise ObjectiveError(f"{loss} has numbers as targets, and not classes; {_CURE}.")
    if not are_shares:
        expected = "one-hot" if form is not None else "one-hot or probabilities"
        raise ObjectiveError(
            f"{loss} has targets of the shape {tuple(targets.shape)} that are not classes"
            f" ({expected}): for several labels a sample use nn.BCEWithLogitsLoss() as loss, else"
            f" {_CURE}."
        )
    return ByClass(outputs.movedim(1, -1), targets.movedim(1, -1).argmax(dim=-1), None)


def _read_indices(loss: str, outputs: Tensor, targets: Tensor) -> ByClass:
    """Read class indices of an unknown loss, along axis 1 or the last; negatives do not count."""
    first = outputs.ndim > 1 and outputs.shape[:1] + outputs.shape[2:] == targets.shape
    last = outputs.shape[:-1] == targets.shape
    if first == last and outputs.ndim != 2:
        why = "the classes may be along axis 1 or the last" if first else "neither axis 1 nor the"
        why += "" if first else " last can be that of the classes"
        raise ObjectiveError(
            f"outputs have the shape {tuple(outputs.shape)} and targets {tuple(targets.shape)}:"
            f" {why}; {_CURE}."
        )
    scores = outputs.movedim(1, -1) if first else outputs
    if not first and not last:
        raise ObjectiveError(
            f"outputs have the shape {tuple(outputs.shape)} and targets {tuple(targets.shape)},"
            f" which are not classes; {_CURE}."
        )
    whole = not targets.is_floating_point() or bool((targets == targets.round()).all())
    if not whole or int(targets.max()) >= scores.shape[-1]:
        raise ObjectiveError(
            f"targets go up to {float(targets.max()):g}, and the outputs have {scores.shape[-1]}"
            f" classes; {loss} is a function that does not tell which targets it ignores: use"
            f" nn.CrossEntropyLoss(ignore_index=...), or {_CURE}."
        )
    return ByClass(scores, targets, targets >= 0)


def _is_binary(outputs: Any, targets: Any) -> bool:
    """Return whether there is one output for each target, or for each row, and not several."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return False
    one_each = outputs.ndim < 2 or outputs.shape[1] == 1
    return one_each and outputs.numel() == targets.numel()


def _are_signs(targets: Tensor) -> bool:
    return bool((targets.abs() == 1).all())


def _infer_labels(targets: Tensor) -> Labels:
    """Return the form of one target for each row, from the values of a batch."""
    if _are_signs(targets):
        return Labels(0.0, 0.0)
    if bool(((targets == 0) | (targets == 1) | (targets == -100)).all()):
        return Labels(0.0, 0.5)
    raise ObjectiveError(
        "targets are neither 0 and 1 nor -1 and +1, and there is one output for each, as in a"
        f" regression, which has no accuracy; {_CURE}."
    )
