"""Kernels that have second derivatives: torch's native ones.

They replace fused attention (also that of ``nn.TransformerEncoder``), cuDNN and oneDNN.
"""

from __future__ import annotations

import contextlib
import threading
from typing import final

import torch
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel

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
