"""Weights of adapters that PEFT saved: few tensors, for a model whose base is not in the file."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from landscope.errors import FormatError

_BASE = "base_model.model."  # what PEFT puts before the names of the model
_ADAPTER = re.compile(r"lora_|hada_|lokr_|oft_|vera_|ia3_|prompt_|adaption_|bone_|randlora_")


def load(model: nn.Module, content: Mapping[str, Any]) -> bool:
    """Load the weights of an adapter into a model of PEFT, if that is what a file holds.

    Args:
        model: A ``peft.PeftModel``.
        content: What the file holds.

    Returns:
        Whether it was loaded: its names and shapes are those that PEFT saves for this model.
    """
    peft: Any = importlib.import_module("peft")
    wrapped: Any = model
    for name in wrapped.peft_config:
        saved = peft.get_peft_model_state_dict(wrapped, adapter_name=name)
        if saved.keys() == content.keys() and all(
            isinstance(content[n], Tensor) and content[n].shape == t.shape for n, t in saved.items()
        ):
            peft.set_peft_model_state_dict(wrapped, dict(content), adapter_name=name)
            return True
    return False


def check_whole(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Check that a file holds more than an adapter.

    Raises:
        FormatError: When it holds nothing else.
    """
    names = [str(name) for name in content]
    if names and all(n.startswith(_BASE) and _ADAPTER.search(n) for n in names):
        raise FormatError(
            f"{path} holds an adapter of PEFT ({len(names)} tensors) and not the model below it:"
            " give the model that peft.get_peft_model or peft.PeftModel.from_pretrained returned,"
            " with the same configuration."
        )
