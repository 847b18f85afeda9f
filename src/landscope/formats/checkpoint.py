"""Checkpoints: the weights of a model in a file, read without unpickling anything but tensors.

Files of ``torch.save`` (.t7, .pt, .pth and others, also of old versions) and .safetensors
files. A model is loaded completely or not at all.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landscope.errors import FormatError

__all__ = ["load", "read"]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys that hold the weights
_PARALLEL = "module."  # what torch.nn.DataParallel puts before each name
_COUNTER = "num_batches_tracked"  # batch norm counts since torch 0.4.1
_MAX_MISMATCHES = 3  # that an error message lists
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what it will not unpickle


def load(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load the weights in a file into a model, in place and strictly.

    Two differences are allowed: counters of batch norm may be missing, as in old files, and then do
    not change; and a tensor that has several names in the model may have only one of them in
    the file, as in .safetensors files.

    Args:
        model: The model, which receives the values in its own dtype and on its own device.
        path: A file that :func:`read` can read.

    Raises:
        FormatError: When the file cannot be read, or a name is missing, unexpected or has another
            shape. The model does not change then.
    """
    state = read(path)
    expected = {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    }
    mismatches = list(_list_mismatches(expected, state))
    if mismatches:
        rest = len(mismatches) - _MAX_MISMATCHES
        more = f"; and {rest} more" if rest > 0 else ""
        raise FormatError(
            f"{path} does not fit {type(model).__name__}:"
            f" {'; '.join(mismatches[:_MAX_MISMATCHES])}{more}."
            " Build the model that the file was saved from."
        )
    model.load_state_dict(state, strict=False)


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors in a checkpoint by name, on the CPU.

    Args:
        path: A .safetensors file, or a file of ``torch.save`` that holds a state dict, by itself or
            under "state_dict", "model_state_dict", "model" or "net". Entries that are not tensors
            are left out. The prefix "module." is removed if every name has it.

    Returns:
        Tensors in file order, without gradients.

    Raises:
        FormatError: When the file is missing, is damaged, has no tensors, or cannot be read
            without unpickling more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise FormatError(f"{path} {problem}: give the checkpoint file itself (.t7, .pt, .pth, …).")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    wrapped = (content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping))
    entries = next(wrapped, content)
    state = {str(name): t.detach() for name, t in entries.items() if isinstance(t, Tensor)}
    if not state:
        raise FormatError(
            f"{path} holds no tensors where a state dict should be (it has the entries"
            f" {', '.join(map(repr, list(entries)[:5])) or 'none'}): save model.state_dict()."
        )
    if all(name.startswith(_PARALLEL) for name in state):
        state = {name.removeprefix(_PARALLEL): value for name, value in state.items()}
    return state


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FormatError(
            f"{path} is not a whole safetensors file ({error}): save it again."
        ) from error


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols; errors are enough
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise errors of any type
        raise FormatError(_explain_error(path, error)) from error
    if not isinstance(content, Mapping):
        raise FormatError(
            f"{path} holds a {type(content).__name__}; expected a state dict: save"
            " model.state_dict()."
        )
    return content


def _explain_error(path: Path, error: Exception) -> str:
    refused = _REFUSED.search(str(error))
    if refused:
        return (
            f"{path} cannot be opened without unpickling {refused[1]}, and landscope does not"
            " unpickle anything but tensors, because a pickle can run any code. Open the file"
            " where you trust it and save model.state_dict()."
        )
    if isinstance(error, pickle.UnpicklingError):  # its text advises weights_only=False
        return (
            f"{path} is not a checkpoint that torch can read: it is damaged, of another kind, or"
            " holds more than tensors, which landscope does not unpickle. Save model.state_dict()."
        )
    reason = str(error).strip().partition("\n")[0]
    if not any(map(str.isalpha, reason)):  # such as the key of a KeyError
        reason = type(error).__name__
    return (
        f"{path} is not a checkpoint that torch can read ({reason}). It may be damaged: save"
        " model.state_dict() again."
    )


def _list_mismatches(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield what keeps a state dict from fitting the tensors of a model."""
    loaded = {id(expected[name]) for name in state if name in expected}
    for name, value in expected.items():
        if name in state:
            if state[name].shape != value.shape:
                yield (
                    f"{name} has the shape {tuple(state[name].shape)} in the file and"
                    f" {tuple(value.shape)} in the model"
                )
        elif id(value) not in loaded and name.rpartition(".")[2] != _COUNTER:
            yield f"{name} is missing in the file"
    yield from (f"{name} is not in the model" for name in state if name not in expected)


def __dir__() -> list[str]:
    return __all__
