"""Tasks: what a model of transformers is trained to do, and the loss that belongs to it.

The losses are those that the models compute from ``labels`` themselves, term by term: next token
(shifted by one), masked or labeled token, sequence to sequence, class of a whole sequence. What
some models add to them, such as the balance of a mixture of experts, is left out.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from landscope.errors import ObjectiveError
from landscope.objective import sequence_losses
from landscope.objective.sequence_losses import logits_of
from landscope.objective.terms import Loss, Terms

TASKS = ("causal", "masked", "seq2seq", "token_classification", "classification")
_UNSHIFTED = (  # their loss compares labels with the logits at the same place
    "BartForCausalLM",
    "BlenderbotForCausalLM",
    "BlenderbotSmallForCausalLM",
    "CpmAntForCausalLM",
    "MarianForCausalLM",
    "MvpForCausalLM",
    "PegasusForCausalLM",
    "ProphetNetForCausalLM",
    "TrOCRForCausalLM",
    "WhisperForCausalLM",
    "WithLMHeadModel",
    "XLNetLMHeadModel",
)
_NAMES = {
    **dict.fromkeys(_UNSHIFTED, "masked"),
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForTokenClassification": "token_classification",
    "ForSequenceClassification": "classification",
    "ForConditionalGeneration": "causal",  # of pictures and text; of text alone it is "seq2seq"
}


def inferred(model: nn.Module) -> str:
    """Return the task of a model, from the name of its class.

    Raises:
        ObjectiveError: when the name says nothing, and when the model has a loss of its own.
    """
    if hasattr(model, "_loss_function"):
        raise ObjectiveError(
            f"the {type(model).__name__} was given a loss_function, whose terms are not known: pass"
            f" task= for the loss of a task ({', '.join(TASKS)}), or use"
            " ls.Objective(model.eval(), ls.losses.custom(terms), batches)."
        )
    kinds = [k.__name__ for k in type(model).__mro__]
    named = [task for kind in kinds for end, task in _NAMES.items() if kind.endswith(end)]
    found = next(iter(named), None)
    if getattr(model.config, "is_encoder_decoder", False) and found in ("causal", None):
        return "seq2seq"
    if found is None:
        raise ObjectiveError(
            f"the task of a {kinds[0]} is not known: pass task= one of {', '.join(TASKS)}; for any"
            " other loss use ls.Objective(model, ls.losses.custom(terms), batches)."
        )
    return found


def check(task: str) -> str:
    """Return the task.

    Raises:
        ObjectiveError: when there is no such task.
    """
    if task not in TASKS:
        raise ObjectiveError(f"task={task!r}; expected one of {', '.join(TASKS)}.")
    return task


def loss_and_metrics(task: str, labels: Tensor, config: Any) -> tuple[Loss, dict[str, Loss]]:
    """Return the loss of a task in terms, and the metrics that are usual beside it.

    Args:
        task: one of ``TASKS``.
        labels: of any batch; in classification their kind says which loss it is.
        config: of the model: ``num_labels`` and ``problem_type``.
    """
    problem = problem_type(labels, config) if task == "classification" else ""
    if problem == "regression":
        return Loss("mean squared error", _squares, "", "landscope: regression"), {}
    if problem == "multi_label_classification":
        return Loss("binary cross-entropy", _bits, "nat", "landscope: multi-label"), {}
    shift = task == "causal"
    loss = sequence_losses.tokens(shift=shift)
    metrics = {"accuracy": sequence_losses.token_accuracy(shift=shift)}
    if task in ("causal", "masked", "seq2seq"):
        metrics["perplexity"] = sequence_losses.perplexity(loss)
    return loss, metrics


def problem_type(labels: Tensor, config: Any) -> str:
    """Return what a classifier learns, as transformers decides it."""
    given = getattr(config, "problem_type", None)
    if given:
        return str(given)
    if config.num_labels == 1:
        return "regression"
    return (
        "multi_label_classification"
        if labels.is_floating_point()
        else "single_label_classification"
    )


def _squares(outputs: Any, targets: Tensor) -> Terms:
    logits = logits_of(outputs)
    return Terms.from_values((logits - targets.to(logits).reshape(logits.shape)).square())


def _bits(outputs: Any, targets: Tensor) -> Terms:
    logits = logits_of(outputs)
    return Terms.from_values(
        F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
    )
