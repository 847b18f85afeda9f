"""Errors of a model or a loss on a batch: what failed, on which batch, and the likely cure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from landscope.errors import CallError, LandscopeError
from landscope.objective.calls import describe_arguments
from landscope.objective.memory import is_out_of_memory
from landscope.objective.nested_batches import iter_tensors
from landscope.objective.rows import shape_of

_SHOWN = 6  # tensors of a batch in a sentence


@contextlib.contextmanager
def explain_errors(model: nn.Module, action: str, place: str, batch: Any) -> Iterator[None]:
    """Turn errors of torch and of the user into those of :func:`explain`.

    Errors of landscope, and those that say that memory ran out, stay as they are.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, LandscopeError) or is_out_of_memory(error):
            raise
        raise explain(error, model, action, place, batch) from error


def explain(error: Exception, model: nn.Module, action: str, place: str, batch: Any) -> CallError:
    """Return an error that names the model, the batch and its shapes.

    Args:
        error: What torch or the user's code raised.
        model: The model.
        action: What was done, e.g. "with 'CrossEntropy' failed".
        place: Which batch it was, e.g. "the first batch".
        batch: The batch.
    """
    return CallError(
        f"{type(model).__name__} {action} on {place} ({describe(batch)}):"
        f" {_describe_error(error)}{_find_cure(error, model, batch)}"
    )


def describe(batch: Any) -> str:
    """Return dtypes and shapes of the tensors in a batch, such as ``float32[4, 6], int64[4]``."""
    shapes = [f"{str(t.dtype)[6:]}{list(shape_of(t))}" for t in iter_tensors(batch)]
    return ", ".join([*shapes[:_SHOWN], *(["..."] if len(shapes) > _SHOWN else [])]) or "no tensors"


def _describe_error(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    if isinstance(error, KeyError | AssertionError | StopIteration) or not text:
        return f"{type(error).__name__}({text})"
    return text


def _find_cure(error: Exception, model: nn.Module, batch: Any) -> str:
    """Return what to do about an error, as the end of a sentence and perhaps a further one."""
    text = str(error)
    if "Expected more than 1 value per channel when training" in text:
        return (
            ". A batch norm in training mode cannot normalize a single row: call model.eval(), or"
            " leave the last batch out with drop_last=True."
        )
    if isinstance(error, TypeError) and ("argument" in text or "forward()" in text):
        return _name_arguments(model, batch)
    if isinstance(error, IndexError):
        return (
            " (a token or a position without an embedding?). Check that model, loss and data belong"
            " together."
        )
    if "does not require grad" in text or "does not have a grad_fn" in text:
        return (
            ", although gradients were enabled: .detach(), .item(), torch.no_grad() or an integer"
            " input cuts off what the loss differentiates."
        )
    if "Inference tensors" in text:
        return (
            ". The model was made under torch.inference_mode(), and such parameters have no"
            " gradients: pass copy.deepcopy(model), made outside of it."
        )
    return ". Check that model, loss and data belong together."


def _name_arguments(model: nn.Module, batch: Any) -> str:
    names = describe_arguments(model)
    keys = f", and the batch has the keys {', '.join(map(str, batch))}" if _is_named(batch) else ""
    return (
        f". {type(model).__name__} takes ({names}){keys}: give a batch as a dict with these"
        " names and 'labels' for the targets, or wrap a function (model, batch) -> Tensor[n] with"
        " ls.losses.custom."
    )


def _is_named(batch: Any) -> bool:
    return isinstance(batch, Mapping)
