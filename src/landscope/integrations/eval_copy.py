"""Copies of models for evaluation, which share all tensors with the originals.

A copy costs milliseconds and hardly any memory, because its modules are new but its tensors are
not. It has its own mode, configuration and hooks, so that an evaluation changes nothing in the
user's model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from torch import nn

from landscope.errors import ObjectiveError

_LOGITS_ONLY = {  # settings of a configuration that make a forward pass return little but logits
    "use_cache": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
}


def unwrap_adapters(model: Any) -> Any:
    """Return the base model of a model with adapters; other models are returned as they are."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def make_eval_copy(model: nn.Module, attention: str | None = None) -> nn.Module:
    """Return a copy in evaluation mode that computes logits and little else.

    Args:
        model: A model of transformers, possibly with adapters.
        attention: The attention implementation of the copy; that of the model if None.

    Raises:
        ObjectiveError: When the modules or their forward pass cannot be copied, or the attention
            implementation is not available.
    """
    shared = (*model.parameters(), *model.buffers(), *_offload_stores(model))
    try:
        eval_copy = copy.deepcopy(model, {id(thing): thing for thing in shared}).eval()
    except Exception as error:
        raise ObjectiveError(
            f"the modules of the {type(model).__name__} cannot be copied: {error}. Remove what is"
            " attached to them (hooks, wrappers), or use ls.Objective with model.eval()."
        ) from error
    _check_forward(model, eval_copy)
    for module in eval_copy.modules():
        _restore_plain_forward(module)
    for config in _configs(eval_copy):
        for name, value in _LOGITS_ONLY.items():
            if getattr(config, name, value) != value:
                setattr(config, name, value)
    if attention is not None:
        _set_attention(unwrap_adapters(eval_copy), attention)
    return eval_copy


def check_precision(eval_copy: nn.Module, precision: str) -> None:
    """Check that the attention of a model can compute in a precision.

    Raises:
        ObjectiveError: When it cannot.
    """
    names = {str(getattr(config, "_attn_implementation", "")) for config in _configs(eval_copy)}
    flash = next((name for name in sorted(names) if "flash" in name), None)
    is_half = all(p.dtype.itemsize == 2 for p in eval_copy.parameters() if p.is_floating_point())
    if flash is not None and precision != "bfloat16" and not is_half:
        raise ObjectiveError(
            f"the attention of the model is {flash!r}, which computes in 16 bits only, and"
            f" precision={precision!r}: pass attention='sdpa', or precision='bfloat16'."
        )


def _offload_stores(model: nn.Module) -> Iterator[Any]:
    """Yield the objects in which accelerate stores the weights of offloaded modules."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for part in getattr(hook, "hooks", (hook,)):
            yield getattr(part, "weights_map", None)


def _restore_plain_forward(module: Any) -> None:
    """Undo patches that change the precision or the weights during a forward pass."""
    if "_original_forward" in vars(module):  # the autocast of a Trainer stays after the training
        module.forward = vars(module).pop("_original_forward")
    if getattr(module, "layers_are_rescaled", True) is False:  # RWKV would halve its own weights
        module.config.rescale_every = 0


def _check_forward(model: nn.Module, eval_copy: nn.Module) -> None:
    """Raise ObjectiveError if the copy would call the model's own modules, in training mode."""
    for original, copied in zip(model.modules(), eval_copy.modules(), strict=True):
        replaced = "_original_forward" not in vars(copied) and vars(copied).get("forward")
        if isinstance(replaced, FunctionType) and original.training:
            raise ObjectiveError(
                f"forward of a {type(original).__name__} was replaced by a function, which would"
                " run in the training mode of the model: call model.eval() first."
            )


def _configs(model: nn.Module) -> Iterator[Any]:
    """Yield the configurations of a model and of its parts, some of them several times."""
    return (m.config for m in model.modules() if hasattr(m, "config"))


def _set_attention(base: Any, attention: str) -> None:
    reason = "this version of transformers cannot change it"
    if hasattr(base, "set_attn_implementation"):
        try:
            base.set_attn_implementation(attention)
        except (ValueError, ImportError) as error:
            reason = str(error)
        else:
            if base.config._attn_implementation == attention:
                return
            reason = "it cannot be changed in this model"
    raise ObjectiveError(
        f"attention={attention!r} is not available in a {type(base).__name__}: {reason}."
    )
