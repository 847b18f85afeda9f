"""Losses and metrics of sequence models, token by token: padding and ignored tokens do not count.

They take logits [..., c] and targets [...]: [b, t, c] and [b, t] for language models and taggers,
[b, c] and [b] for classifiers of whole sequences. The outputs of a model may also be a mapping with
"logits" (``ModelOutput`` of Hugging Face), or a tuple that begins with them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from landscope.errors import ObjectiveError
from landscope.objective.loss_terms import Loss, Terms, has_few_classes
from landscope.objective.target_forms import Tokens

_IGNORED = -100  # what torch's cross-entropy, and all of Hugging Face, ignores
_MAX_LOGITS = 2**22  # evaluated at once; their exponentials may be the largest tensor


def tokens(
    *,
    shift: bool = False,
    ignore_index: int = _IGNORED,
    padding: int | None = None,
    label_smoothing: float = 0.0,
) -> Loss:
    """Return the cross-entropy of each token, whose mean is over the tokens that count.

    Next-token prediction, masked tokens, sequence to sequence, tagging and classification of whole
    sequences differ only in their targets:

        targets are the tokens to predict, position by position   ``tokens()``
        targets are the inputs (Hugging Face's causal models)     ``tokens(shift=True)``

    Args:
        shift: Whether the logits at position t are compared with the target at t + 1.
        ignore_index: The value of targets that do not count.
        padding: The padding token, whose targets do not count either; None where padding has the
            value ``ignore_index``.
        label_smoothing: The label smoothing of ``torch.nn.CrossEntropyLoss``, in [0, 1).

    Returns:
        A loss in nats per token.

    Raises:
        ObjectiveError: When the smoothing is out of range or a token is not a whole number. The
            loss raises it for logits and targets whose shapes do not match.

    Cost: No copy of the logits unless a gradient is computed.

    Example:
        >>> import torch, landscope as ls
        >>> model = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9))
        >>> text = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])  # 0 is padding
        >>> loss = ls.losses.tokens(shift=True, padding=0)
        >>> ls.Objective(model, loss, (text, text)).terms().shape
        torch.Size([4])
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ObjectiveError(f"label_smoothing={label_smoothing}; expected 0 to less than 1.")
    ignored = _list_ignored(ignore_index, padding)
    name = f"cross-entropy of {'next tokens' if shift else 'tokens'}"
    function = functools.partial(_token_terms, shift, ignored, label_smoothing)
    form = Tokens(ignored, shift)
    return Loss(name, function, "nat", f"tokens {shift} {ignored} {label_smoothing}", form=form)


def token_accuracy(
    *, shift: bool = False, ignore_index: int = _IGNORED, padding: int | None = None
) -> Loss:
    """Return the share of correct tokens among those that count, in percent.

    Without arguments, as a metric of an objective with the loss ``tokens(...)``, it takes those of
    the loss.

    Args:
        shift: Whether the logits at position t are compared with the target at t + 1.
        ignore_index: The value of targets that do not count.
        padding: The padding token, whose targets do not count either; None where padding has the
            value ``ignore_index``.
    """
    form = Tokens(_list_ignored(ignore_index, padding), shift)
    metric = _token_accuracy(form)
    return replace(metric, fit=_fit_tokens) if form == Tokens((_IGNORED,)) else metric


def _token_accuracy(form: Tokens) -> Loss:
    function = functools.partial(_hits, form.shift, form.ignored)
    return Loss("accuracy", function, "%", f"token_accuracy {form.shift} {form.ignored}")


def _fit_tokens(loss: Any) -> Loss:
    """Return the accuracy of the tokens that a loss counts; all but -100 for another loss."""
    form = getattr(loss, "form", None)
    return _token_accuracy(form if isinstance(form, Tokens) else Tokens((_IGNORED,)))


def perplexity(loss: Loss) -> Loss:
    """Return the perplexity of a loss, as a metric: exp(mean of the loss over its terms).

    Args:
        loss: A loss in nats, such as ``tokens()``.

    Raises:
        ObjectiveError: When it is not a loss of landscope, or is in other units.

    Cost: None when the objective has the same loss.

    Source: Jelinek, Mercer, Bahl, Baker, *Perplexity: a measure of the difficulty of speech
    recognition tasks*, 1977.
    """
    if not isinstance(loss, Loss):
        raise ObjectiveError(
            f"loss={loss!r} is a {type(loss).__name__}; expected a loss such as ls.losses.tokens()."
        )
    if loss.units and loss.units.split()[0] != "nat":
        raise ObjectiveError(
            f"loss={loss.name!r} has the unit {loss.units!r}; expected a loss in nats, such as"
            " ls.losses.tokens()."
        )
    return Loss("perplexity", loss.function, "1", f"exp of {loss.identity}", reduction="exp")


def _list_ignored(ignore_index: int, padding: int | None) -> tuple[int, ...]:
    """Return the targets that do not count."""
    values = (ignore_index,) if padding is None else (ignore_index, padding)
    if not all(isinstance(value, Integral) for value in values):
        raise ObjectiveError(
            f"ignore_index={ignore_index!r}, padding={padding!r}; expected whole numbers."
        )
    return values


def _token_terms(
    shift: bool, ignored: tuple[int, ...], smoothing: float, outputs: Any, targets: Any
) -> Terms:
    logits, targets, mask = align(shift, ignored, outputs, targets)
    single = functools.partial(
        F.cross_entropy, reduction="none", ignore_index=_IGNORED, label_smoothing=smoothing
    )
    flat, classes = logits.reshape(-1, logits.shape[-1]), targets.masked_fill(~mask, _IGNORED)
    return Terms.from_mask(_evaluate_in_parts(single, flat, classes.reshape(-1)), mask.reshape(-1))


def _evaluate_in_parts(single: Any, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each row of logits [n, c], with little further memory."""
    if has_few_classes(logits, targets):
        values: Tensor = single(logits.t().contiguous()[None], targets[None])[0]
        return values
    rows = max(_MAX_LOGITS // logits.shape[1], 1)
    if logits.requires_grad or len(logits) <= rows:  # the backward pass needs all of it
        return single(logits, targets)  # type: ignore[no-any-return] # a partial of cross_entropy
    pairs = zip(logits.split(rows), targets.split(rows), strict=True)
    return torch.cat([single(*pair) for pair in pairs])


def _hits(shift: bool, ignored: tuple[int, ...], outputs: Any, targets: Any) -> Terms:
    logits, targets, mask = align(shift, ignored, outputs, targets)
    return Terms.from_mask(100.0 * (logits.argmax(dim=-1) == targets).float(), mask)


def align(
    shift: bool, ignored: tuple[int, ...], outputs: Any, targets: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, the target at each position, and a mask of the targets that count.

    Args:
        shift: Whether the logits at position t are compared with the target at t + 1.
        ignored: The values of targets that do not count.
        outputs: The outputs of the model.
        targets: The targets.

    Raises:
        ObjectiveError: When shapes do not match, or targets are not whole numbers.
    """
    logits = logits_of(outputs)
    if not isinstance(targets, Tensor) or targets.shape != logits.shape[:-1]:
        given = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise ObjectiveError(
            f"logits have the shape {tuple(logits.shape)} and targets are {given}; expected targets"
            " [b, t] for logits [b, t, c]. Logits [b, c, t] are for nn.CrossEntropyLoss()."
        )
    if targets.is_floating_point():
        raise ObjectiveError(f"targets are {targets.dtype}; expected tokens: whole numbers.")
    targets = targets.long()  # uint8 cannot hold -100, and cross-entropy expects int64
    if shift:  # the targets are shifted, because a slice of the logits would be a copy of them
        last = targets.new_full((*targets.shape[:-1], 1), ignored[0])
        targets = torch.cat([targets[..., 1:], last], dim=-1)
    mask = torch.stack([targets != value for value in ignored]).all(dim=0)
    return logits, targets, mask


def logits_of(outputs: Any) -> Tensor:
    """Return the logits in the outputs of a model.

    Raises:
        ObjectiveError: When there are no logits.
    """
    logits = outputs
    if isinstance(outputs, Mapping):
        logits = outputs.get("logits")
    elif isinstance(outputs, tuple | list) and outputs:
        logits = outputs[0]
    if not isinstance(logits, Tensor) or logits.ndim < 1:
        keys = f" with {list(outputs)}" if isinstance(outputs, Mapping) else ""
        raise ObjectiveError(
            f"the model returned a {type(outputs).__name__}{keys}; expected logits [b, t, c], a"
            " mapping with 'logits', or a tuple that begins with them."
        )
    return logits
