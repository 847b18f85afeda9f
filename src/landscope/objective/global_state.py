"""Global state of a process that an evaluation depends on: random numbers, threads, backends.

The functions that change it are context managers, which restore it even after an exception.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader


def seed_all(seed: int) -> None:
    """Set the global random states that data pipelines draw from; the caller restores them."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - augmentation code draws from the global state


@contextmanager
def preserve_global_state(*sources: Any) -> Iterator[None]:
    """Restore random states and the number of threads afterwards.

    Args:
        sources: Data of the user; the generators of a DataLoader are restored, too.
    """
    threads = torch.get_num_threads()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    generators = [(g, g.get_state()) for g in _find_generators(sources)]
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002 - the user's state is restored
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        for generator, state in generators:
            generator.set_state(state)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _find_generators(sources: tuple[Any, ...]) -> list[torch.Generator]:
    loaders = [s for s in sources if isinstance(s, DataLoader)]
    owners = [o for loader in loaders for o in (loader, loader.sampler)]
    candidates = (getattr(owner, "generator", None) for owner in owners)
    return [g for g in candidates if isinstance(g, torch.Generator)]


@contextmanager
def set_tf32(*, enabled: bool) -> Iterator[None]:
    """Compute products of float32 numbers in TensorFloat-32 where the device can, or in full.

    torch computes convolutions on a GPU in TF32 by default, which leaves three digits.
    """
    cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
    convolutions = cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if enabled else "highest")
    cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32 = convolutions


@contextmanager
def disable_backend(backend: Any) -> Iterator[None]:
    """Disable a backend of torch; its own ``flags()`` would also set TF32, and warn about it."""
    enabled = backend.enabled
    backend.enabled = False
    try:
        yield
    finally:
        backend.enabled = enabled
