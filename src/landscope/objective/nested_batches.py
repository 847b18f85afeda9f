"""Nested batches: mappings, tuples and lists of any depth, with tensors or numpy arrays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscope.errors import ObjectiveError
from landscope.objective import rows as rows_

TARGET_KEYS = ("labels", "label", "targets", "target", "y")


def split(batch: Any) -> tuple[Any, Any]:
    """Return (inputs, targets) of a batch: a pair, or a dict with a key such as "labels".

    Raises:
        ObjectiveError: When the batch is neither.
    """
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping):
        key = next((k for k in TARGET_KEYS if k in batch), None)
        if key is not None:
            inputs = {k: v for k, v in batch.items() if k != key}
            return (next(iter(inputs.values())) if len(inputs) == 1 else inputs), batch[key]
    kind = f"a {type(batch).__name__}"
    if isinstance(batch, tuple | list):
        kind += f" of {len(batch)}"
    if isinstance(batch, Mapping):
        kind += f" with the keys {list(batch)}"
    raise ObjectiveError(
        f"a batch is {kind}; expected (inputs, targets), or a dict with one of the keys"
        f" {', '.join(TARGET_KEYS)}. For anything else wrap a function (model, batch) -> Tensor[n]"
        " with ls.losses.custom."
    )


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """Return a batch of the same structure with ``function`` applied to each tensor in it.

    A numpy array of numbers counts as a tensor, which shares its memory. Other leaves stay as they
    are.
    """
    if (leaf := _as_tensor(batch)) is not None:
        return function(leaf)
    if isinstance(batch, Mapping):
        return {k: map_tensors(function, v) for k, v in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, v) for v in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_tensors(function, v) for v in batch)
    return batch


def prepare(batch: Any, dtype: torch.dtype | None, *, is_new: bool) -> Any:
    """Return a batch for a model.

    Args:
        batch: A batch of the data.
        dtype: The dtype of its floating-point tensors; None leaves them as they are.
        is_new: Whether the batch has new tensors in the same memory. Losses that differentiate by
            their inputs mark them with ``requires_grad_()`` and leave gradients in them, which
            then end with the new tensors; marks of the owner stay.
    """
    if dtype is not None:
        return map_tensors(lambda t: t.to(dtype) if t.is_floating_point() else t, batch)
    return map_tensors(_renew, batch) if is_new else batch


def _renew(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def iter_tensors(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors in a batch, in the order in which :func:`map_tensors` visits them."""
    if (leaf := _as_tensor(batch)) is not None:
        yield leaf
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from iter_tensors(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from iter_tensors(value)


def _as_tensor(leaf: Any) -> Tensor | None:
    """Return a leaf as a tensor; None for what holds no numbers."""
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc":
        return torch.from_numpy(leaf)
    return leaf if isinstance(leaf, Tensor) else None


def count_rows(batch: Any) -> int | None:
    """Return the number of rows that all tensors of a batch have; None where they differ."""
    counts = {rows_.count(t) for t in iter_tensors(batch)}
    return counts.pop() if len(counts) == 1 else None


def rebatch(batches: Sequence[Any], rows: int) -> list[Any] | None:
    """Return the same rows in the same order, in batches of at most ``rows`` rows.

    Adjacent batches whose rows have the same shapes and dtypes are joined before they are divided.

    Returns:
        The batches; None where tensors of a batch differ in length.
    """
    if any(count_rows(batch) is None for batch in batches):
        return None
    divided: list[Any] = []
    for _, alike in itertools.groupby(batches, key=_row_shapes):
        joined = join(list(alike))
        parts = max(-(-(count_rows(joined) or 0) // max(rows, 1)), 1)
        pieces = zip(*(rows_.divide(t, parts) for t in iter_tensors(joined)), strict=True)
        divided += [_replace_tensors(joined, iter(piece)) for piece in pieces]
    return divided


def rebatch_evenly(batches: Sequence[Any], rows: int) -> list[Any] | None:
    """Return the same rows in batches of at most ``rows`` rows, whose sizes differ by at most 1.

    Returns:
        The batches; None where rows differ in shape or dtype.
    """
    return rebatch(batches, rows) if len({_row_shapes(batch) for batch in batches}) == 1 else None


def select_rows(batches: Iterable[Any], rows: Sequence[int]) -> list[Any]:
    """Return some rows of the data, in as few batches as their shapes allow.

    Args:
        batches: The data.
        rows: The indices of the rows over all batches, in ascending order.

    Raises:
        ObjectiveError: When tensors of a batch differ in length.
    """
    selected: list[Any] = []
    indices = torch.as_tensor(rows)
    start = 0
    for batch in batches:
        count = count_rows(batch)
        if count is None:
            raise ObjectiveError(
                "a batch holds tensors of different lengths, so samples cannot be selected from"
                " it: leave samples= out, or use batches whose tensors have one entry per sample."
            )
        inside = indices[(indices >= start) & (indices < start + count)] - start
        start += count
        if len(inside):
            selected.append(index_rows(batch, inside))
    return [join(list(alike)) for _, alike in itertools.groupby(selected, key=_row_shapes)]


def index_rows(batch: Any, rows: Tensor) -> Any:
    """Return the given rows of one batch, shape (rows,), in the given order."""
    return map_tensors(lambda tensor: rows_.select(tensor, rows), batch)


def equal(a: Any, b: Any) -> bool:
    """Return whether two batches hold equal tensors; NaN equals NaN, other leaves always match."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return rows_.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(v, b[k]) for k, v in a.items())
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(equal, a, b))
    return True


def _row_shapes(batch: Any) -> tuple[object, ...]:
    """Return dtype, layout and shape of a row of each tensor; batches that share them can join."""
    return tuple(
        (t.dtype, str(t.layout), t.ndim if t.is_nested else tuple(t.shape[1:]))
        for t in iter_tensors(batch)
    )


def join(batches: Sequence[Any]) -> Any:
    """Return one batch of the rows of several batches, whose rows have the same shapes."""
    leaves = zip(*map(iter_tensors, batches), strict=True)
    return _replace_tensors(batches[0], (rows_.join(leaf) for leaf in leaves))


def _replace_tensors(batch: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a batch of the same structure with other tensors, with the marks of the old ones."""

    def replace(old: Tensor) -> Tensor:
        new = next(tensors)
        return new.detach().requires_grad_() if old.requires_grad else new

    return map_tensors(replace, batch)
