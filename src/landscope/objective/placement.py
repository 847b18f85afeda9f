"""Placement: the device and the precision in which an objective computes."""

from __future__ import annotations

import torch
from torch import nn

from landscope.errors import ObjectiveError
from landscope.objective import offloaded

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
}


def find_device(device: str | torch.device, model: nn.Module) -> torch.device:
    """Return the device of an objective: for "auto" the model's, or a GPU instead of the CPU.

    Raises:
        ObjectiveError: When torch does not know the device.
    """
    if device != "auto":
        try:
            return _open_device(device)
        except (RuntimeError, TypeError, AssertionError) as error:
            problem = str(error).splitlines()[0].rstrip(".")
            raise ObjectiveError(
                f"device={device!r} is not known to torch or not here ({problem}): pass 'auto',"
                " 'cpu', or a device of this machine such as 'cuda:0'."
            ) from error
    current = next((p.device for p in model.parameters()), torch.device("cpu"))
    use_gpu = current.type == "cpu" and torch.cuda.is_available()
    return torch.device("cuda") if use_gpu else current


def _open_device(device: str | torch.device) -> torch.device:
    """Return a device on which a tensor can be made."""
    known = torch.device(device)
    if known.type != "meta":
        torch.empty(0, device=known)
    return known


def find_dtype(precision: str, model: nn.Module) -> torch.dtype:
    """Return the dtype of a precision; "float32" leaves float64 models as they are."""
    double = any(p.dtype == torch.float64 for p in model.parameters())
    return torch.float64 if precision == "float32" and double else PRECISIONS[precision]


def in_place_placement(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device of a model's inputs, and the dtype of its first weights."""
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return offloaded.find_device(model) or first.device, first.dtype
