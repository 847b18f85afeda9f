"""Bodies: the modules of a model once more, in evaluation mode, around the same tensors.

A copy of the modules costs milliseconds and no memory, for the tensors are shared. It has a mode, a
configuration and hooks of its own: what an evaluation sets there, the user's model never sees.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from torch import nn

from landscope.errors import ObjectiveError

_QUIET = {  # what a forward pass returns: logits, and little more
    "use_cache": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
}


def bare(model: Any) -> Any:
    """Return the model without the adapters' wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def body_of(model: nn.Module, attention: str | None = None) -> nn.Module:
    """Return a body of a model: what it computes in evaluation mode, and nothing beside the logits.

    Args:
        model: of transformers, or with adapters around it.
        attention: the implementation that the body uses; None: the model's.

    Raises:
        ObjectiveError: when the modules or what they compute cannot be copied, or the attention is
            not to be had.
    """
    shared = (*model.parameters(), *model.buffers(), *_stores(model))
    try:
        body = copy.deepcopy(model, {id(one): one for one in shared}).eval()
    except Exception as error:
        raise ObjectiveError(
            f"the modules of the {type(model).__name__} cannot be copied: {error}. Remove what is"
            " attached to them (hooks, wrappers), or use ls.Objective with model.eval()."
        ) from error
    _check_forward(model, body)
    for module in body.modules():
        _make_plain(module)
    for config in _configs(body):
        for name, value in _QUIET.items():
            if getattr(config, name, value) != value:
                setattr(config, name, value)
    if attention is not None:
        _set_attention(bare(body), attention)
    return body


def check_precision(body: nn.Module, precision: str) -> None:
    """Raise a sentence when the attention of a model does not compute in a precision.

    Raises:
        ObjectiveError: so.
    """
    chosen = {str(getattr(config, "_attn_implementation", "")) for config in _configs(body)}
    flash = next((name for name in sorted(chosen) if "flash" in name), None)
    half = all(p.dtype.itemsize == 2 for p in body.parameters() if p.is_floating_point())
    if flash is not None and precision != "bfloat16" and not half:
        raise ObjectiveError(
            f"the attention of the model is {flash!r}, which computes in 16 bits only, and"
            f" precision={precision!r}: pass attention='sdpa', or precision='bfloat16'."
        )


def _stores(model: nn.Module) -> Iterator[Any]:
    """Yield where accelerate keeps the weights of offloaded modules: not to be copied."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            yield getattr(one, "weights_map", None)


def _make_plain(module: Any) -> None:
    """Take off what changes the precision, or the weights, while a model computes."""
    if "_original_forward" in vars(module):  # a Trainer's 16 bits stay on after the training
        module.forward = vars(module).pop("_original_forward")
    if getattr(module, "layers_are_rescaled", True) is False:  # RWKV would halve its own weights
        module.config.rescale_every = 0


def _check_forward(model: nn.Module, body: nn.Module) -> None:
    """Raise a sentence where a body would compute by modules of the model, with its dropout."""
    for theirs, ours in zip(model.modules(), body.modules(), strict=True):
        replaced = "_original_forward" not in vars(ours) and vars(ours).get("forward")
        if isinstance(replaced, FunctionType) and theirs.training:
            raise ObjectiveError(
                f"forward of a {type(theirs).__name__} was replaced by a function, which goes on in"
                " the training mode of the model: call model.eval() before."
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
        f"attention={attention!r} is not to be had in a {type(base).__name__}: {reason}."
    )
