"""Checkpoints: the weights of a model, read without unpickling anything but tensors.

Files of ``torch.save`` (.t7, .pt, .pth, .ckpt, .bin, also of old versions), .safetensors files,
checkpoints in shards, adapters of PEFT, and the folders that hold them. A model is loaded
completely or not at all.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from landscope.errors import FormatError
from landscope.files import to_path
from landscope.formats import adapter_weights
from landscope.formats.checkpoint_files import find_file, read_content
from landscope.formats.state_dicts import State, list_states
from landscope.formats.tensor_names import NameMatch, match_names

__all__ = ["load", "read", "select"]

_PARALLEL = ("module.", "_orig_mod.")  # what DataParallel and compile put before each name
_COUNTER = "num_batches_tracked"  # batch norm counts since torch 0.4.1
_MAX_MISMATCHES = 3  # that an error message lists


def load(model: nn.Module, path: str | os.PathLike[str], key: str | None = None) -> tuple[str, ...]:
    """Load the weights in a file into a model, in place and strictly.

    The names need not be the same: see :func:`select`. Two further differences are allowed:
    counters of batch norm may be missing, as in old files, and then do not change; and a tensor
    that has several names in the model may have only one of them in the file, as in .safetensors
    files. A model with adapters of PEFT may get their weights alone.

    Args:
        model: The model, which receives the values in its own dtype and on its own device.
        path: A file or folder that :func:`read` can read.
        key: The entry that holds the weights, such as "model_ema"; by default the first of the
            usual ones that fits.

    Returns:
        Sentences on how the file was read, where names were changed or a choice was made.

    Raises:
        FormatError: When the file cannot be read, or a name is missing, unexpected or has another
            shape. The model does not change then.
    """
    content = read_content(find_file(to_path(path)))
    if hasattr(model, "peft_config") and adapter_weights.load(model, content):
        return ("only the weights of the adapter were loaded",)
    adapter_weights.check_whole(content, path)
    expected = {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    }
    try:
        state, notes = _select(expected, content, path, key, model)
    except FormatError:
        state, notes = _drop_prefix(next(iter(list_states(content, path, key).values()))), ()
        if not _fits_by_hooks(model, state):
            raise
    model.load_state_dict(state, strict=False)
    return notes


def read(path: str | os.PathLike[str], key: str | None = None) -> State:
    """Return the tensors in a checkpoint by name, on the CPU.

    Args:
        path: A .safetensors file; a file of ``torch.save`` that holds a state dict, by itself or
            in an entry of a usual name ("state_dict", "model", ...); the index of a checkpoint in
            shards; or a folder with one of these under a name that ``save_pretrained`` gives.
            Entries that are not tensors are left out. The prefixes "module." and "_orig_mod." are
            removed if every name has them.
        key: The entry that holds the weights; by default the first of a usual name.

    Returns:
        Tensors in file order, without gradients.

    Raises:
        FormatError: When the file is missing, is damaged, has no tensors, or cannot be read
            without unpickling more than tensors.
    """
    content = read_content(find_file(to_path(path)))
    return _drop_prefix(next(iter(list_states(content, path, key).values())))


def select(
    expected: Mapping[str, Tensor], path: str | os.PathLike[str], key: str | None = None
) -> tuple[State, tuple[str, ...]]:
    """Return the tensors in a checkpoint that correspond to given ones, under their names.

    Names correspond as they are, or after one change that makes all names and shapes fit: without
    the wrappers of torch ("module.", "_orig_mod.", ...) and with one prefix ("model.", ...) removed
    or added.

    Args:
        expected: Tensors by name, such as ``objective.center``; the file may hold more.
        path: A file or folder that :func:`read` can read.
        key: The entry that holds the weights; by default the first of the usual ones that fits.

    Returns:
        The tensors, and sentences on how the file was read.

    Raises:
        FormatError: When the file cannot be read, or a tensor is missing or has another shape.
    """
    content = read_content(find_file(to_path(path)))
    return _select(expected, content, path, key, None)


def _select(
    expected: Mapping[str, Tensor],
    content: Mapping[str, Any],
    path: str | os.PathLike[str],
    key: str | None,
    model: nn.Module | None,
) -> tuple[State, tuple[str, ...]]:
    """Return the tensors that fit; all those of the file must belong to a model that is given."""
    matches = {
        place: _match(expected, state, model)
        for place, state in list_states(content, path, key).items()
    }
    fitting = [place for place, (_, match) in matches.items() if not match.errors]
    if not fitting:
        state, match = min(matches.values(), key=lambda pair: pair[1].errors)
        raise FormatError(_explain_mismatch(path, model, expected, state, match))
    state, match = matches[fitting[0]]
    tensors = {name: state[source] for name, source in match.sources.items()}
    return tensors, tuple(_describe(match, fitting, key))


def _match(
    expected: Mapping[str, Tensor], state: State, model: nn.Module | None
) -> tuple[State, NameMatch]:
    """Return how the names in a state correspond, and the state without entries of no meaning."""
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()  # of transformers
    state = {n: t for n, t in state.items() if not any(re.search(i, n) for i in ignored)}
    names: dict[int, list[str]] = {}
    for name, tensor in expected.items():
        names.setdefault(id(tensor), []).append(name)
    match = match_names(
        {name: tensor.shape for name, tensor in expected.items()},
        {name: tensor.shape for name, tensor in state.items()},
        {name: frozenset(names[id(tensor)]) for name, tensor in expected.items()},
        optional=[name for name in expected if name.rpartition(".")[2] == _COUNTER],
        strict=model is not None,
    )
    return state, match


def _drop_prefix(state: State) -> State:
    """Return a state without the prefix of wrappers of torch, if every name has it."""
    shared = (p for p in _PARALLEL if all(name.startswith(p) for name in state))
    prefix = next(shared, None)
    if prefix is None:
        return state
    return _drop_prefix({name.removeprefix(prefix): value for name, value in state.items()})


def _fits_by_hooks(model: nn.Module, state: State) -> bool:
    """Whether hooks of the model rename what is in a state, so that it fits.

    Such are those of torch's weight normalization, which read the names of its older form.
    """
    if not any(module._load_state_dict_pre_hooks for module in model.modules()):
        return False
    try:
        copy.deepcopy(model).load_state_dict(dict(state), strict=True)
    except (RuntimeError, TypeError):
        return False
    return True


def _explain_mismatch(
    path: str | os.PathLike[str],
    model: nn.Module | None,
    expected: Mapping[str, Tensor],
    state: State,
    match: NameMatch,
) -> str:
    mismatches = [
        *(
            f"{name} has the shape {tuple(state[match.sources[name]].shape)} in the file and"
            f" {tuple(expected[name].shape)} in the model"
            if name in match.misshapen
            else f"{name} is missing in the file"
            for name in expected
            if name in match.misshapen or name in match.missing
        ),
        *(f"{name} is not in the model" for name in match.unexpected),
    ]
    rest = len(mismatches) - _MAX_MISMATCHES
    more = f"; and {rest} more" if rest > 0 else ""
    prefix = f" (under the prefix {match.removed!r})" if match.removed else ""
    names = "" if match.sources else f" The file has {_list_names(state)}."
    owner, cure = "the center", "It is of another network: give a checkpoint of this one."
    if model is not None:
        owner, cure = type(model).__name__, "Build the model that the file was saved from."
    return (
        f"{path} does not fit {owner}{prefix}: {'; '.join(mismatches[:_MAX_MISMATCHES])}{more}."
        f"{names} {cure}"
    )


def _describe(match: NameMatch, places: list[str], key: str | None) -> Iterator[str]:
    """Yield sentences on how the names of a file were read, and what was chosen."""
    changes = [f"without the prefix {match.removed!r}"] if match.removed else []
    changes += [f"with the prefix {match.added!r} added"] if match.added else []
    if changes:
        yield f"the names in the checkpoint were read {' and '.join(changes)}"
    if match.left_out:
        yield f"the checkpoint also holds {_list_names(match.left_out)}, which were left out"
    others = [*match.others, *places[1:]] if key is None else []
    if others:
        chosen = match.removed.rstrip(".") if match.others else places[0] or "the top level"
        yield (
            f"the weights are those of {chosen}; {', '.join(o.rstrip('.') for o in others)} would"
            " fit as well"
        )


def _list_names(names: Iterable[str]) -> str:
    first, *rest = list(names)
    return f"{first} and {len(rest)} more" if rest else first


def __dir__() -> list[str]:
    return __all__
