"""Models whose parameters cannot be moved: a sentence for each kind, at once."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from landscope.errors import ObjectiveError

_QUANTIZED = ("quantized", "Linear4bit", "Linear8bitLt", "QuantLinear")  # torch, bitsandbytes, GPTQ


def check_usable(model: nn.Module) -> None:
    """Check that the parameters of a model exist, and are plain tensors.

    Raises:
        ObjectiveError: When they are lazy, sharded among processes, or packed.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise ObjectiveError(
                f"{name!r} of the model is lazy and has no values yet: call the model once with a"
                " batch, model(inputs), before."
            )
        sharding: Any = sys.modules.get("torch.distributed.tensor")
        if sharding is not None and isinstance(tensor, sharding.DTensor):
            raise ObjectiveError(
                f"{name!r} of the model is a DTensor, sharded among processes (FSDP2, tensor"
                " parallel): load the whole weights, as tensor.full_tensor() gives them, into a"
                " model on one device."
            )
        values: Any = tensor.data
        if tensor.requires_grad and is_traceable_wrapper_subclass(values):
            raise ObjectiveError(
                f"{name!r} of the model is a {type(values).__name__}, whose weights are"
                " packed or quantized: use the model as it was before."
            )


def check_in_memory(model: nn.Module) -> None:
    """Check that no parameter is on the meta device, for a model that is not offloaded.

    Raises:
        ObjectiveError: When one is.
    """
    name = next((n for n, p in model.named_parameters() if p.is_meta), None)
    if name is not None:
        raise ObjectiveError(
            f"{name!r} of the model is on the meta device and has no values: make the model"
            " outside of torch.device('meta'), or load its weights with"
            " load_state_dict(..., assign=True)."
        )


def check_trainable(model: nn.Module, center: object) -> None:
    """Check that a model has trainable parameters.

    Raises:
        ObjectiveError: When it has none; the message says why, where this is known.
    """
    if center:
        return
    kinds = [f"{type(m).__module__}.{type(m).__qualname__}" for m in model.modules()]
    quantized = next((kind for kind in kinds if any(word in kind for word in _QUANTIZED)), None)
    if quantized is not None:
        raise ObjectiveError(
            f"model has no trainable parameters, because its weights are quantized ({quantized}):"
            " pass the model as it was before quantization."
        )
    raise ObjectiveError(
        "model has no trainable parameters: set requires_grad=True on those that should move."
    )
