"""Models of Hugging Face transformers: an objective of a model, and a recorder of its training.

    objective = ls.integrations.transformers.objective(model, dataset)

The loss is that of the model, term by term, so that the mean over tokens does not depend on the
batches. It is computed by a copy of the modules in evaluation mode that shares every tensor with
the user's model. So there is no dropout and no cache, and the model keeps its mode and its
configuration.
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
from landscope.integrations.eval_copy import check_precision, make_eval_copy, unwrap_adapters
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
    """Return the objective of a model of transformers over a dataset.

    Args:
        model: A model for causal, masked or sequence-to-sequence language modeling, or for the
            classification of sequences or tokens. With adapters of PEFT, the trainable ones are
            the parameters.
        dataset: Rows (a list of dicts of lists, arrays or tensors of unequal length, or a
            ``datasets.Dataset``), a dict of columns, a list of texts (with ``tokenizer``), or
            complete batches (a DataLoader or a list). Rows are padded here, batches are used as
            they are. Without labels, causal labels are the tokens themselves.
        tokenizer: The tokenizer of texts; its padding token is used as well.
        collate: A collator of transformers. It is called for one row at a time, in order, with a
            fixed random seed, so that its random masks do not depend on the batch size.
        task: "causal", "masked", "seq2seq", "token_classification" or "classification"; None
            infers it from the model's class.
        batch_size: The number of rows per batch.
        metrics: Functions (outputs, targets) by name; None for the accuracy (of tokens), and the
            perplexity of language models.
        padding: The padding token; any token will do, because padding does not count. None takes
            that of the model's configuration or of the tokenizer, or 0.
        attention: The attention implementation ("sdpa", "eager", ...) of this objective; None for
            that of the model. Second derivatives always use the plain kernels of torch.
        device: As in ``ls.Objective``.
        precision: As in ``ls.Objective``; flash attention needs "bfloat16".
        in_place: As in ``ls.Objective``, for models that fill the memory and for offloaded models
            (``device_map``).
        test_dataset: A dataset that is evaluated in addition.
        penalty: As in ``ls.Objective``.

    Raises:
        MissingExtraError: When transformers is not installed.
        ObjectiveError: When model, task and dataset do not fit together.

    Example:
        >>> import landscope as ls
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        >>> rows = [{"input_ids": [1, 2, 3, 4]}, {"input_ids": [5, 6]}]
        >>> objective = ls.integrations.transformers.objective(GPT2LMHeadModel(sizes), rows)
        >>> objective.terms().shape  # each row has one term less than it has tokens
        torch.Size([4])
    """
    base = _unwrap_and_check(model)
    task = tasks.infer_task(base) if task is None else tasks.check_task(task)
    eval_copy = make_eval_copy(model, attention)
    check_precision(eval_copy, precision)
    token, is_known = _padding_token(base, tokenizer, padding)
    if task == "classification" and is_known:  # decoders use it to find a row's end
        unwrap_adapters(eval_copy).config.get_text_config().pad_token_id = token
    reader = Reader(
        columns=frozenset({*_forward_arguments(base), "labels"}),
        padding=token,
        masking=padding is not None or (is_known and token not in _end_tokens(base.config)),
        aligned=task not in ("seq2seq", "classification"),
        tokenizer=tokenizer,
        collate=copy.copy(collate),  # a copy, because it may hold a random state
    )
    load = functools.partial(_load_batches, model, reader=reader, task=task, size=batch_size)
    data = load(dataset)
    loss, usual = tasks.loss_and_metrics(task, data[0]["labels"], base.config)
    return Objective(
        eval_copy, loss, data,
        metrics=usual if metrics is None else metrics,
        device=device, precision=precision,
        test_data=None if test_dataset is None else load(test_dataset),
        penalty=penalty, in_place=in_place,
    )  # fmt: skip


def _unwrap_and_check(model: Any) -> Any:
    """Return the model of transformers without adapters of PEFT, if it is a model of tokens."""
    transformers = import_optional("transformers", extra="transformers")
    if not isinstance(model, nn.Module):
        raise ObjectiveError(
            f"model is a {type(model).__name__}; expected a model of transformers."
        )
    base = unwrap_adapters(model)
    if not isinstance(base, transformers.PreTrainedModel):
        raise ObjectiveError(
            f"model is a {type(model).__name__}; expected a model of transformers, or one with"
            " adapters of PEFT around it. For any other module use ls.Objective."
        )
    if "input_ids" not in _forward_arguments(base):
        raise ObjectiveError(
            f"a {type(base).__name__} takes {base.main_input_name}; expected a model of tokens"
            " (input_ids). For any other use ls.Objective(model.eval(), ls.losses.custom(terms),"
            " batches)."
        )
    return base


def _forward_arguments(base: Any) -> set[str]:
    """Return the arguments of forward, and those that it passes on to the forward of a parent."""
    inherited = (vars(c)["forward"] for c in type(base).__mro__ if "forward" in vars(c))
    names: set[str] = set()
    for forward in (base.forward, *inherited):
        parameters = inspect.signature(forward).parameters
        names |= set(parameters)
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            break
    return names


def _padding_token(base: Any, tokenizer: Any, padding: int | None) -> tuple[int, bool]:
    """Return the padding token, and whether anything defines it (otherwise it is 0)."""
    vocabulary = range(_vocabulary_size(base))
    configured = getattr(base.config.get_text_config(), "pad_token_id", None)
    candidates = (padding, configured, getattr(tokenizer, "pad_token_id", None))
    # A token can be known to the tokenizer alone.
    valid = [t for t in candidates if isinstance(t, int) and t in vocabulary]
    if padding is not None and padding not in valid:
        raise ObjectiveError(
            f"padding={padding}; the model knows the tokens 0 to {vocabulary[-1]}."
        )
    return (valid[0], True) if valid else (0, False)


def _vocabulary_size(base: Any) -> int:
    """Return how many tokens a model knows; a huge number if it has no embedding table."""
    try:
        table = base.get_input_embeddings()
    except NotImplementedError:  # CANINE accepts every character
        return sys.maxsize
    return int(getattr(getattr(table, "base_layer", table), "num_embeddings", sys.maxsize))


def _end_tokens(config: Any) -> set[int]:
    """Return the tokens that end a text; they count even if they are the padding token, too."""
    tokens = getattr(config.get_text_config(), "eos_token_id", None)
    return set(tokens if isinstance(tokens, list) else [tokens]) - {None}


def _load_batches(model: Any, dataset: Any, *, reader: Reader, task: str, size: int) -> list[Row]:
    """Return the batches of a dataset with the labels of the task."""
    base, batches = unwrap_adapters(model), reader.batches(dataset, size)
    for batch in batches:
        if "labels" not in batch:
            batch["labels"] = _labels_from_tokens(batch, task)
        if task == "seq2seq" and "decoder_input_ids" not in batch:
            batch["decoder_input_ids"] = _decoder_inputs(base, batch["labels"])
    _check_tokens(base, batches)
    _check_labels(batches, task)
    if task == "causal" and (prompt := _prompt_length(model)):
        for batch in batches:
            batch["labels"] = F.pad(batch["labels"], (prompt, 0), value=IGNORED)
    return batches


def _prompt_length(model: Any) -> int:
    """Return how many learned tokens an adapter of PEFT puts before the text; all have logits."""
    config: Any = getattr(model, "active_peft_config", None)
    if getattr(config, "peft_type", None) not in ("PROMPT_TUNING", "P_TUNING"):
        return 0
    return int(config.num_virtual_tokens)


def _labels_from_tokens(batch: Row, task: str) -> Tensor:
    """Return the tokens as labels, with the padding ignored."""
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


def _decoder_inputs(base: Any, labels: Tensor) -> Tensor:
    """Return the inputs of the decoder, by the rule of the model or the usual rule."""
    rule = getattr(base, "prepare_decoder_input_ids_from_labels", None)
    shift = functools.partial(_shift_right, base.config) if rule is None else rule
    try:
        inputs: Tensor = shift(labels=labels)
    except ValueError as error:
        raise ObjectiveError(
            f"the decoder inputs of the {type(base).__name__} cannot be derived from labels:"
            f" {error} Set it in the configuration, or add decoder_input_ids to the dataset."
        ) from error
    return inputs


def _shift_right(config: Any, labels: Tensor) -> Tensor:
    """Return the start token of an answer, followed by the answer without its last token."""
    start, padding = config.decoder_start_token_id, config.pad_token_id
    if start is None or padding is None:
        raise ValueError(f"decoder_start_token_id={start}, pad_token_id={padding}.")
    shifted = labels.roll(1, dims=1)
    shifted[:, 0] = start
    return shifted.masked_fill(shifted == IGNORED, padding)


def _check_tokens(base: Any, batches: list[Row]) -> None:
    """Raise ObjectiveError if the model has no embedding of a token."""
    tokens, vocabulary = [b["input_ids"] for b in batches], range(_vocabulary_size(base))
    extremes = min(int(t.min()) for t in tokens), max(int(t.max()) for t in tokens)
    unknown = next((token for token in extremes if token not in vocabulary), None)
    if unknown is not None:
        raise ObjectiveError(
            f"the dataset has the token {unknown}, and the model knows 0 to {vocabulary[-1]}: use"
            " the tokenizer that the model was trained with."
        )


def _check_labels(batches: list[Row], task: str) -> None:
    """Raise ObjectiveError if no label counts."""
    labels = [b["labels"][:, 1:] if task == "causal" else b["labels"] for b in batches]
    if all(bool((part == IGNORED).all()) for part in labels):
        short = "rows have one token each, or " if task == "causal" else ""
        raise ObjectiveError(f"no label of the dataset counts: {short}all are {IGNORED}.")


def __dir__() -> list[str]:
    return __all__
