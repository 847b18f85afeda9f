"""The files of a checkpoint: one of torch or safetensors, shards with an index, or their folder."""

from __future__ import annotations

import json
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscope.errors import FormatError
from landscope.formats.inert_values import InertValue, load_inert

_INDEX = ".index.json"
_WHOLE = (  # names of weights in a folder that save_pretrained wrote; the first one that is there
    "model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin",
)  # fmt: skip
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what it will not unpickle
_OTHER_KINDS = {  # of files: what a file with this ending is, and what to do with it
    ".gguf": "a GGUF file of llama.cpp, whose weights are quantized: give the original weights",
    ".onnx": "an ONNX graph: give the checkpoint that it was exported from",
    ".npz": "an archive of NumPy arrays: save a dict of torch tensors with torch.save",
    ".npy": "a NumPy array: save a dict of torch tensors with torch.save",
    ".h5": "an HDF5 file: give the weights of the PyTorch model",
    ".keras": "a file of Keras: give the weights of the PyTorch model",
    ".msgpack": "a file of Flax: load it with from_flax=True, and save model.state_dict()",
    ".index": "a file of TensorFlow: give the weights of the PyTorch model",
    ".pb": "a graph of TensorFlow: give the weights of the PyTorch model",
    ".tflite": "a graph of TensorFlow: give the weights of the PyTorch model",
    ".pt2": "a program of torch.export: give the checkpoint of the model it was exported from",
}


def find_file(path: Path) -> Path:
    """Return the file that holds the weights, or the index of its shards.

    Args:
        path: A file, or a folder that ``save_pretrained`` wrote.

    Raises:
        FormatError: When there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise FormatError(
            f"{path} does not exist: give the checkpoint file itself (.t7, .pt, .pth, …)."
        )
    for name in (name for whole in _WHOLE for name in (whole, whole + _INDEX)):
        if (path / name).is_file():
            return path / name
    raise FormatError(f"{path} is a folder: {_describe_folder(path)}.")


def _describe_folder(path: Path) -> str:
    """Return what a folder without weights of a known name is, and what to do."""
    names = {entry.name for entry in path.iterdir()}
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return (
            "it is of torch.distributed.checkpoint; convert it with"
            " torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, 'model.pt')"
        )
    if "zero_to_fp32.py" in names or any(n.startswith(("zero_pp_rank", "mp_rank")) for n in names):
        return (
            "it is of DeepSpeed, whose files hold parts of tensors; run its zero_to_fp32.py, and"
            " give the file that it writes"
        )
    return (
        "give the checkpoint file itself (.t7, .pt, .pth, …), or a folder with"
        f" {_WHOLE[0]} or {_WHOLE[1]}"
    )


def read_content(path: Path) -> Mapping[str, Any]:
    """Return what a file holds, by name; tensors are on the CPU, the rest may be inert values.

    Args:
        path: A file that :func:`find_file` found.

    Raises:
        FormatError: When the file is damaged, of another kind, or a part of a checkpoint.
    """
    if path.name.endswith(_INDEX):
        return _read_shards(path)
    if path.suffix in _OTHER_KINDS:
        raise FormatError(f"{path} is {_OTHER_KINDS[path.suffix]}.")
    shard = _SHARD.fullmatch(path.name)
    if shard and (path.parent / f"{shard[1]}{shard[2]}{_INDEX}").is_file():
        raise FormatError(
            f"{path} is one shard of a checkpoint: give its folder, or"
            f" {shard[1]}{shard[2]}{_INDEX}."
        )
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _read_shards(index: Path) -> dict[str, Any]:
    """Return the tensors of all shards of an index."""
    try:
        places = json.loads(index.read_text())["weight_map"]
        files = dict.fromkeys(str(file) for file in places.values())
        if any(Path(file).name != file for file in files):
            raise ValueError("it names files in other folders")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{index} is not the index of a checkpoint in shards ({error})."
        ) from error
    absent = [file for file in files if not (index.parent / file).is_file()]
    if absent:
        raise FormatError(
            f"{index} names {len(files)} shards, and {absent[0]} is not there: copy all of them"
            " into its folder."
        )
    contents = {file: _read_file(index.parent / file) for file in files}
    lost = next((name for name, file in places.items() if name not in contents[file]), None)
    if lost is not None:
        raise FormatError(
            f"{index} promises {lost!r} in {places[lost]}, which does not hold it: copy all shards"
            " of one checkpoint into its folder."
        )
    return {name: contents[file][name] for name, file in places.items()}


def _read_file(path: Path) -> Mapping[str, Any]:
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


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
    _check_kind(path)
    try:
        content = load_inert(path)
    except Exception as error:  # damaged bytes make torch raise errors of any type
        raise FormatError(_explain_error(path, error)) from error
    if isinstance(content, InertValue):
        raise FormatError(explain_pickle(path, content.name))
    if not isinstance(content, Mapping):
        raise FormatError(
            f"{path} holds a {type(content).__name__}; expected a state dict: save"
            " model.state_dict()."
        )
    return content


def _check_kind(path: Path) -> None:
    """Check that a file is no program of TorchScript or torch.export, nor an archive of files."""
    if tarfile.is_tarfile(path):
        raise FormatError(f"{path} is a tar archive: unpack it, and give the checkpoint in it.")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        raise FormatError(
            f"{path} is a TorchScript program: where you trust it, load it with"
            " torch.jit.load(...) and save its state_dict()."
        )
    if "archive_format" in names:
        raise FormatError(f"{path} is {_OTHER_KINDS['.pt2']}.")
    if "data.pkl" not in names:
        raise FormatError(f"{path} is a zip archive: unpack it, and give the checkpoint in it.")


def explain_pickle(path: str | os.PathLike[str], name: str) -> str:
    """Return the message of the error for a file whose weights are inside a pickled object."""
    return (
        f"{path} cannot be opened without unpickling {name}, and landscope does not unpickle"
        " anything but tensors, because a pickle can run any code. Open the file where you trust"
        " it and save model.state_dict()."
    )


def _explain_error(path: Path, error: Exception) -> str:
    refused = _REFUSED.search(str(error))
    if refused:
        return explain_pickle(path, refused[1])
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
