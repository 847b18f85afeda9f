"""Collating: rows of tokens, of unequal length, become padded batches.

Rows lose the padding that they bring (where nothing is learned from it) and are padded again on
the right, to the longest row of their batch. So the loss of a row does not depend on the rows
beside it, nor on the side on which a tokenizer pads: positions count from the first token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from landscope.errors import ObjectiveError
from landscope.objective.batches import Batches
from landscope.objective.global_state import preserve_global_state, seed_all

Row = dict[str, Tensor]
IGNORED = -100  # the label of what does not count, in all of transformers
_LABELS = ("labels", "label", "label_ids")
_FILL = {
    "attention_mask": 0,
    "token_type_ids": 0,
    "position_ids": 0,
    "decoder_attention_mask": 0,
    "labels": IGNORED,
}
_TOKENS = ("input_ids", "decoder_input_ids")  # filled with the padding token
_SEED = 0


@final
@dataclass(frozen=True, eq=False)
class Reader:
    """How rows are read and padded.

    Args:
        columns: names that the model's forward takes, and "labels"; others are left out.
        padding: the token that fills rows up.
        masking: whether this token marks padding also in rows that have no attention_mask.
        aligned: whether there is one label for each token.
        tokenizer: for rows of text; None where there is none.
        collate: a collator of transformers, or any function (list of rows) -> dict of tensors.
    """

    columns: frozenset[str]
    padding: int
    masking: bool
    aligned: bool
    tokenizer: Any = None
    collate: Callable[[list[Any]], Any] | None = None

    def batches(self, dataset: Any, size: int) -> list[Row]:
        """Return a dataset in padded batches.

        Args:
            dataset: rows, columns, text, or batches (see ``transformers.objective``).
            size: rows a batch; ready batches stay as they are.

        Raises:
            ObjectiveError: when it is none of these, or has no rows.
        """
        if not isinstance(size, int) or size < 1:
            raise ObjectiveError(f"batch_size={size!r}; expected 1 or more.")
        if isinstance(dataset, DataLoader):
            with preserve_global_state(dataset):
                walked = Batches(dataset, device=torch.device("cpu"), dtype=None, cache=True)
                return [self._ready(batch) for batch in walked]
        entries = _entries(dataset)
        if not entries:
            raise ObjectiveError("the dataset is empty: it has no rows.")
        if _is_batch(entries[0]):
            return [self._ready(entry) for entry in entries]
        with preserve_global_state():
            seed_all(_SEED)  # of collators that draw masks: row by row, so whatever the batches
            rows = [self._row(entry, k) for k, entry in enumerate(entries)]
        return [self._padded(rows[k : k + size]) for k in range(0, len(rows), size)]

    def _ready(self, batch: Any) -> Row:
        """Return a batch that is padded already, without what the model does not take."""
        if not isinstance(batch, Mapping):
            raise ObjectiveError(
                f"a batch of the dataset is a {type(batch).__name__}; expected a dict of tensors"
                ' such as {"input_ids": ..., "attention_mask": ..., "labels": ...}.'
            )
        found = self._tensors(batch, "a batch of the dataset")
        if "attention_mask" not in found and self.masking:
            found["attention_mask"] = (found["input_ids"] != self.padding).long()
        return found

    def _row(self, entry: Any, number: int) -> Row:
        name = f"row {number} of the dataset"
        entry = self._tokenized(entry, name)
        if self.collate is not None:
            entry = _collated(self.collate, entry)
        row = self._tensors(entry, name)
        if row["input_ids"].ndim != 1 or not len(row["input_ids"]):
            raise ObjectiveError(
                f"{name} has input_ids of shape {tuple(row['input_ids'].shape)}; expected"
                " one or more tokens in a row: (tokens,). Leave empty rows out."
            )
        if "attention_mask" not in row:
            tokens = row["input_ids"]
            real = tokens != self.padding if self.masking else torch.ones_like(tokens)
            row["attention_mask"] = real.long()
        if row["attention_mask"].ndim == 1 and len(row["attention_mask"]) != len(row["input_ids"]):
            raise ObjectiveError(
                f"{name} has {len(row['input_ids'])} tokens and an attention_mask of"
                f" {len(row['attention_mask'])}; expected one entry for each token."
            )
        return self._stripped(row)

    def _tokenized(self, entry: Any, name: str) -> Any:
        """Return an entry with tokens: made from text where there is a tokenizer."""
        if isinstance(entry, Mapping):
            text = [k for k, v in entry.items() if isinstance(v, str)]
            if "input_ids" in entry or not text:
                return entry
            found = self._tokens(entry[text[0]], name, len(text))
            return {**found, **{k: v for k, v in entry.items() if k in _LABELS}}
        if isinstance(entry, list | Tensor | np.ndarray):
            return {"input_ids": entry}
        if not isinstance(entry, str):
            raise ObjectiveError(
                f"{name} is a {type(entry).__name__}; expected a dict such as"
                ' {"input_ids": [5, 6, 7], "labels": ...}.'
            )
        return self._tokens(entry, name)

    def _tokens(self, text: str, name: str, count: int = 1) -> dict[str, Any]:
        if self.tokenizer is None or count > 1:
            raise ObjectiveError(
                f"{name} is text ({text[:30]!r}){f' in {count} columns' if count > 1 else ''}:"
                + (" pass tokenizer=, or" if count == 1 else "")
                + ' tokenize it first, such as dataset.map(lambda row: tokenizer(row["text"])).'
            )
        if not callable(self.tokenizer):
            raise ObjectiveError(
                f"tokenizer={self.tokenizer!r} is a {type(self.tokenizer).__name__}; expected a"
                " tokenizer of transformers."
            )
        longest = getattr(self.tokenizer, "model_max_length", 0)
        return dict(self.tokenizer(text, truncation=0 < longest < 10**9))

    def _tensors(self, entry: Any, name: str) -> Row:
        """Return what the model takes of an entry."""
        label = next((k for k in _LABELS if entry.get(k) is not None), None)
        named = {k: v for k, v in entry.items() if k not in _LABELS and v is not None}
        if label is not None:
            named["labels"] = entry[label]
        if "input_ids" not in named:
            raise ObjectiveError(
                f"{name} has no input_ids; its columns are {', '.join(map(str, entry))}. Tokenize"
                ' the text first, such as dataset.map(lambda row: tokenizer(row["text"])).'
            )
        found = {k: _tensor(v, f"{k} of {name}") for k, v in named.items() if k in self.columns}
        tokens = found["input_ids"]
        if tokens.is_floating_point() and tokens.numel():
            raise ObjectiveError(f"input_ids of {name} are not whole numbers: expected tokens.")
        return found

    def _stripped(self, row: Row) -> Row:
        """Return a row without padding at its ends, unless something is learned from it."""
        mask, length = row["attention_mask"], len(row["input_ids"])
        labels = row.get("labels") if self.aligned else None
        if mask.shape != (length,):
            return row
        used = mask != 0
        if labels is not None and labels.shape == mask.shape:
            used = used | (labels != IGNORED)
        places = used.nonzero()
        if len(places) in (0, length):
            return row
        kept = slice(int(places[0]), int(places[-1]) + 1)
        return {n: t[kept] if self._is_aligned(n, t, length) else t for n, t in row.items()}

    def _is_aligned(self, name: str, tensor: Tensor, length: int) -> bool:
        """Whether a column has one entry a token."""
        if name.startswith("decoder") or (name == "labels" and not self.aligned):
            return False
        return tensor.shape[:1] == (length,)

    def _padded(self, rows: list[Row]) -> Row:
        names = set(rows[0])
        odd = next((r for r in rows if set(r) != names), None)
        if odd is not None:
            raise ObjectiveError(
                f"rows of the dataset differ in their columns: {sorted(names)} and {sorted(odd)}."
            )
        return {name: self._stacked(name, [r[name] for r in rows]) for name in rows[0]}

    def _stacked(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        if len({p.shape for p in parts}) == 1:
            return torch.stack(list(parts))
        fill = self.padding if name in _TOKENS else _FILL.get(name)
        if fill is None or any(p.ndim != 1 for p in parts):
            raise ObjectiveError(
                f"{name} differs in shape from row to row, and how to pad it is not known: pass a"
                " DataLoader whose collate_fn does, or rows of equal length."
            )
        return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=fill)


def _entries(dataset: Any) -> list[Any]:
    """Return the rows (or batches) of a dataset."""
    listed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, str | bytes) or not (listed or isinstance(dataset, Iterable)):
        raise ObjectiveError(
            f"dataset is a {type(dataset).__name__}; expected rows (a list of dicts, a"
            " datasets.Dataset), a dict of columns, a list of texts, or a DataLoader."
        )
    if isinstance(dataset, Mapping):
        lengths = {name: len(column) for name, column in dataset.items()}
        if len(set(lengths.values())) > 1:
            raise ObjectiveError(
                f"columns of the dataset differ in length: {lengths}; expected one entry a row, in"
                " each (of a datasets.DatasetDict pass one split)."
            )
        count = next(iter(lengths.values()), 0)
        return [{name: column[k] for name, column in dataset.items()} for k in range(count)]
    return [dataset[k] for k in range(len(dataset))] if listed else list(dataset)


def _is_batch(entry: Any) -> bool:
    """Whether it is a batch of rows already: a dict of tensors with two dimensions."""
    tokens = entry.get("input_ids") if isinstance(entry, Mapping) else None
    return isinstance(tokens, Tensor | np.ndarray) and tokens.ndim == 2


def _collated(collate: Callable[[list[Any]], Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one row as a collator gives it."""
    numbers = {k: v for k, v in entry.items() if not isinstance(v, str) and v is not None}
    found = collate([numbers])
    if not isinstance(found, Mapping) or not all(
        isinstance(v, Tensor) and v.ndim and len(v) == 1 for v in found.values()
    ):
        raise ObjectiveError(
            f"collate gave {_told(found)} for a list of one row; expected a dict of tensors with"
            " one row in each. A collator that mixes rows goes into a DataLoader: pass that."
        )
    return {name: tensor[0] for name, tensor in found.items()}


def _told(found: Any) -> str:
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    return ", ".join(f"{k}: {tuple(getattr(v, 'shape', ()))}" for k, v in found.items())


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, list) and value and isinstance(value[0], Tensor):
        return torch.stack(value)
    try:
        found = torch.as_tensor(value)
        return found if found.is_floating_point() else found.long()  # embeddings take no bytes
    except (TypeError, ValueError, RuntimeError) as error:
        raise ObjectiveError(f"{name} are not numbers of one shape: {error}") from error
