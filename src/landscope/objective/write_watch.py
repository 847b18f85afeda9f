"""Noticing which tensors a forward pass writes into, before their values are lost."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from landscope.params import as_bytes

_LOCK = threading.RLock()  # models in several threads share memory that is watched


@final
class WriteWatch(TorchDispatchMode):
    """While it is active, memory that an operator is about to write into is copied first.

    One thread at a time can be inside; writes of other threads would be taken for the first values.

    Args:
        tensors: The tensors to watch. Those without plain memory (on the meta device, sparse,
            subclasses) are not watched.

    Attributes:
        tensors: The tensors that were given, detached.
        saved: Position in ``tensors`` -> the values before the first write.

    Cost: some microseconds for each operator, and memory only for what is written. Writes that
    torch does not see, such as those through ``tensor.numpy()``, are not noticed.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.tensors = [tensor.detach() for tensor in tensors]
        self.saved: dict[int, Tensor] = {}
        self._watched: dict[int, list[int]] = {}
        for position, tensor in enumerate(self.tensors):
            if (address := _find_address(tensor)) is not None:
                self._watched.setdefault(address, []).append(position)

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Watch what is executed inside, and restore the values of what was written into."""
        if not self._watched:
            yield
            return
        with _LOCK:
            try:
                with self:
                    yield
            finally:
                for position, values in self.saved.items():
                    self.tensors[position].copy_(values)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler, which takes seconds and 90 MB."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Save what an operator is about to write into, and run it."""
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for k, argument in enumerate(func._schema.arguments):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    value = args[k] if k < len(args) else kwargs.get(argument.name)
                    for tensor in value if isinstance(value, tuple | list) else (value,):
                        self._save(tensor)
        return func(*args, **kwargs)

    def _save(self, written: Any) -> None:
        address = _find_address(written) if isinstance(written, Tensor) else None
        for position in self._watched.get(address or 0, ()):
            if position not in self.saved:
                self.saved[position] = self.tensors[position].clone()


def equal_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of the same shape and dtype have the same bits.

    Those without plain memory count as equal.
    """
    if _find_address(a) is None or _find_address(b) is None:
        return True
    return torch.equal(as_bytes(a), as_bytes(b))


def _find_address(tensor: Tensor) -> int | None:
    """Return where the memory of a tensor begins; None if it has no plain memory."""
    if type(tensor) not in (Tensor, torch.nn.Parameter, torch.nn.Buffer):
        return None
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        return None
    return tensor.untyped_storage().data_ptr() or None
