"""State dicts: where in a checkpoint the weights are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from landscope.errors import FormatError
from landscope.formats.checkpoint_files import explain_pickle
from landscope.formats.inert_values import InertValue

_CONTAINERS = (  # entries that hold the weights; where several fit, the first
    "state_dict", "model_state_dict", "model", "net", "model_state", "network", "module",
    "params", "weights", "generator", "student",
    "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "params_ema", "ema", "teacher",
)  # fmt: skip
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|loops|callbacks|history|metrics|rng")
_DEPTH = 3  # of mappings inside each other

State = dict[str, Tensor]


def list_states(
    content: Mapping[str, Any], path: str | os.PathLike[str], key: str | None = None
) -> dict[str, State]:
    """Return the state dicts in a checkpoint by place, the likeliest first.

    Args:
        content: What the file holds.
        path: The file, for errors.
        key: The entry to take, as "model_ema" or "state_dict.model"; all if None.

    Returns:
        Place ("" for the top level) -> tensors by name; at least one.

    Raises:
        FormatError: When there is none, or none at the key.
    """
    states = {place: state for place, state in _find_states(content) if state}
    if not states:
        inert = _find_inert(content)
        if inert is not None:
            raise FormatError(explain_pickle(path, inert.name))
        entries = ", ".join(map(repr, list(content)[:5])) or "none"
        raise FormatError(
            f"{path} holds no tensors where a state dict should be (it has the entries {entries}):"
            " save model.state_dict()."
        )
    if key is None:
        return dict(sorted(states.items(), key=lambda item: _rank(item[0])))
    if key not in states:
        places = ", ".join(place or "the top level" for place in states)
        raise FormatError(f"key={key!r}: {path} holds no weights there; it has them in {places}.")
    return {key: states[key]}


def _find_states(content: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, State]]:
    """Yield the place and the tensors of every mapping, from the outermost one."""
    yield place, {str(n): t.detach() for n, t in content.items() if isinstance(t, Tensor)}
    for name, value in content.items():
        if not isinstance(value, Mapping) or not isinstance(name, str):
            continue
        inner = f"{place}.{name}" if place else name
        if not _NO_WEIGHTS.search(name) and inner.count(".") < _DEPTH:
            yield from _find_states(value, inner)


def _rank(place: str) -> int:
    """Return the order in which places are tried: containers, the top level, then the rest."""
    name = place.rpartition(".")[2]
    if name in _CONTAINERS:
        return _CONTAINERS.index(name)
    return len(_CONTAINERS) + (place != "")


def _find_inert(content: Mapping[str, Any]) -> InertValue | None:
    """Return the object in which the weights probably are, e.g. a whole pickled model."""
    inert = {name: value for name, value in content.items() if isinstance(value, InertValue)}
    names = (name for name in (*_CONTAINERS, *inert) if name in inert)
    return inert.get(next(names, ""))
