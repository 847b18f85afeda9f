"""Memory of a device: how much is free, and which errors say that it ran out."""

from __future__ import annotations

import os

import torch

_PHRASES = (  # of torch's allocators for the CPU, which raise a plain RuntimeError
    ("can't allocate memory",),
    ("not enough memory",),
    ("alloc", "memory"),
)


def free_memory(device: torch.device) -> float:
    """Return the free memory of a device in bytes."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):  # not every system has these
        return 4e9


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        all(word in text for word in phrase) for phrase in _PHRASES
    )
