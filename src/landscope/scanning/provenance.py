"""Provenance: where a landscape comes from, as attributes of its dataset and in words.

The attributes are texts, so that every file format keeps them. A scan writes those of the slice,
the points and the objective; the command line adds target, checkpoint and arguments. Nothing here
depends on the machine's clock or on the folder of a run: equal scans have equal attributes.

    target, checkpoint, arguments   what the command line was given
    directions                      axis -> how its direction was made, JSON
    sampler, samples                which points were evaluated, on which samples
    fingerprints                    what identifies weights, data, loss, ..., JSON
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from landscope.landscape import Landscape

_LABELS = {  # attribute -> its label, in the order of a report
    "source": "source", "file": "file", "dir_file": "directions in",
    "target": "target", "arguments": "arguments", "checkpoint": "checkpoint",
    "checkpoints": "checkpoints", "model": "model", "loss": "loss", "penalty": "penalty",
    "buffers": "batch norm", "slice": "slice", "directions": "directions", "sampler": "points",
    "samples": "samples", "precision": "precision", "device": "device", "cost": "cost",
    "notes": "notes", "made_with": "made with", "fingerprints": "fingerprints",
}  # fmt: skip
_NORMALIZATIONS = {
    "filter": "filter normalization",
    "layer": "layer normalization of the direction",
    "weight": "each entry times its weight",
    "dfilter": "filters of norm 1",
    "dlayer": "layers of norm 1",
    None: "no normalization",
}
_BUFFERS = {
    "keep": "statistics of the model, the same at every point",
    "recompute": "statistics computed again at every point",
}


def describe(land: Landscape) -> dict[str, str]:
    """Return how a landscape was made: a short label -> words, without what is unknown.

    The labels come in the order in which a report shows them; "notes" and "fingerprints", which can
    be long, are near the end.

    Example:
        >>> describe(land)["directions"]  # doctest: +SKIP
        'x and y: random, seed 0, filter normalization, biases and batch norm fixed, orthogonal'
    """
    attributes = {str(name): str(value) for name, value in land.data.attrs.items()}
    known = {n: attributes[n] for n in _LABELS if attributes.get(n, "none") not in ("", "none")}
    if attributes.get("checkpoint") == "none":
        known["checkpoint"] = "none given: the weights are those that the target returned"
    words = {_LABELS[n]: _WORDS[n](known[n]) if n in _WORDS else known[n] for n in _LABELS
             if n in known}  # fmt: skip
    return {label: text for label, text in words.items() if text}


def list_others(land: Landscape) -> dict[str, str]:
    """Return the attributes for which :func:`describe` has no words, such as those of a user."""
    others = {str(name): str(value) for name, value in land.data.attrs.items()}
    return {n: text for n, text in others.items() if n not in _LABELS and n != "title" and text}


def describe_origin(origin: Mapping[str, Any]) -> str:
    """Return how a direction was made, in words.

    Args:
        origin: The ``origin`` of a direction.
    """
    words = _ORIGINS.get(str(origin.get("kind")))
    return words(origin) if words else "given as tensors"


def _describe_random(origin: Mapping[str, Any]) -> str:
    normalize, select = origin.get("normalize"), origin.get("select")
    texts = [
        "random, drawn where it is needed" if origin["kind"] == "seeded" else "random",
        f"seed {origin.get('seed')}",
        _NORMALIZATIONS.get(normalize, str(normalize)),
        "biases and batch norm fixed" if origin.get("ignore") else "biases and batch norm move too",
        "orthogonal" if origin.get("orthogonal") else "not orthogonal",
    ]
    if select:
        texts.append(f"only {select if isinstance(select, str) else ', '.join(select)}")
    return ", ".join(texts)


def _describe_eigenvector(origin: Mapping[str, Any]) -> str:
    return f"eigenvector of the curvature, eigenvalue {origin['eigenvalue']:.3g}"


def _describe_component(origin: Mapping[str, Any]) -> str:
    left_out = ", biases and batch norm left out" if origin.get("ignore") else ""
    number, count = origin["index"] + 1, origin["checkpoints"]
    return f"principal component {number} of {count} checkpoints{left_out}"


def _describe_rescaled(origin: Mapping[str, Any]) -> str:
    normalize = origin.get("normalize")
    how = _NORMALIZATIONS.get(normalize, str(normalize))
    return f"{describe_origin(origin.get('of', {}))}; rescaled: {how}"


_ORIGINS: dict[str, Callable[[Mapping[str, Any]], str]] = {  # kind -> words
    "random": _describe_random,
    "seeded": _describe_random,
    "eigenvector": _describe_eigenvector,
    "principal component": _describe_component,
    "between": lambda origin: f"from the center (0) to {origin.get('file', 'another model')} (1)",
    "rescaled": _describe_rescaled,
    "file": lambda origin: f"read from {origin['file']}",
}


def _describe_directions(text: str) -> str:
    """Return the directions of all axes in words; axes with the same words share them."""
    axes: dict[str, list[str]] = {}
    for dim, origin in _read_json(text).items():
        axes.setdefault(describe_origin(origin), []).append(dim)
    return "; ".join(f"{_join(dims)}: {words}" for words, dims in axes.items())


def _describe_sampler(text: str) -> str:
    """Return which points were evaluated; the axes say how many there are."""
    if text.startswith("Grid("):
        return "every point of the grid"
    tolerance = re.match(r"Adaptive\(tolerance=([^,)]*)", text)
    return f"adaptive, tolerance {tolerance[1]}" if tolerance else text


def _describe_fingerprints(text: str) -> str:
    """Return the fingerprints of 16 digits, which identify inputs; the others are settings."""
    texts = {name: str(value) for name, value in _read_json(text).items()}
    return ", ".join(f"{n} {v}" for n, v in texts.items() if re.fullmatch(r"[0-9a-f]{16}", v))


_WORDS: dict[str, Callable[[str], str]] = {  # attributes that are stored in other words
    "directions": _describe_directions,
    "fingerprints": _describe_fingerprints,
    "sampler": _describe_sampler,
    "buffers": lambda mode: _BUFFERS.get(mode, mode),
}


def _read_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _join(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
