"""Models that torch has wrapped or sharded: the module inside, and the gathered tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landscope.errors import RecorderError

_WRAPPERS = {  # of torch, and the attribute in which each keeps the model
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}


def unwrap(model: Any) -> nn.Module:
    """Return the model without the wrappers of torch, which would change the names.

    Raises:
        RecorderError: When it is not a module.
    """
    if not isinstance(model, nn.Module):
        raise RecorderError(
            f"the recorder was called with a {type(model).__name__}; expected the model that is"
            " trained, a torch.nn.Module: recorder(model, step=...)."
        )
    bare: nn.Module = model
    while (attribute := _WRAPPERS.get(type(bare).__name__)) is not None:
        bare = bare.get_submodule(attribute)
    return bare


def is_first_rank() -> bool:
    """Whether this process is the only one of the training run, or the first one."""
    distributed = torch.distributed
    running = distributed.is_available() and distributed.is_initialized()
    return not running or distributed.get_rank() == 0


def gather(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors one by one, those that are sharded (DTensor) gathered from all ranks."""
    sharding: Any = sys.modules.get("torch.distributed.tensor")
    for name, tensor in tensors.items():
        is_sharded = sharding is not None and isinstance(tensor, sharding.DTensor)
        any_tensor: Any = tensor
        yield name, any_tensor.full_tensor() if is_sharded else tensor
