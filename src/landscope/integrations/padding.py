"""Padding: rows of tokens of unequal length become padded batches.

The padding of rows is removed (except where a label counts there), and rows are padded again on the
right, to the longest row of their batch. So the loss of a row depends neither on the other rows of
its batch nor on the side on which a tokenizer pads: positions count from the first token.
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
IGNORED = -100  # the label of a token that does not count, everywhere in transformers
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
    """Reads rows of a dataset and pads them.

    Args:
        columns: The arguments of the model's forward, and "labels"; other columns are dropped.
        padding: The padding token.
        masking: Whether this token counts as padding even in rows without an attention_mask.
        aligned: Whether each token has a label.
        tokenizer: The tokenizer for rows of text; None if there is none.
        collate: A collator of transformers, or any function (list of rows) -> dict of tensors.
    """

    columns: frozenset[str]
    padding: int
    masking: bool
    aligned: bool
    tokenizer: Any = None
    collate: Callable[[list[Any]], Any] | None = None

    def batches(self, dataset: Any, size: int) -> list[Row]:
        """Return a dataset as padded batches.

        Args:
            dataset: Rows, columns, texts, or batches (see ``transformers.objective``).
            size: The batch size; complete batches stay as they are.

        Raises:
            ObjectiveError: When the dataset is none of these, or has no rows.
        """
        if not isinstance(size, int) or size < 1:
            raise ObjectiveError(f"batch_size={size!r}; expected 1 or more.")
        if isinstance(dataset, DataLoader):
            with preserve_global_state(dataset):
                batches = Batches(dataset, device=torch.device("cpu"), dtype=None, cache=True)
                return [self._read_batch(batch) for batch in batches]
        entries = _list_entries(dataset)
        if not entries:
            raise ObjectiveError("the dataset is empty: it has no rows.")
        if _is_batch(entries[0]):
            return [self._read_batch(entry) for entry in entries]
        with preserve_global_state():
            seed_all(_SEED)  # for collators that draw masks, whatever the batch size
            rows = [self._read_row(entry, k) for k, entry in enumerate(entries)]
        return [self._pad(rows[k : k + size]) for k in range(0, len(rows), size)]

    def _read_batch(self, entry: Any) -> Row:
        """Return the columns of a padded batch that the model takes."""
        if not isinstance(entry, Mapping):
            raise ObjectiveError(
                f"a batch of the dataset is a {type(entry).__name__}; expected a dict of tensors"
                ' such as {"input_ids": ..., "attention_mask": ..., "labels": ...}.'
            )
        batch = self._select_columns(entry, "a batch of the dataset")
        if "attention_mask" not in batch and self.masking:
            batch["attention_mask"] = (batch["input_ids"] != self.padding).long()
        return batch

    def _read_row(self, entry: Any, number: int) -> Row:
        name = f"row {number} of the dataset"
        entry = self._tokenize(entry, name)
        if self.collate is not None:
            entry = _collate_row(self.collate, entry)
        row = self._select_columns(entry, name)
        if row["input_ids"].ndim != 1 or not len(row["input_ids"]):
            raise ObjectiveError(
                f"{name} has input_ids of shape {tuple(row['input_ids'].shape)}; expected"
                " one or more tokens in a row: (tokens,). Leave empty rows out."
            )
        if "attention_mask" not in row:
            tokens = row["input_ids"]
            is_token = tokens != self.padding if self.masking else torch.ones_like(tokens)
            row["attention_mask"] = is_token.long()
        if row["attention_mask"].ndim == 1 and len(row["attention_mask"]) != len(row["input_ids"]):
            raise ObjectiveError(
                f"{name} has {len(row['input_ids'])} tokens and an attention_mask of"
                f" {len(row['attention_mask'])}; expected one entry for each token."
            )
        return self._strip_padding(row)

    def _tokenize(self, entry: Any, name: str) -> Any:
        """Return a row with tokens; a text is tokenized."""
        if isinstance(entry, Mapping):
            text_columns = [k for k, v in entry.items() if isinstance(v, str)]
            if "input_ids" in entry or not text_columns:
                return entry
            tokens = self._tokenize_text(entry[text_columns[0]], name, len(text_columns))
            return {**tokens, **{k: v for k, v in entry.items() if k in _LABELS}}
        if isinstance(entry, list | Tensor | np.ndarray):
            return {"input_ids": entry}
        if not isinstance(entry, str):
            raise ObjectiveError(
                f"{name} is a {type(entry).__name__}; expected a dict such as"
                ' {"input_ids": [5, 6, 7], "labels": ...}.'
            )
        return self._tokenize_text(entry, name)

    def _tokenize_text(self, text: str, name: str, columns: int = 1) -> dict[str, Any]:
        if self.tokenizer is None or columns > 1:
            raise ObjectiveError(
                f"{name} is text ({text[:30]!r}){f' in {columns} columns' if columns > 1 else ''}:"
                + (" pass tokenizer=, or" if columns == 1 else "")
                + ' tokenize it first, such as dataset.map(lambda row: tokenizer(row["text"])).'
            )
        if not callable(self.tokenizer):
            raise ObjectiveError(
                f"tokenizer={self.tokenizer!r} is a {type(self.tokenizer).__name__}; expected a"
                " tokenizer of transformers."
            )
        max_length = getattr(self.tokenizer, "model_max_length", 0)
        return dict(self.tokenizer(text, truncation=0 < max_length < 10**9))

    def _select_columns(self, entry: Any, name: str) -> Row:
        """Return the columns of a row or batch that the model takes, as tensors."""
        label = next((k for k in _LABELS if entry.get(k) is not None), None)
        columns = {k: v for k, v in entry.items() if k not in _LABELS and v is not None}
        if label is not None:
            columns["labels"] = entry[label]
        if "input_ids" not in columns:
            raise ObjectiveError(
                f"{name} has no input_ids; its columns are {', '.join(map(str, entry))}. Tokenize"
                ' the text first, such as dataset.map(lambda row: tokenizer(row["text"])).'
            )
        tensors = {
            k: _to_tensor(v, f"{k} of {name}") for k, v in columns.items() if k in self.columns
        }
        tokens = tensors["input_ids"]
        if tokens.is_floating_point() and tokens.numel():
            raise ObjectiveError(f"input_ids of {name} are not whole numbers: expected tokens.")
        return tensors

    def _strip_padding(self, row: Row) -> Row:
        """Return a row without the padding at its ends, except where a label counts."""
        mask, length = row["attention_mask"], len(row["input_ids"])
        labels = row.get("labels") if self.aligned else None
        if mask.shape != (length,):
            return row
        is_used = mask != 0
        if labels is not None and labels.shape == mask.shape:
            is_used = is_used | (labels != IGNORED)
        positions = is_used.nonzero()
        if len(positions) in (0, length):
            return row
        part = slice(int(positions[0]), int(positions[-1]) + 1)
        return {n: t[part] if self._is_aligned(n, t, length) else t for n, t in row.items()}

    def _is_aligned(self, name: str, tensor: Tensor, length: int) -> bool:
        """Whether a column has one entry per token."""
        if name.startswith("decoder") or (name == "labels" and not self.aligned):
            return False
        return tensor.shape[:1] == (length,)

    def _pad(self, rows: list[Row]) -> Row:
        names = set(rows[0])
        odd = next((r for r in rows if set(r) != names), None)
        if odd is not None:
            raise ObjectiveError(
                f"rows of the dataset differ in their columns: {sorted(names)} and {sorted(odd)}."
            )
        return {name: self._stack(name, [r[name] for r in rows]) for name in rows[0]}

    def _stack(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        if len({p.shape for p in parts}) == 1:
            return torch.stack(list(parts))
        fill = self.padding if name in _TOKENS else _FILL.get(name)
        if fill is None or any(p.ndim != 1 for p in parts):
            raise ObjectiveError(
                f"{name} differs in shape between rows, and it is unknown how to pad it: pass a"
                " DataLoader whose collate_fn pads it, or rows of equal length."
            )
        return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=fill)


def _list_entries(dataset: Any) -> list[Any]:
    """Return the rows or batches of a dataset."""
    is_indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, str | bytes) or not (is_indexed or isinstance(dataset, Iterable)):
        raise ObjectiveError(
            f"dataset is a {type(dataset).__name__}; expected rows (a list of dicts, a"
            " datasets.Dataset), a dict of columns, a list of texts, or a DataLoader."
        )
    if isinstance(dataset, Mapping):
        lengths = {name: len(column) for name, column in dataset.items()}
        if len(set(lengths.values())) > 1:
            raise ObjectiveError(
                f"columns of the dataset differ in length: {lengths}; expected one entry per row"
                " in each column (of a datasets.DatasetDict pass one split)."
            )
        count = next(iter(lengths.values()), 0)
        return [{name: column[k] for name, column in dataset.items()} for k in range(count)]
    return [dataset[k] for k in range(len(dataset))] if is_indexed else list(dataset)


def _is_batch(entry: Any) -> bool:
    """Whether an entry is a batch of rows, with two dimensions, instead of a row."""
    tokens = entry.get("input_ids") if isinstance(entry, Mapping) else None
    return isinstance(tokens, Tensor | np.ndarray) and tokens.ndim == 2


def _collate_row(collate: Callable[[list[Any]], Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a collator for one row."""
    numbers = {k: v for k, v in row.items() if not isinstance(v, str) and v is not None}
    batch = collate([numbers])
    if not isinstance(batch, Mapping) or not all(
        isinstance(v, Tensor) and v.ndim and len(v) == 1 for v in batch.values()
    ):
        raise ObjectiveError(
            f"collate returned {_describe(batch)} for a list of one row; expected a dict of"
            " tensors with one row in each. Pass a collator that mixes rows as collate_fn of a"
            " DataLoader, and the DataLoader as the dataset."
        )
    return {name: tensor[0] for name, tensor in batch.items()}


def _describe(batch: Any) -> str:
    if not isinstance(batch, Mapping):
        return f"a {type(batch).__name__}"
    return ", ".join(f"{k}: {tuple(getattr(v, 'shape', ()))}" for k, v in batch.items())


def _to_tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, list) and value and isinstance(value[0], Tensor):
        return torch.stack(value)
    try:
        tensor = torch.as_tensor(value)
        return tensor if tensor.is_floating_point() else tensor.long()  # embeddings take no bytes
    except (TypeError, ValueError, RuntimeError) as error:
        raise ObjectiveError(f"{name} are not numbers of one shape: {error}") from error
