"""Kernels that have second derivatives: torch's plain ones.

They take the place of fused attention (that of ``nn.TransformerEncoder`` too), of cuDNN's recurrent
layers and of oneDNN.
"""

from __future__ import annotations

import contextlib
import threading
from typing import final

import torch
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscope.objective.borrowing import without


@final
class _Native:
    """Torch's plain kernels, for as long as any thread is inside: the choice is global."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0
        self._chosen = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                self._chosen.enter_context(sdpa_kernel(SDPBackend.MATH))
                self._chosen.enter_context(without(torch.backends.cudnn))
                self._chosen.enter_context(without(torch.backends.mkldnn))
                self._chosen.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
                mha.set_fastpath_enabled(False)
            self.users += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self._chosen.close()


NATIVE = _Native()
