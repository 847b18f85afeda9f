"""Batches: the user's data, walked once and kept on the device, or streamed when it does not fit.

A shuffling DataLoader is walked in the order of its dataset. The first walk is made with the
random seed 0, so that random augmentation, which it freezes, is the same in every session.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from landscope import fingerprint
from landscope.errors import ObjectiveError
from landscope.objective.memory import free_memory

TARGET_KEYS = ("labels", "label", "targets", "target", "y")
_SHARE_OF_MEMORY = 0.5  # the rest is for activations and for the user


class Batches:
    """A data set in batches on a device.

    Args:
        data: (inputs, targets) tensors, a DataLoader, or an iterable of batches that can be
            walked twice.
        device: where batches go.
        dtype: of floating-point inputs.
        batch_size: rows a batch, for tensors; the other forms bring their own.
        cache: True keeps all batches on the device, False walks the data at every point,
            "auto" keeps them when they take at most half of the free memory.
        name: what errors call it.

    Raises:
        ObjectiveError: when there is nothing in it, or it can be walked only once.
    """

    def __init__(
        self,
        data: Any,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        batch_size: int = 256,
        cache: bool | Literal["auto"] = "auto",
        name: str = "data",
    ) -> None:
        self.device, self.dtype, self.name = device, dtype, name
        self.source = _source(data, batch_size, name)
        self.cache = cache
        self.notes: list[str] = []
        self._kept: list[Any] | None = None
        self._identity: str | None = None
        self._rows = 0

    @property
    def streamed(self) -> bool:
        """Whether the data is walked again at every point."""
        self._walk()
        return self._kept is None

    @property
    def identity(self) -> str:
        """A fingerprint of every value in every batch."""
        self._walk()
        return str(self._identity)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches on the device."""
        self._walk()
        if self._kept is not None:
            yield from self._kept
        else:
            for batch in self.source:
                yield self._moved(batch)

    def on(self, device: torch.device) -> Batches:
        """Return the same data, as the first walk found them, on another device."""
        self._walk()
        other = copy.copy(self)
        other.device = device
        if self._kept is not None:
            other._kept = [mapped(lambda t: t.to(device), batch) for batch in self._kept]
        return other

    @property
    def rows(self) -> int:
        """How many samples there are; a batch whose tensors differ in length counts as one."""
        self._walk()
        return self._rows

    def in_rows(self, rows: int) -> list[Any] | None:
        """Return the data in batches of at most ``rows`` rows; None where that cannot be done.

        It cannot where data are streamed, take more than a quarter of the free memory (these
        batches are a copy), or are not tensors with one entry a row.
        """
        self._walk()
        size = sum(t.nbytes for t in tensors(self._kept))
        if self._kept is None or size > free_memory(self.device) / 4:
            return None
        return regrouped(self._kept, rows)

    def _walk(self) -> None:
        """Walk the data for the first time: fingerprint it, and keep it when it fits."""
        if self._identity is not None:
            return
        seed_all(0)
        limit = _SHARE_OF_MEMORY * free_memory(self.device) if self.cache == "auto" else math.inf
        kept: list[Any] | None = [] if self.cache is not False else None
        size, digests, first = 0, [], None
        for batch in self.source:
            moved = self._moved(batch)
            first = moved if first is None else first
            leaves = list(tensors(moved))
            digests.append(fingerprint.of_tensors((str(k), t) for k, t in enumerate(leaves)))
            size += sum(t.nbytes for t in leaves)
            self._rows += count_rows(moved) or 1
            if kept is not None:
                kept.append(moved)
                kept = kept if size <= limit else None
        if first is None:
            raise ObjectiveError(
                f"{self.name} is empty: it gave no batch. Check the data set and drop_last."
            )
        self._kept = kept
        self._note_changes(first)
        self._identity = fingerprint.of_text(*digests)

    def _note_changes(self, first: Any) -> None:
        """Compare a second look at the first batch with the first one."""
        second = next(iter(self._second_look(first)), None)
        if second is None:
            raise ObjectiveError(
                f"{self.name} gave {'no batch' if self._kept is None else 'nothing'} when it was"
                " walked a second time: pass a list, a DataLoader, or an object whose __iter__"
                " starts anew."
            )
        if not same(first, second):
            self.notes.append(
                f"{self.name} changes from one walk to the next (random augmentation or order);"
                + (
                    " the draws of the first walk are kept"
                    if self._kept is not None
                    else " it is streamed, so they change at every point"
                )
            )
        if self._kept is None:
            self.notes.append(f"{self.name} is streamed: it is walked again at every point")

    def _second_look(self, first: Any) -> Iterable[Any]:
        if isinstance(self.source, DataLoader) and self._kept is not None:
            # Starting workers again for one batch would cost seconds; two samples tell as much.
            dataset = self.source.dataset
            if isinstance(dataset, Sized):
                return [first if same(dataset[0], dataset[0]) else _DIFFERENT]
        if isinstance(self.source, list):
            return [first]
        return (self._moved(batch) for batch in itertools.islice(self.source, 1))

    def _moved(self, batch: Any) -> Any:
        return mapped(self._placed, batch)

    def _placed(self, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and self.dtype is not None:
            return tensor.detach().to(self.device, self.dtype)
        return tensor.detach().to(self.device)


_DIFFERENT = object()


def split(batch: Any) -> tuple[Any, Any]:
    """Return (inputs, targets) of a batch: a pair, or a dict with a key such as "labels".

    Raises:
        ObjectiveError: when it is neither.
    """
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping):
        key = next((k for k in TARGET_KEYS if k in batch), None)
        if key is not None:
            inputs = {k: v for k, v in batch.items() if k != key}
            return (next(iter(inputs.values())) if len(inputs) == 1 else inputs), batch[key]
    what = f"a {type(batch).__name__}"
    if isinstance(batch, tuple | list):
        what += f" of {len(batch)}"
    if isinstance(batch, Mapping):
        what += f" with the keys {list(batch)}"
    raise ObjectiveError(
        f"a batch is {what}; expected (inputs, targets), or a dict with one of the keys"
        f" {', '.join(TARGET_KEYS)}. For anything else wrap a function (model, batch) -> Tensor[n]"
        " with ls.losses.custom."
    )


def mapped(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """Return a batch with ``function`` applied to each tensor in it."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, np.ndarray):
        return function(torch.from_numpy(batch))
    if isinstance(batch, Mapping):
        return {k: mapped(function, v) for k, v in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(mapped(function, v) for v in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(mapped(function, v) for v in batch)
    return batch


def tensors(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors in a batch."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from tensors(value)


def count_rows(batch: Any) -> int | None:
    """Return the number of rows that all tensors of a batch have; None where they differ."""
    counts = {len(t) if t.ndim else -1 for t in tensors(batch)}
    return counts.pop() if len(counts) == 1 and min(counts) >= 0 else None


def rebatched(batches: Sequence[Any], rows: int) -> list[Any] | None:
    """Return the same rows in batches of equal size, at most ``rows``; None where impossible."""
    return regrouped(batches, rows) if len({_shapes(batch) for batch in batches}) == 1 else None


def regrouped(batches: Sequence[Any], rows: int) -> list[Any] | None:
    """Return the same rows in batches of at most ``rows``, neighbors of one shape joined.

    None where rows are not known.
    """
    if any(count_rows(batch) is None for batch in batches):
        return None
    found: list[Any] = []
    for _, alike in itertools.groupby(batches, key=_shapes):
        whole = _joined(list(alike))
        parts = max(-(-(count_rows(whole) or 0) // max(rows, 1)), 1)
        pieces = zip(*(t.tensor_split(parts) for t in tensors(whole)), strict=True)
        found += [_refilled(whole, iter(piece)) for piece in pieces]
    return found


def divide(batches: Iterable[Any], rows: int) -> Iterable[Any] | None:
    """Return batches of at most ``rows`` rows; None where rows are not known.

    Streamed data stay streamed: each batch is divided when it comes.
    """
    if isinstance(batches, Batches) and batches.streamed:
        return _Divided(batches, rows)
    return regrouped(list(batches), rows)


class _Divided:
    """Streamed batches, each in parts of at most ``rows`` rows."""

    def __init__(self, batches: Batches, rows: int) -> None:
        self.batches, self.rows = batches, rows

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            yield from regrouped([batch], self.rows) or [batch]


def taken(batches: Iterable[Any], rows: Sequence[int]) -> list[Any]:
    """Return the given rows of the data (sorted), in as few batches as their shapes allow.

    Raises:
        ObjectiveError: when batches are not tensors with one entry a row.
    """
    found: list[Any] = []
    wanted = torch.as_tensor(rows)
    start = 0
    for batch in batches:
        count = count_rows(batch)
        if count is None:
            raise ObjectiveError(
                "a batch holds tensors of different lengths, so single samples cannot be drawn from"
                " it: leave samples= out, or use batches whose tensors have one entry a sample."
            )
        here = wanted[(wanted >= start) & (wanted < start + count)] - start
        start += count
        if len(here):
            found.append(mapped(functools.partial(_entries, here), batch))
    return [_joined(list(alike)) for _, alike in itertools.groupby(found, key=_shapes)]


def _entries(rows: Tensor, tensor: Tensor) -> Tensor:
    return tensor[rows.to(tensor.device)]


def _shapes(batch: Any) -> tuple[tuple[torch.dtype, torch.Size], ...]:
    """Return what the tensors of two batches must share to be joined."""
    return tuple((t.dtype, t.shape[1:]) for t in tensors(batch))


def _joined(batches: Sequence[Any]) -> Any:
    """Return one batch of the rows of several, which have the same shapes."""
    leaves = zip(*map(tensors, batches), strict=True)
    whole = (torch.cat(leaf) if len(leaf) > 1 else leaf[0] for leaf in leaves)
    return _refilled(batches[0], whole)


def _refilled(batch: Any, leaves: Iterator[Tensor]) -> Any:
    """Return a batch of the same structure with other tensors in it."""
    return mapped(lambda _: next(leaves), batch)


def same(a: Any, b: Any) -> bool:
    """Return whether two batches hold equal tensors (NaN equals NaN); other things count as one."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return True


def seed_all(seed: int) -> None:
    """Set the global random states that data pipelines draw from; the caller restores them."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - augmentation code draws from the global state


def _source(data: Any, batch_size: int, name: str) -> Iterable[Any]:
    """Return an iterable of batches that starts anew each time."""
    if isinstance(data, DataLoader):
        return _in_order(data)
    if isinstance(data, tuple | list) and len(data) == 2 and all(map(_is_array, data)):
        inputs, targets = map(torch.as_tensor, data)
        return _sliced(inputs, targets, batch_size, name)
    if isinstance(data, Tensor | np.ndarray | str | bytes) or not isinstance(data, Iterable):
        raise ObjectiveError(
            f"{name} is a {type(data).__name__}; expected (inputs, targets) tensors, a DataLoader,"
            " or an iterable of batches."
        )
    if isinstance(data, Iterator):
        raise ObjectiveError(
            f"{name} is an iterator ({type(data).__name__}), which can be walked only once: pass"
            " list(data), a DataLoader, or an object whose __iter__ starts anew."
        )
    return data


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _sliced(inputs: Tensor, targets: Tensor, batch_size: int, name: str) -> list[Any]:
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        raise ObjectiveError(
            f"{name} has inputs of shape {tuple(inputs.shape)} and targets of shape"
            f" {tuple(targets.shape)}; expected the same number of rows in both."
        )
    if batch_size < 1:
        raise ObjectiveError(f"batch_size={batch_size}; expected 1 or more.")
    pairs = zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
    return [pair for pair in pairs if len(pair[0])]


def _in_order(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader that walks a shuffled map-style dataset in its own order."""
    sampler = loader.sampler
    if type(loader.batch_sampler) is not BatchSampler or not isinstance(sampler, RandomSampler):
        return loader
    if sampler.replacement or sampler.num_samples != len(sampler.data_source):
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        shuffle=False,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
