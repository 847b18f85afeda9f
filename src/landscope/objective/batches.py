"""Batches: the user's data, read once and cached on the device, or streamed when too large for it.

A shuffling DataLoader is read in the order of its dataset. The first pass is made with the random
seed 0, so that the random augmentation in cached data is the same in every session.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from landscope import fingerprint
from landscope.errors import ObjectiveError
from landscope.objective import nested_batches
from landscope.objective.global_state import seed_all
from landscope.objective.memory import free_memory
from landscope.objective.nested_batches import count_rows, iter_tensors, map_tensors
from landscope.objective.rows import count_bytes

_CACHE_SHARE = 0.5  # of the free memory; the rest is for activations and for the user
_PATIENCE = 5.0  # seconds, until the first warning that data may not end; then twice as many
_COPY_SHARE = 0.25  # of the free memory; for a second copy of cached data


class Batches:
    """A data set in batches on a device.

    Args:
        data: (inputs, targets) tensors, a DataLoader, or an iterable of batches that can be
            iterated twice.
        device: The device of the batches.
        dtype: The dtype of floating-point tensors; None leaves each as it is.
        batch_size: The batch size for tensors; other data are in batches already.
        cache: True caches all batches on the device, False reads the data again at every pass,
            "auto" caches them when they take at most half of the free memory.
        name: The name of the data in errors and notes.

    Raises:
        ObjectiveError: When the data are empty or can be iterated only once.
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
        self.source = _to_source(data, batch_size, name)
        self.cache = cache
        self.notes: list[str] = []
        self._cached: list[Any] | None = None
        self._identity: str | None = None
        self._rows = 0

    def __repr__(self) -> str:
        if self._identity is None:
            return "<data that were not read yet>"
        return f"<data of {self._rows:,} samples{', streamed' * (self._cached is None)}>"

    @property
    def streamed(self) -> bool:
        """Whether the data are read again at every pass."""
        self._read()
        return self._cached is None

    @property
    def identity(self) -> str:
        """A fingerprint of every value in every batch."""
        self._read()
        return str(self._identity)

    @property
    def rows(self) -> int:
        """The number of samples; a batch whose tensors differ in length counts as one."""
        self._read()
        return self._rows

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches on the device."""
        self._read()
        if self._cached is not None:
            yield from self._cached
        else:
            for batch in self.source:
                yield self._place(batch)

    @property
    def nbytes(self) -> int:
        """The size of the cached data in bytes; 0 for streamed ones."""
        self._read()
        return sum(t.nbytes for t in iter_tensors(self._cached or []))

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Batches:
        """Return the same data on another device, or in another precision.

        Cached data are copied and not read again.
        """
        self._read()
        batches = copy.copy(self)
        batches.device, batches.dtype = device, dtype or self.dtype
        if self._cached is not None:
            batches._cached = [map_tensors(batches._place_tensor, b) for b in self._cached]
        return batches

    def rebatch(self, rows: int) -> list[Any] | None:
        """Return the data copied into batches of at most ``rows`` rows.

        Returns:
            The batches; None for streamed data, for data that take more than a quarter of the free
            memory, and where tensors of a batch differ in length.
        """
        self._read()
        size = sum(map(count_bytes, iter_tensors(self._cached)))
        if self._cached is None or size > free_memory(self.device) * _COPY_SHARE:
            return None
        return nested_batches.rebatch(self._cached, rows)

    def divide(self, rows: int) -> Iterable[Any] | None:
        """Return batches of at most ``rows`` rows; streamed data stay streamed.

        Returns:
            The batches; None where tensors of a cached batch differ in length.
        """
        return _Divided(self, rows) if self.streamed else nested_batches.rebatch(list(self), rows)

    def _read(self) -> None:
        """Make the first pass: fingerprint the data, and cache them when they fit."""
        if self._identity is not None:
            return
        seed_all(0)
        limit = _CACHE_SHARE * free_memory(self.device) if self.cache == "auto" else math.inf
        cached: list[Any] | None = [] if self.cache is not False else None
        size, digests, first = 0, [], None
        for batch in _warn_if_endless(self.source, self.name):
            placed = self._place(batch)
            first = placed if first is None else first
            tensors = list(iter_tensors(placed))
            digests.append(fingerprint.of_tensors((str(k), t) for k, t in enumerate(tensors)))
            size += sum(map(count_bytes, tensors))
            self._rows += count_rows(placed) or 1
            if cached is not None:
                cached.append(placed)
                cached = cached if size <= limit else None
        if first is None:
            raise ObjectiveError(
                f"{self.name} is empty: it gave no batch. Check the data set and drop_last."
            )
        self._cached = cached
        self._note_changes(first)
        self._identity = fingerprint.of_text(*digests)

    def _note_changes(self, first: Any) -> None:
        """Read the first batch a second time, and add a note when it differs."""
        second = next(iter(self._read_again(first)), None)
        if second is None:
            raise ObjectiveError(
                f"{self.name} gave {'no batch' if self._cached is None else 'nothing'} when it was"
                " iterated a second time: pass a list, a DataLoader, or an object whose __iter__"
                " starts again from the first batch."
            )
        if not nested_batches.equal(first, second):
            self.notes.append(
                f"{self.name} changes from pass to pass (random augmentation or order);"
                + (
                    " the draws of the first pass are cached"
                    if self._cached is not None
                    else " it is streamed, so it changes at every point"
                )
            )
        if self._cached is None:
            self.notes.append(f"{self.name} is streamed: it is read again at every point")

    def _read_again(self, first: Any) -> Iterable[Any]:
        """Return an iterable whose first entry is the first batch of a second pass."""
        if isinstance(self.source, DataLoader) and self._cached is not None:
            # Restarting the workers for one batch takes seconds; one sample is enough here.
            dataset = self.source.dataset
            if isinstance(dataset, Sized):
                return [first if nested_batches.equal(dataset[0], dataset[0]) else _DIFFERENT]
        if isinstance(self.source, list):
            return [first]
        return (self._place(batch) for batch in itertools.islice(self.source, 1))

    def _place(self, batch: Any) -> Any:
        return map_tensors(self._place_tensor, batch)

    def _place_tensor(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device; the mark of one that its owner differentiates stays."""
        dtype = self.dtype if tensor.is_floating_point() else None
        placed = tensor.detach().to(self.device, dtype)
        with torch.inference_mode(mode=False):  # such tensors cannot be differentiated
            placed = placed.clone() if placed.is_inference() else placed
            return placed.requires_grad_(tensor.requires_grad)


def _warn_if_endless(source: Iterable[Any], name: str) -> Iterator[Any]:
    """Yield the batches of a first pass; warn while data without a length do not end."""
    began, patience = time.perf_counter(), _PATIENCE
    for number, batch in enumerate(source, start=1):
        yield batch
        if time.perf_counter() - began > patience and _has_given_all(source, number):
            warnings.warn(
                f"{name} gave {number:,} batches in {patience:g} seconds and does not say how many"
                " there are. If it never ends, limit it: list(itertools.islice(data, 100)) are its"
                " first 100 batches.",
                stacklevel=2,
            )
            patience *= 2


def _has_given_all(source: Iterable[Any], number: int) -> bool:
    """Return whether data gave as many batches as their length says, or have no length."""
    try:
        return number > len(source) if isinstance(source, Sized) else True
    except TypeError:  # a DataLoader of an IterableDataset
        return True


_DIFFERENT = object()


class _Divided:
    """Streamed batches, each divided into batches of at most ``rows`` rows."""

    def __init__(self, batches: Batches, rows: int) -> None:
        self.batches, self.rows = batches, rows

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            yield from nested_batches.rebatch([batch], self.rows) or [batch]


def divide(batches: Iterable[Any], rows: int) -> Iterable[Any] | None:
    """Return batches of at most ``rows`` rows; None where tensors of a batch differ in length."""
    if isinstance(batches, Batches):
        return batches.divide(rows)
    return nested_batches.rebatch(list(batches), rows)


def divide_all(datasets: Mapping[str, Iterable[Any]], rows: int) -> dict[str, Iterable[Any]] | None:
    """Return data sets in batches of at most ``rows`` rows; None where one cannot be divided."""
    divided = {name: divide(batches, rows) for name, batches in datasets.items()}
    if any(batches is None for batches in divided.values()):
        return None
    return {name: batches for name, batches in divided.items() if batches is not None}


def rebatch_cached(batches: Iterable[Any], rows: int) -> Iterable[Any]:
    """Return batches of at most ``rows`` rows; unchanged if ``Batches.rebatch`` gives None."""
    if isinstance(batches, Batches):
        return batches.rebatch(rows) or batches
    return nested_batches.rebatch(list(batches), rows) or batches


def _to_source(data: Any, batch_size: int, name: str) -> Iterable[Any]:
    """Return an iterable of batches that starts from the first batch each time."""
    if isinstance(data, DataLoader):
        return _without_shuffling(data)
    if isinstance(data, tuple | list) and len(data) == 2 and all(map(_is_array, data)):
        inputs, targets = map(torch.as_tensor, data)
        return _slice_into_batches(inputs, targets, batch_size, name)
    if isinstance(data, Tensor | np.ndarray | str | bytes) or not isinstance(data, Iterable):
        raise ObjectiveError(
            f"{name} is a {type(data).__name__}; expected (inputs, targets) tensors, a DataLoader,"
            " or an iterable of batches."
        )
    if isinstance(data, Iterator):
        raise ObjectiveError(
            f"{name} is an iterator ({type(data).__name__}), which can be iterated only once: pass"
            " list(data), or list(itertools.islice(data, 100)) where it has no end, a DataLoader,"
            " or an object whose __iter__ starts again from the first batch."
        )
    return data


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _slice_into_batches(inputs: Tensor, targets: Tensor, batch_size: int, name: str) -> list[Any]:
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        raise ObjectiveError(
            f"{name} has inputs of shape {tuple(inputs.shape)} and targets of shape"
            f" {tuple(targets.shape)}; expected the same number of rows in both."
        )
    if batch_size < 1:
        raise ObjectiveError(f"batch_size={batch_size}; expected 1 or more.")
    pairs = zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
    return [pair for pair in pairs if len(pair[0])]


def _without_shuffling(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader that reads a shuffled map-style dataset in its own order."""
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
