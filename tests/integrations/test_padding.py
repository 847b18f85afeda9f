"""Collating: every kind of dataset against one batch that a plain loop padded.

The witness for padding are rows that never saw any, one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader, Dataset
from transformers import (
    BatchEncoding,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
)

from landscope.errors import CallError, ObjectiveError
from landscope.integrations.transformers import objective
from tests.integrations import cases
from tests.integrations.cases import (
    CASES,
    IGNORED,
    TEXT,
    Case,
    Model,
    Row,
    own_loss,
    padded,
    row_by_row,
)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def wide(rows: list[Row], side: str) -> list[Row]:
    """Return the rows, each padded to 12 by the user; the answers of pairs are not padded."""
    fills = {"input_ids": 0, "attention_mask": 0}
    fills |= {"labels": IGNORED} if rows != cases.PAIRS else {}
    wide_rows = []
    for row in rows:
        wide_row = {**row, "attention_mask": [1] * len(row["input_ids"])}
        more = 12 - len(row["input_ids"])
        for name in fills.keys() & wide_row.keys():
            gap = [fills[name]] * more
            entries = wide_row[name]
            wide_row[name] = entries + gap if side == "right" else gap + entries
        wide_rows.append(wide_row)
    return wide_rows


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_that_rows_bring_along_does_not_count_on_either_side(case: Case, side: str) -> None:
    model = case.make()
    expected = row_by_row(model, case.rows, shift=case.shift)
    rows = wide(case.rows, side)
    assert objective(model, rows, batch_size=4).loss() == pytest.approx(expected, rel=1e-6)


def test_padding_that_is_learned_from_stays() -> None:
    """Labels that are a plain copy of padded tokens count, as they do in the model itself."""
    model, rows = cases.gpt2(), wide(TEXT, "right")
    rows = [{**row, "labels": row["input_ids"]} for row in rows]
    batch = {k: torch.tensor([row[k] for row in rows]) for k in rows[0]}
    wrapped = objective(model, rows)
    assert len(wrapped.terms()) == 11 * 11
    assert wrapped.loss() == pytest.approx(own_loss(model, batch), rel=1e-6)


def test_the_token_that_marks_padding_makes_the_mask_that_is_lacking() -> None:
    model = cases.gpt2()
    expected = objective(model, TEXT).loss()
    rows = [{"input_ids": row["input_ids"]} for row in wide(TEXT, "right")]
    assert objective(model, rows, padding=0).loss() == pytest.approx(expected, rel=1e-6)
    assert len(objective(model, rows).terms()) == 11 * 11  # nobody said that 0 is padding


def loader(rows: Any, size: int | None = None, **given: Any) -> DataLoader[Any]:
    """A list is a dataset, though its type does not say so."""
    return DataLoader(rows, size, **given)


def test_a_padding_token_that_the_model_has_not_is_not_used() -> None:
    model = cases.gpt2()
    added = SimpleNamespace(pad_token_id=cases.VOCABULARY)
    expected = own_loss(model, padded(TEXT))
    assert objective(model, TEXT, tokenizer=added).loss() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ObjectiveError, match="padding=30; the model knows the tokens 0 to 29"):
        objective(model, TEXT, padding=cases.VOCABULARY)


def test_ready_batches_without_a_mask_get_that_of_the_padding_token() -> None:
    model, batch = cases.bert(), padded(CASES["bert"].rows)
    expected = own_loss(model, batch)
    bare = {name: column for name, column in batch.items() if name != "attention_mask"}
    assert objective(model, [bare]).loss() == pytest.approx(expected, rel=1e-6)
    assert own_loss(model, bare) != pytest.approx(expected, rel=1e-3)


def test_a_token_that_ends_a_text_counts_though_it_fills_rows_up_as_well() -> None:
    model = cases.gpt2(pad_token_id=1)  # 1 is where texts end
    rows = [{"input_ids": [*row["input_ids"][:5], 1]} for row in TEXT]
    expected = own_loss(model, padded(rows))
    assert objective(model, rows).loss() == pytest.approx(expected, rel=1e-6)


def test_a_decoder_that_classifies_finds_the_last_token_by_the_one_that_fills_rows_up() -> None:
    model, rows = cases.gpt2_classes(), CASES["gpt2 classes"].rows
    model.config.pad_token_id = None
    expected = row_by_row(model, rows, shift=False)
    assert objective(model, rows, padding=0).loss() == pytest.approx(expected, rel=1e-6)
    assert objective(model, rows, batch_size=1).loss() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(CallError, match="Cannot handle batch sizes > 1 if no padding token is def"):
        objective(model, rows).loss()


class Rows(Dataset[Row]):
    """A dataset of torch."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: int) -> Row:
        return {n: torch.tensor(v) for n, v in self.rows[k].items()}


def _columns(rows: list[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


KINDS: dict[str, Callable[[list[Row]], Any]] = {
    "dicts of arrays": lambda rows: [{k: np.array(v) for k, v in r.items()} for r in rows],
    "dicts of short arrays": lambda rows: [
        {k: np.array(v, "int16" if k == "labels" else "uint8") for k, v in r.items()} for r in rows
    ],
    "dicts of tensors": lambda rows: [Rows(rows)[k] for k in range(len(rows))],
    "with other columns": lambda rows: [{**r, "text": "a", "n": 1, "none": None} for r in rows],
    "a generator": iter,
    "a dataset of torch": Rows,
    "datasets": datasets.Dataset.from_list,
    "datasets in torch": lambda rows: datasets.Dataset.from_list(rows).with_format("torch"),
    "columns": _columns,
    "encoding": lambda rows: BatchEncoding(_columns(rows)),
    "padded columns": padded,
    "ready batches": lambda rows: [padded(rows[:4]), padded(rows[4:])],
    "a DataLoader": lambda rows: loader(rows, 3, collate_fn=padded),
    "a shuffling DataLoader": lambda rows: loader(rows, 3, shuffle=True, collate_fn=padded),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_dataset_gives_the_same_loss(kind: str) -> None:
    for name in ("gpt2", "bert", "bert classes", "t5"):
        case = CASES[name]
        model = case.make()
        expected = own_loss(model, padded(case.rows))
        wrapped = objective(model, KINDS[kind](case.rows))
        assert wrapped.loss() == pytest.approx(expected, rel=1e-6)
        assert len(wrapped.terms()) == case.count


def test_ready_batches_are_used_as_they_are() -> None:
    """On the left, padding moves GPT-2's positions and is what the first token follows."""
    model, batch = cases.gpt2(), padded(TEXT, side="left")
    wrapped = objective(model, loader([batch]))
    assert wrapped.loss() == pytest.approx(own_loss(model, batch), rel=1e-6)
    assert len(wrapped.terms()) == sum(cases.LENGTHS) - 3  # three rows have no padding


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[MASK]", *(f"w{k}" for k in range(3, cases.VOCABULARY))]
    inner = Tokenizer(models.WordLevel({w: k for k, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer_class: Any = PreTrainedTokenizerFast  # its constructor has no annotations
    return tokenizer_class(  # type: ignore[no-any-return]
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    )


@pytest.mark.filterwarnings("ignore:.*masked using random_replace_prob.*")
def test_masks_of_a_collator_are_drawn_once_whatever_the_batches(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = cases.bert()
    draw = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4)
    before = torch.get_rng_state()
    wrapped = objective(model, TEXT, collate=draw)
    assert torch.equal(torch.get_rng_state(), before)
    first = next(iter(wrapped.problem.batches[""]))
    assert bool((first["input_ids"] == 2).any())  # [MASK]
    assert wrapped.loss() == pytest.approx(own_loss(model, first), rel=0.5)
    for size in (1, 7):
        again = objective(model, TEXT, collate=draw, batch_size=size)
        assert len(again.terms()) == len(wrapped.terms())
        assert again.loss() == pytest.approx(wrapped.loss(), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*masked using random_replace_prob.*")
def test_a_collator_with_a_seed_of_its_own_begins_anew_each_time(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = cases.bert()
    draw = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4, seed=7)
    first, again = (objective(model, TEXT, collate=draw).problem.fingerprints() for _ in range(2))
    assert first == again
    assert draw.generator is None


def test_a_loader_that_draws_masks_is_walked_once(tokenizer: PreTrainedTokenizerFast) -> None:
    draw = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4)
    rows = [{"input_ids": r["input_ids"]} for r in TEXT]
    wrapped = objective(cases.bert(), loader(rows, 4, collate_fn=draw))
    assert wrapped.evaluate() == wrapped.evaluate()


def test_a_collator_of_pairs_gives_the_loss_of_the_rows(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    case = CASES["t5"]
    model = case.make()
    wrapped = objective(model, case.rows, collate=DataCollatorForSeq2Seq(tokenizer, model))
    assert wrapped.loss() == pytest.approx(own_loss(model, padded(case.rows)), rel=1e-6)


def test_texts_are_tokenized(tokenizer: PreTrainedTokenizerFast) -> None:
    model = cases.gpt2()
    texts = [" ".join(f"w{t}" for t in row["input_ids"]) for row in TEXT]
    expected = own_loss(model, padded(TEXT))
    wrapped = objective(model, texts, tokenizer=tokenizer)
    assert wrapped.loss() == pytest.approx(expected, rel=1e-6)
    columns = datasets.Dataset.from_dict({"text": texts, "label": [k % 3 for k in range(11)]})
    classes = cases.bert_classes()
    wrapped = objective(classes, columns, tokenizer=tokenizer)
    assert wrapped.loss() == pytest.approx(
        own_loss(classes, padded(CASES["bert classes"].rows)), rel=1e-6
    )


def collate_into(batch: Any) -> Callable[[], Any]:
    return lambda: objective(cases.gpt2(), TEXT, collate=lambda rows: batch)


def read(dataset: Any, make: Callable[[], Model] = cases.gpt2) -> Callable[[], Any]:
    return lambda: objective(make(), dataset)


EMBEDDED = [{"input_ids": [5] * n, "inputs_embeds": [[1.0]] * n} for n in (2, 1)]
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "text without a tokenizer": (
        read(["some text"]),
        r"row 0 of the dataset is text \('some text'\): pass tokenizer=, or tokenize it first",
    ),
    "one text": (read("some text"), "dataset is a str; expected rows"),
    "several texts": (
        read([{"question": "a", "answer": "b"}], cases.t5),
        r"row 0 of the dataset is text \('a'\) in 2 columns: tokenize it first",
    ),
    "no tokens": (
        read([{"ids": [1, 2], "label": 0}]),
        "row 0 of the dataset has no input_ids; its columns are ids, label. Tokenize",
    ),
    "no tokens in a batch": (
        read(loader([{"x": torch.ones(1)}])),
        "a batch of the dataset has no input_ids",
    ),
    "batches that are no dicts": (
        read(loader([torch.ones(3, 2)])),
        "a batch of the dataset is a Tensor; expected a dict of tensors",
    ),
    "pairs": (read([([1, 2], 0)]), "row 0 of the dataset is a tuple; expected a dict such as"),
    "nothing": (read([]), "the dataset is empty"),
    "a number": (read(3), "dataset is a int; expected rows"),
    "uneven columns": (
        read({"input_ids": [[1, 2]], "labels": []}),
        "columns of the dataset differ in length",
    ),
    "rows of different columns": (
        read([TEXT[0], {**TEXT[1], "labels": TEXT[1]["input_ids"]}]),
        "rows of the dataset differ in their columns",
    ),
    "an empty row": (
        read([TEXT[0], {"input_ids": []}]),
        r"row 1 of the dataset has input_ids of shape \(0,\); expected one or more tokens",
    ),
    "ragged lists": (
        read([{"input_ids": [[1, 2], [3]]}]),
        "input_ids of row 0 of the dataset are not numbers of one shape",
    ),
    "fractions": (
        read([{"input_ids": [0.5, 1.5]}]),
        "input_ids of row 0 of the dataset are not whole numbers",
    ),
    "foreign tokens": (
        read([{"input_ids": [1, 99]}]),
        "the dataset has the token 99, and the model knows 0 to 29: use the tokenizer",
    ),
    "tokens below zero": (
        read([{"input_ids": [1, -3]}]),
        "the dataset has the token -3, and the model knows 0 to 29",
    ),
    "a mask of another length": (
        read([{"input_ids": [1, 2, 3], "attention_mask": [1, 1]}]),
        "row 0 of the dataset has 3 tokens and an attention_mask of 2; expected one entry for",
    ),
    "the name of a tokenizer": (
        lambda: objective(cases.gpt2(), ["text"], tokenizer="gpt2"),
        "tokenizer='gpt2' is a str; expected a tokenizer",
    ),
    "batches of a fraction": (
        lambda: objective(cases.gpt2(), TEXT, batch_size=2.5),  # type: ignore[arg-type] # so
        r"batch_size=2\.5; expected 1 or more",
    ),
    "nothing counts": (
        read([{"input_ids": [5, 6], "labels": [IGNORED] * 2}], cases.bert),
        "no label of the dataset counts: all are -100",
    ),
    "single tokens": (
        read([{"input_ids": [5]}]),
        "no label of the dataset counts: rows have one token each, or all are -100",
    ),
    "masks without labels": (
        read(TEXT, cases.bert),
        r"the dataset has no labels, and the task is 'masked': pass collate=transformers\.Data",
    ),
    "pairs without answers": (
        read(TEXT, cases.t5),
        "the dataset has no labels, and the task is 'seq2seq': labels are the tokens of the ans",
    ),
    "classes without labels": (
        read(TEXT, cases.bert_classes),
        r"the dataset has no labels, and the task is 'classification'\.",
    ),
    "a column that nobody can pad": (
        read(EMBEDDED),
        "inputs_embeds differs in shape between rows, and it is unknown how to pad it",
    ),
    "batches of nothing": (
        lambda: objective(cases.gpt2(), TEXT, batch_size=0),
        "batch_size=0; expected 1 or more",
    ),
    "a collator that mixes rows": (
        collate_into({"input_ids": torch.ones(3, 2)}),
        r"collate returned input_ids: \(3, 2\) for a list of one row; expected",
    ),
    "a collator of something else": (
        collate_into(3),
        "collate returned a int for a list of one row",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_dataset_is_a_sentence(what: str) -> None:
    call, text = WRONG[what]
    with pytest.raises(ObjectiveError, match=text):
        call()
