"""Losses that a user passes, as functions that return terms: :func:`as_loss` and :func:`custom`.

Losses of torch are in :mod:`landscope.objective.loss_modules`, those of sequence models in
:mod:`landscope.objective.sequence_losses`; this module has the functions of the user.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from landscope import fingerprint
from landscope.errors import ObjectiveError
from landscope.objective import nested_batches
from landscope.objective.loss_modules import make_module_loss
from landscope.objective.loss_terms import Loss, Terms

_LONG = 60  # characters of a value in an error


@final
@dataclass(eq=False)
class Custom:
    """A user's function (model, batch) -> terms; see :func:`custom`.

    Attributes:
        per_batch: Whether the function has returned one number for a batch; known after a call.
    """

    function: Callable[[nn.Module, Any], Any]
    name: str
    units: str
    identity: str
    per_batch: bool = field(default=False, repr=False)

    notes = ()

    def __call__(self, model: nn.Module, batch: Any) -> Terms:
        """Return the terms of a batch, which has the structure that it has in the user's data."""
        terms = self._to_terms(self.function(model, batch), batch)
        self.per_batch = self.per_batch or terms.joint
        return terms

    def _to_terms(self, value: Any, batch: Any) -> Terms:
        if isinstance(value, tuple) and len(value) == 2 and not hasattr(value, "_fields"):
            return self._weigh(*(to_tensor(v, f"loss {self.name!r}") for v in value))
        tensor = to_tensor(value, f"loss {self.name!r}")
        if tensor.ndim:
            return Terms.from_values(tensor)
        rows = count_batch(batch)
        if rows is None:
            raise ObjectiveError(
                f"loss {self.name!r} returned a single number for a batch whose rows cannot be"
                " counted: return the pair (loss, number of samples), whose second entry is the"
                " weight of the batch in the mean, or one value for each sample."
            )
        return Terms.from_mean(tensor, rows)

    def _weigh(self, values: Tensor, weights: Tensor) -> Terms:
        """Return terms from values and weights, which have one shape, or can be expanded to it."""
        try:
            weights = weights.to(values).expand(values.shape)
        except RuntimeError as error:
            raise ObjectiveError(
                f"loss {self.name!r} returned a pair of tensors of the shapes"
                f" {tuple(values.shape)} and {tuple(weights.shape)}; expected the loss alone, or"
                " (values, weights) of the same shape. Of (loss, logits) or (logits, loss) return"
                " the loss."
            ) from error
        joint = values.ndim == 0
        return Terms((values * weights).reshape(-1), weights.reshape(-1), joint=joint)


def custom(
    terms: Callable[[nn.Module, Any], Any], *, name: str | None = None, units: str = ""
) -> Custom:
    """Return a loss made from a function of the model and a batch.

    Args:
        terms: The function ``terms(model, batch)``, which returns one of:

            - a Tensor of any shape with one value for each term;
            - a pair (values, weights) of such tensors when terms have weights (0 ignores a term);
            - one number, the mean over the samples of the batch, which is weighted by their number,
              or the pair (number, weight); a mapping with the key "loss" counts as that loss.

            ``batch`` is an entry of the data, on the device of the objective.
        name: The name of the loss in results and errors; the function's name if None.
        units: The unit of the loss.

    Raises:
        ObjectiveError: When ``terms`` is not callable; on evaluation, when it returns anything
            else, such as a dict of several losses.

    Cost: For a function that returns one number, two further passes over the first batch, in
    halves: a note says when the number is not the mean over the samples.

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
        ObjectiveError: When the loss is not callable, or is made for a model and a batch.
    """
    if isinstance(loss, Loss):
        return loss if name is None else replace(loss, name=name)
    if isinstance(loss, type) and issubclass(loss, nn.Module):
        raise ObjectiveError(f"loss={loss.__name__} is a class; expected {loss.__name__}().")
    if not callable(loss):
        raise ObjectiveError(
            f"loss={_abbreviate(loss)} is a {type(loss).__name__}; expected a torch loss such as"
            " nn.CrossEntropyLoss(), a function (outputs, targets), or ls.losses.custom(terms)."
        )
    _check_arguments(loss, name)
    identity = fingerprint.of_function(loss)
    converted = make_module_loss(loss, name, identity)
    if converted is None:
        title = name or str(getattr(loss, "__name__", type(loss).__name__))
        function = functools.partial(_free_terms, loss, title)
        converted = Loss(title, function, "", identity, per_batch=True)
    return replace(converted, notes=(*converted.notes, *_note_parameters(loss)))


def _abbreviate(value: Any) -> str:
    """Return the representation of a value in one line."""
    text = " ".join(repr(value).split())
    return text if len(text) < _LONG else f"{text[:_LONG]}..."


def _note_parameters(loss: Any) -> list[str]:
    """Return a note when a loss has trainable parameters, which are not those of the model."""
    if not isinstance(loss, nn.Module) or not any(p.requires_grad for p in loss.parameters()):
        return []
    return [
        f"{type(loss).__name__} has trainable parameters, which stay as they are: to move them,"
        " make them a part of the model"
    ]


def _check_arguments(loss: Any, name: str | None) -> None:
    """Check that a function is not one of a model and a batch."""
    if isinstance(loss, Custom):
        raise ObjectiveError(
            f"metrics[{name!r}] is made by ls.losses.custom, from a function (model, batch);"
            " expected a function (outputs, targets)."
        )
    if getattr(loss, "__name__", "") in ("training_step", "validation_step", "test_step"):
        raise ObjectiveError(
            f"{loss.__name__} of a LightningModule takes a batch, and not (outputs, targets): pass"
            f" ls.losses.custom(lambda model, batch: model.{loss.__name__}(batch, 0)), with the"
            " module as model."
        )


def depends_on_batches(loss: Any) -> bool:
    """Return whether a loss or metric may depend on how the data are batched."""
    return isinstance(loss, Loss | Custom) and loss.per_batch


def _free_terms(function: Callable[..., Any], name: str, outputs: Any, targets: Any) -> Terms:
    """Return the terms of any function: its values, or its mean as one term of weight n samples."""
    value = to_tensor(function(outputs, targets), f"loss {name!r}")
    if value.ndim:
        return Terms.from_values(value)
    return Terms.from_mean(value, count_samples(outputs))


def to_tensor(value: Any, source: str) -> Tensor:
    """Return the value of a loss or a metric as a real floating-point tensor.

    Args:
        value: A number, a tensor, an array, or a mapping with such a value as "loss".
        source: What returned it, for errors, such as "loss 'mine'".

    Raises:
        ObjectiveError: When it is none of these.
    """
    if isinstance(value, Mapping) and value.get("loss") is not None:
        value = value["loss"]
    if isinstance(value, np.ndarray | np.generic):
        value = torch.as_tensor(value)
    if isinstance(value, int | float):
        value = torch.tensor(float(value), dtype=torch.float64)
    if not isinstance(value, Tensor) or value.is_complex():
        raise ObjectiveError(
            f"{source} returned {_describe(value)}; expected a number, or a Tensor with one value"
            f" for each sample: {_cure(value)}."
        )
    return value if value.is_floating_point() else value.to(torch.float32)


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _cure(value: Any) -> str:
    """Return what to do with a value that is no loss."""
    if isinstance(value, Mapping):
        return "return the sum of its losses, such as sum(losses.values()), or one of them"
    if isinstance(value, tuple | list):
        return "return the loss alone, such as model(*batch)[1] of (logits, loss)"
    if value is None:
        return "the function ends without a return, or the model got no labels"
    return "return the loss itself"


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


def count_batch(batch: Any) -> int | None:
    """Return the number of samples in a batch; None where it is unknown.

    It is the length of a list of mappings, one for each sample (the targets of a detector), or the
    length that all tensors share.
    """
    entries = list(batch.values()) if isinstance(batch, Mapping) else batch
    if isinstance(entries, tuple | list):
        for entry in (entries, *entries):
            if isinstance(entry, tuple | list) and entry and isinstance(entry[0], Mapping):
                return len(entry)
    return nested_batches.count_rows(batch)
