"""Kernels that have second derivatives: torch's native ones.

They replace fused attention (also that of ``nn.TransformerEncoder``), cuDNN and oneDNN. Functions
whose second derivative is wrong are replaced by their formula.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from landscope.objective.global_state import disable_backend


@final
class _NativeKernels:
    """A context manager: torch's native kernels for all threads, until the last one leaves."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0
        self._settings = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                self._settings.enter_context(sdpa_kernel(SDPBackend.MATH))
                self._settings.enter_context(disable_backend(torch.backends.cudnn))
                self._settings.enter_context(disable_backend(torch.backends.mkldnn))
                self._settings.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
                mha.set_fastpath_enabled(False)
            self.users += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self._settings.close()


NATIVE = _NativeKernels()


@contextlib.contextmanager
def by_formula() -> Iterator[None]:
    """Replace kernels, and functions whose second derivative in torch is wrong, in this thread."""
    with NATIVE, _Formulas():
        yield


class _Formulas(TorchFunctionMode):
    """Computes the weight norm as g v / |v|: its fused kernel in torch 2.13 is wrong twice."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return the result of a function of torch."""
        if function is torch._weight_norm:
            return _weight_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))
