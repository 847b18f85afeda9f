"""Tasks: what a model of transformers is trained to do, and the loss of each task.

The losses are those that the models themselves compute from ``labels``, term by term: next token
(shifted by one), masked or labeled token, sequence to sequence, class of a sequence. Additional
losses of some models, such as the balance of a mixture of experts, are left out.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from landscope.errors import ObjectiveError
from landscope.objective import sequence_losses
from landscope.objective.loss_terms import Loss, Terms
from landscope.objective.sequence_losses import logits_of

TASKS = ("causal", "masked", "seq2seq", "token_classification", "classification")
_UNSHIFTED = (  # their loss compares labels with the logits at the same position
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
_TASKS_OF_SUFFIXES = {
    **dict.fromkeys(_UNSHIFTED, "masked"),
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForTokenClassification": "token_classification",
    "ForSequenceClassification": "classification",
    "ForConditionalGeneration": "causal",  # of images and text; models of text alone are "seq2seq"
}


def infer_task(model: nn.Module) -> str:
    """Return the task of a model, inferred from the name of its class.

    Raises:
        ObjectiveError: When the name does not determine the task, or the model has a custom loss.
    """
    if hasattr(model, "_loss_function"):
        raise ObjectiveError(
            f"the {type(model).__name__} was given a loss_function, whose terms are unknown: pass"
            f" task= for the loss of a task ({', '.join(TASKS)}), or use"
            " ls.Objective(model.eval(), ls.losses.custom(terms), batches)."
        )
    names = [base.__name__ for base in type(model).__mro__]
    tasks = (
        task
        for name in names
        for suffix, task in _TASKS_OF_SUFFIXES.items()
        if name.endswith(suffix)
    )
    task = next(tasks, None)
    if getattr(model.config, "is_encoder_decoder", False) and task in ("causal", None):
        return "seq2seq"
    if task is None:
        raise ObjectiveError(
            f"the task of a {names[0]} is unknown: pass task= one of {', '.join(TASKS)}; for any"
            " other loss use ls.Objective(model, ls.losses.custom(terms), batches)."
        )
    return task


def check_task(task: str) -> str:
    """Return the task.

    Raises:
        ObjectiveError: When it is not one of ``TASKS``.
    """
    if task not in TASKS:
        raise ObjectiveError(f"task={task!r}; expected one of {', '.join(TASKS)}.")
    return task


def loss_and_metrics(task: str, labels: Tensor, config: Any) -> tuple[Loss, dict[str, Loss]]:
    """Return the loss of a task, and its usual metrics by name.

    Args:
        task: One of ``TASKS``.
        labels: The labels of any batch; their dtype can decide the loss of a classification.
        config: The configuration of the model, with ``num_labels`` and ``problem_type``.
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
    """Return the problem type of a classifier, by the rule of transformers."""
    configured = getattr(config, "problem_type", None)
    if configured:
        return str(configured)
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
