"""Borrowing a user's model: its tensors are swapped for others and swapped back afterwards.

The memory of the user's parameters and buffers is never written to. While ``.data`` of a tensor
points to other memory, its own memory stays as it was, so the model is restored bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from landscope.errors import ObjectiveError, ParamsError
from landscope.objective.global_state import preserve_global_state
from landscope.params import check_like, named_tensors


@final
class BorrowedModel:
    """A model whose tensors can be swapped until it is restored.

    Args:
        model: The user's module.
        device: The device of the tensors while the model is borrowed; None leaves each where it is.
        dtype: The dtype of its floating-point tensors while it is borrowed; None leaves each as it
            is.
    """

    def __init__(
        self, model: nn.Module, device: torch.device | None, dtype: torch.dtype | None
    ) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self.tensors = dict(named_tensors(model))
        self._buffers = {id(b) for b in model.buffers()}
        unique = {id(t): t for t in self.tensors.values()}
        self._originals = [(t, t.data) for t in unique.values()]
        self._modes = [(m, m.training) for m in model.modules()]
        self._swapped = set(unique)  # at first no tensor is on the device
        self._last_params: Mapping[str, Tensor] | None = None
        self._last_addresses: list[int] = []
        self._copies: tuple[list[Tensor], list[Tensor]] = ([], [])  # of buffers, and their sources

    def check_fit(self, params: Mapping[str, Tensor], center: Mapping[str, Tensor]) -> None:
        """Check that the model has tensors of the same names and shapes, which can be swapped.

        Args:
            params: The tensors to swap in.
            center: The trainable parameters; offloaded ones must be these in ``params``.

        Raises:
            ParamsError: When a name is unknown or a shape differs.
            ObjectiveError: When an offloaded parameter has another value.
        """
        unknown = next((n for n in params if n not in self.tensors), None)
        if unknown is not None:
            raise ParamsError(
                f"params has {unknown!r}, which the model does not have: take params from"
                " objective.center or objective.states."
            )
        expected = {n: self.tensors[n] for n in params}
        check_like(params, expected, "params")
        offloaded = [n for n, tensor in expected.items() if tensor.is_meta]
        if any(params[n].data_ptr() != center[n].data_ptr() for n in offloaded):
            raise ObjectiveError(
                f"params has its own value for {offloaded[0]!r}, which is offloaded: such a model"
                " moves only along a slice, in ls.scan."
            )

    def set_params(self, params: Mapping[str, Tensor]) -> None:
        """Swap these tensors in, and the user's for all other names.

        Passing the same mapping again, after its tensors were written in place, is almost free.
        """
        if params is not self._last_params or _addresses(params) != self._last_addresses:
            self._swap(params)
        copies, sources = self._copies  # a forward pass may have written to the copies
        if copies:
            torch._foreach_copy_(copies, sources)

    def _swap(self, params: Mapping[str, Tensor]) -> None:
        given = {id(self.tensors[n]): v for n, v in params.items()}
        self._copies = ([], [])
        shared = True
        for tensor, data in self._originals:
            key = id(tensor)
            if key in self._buffers:
                source = given[key].detach() if key in given else data
                dtype = self._dtype_of(source)
                tensor.data = torch.empty_like(source, device=self.device, dtype=dtype)
                self._copies[0].append(tensor.data)
                self._copies[1].append(source)
            elif data.is_meta:
                continue  # offloaded: its values are changed when they are loaded
            elif key in given:
                device, dtype = self.device or data.device, self._dtype_of(data)
                tensor.data = given[key].detach().to(device, dtype)
                shared = shared and tensor.data_ptr() == given[key].data_ptr()
            elif key in self._swapped:
                tensor.data = data.to(self.device or data.device, self._dtype_of(data))
        self._swapped = set(given)
        self._last_params = params if shared else None
        self._last_addresses = _addresses(params)

    def _dtype_of(self, data: Tensor) -> torch.dtype:
        return self.dtype if data.is_floating_point() and self.dtype else data.dtype

    def restore(self) -> None:
        """Restore every tensor and every training flag."""
        for tensor, data in self._originals:
            tensor.data = data
        for module, training in self._modes:
            module.training = training


def _addresses(params: Mapping[str, Tensor]) -> list[int]:
    """Return where the tensors are in memory: a tensor that was replaced is elsewhere."""
    return [tensor.data_ptr() for tensor in params.values()]


@contextmanager
def borrow(
    model: nn.Module, device: torch.device | None, dtype: torch.dtype | None
) -> Iterator[BorrowedModel]:
    """Borrow a model; afterwards its tensors and flags, and the global state, are as before."""
    with preserve_global_state():
        borrowed = BorrowedModel(model, device, dtype)
        try:
            yield borrowed
        finally:
            borrowed.restore()
