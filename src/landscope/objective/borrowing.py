"""Borrowing a user's model: its tensors are swapped for ours, and swapped back whatever happens.

The storage of the user's parameters and buffers is never written to: each keeps its own memory
while ``.data`` points at ours, so what comes back is what was lent, bit for bit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from landscope.params import named_tensors


@final
class Borrowed:
    """A model whose tensors may be replaced until it is given back.

    Args:
        model: the user's module.
        device: where it is used; None leaves each tensor where it is.
        dtype: of its floating-point tensors in use; None leaves each as it is.
    """

    def __init__(
        self, model: nn.Module, device: torch.device | None, dtype: torch.dtype | None
    ) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self.tensors = dict(named_tensors(model))
        self._buffers = {id(b) for b in model.buffers()}
        unique = {id(t): t for t in self.tensors.values()}
        self._lent = [(t, t.data) for t in unique.values()]
        self._modes = [(m, m.training) for m in model.modules()]
        self._moved = set(unique)  # at first nothing is on our device
        self._last: Mapping[str, Tensor] | None = None
        self._at: list[int] = []
        self._copies: tuple[list[Tensor], list[Tensor]] = ([], [])  # buffers: ours, and the source

    def put(self, params: Mapping[str, Tensor]) -> None:
        """Let the model compute with these parameters, and with the user's for other names.

        The same object again, its tensors written to in place, costs next to nothing.
        """
        if params is not self._last or self._places(params) != self._at:
            self._put(params)
        ours, sources = self._copies  # a forward pass may have written to them
        if ours:
            torch._foreach_copy_(ours, sources)

    def _put(self, params: Mapping[str, Tensor]) -> None:
        given = {id(self.tensors[n]): v for n, v in params.items()}
        self._copies = ([], [])
        shared = True
        for tensor, data in self._lent:
            key = id(tensor)
            if key in self._buffers:
                source = given[key].detach() if key in given else data
                tensor.data = torch.empty_like(source, device=self.device, dtype=self._kind(source))
                self._copies[0].append(tensor.data)
                self._copies[1].append(source)
            elif data.is_meta:
                continue  # offloaded: what lends it its values moves them
            elif key in given:
                tensor.data = given[key].detach().to(self.device or data.device, self._kind(data))
                shared = shared and tensor.data_ptr() == given[key].data_ptr()
            elif key in self._moved:
                tensor.data = data.to(self.device or data.device, self._kind(data))
        self._moved = set(given)
        self._last = params if shared else None
        self._at = self._places(params)

    def _places(self, params: Mapping[str, Tensor]) -> list[int]:
        """Return where the tensors lie: one that was replaced lies elsewhere."""
        return [tensor.data_ptr() for tensor in params.values()]

    def _kind(self, data: Tensor) -> torch.dtype:
        return self.dtype if data.is_floating_point() and self.dtype else data.dtype

    def give_back(self) -> None:
        """Put every tensor and training flag back."""
        for tensor, data in self._lent:
            tensor.data = data
        for module, training in self._modes:
            module.training = training


@contextmanager
def borrowed(
    model: nn.Module, device: torch.device | None, dtype: torch.dtype | None
) -> Iterator[Borrowed]:
    """Lend a model out; afterwards tensors, flags, random states and threads are as before."""
    with undisturbed():
        loan = Borrowed(model, device, dtype)
        try:
            yield loan
        finally:
            loan.give_back()


@contextmanager
def products(*, tf32: bool) -> Iterator[None]:
    """Compute products of float32 numbers in full, or in TensorFloat-32 where the device can.

    torch computes convolutions on a GPU in TF32 unless it is told not to: three digits.
    """
    cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
    convolutions = cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        cudnn.allow_tf32 = convolutions


@contextmanager
def without(backend: Any) -> Iterator[None]:
    """Leave a backend of torch out; its own ``flags()`` would also set TF32, and warn of that."""
    before = backend.enabled
    backend.enabled = False
    try:
        yield
    finally:
        backend.enabled = before


@contextmanager
def undisturbed(*sources: Any) -> Iterator[None]:
    """Keep the global random states, the number of threads, and the generators of loaders."""
    threads = torch.get_num_threads()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    own = [(g, g.get_state()) for g in _generators(sources)]
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002 - the user's state, put back
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        for generator, state in own:
            generator.set_state(state)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _generators(sources: tuple[Any, ...]) -> list[torch.Generator]:
    loaders = [s for s in sources if isinstance(s, DataLoader)]
    owners = [o for loader in loaders for o in (loader, loader.sampler)]
    found = (getattr(owner, "generator", None) for owner in owners)
    return [g for g in found if isinstance(g, torch.Generator)]
