"""Models of Hugging Face transformers: an objective of any of them, and a recorder of its training.

    objective = ls.integrations.transformers.objective(model, dataset)

The loss is the model's own, term by term, so that its mean is over tokens whatever the batches.
It is computed by a second body around the user's parameters: a copy of the modules, in evaluation
mode, that shares every tensor with the model. So dropout is off, nothing is cached, and the model
itself keeps its mode and its configuration.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscope.errors import ObjectiveError
from landscope.extras import import_optional
from landscope.integrations import tasks
from landscope.integrations.eval_copy import bare, body_of, check_precision
from landscope.integrations.padding import IGNORED, Reader, Row
from landscope.integrations.trainer_callback import callback
from landscope.objective.objective import Objective
from landscope.params import Params

__all__ = ["callback", "objective"]


def objective(
    model: nn.Module,
    dataset: Any,
    *,
    tokenizer: Any = None,
    collate: Callable[[list[Any]], Any] | None = None,
    task: str | None = None,
    batch_size: int = 8,
    metrics: Mapping[str, Any] | None = None,
    padding: int | None = None,
    attention: str | None = None,
    device: str | torch.device = "auto",
    precision: str = "float32",
    in_place: bool = False,
    test_dataset: Any = None,
    penalty: Callable[[Params], Tensor] | None = None,
) -> Objective:
    """Return the objective of a model of transformers over a tokenized dataset.

    Args:
        model: for causal, masked or sequence-to-sequence language modeling, or for the classes of
            sequences or tokens; with adapters of PEFT, the trainable ones are what moves.
        dataset: rows (a list of dicts of lists, arrays or tensors of unequal length, a
            ``datasets.Dataset``), a dict of columns, a list of texts (with ``tokenizer``), or
            ready batches (a DataLoader or a list). Rows are padded by us; ready batches are used
            as they are. Causal labels are the tokens themselves where there are none.
        tokenizer: tokenizes texts, and knows the padding token.
        collate: a collator of transformers. It is called for one row at a time, in order, with a
            fixed random seed: masks that it draws are drawn once, and do not depend on batches.
        task: one of ``ls.integrations.tasks.TASKS``; None infers it from the model's class.
        batch_size: rows a batch.
        metrics: name -> function (outputs, targets); None: the accuracy (of tokens), and the
            perplexity of language models.
        padding: the token that fills rows up, which may be any: padding does not count. None takes
            that of the model's configuration, of the tokenizer, or 0.
        attention: an implementation ("sdpa", "eager", ...) for this objective alone; None leaves
            the model's. Second derivatives need no choice: they take torch's plain kernels.
        device: as in ``ls.Objective``.
        precision: as in ``ls.Objective``; "bfloat16" is what flash attention needs.
        in_place: as in ``ls.Objective``: for models that fill the memory, and for offloaded ones
            (``device_map``).
        test_dataset: evaluated beside ``dataset``.
        penalty: as in ``ls.Objective``.

    Raises:
        MissingExtraError: when transformers is not installed.
        ObjectiveError: when model, task and dataset do not go together.

    Example:
        >>> import landscope as ls
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        >>> rows = [{"input_ids": [1, 2, 3, 4]}, {"input_ids": [5, 6]}]
        >>> objective = ls.integrations.transformers.objective(GPT2LMHeadModel(sizes), rows)
        >>> objective.terms().shape  # each row has one term less than it has tokens
        torch.Size([4])
    """
    base = _checked(model)
    task = tasks.inferred(base) if task is None else tasks.check(task)
    body = body_of(model, attention)
    check_precision(body, precision)
    token, known = _padding(base, tokenizer, padding)
    if task == "classification" and known:  # by which a decoder finds the last token of a row
        bare(body).config.get_text_config().pad_token_id = token
    reader = Reader(
        columns=frozenset({*_inputs(base), "labels"}),
        padding=token,
        masking=padding is not None or (known and token not in _ends(base.config)),
        aligned=task not in ("seq2seq", "classification"),
        tokenizer=tokenizer,
        collate=copy.copy(collate),  # where random states of its own begin anew
    )
    data = _batches(model, dataset, reader, task, batch_size)
    tests = (
        None if test_dataset is None else _batches(model, test_dataset, reader, task, batch_size)
    )
    loss, usual = tasks.loss_and_metrics(task, data[0]["labels"], base.config)
    return Objective(
        body,
        loss,
        data,
        metrics=usual if metrics is None else metrics,
        device=device,
        precision=precision,
        test_data=tests,
        penalty=penalty,
        in_place=in_place,
    )


def _checked(model: Any) -> Any:
    """Return the model of transformers, which may wear adapters of PEFT."""
    transformers = import_optional("transformers", extra="transformers")
    if not isinstance(model, nn.Module):
        raise ObjectiveError(
            f"model is a {type(model).__name__}; expected a model of transformers."
        )
    base = bare(model)
    if not isinstance(base, transformers.PreTrainedModel):
        raise ObjectiveError(
            f"model is a {type(model).__name__}; expected a model of transformers, or one with"
            " adapters of PEFT around it. For any other module use ls.Objective."
        )
    if "input_ids" not in _inputs(base):
        raise ObjectiveError(
            f"a {type(base).__name__} takes {base.main_input_name}; expected a model of tokens"
            " (input_ids). For any other use ls.Objective(model.eval(), ls.losses.custom(terms),"
            " batches)."
        )
    return base


def _inputs(base: Any) -> set[str]:
    """Return what forward takes; where it passes things on, also what that of a parent takes."""
    own = (vars(kind)["forward"] for kind in type(base).__mro__ if "forward" in vars(kind))
    found: set[str] = set()
    for forward in (base.forward, *own):
        parameters = inspect.signature(forward).parameters
        found |= set(parameters)
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            break
    return found


def _padding(base: Any, tokenizer: Any, padding: int | None) -> tuple[int, bool]:
    """Return the padding token, and whether anybody said that it is this one."""
    known = range(_vocabulary(base))
    own = getattr(base.config.get_text_config(), "pad_token_id", None)
    told = (padding, own, getattr(tokenizer, "pad_token_id", None))
    fit = [t for t in told if isinstance(t, int) and t in known]  # one may be the tokenizer's alone
    if padding is not None and padding not in fit:
        raise ObjectiveError(f"padding={padding}; the model knows the tokens 0 to {known[-1]}.")
    return (fit[0], True) if fit else (0, False)


def _vocabulary(base: Any) -> int:
    """Return how many tokens a model knows: any number where it has no table of them."""
    try:
        table = base.get_input_embeddings()
    except NotImplementedError:  # CANINE takes every character there is
        return sys.maxsize
    return int(getattr(getattr(table, "base_layer", table), "num_embeddings", sys.maxsize))


def _ends(config: Any) -> set[int]:
    """Return the tokens that end a text: real ones, also where they serve as padding."""
    found = getattr(config.get_text_config(), "eos_token_id", None)
    return set(found if isinstance(found, list) else [found]) - {None}


def _batches(model: Any, dataset: Any, reader: Reader, task: str, size: int) -> list[Row]:
    """Return the batches of a dataset with the labels of the task."""
    base, found = bare(model), reader.batches(dataset, size)
    for batch in found:
        if "labels" not in batch:
            batch["labels"] = _own_labels(batch, task)
        if task == "seq2seq" and "decoder_input_ids" not in batch:
            batch["decoder_input_ids"] = _shifted(base, batch["labels"])
    _check_tokens(base, found)
    _check_labels(found, task)
    if task == "causal" and (prompt := _prompt(model)):
        for batch in found:
            batch["labels"] = F.pad(batch["labels"], (prompt, 0), value=IGNORED)
    return found


def _prompt(model: Any) -> int:
    """Return how many learned tokens an adapter of PEFT puts before the text, with logits each."""
    config: Any = getattr(model, "active_peft_config", None)
    if getattr(config, "peft_type", None) not in ("PROMPT_TUNING", "P_TUNING"):
        return 0
    return int(config.num_virtual_tokens)


def _own_labels(batch: Row, task: str) -> Tensor:
    """Return the tokens themselves as labels, without padding."""
    if task != "causal":
        hint = {
            "masked": ": pass collate=transformers.DataCollatorForLanguageModeling(tokenizer),"
            " which masks tokens",
            "seq2seq": ": labels are the tokens of the answers",
        }
        raise ObjectiveError(
            f"the dataset has no labels, and the task is {task!r}{hint.get(task, '')}."
        )
    tokens = batch["input_ids"]
    mask = batch.get("attention_mask")
    if mask is None or mask.shape != tokens.shape:
        return tokens
    return tokens.masked_fill(mask == 0, IGNORED)


def _shifted(base: Any, labels: Tensor) -> Tensor:
    """Return what the decoder is given, by the model's own rule or the one that others share."""
    rule = getattr(base, "prepare_decoder_input_ids_from_labels", None)
    shift = functools.partial(_shifted_right, base.config) if rule is None else rule
    try:
        found: Tensor = shift(labels=labels)
    except ValueError as error:
        raise ObjectiveError(
            f"what the decoder of the {type(base).__name__} is given does not follow from labels:"
            f" {error} Set it in the configuration, or add decoder_input_ids to the dataset."
        ) from error
    return found


def _shifted_right(config: Any, labels: Tensor) -> Tensor:
    """Return the token that starts an answer, and all of the answer but its last token."""
    start, padding = config.decoder_start_token_id, config.pad_token_id
    if start is None or padding is None:
        raise ValueError(f"decoder_start_token_id={start}, pad_token_id={padding}.")
    shifted = labels.roll(1, dims=1)
    shifted[:, 0] = start
    return shifted.masked_fill(shifted == IGNORED, padding)


def _check_tokens(base: Any, batches: list[Row]) -> None:
    """Raise a sentence for tokens that the model has no embedding of."""
    tokens, known = [b["input_ids"] for b in batches], range(_vocabulary(base))
    ends = min(int(t.min()) for t in tokens), max(int(t.max()) for t in tokens)
    odd = next((token for token in ends if token not in known), None)
    if odd is not None:
        raise ObjectiveError(
            f"the dataset has the token {odd}, and the model knows 0 to {known[-1]}: use the"
            " tokenizer that the model was trained with."
        )


def _check_labels(batches: list[Row], task: str) -> None:
    """Raise a sentence when no label counts."""
    labels = [b["labels"][:, 1:] if task == "causal" else b["labels"] for b in batches]
    if all(bool((part == IGNORED).all()) for part in labels):
        short = "rows have one token each, or " if task == "causal" else ""
        raise ObjectiveError(f"no label of the dataset counts: {short}all are {IGNORED}.")


def __dir__() -> list[str]:
    return __all__
