"""Small models of each kind, from their configurations, and rows of tokens for them.

The witnesses here take no part of ours: ``model(**batch).loss`` is what transformers computes, on
a batch that a plain loop padded, or row by row without any padding.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

VOCABULARY, CLASSES, IGNORED = 30, 3, -100
LENGTHS = (9, 4, 7, 2, 9, 5, 3, 8, 6, 5, 9)  # of eleven rows: batches of 7 are uneven
Row = dict[str, Any]
Model = Any  # the types of transformers know neither its modules nor its configurations


@dataclass(frozen=True)
class Case:
    """A model and rows that it can be trained on.

    Args:
        make: Makes the model, in training mode, with new weights.
        rows: dicts of lists, without padding.
        count: terms of the loss of all rows.
        shift: whether labels are compared with the logits before them.
    """

    make: Callable[[], Model]
    rows: list[Row]
    count: int
    shift: bool = False


def _tokens(seed: int, lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def _made(kind: Any, config: Any) -> Model:
    set_seed(0)
    model = kind(config)
    with torch.no_grad():  # the first weights are so small that all losses are log(classes)
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.train()


_gpt2: Any = functools.partial(
    GPT2Config, vocab_size=VOCABULARY, n_positions=16, n_embd=16, n_layer=2, n_head=2
)
_bert: Any = functools.partial(
    BertConfig,
    vocab_size=VOCABULARY,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
)


def gpt2(**changes: Any) -> Model:
    return _made(GPT2LMHeadModel, _gpt2(bos_token_id=1, eos_token_id=1, **changes))


def gpt2_classes() -> Model:
    return _made(GPT2ForSequenceClassification, _gpt2(pad_token_id=0, num_labels=CLASSES))


def llama() -> Model:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
    )
    return _made(LlamaForCausalLM, config)


def bert() -> Model:
    return _made(BertForMaskedLM, _bert())


def bert_classes(**changes: Any) -> Model:
    return _made(BertForSequenceClassification, _bert(**{"num_labels": CLASSES, **changes}))


def bert_tags() -> Model:
    return _made(BertForTokenClassification, _bert(num_labels=CLASSES))


def t5() -> Model:
    config = T5Config(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    config.decoder_start_token_id = 0
    return _made(T5ForConditionalGeneration, config)


def _masked(rows: list[list[int]]) -> list[Row]:
    """Return rows in which every third token is hidden and is the label."""
    masked_rows = []
    for row in rows:
        hidden = [k % 3 == 0 for k in range(len(row))]
        shown = [2 if h else t for t, h in zip(row, hidden, strict=True)]
        labels = [t if h else IGNORED for t, h in zip(row, hidden, strict=True)]
        masked_rows.append({"input_ids": shown, "labels": labels})
    return masked_rows


_ROWS = _tokens(0)
_ANSWERS = _tokens(1, LENGTHS[::-1])
TEXT: list[Row] = [{"input_ids": row} for row in _ROWS]
CLASSIFIED = [{"input_ids": row, "label": k % CLASSES} for k, row in enumerate(_ROWS)]
TAGGED = [{"input_ids": row, "labels": [t % CLASSES for t in row]} for row in _ROWS]
PAIRS = [{"input_ids": q, "labels": a} for q, a in zip(_ROWS, _ANSWERS, strict=True)]

CASES = {
    "gpt2": Case(gpt2, TEXT, sum(LENGTHS) - len(LENGTHS), shift=True),
    "llama": Case(llama, TEXT, sum(LENGTHS) - len(LENGTHS), shift=True),
    "bert": Case(bert, _masked(_ROWS), sum(-(-n // 3) for n in LENGTHS)),
    "bert tags": Case(bert_tags, TAGGED, sum(LENGTHS)),
    "bert classes": Case(bert_classes, CLASSIFIED, len(LENGTHS)),
    "gpt2 classes": Case(gpt2_classes, CLASSIFIED, len(LENGTHS)),
    "t5": Case(t5, PAIRS, sum(LENGTHS)),
}


def padded(rows: list[Row], *, side: str = "right", token: int = 0) -> dict[str, torch.Tensor]:
    """One batch of all rows, padded by a plain loop: the witness for what we pad ourselves."""
    fills = {"input_ids": token, "labels": IGNORED, "attention_mask": 0}
    rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    batch = {}
    for name in rows[0]:
        columns = [row[name] for row in rows]
        if isinstance(columns[0], list):
            longest = max(map(len, columns))
            gaps = [[fills[name]] * (longest - len(c)) for c in columns]
            pairs = zip(columns, gaps, strict=True)
            columns = [c + g if side == "right" else g + c for c, g in pairs]
        batch["labels" if name == "label" else name] = torch.tensor(columns)
    if "labels" not in batch:
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    return batch


def own_loss(model: Model, batch: dict[str, Any]) -> float:
    """What the model computes itself, in evaluation mode."""
    still = copy.deepcopy(model).eval()
    with torch.no_grad():
        return float(still(**batch).loss)


def row_by_row(model: Model, rows: list[Row], *, shift: bool) -> float:
    """The mean over all terms, of rows that never saw padding."""
    total = count = 0.0
    for row in rows:
        batch = padded([row])
        labels = batch["labels"][:, 1:] if shift else batch["labels"]
        terms = int((labels != IGNORED).sum())
        total, count = total + own_loss(model, batch) * terms, count + terms
    return total / count
