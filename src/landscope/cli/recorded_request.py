"""What run.json says about the origin of a run, as attributes of its landscape.

A landscape that is mailed without its folder keeps them. Runs of version 0.1 recorded a request as
well, from which the same attributes follow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CHOICES = ("seed", "normalize", "ignore", "orthogonal", "select")  # of random directions


def describe_request(request: Mapping[str, Any]) -> dict[str, str]:
    """Return what a command was given, as attributes (see ``landscope.scanning.provenance``).

    Args:
        request: The command and its options, as in run.json.
    """
    target = f"zoo:{request['network']}" if "network" in request else request.get("target")
    if target is None:
        return {}
    checkpoint = request.get("checkpoint")
    if checkpoint is None and not (target.startswith("zoo:") or "folders" in request):
        checkpoint = "none"  # the zoo trains its networks; other targets are what they are
    texts = {
        "target": target,
        "arguments": _join(request.get("set")),
        "checkpoint": checkpoint,
        "checkpoints": _join(request.get("folders")),
    }
    return {name: str(text) for name, text in texts.items() if text}


def describe_old_directions(request: Mapping[str, Any]) -> dict[str, str]:
    """Return the attribute "directions" of a run of version 0.1, whose landscape has none."""
    if "normalize" not in request or "spans" not in request:
        return {}
    origin = {"kind": "random", **{n: request[n] for n in _CHOICES if n in request}}
    origin |= {n: None for n in ("normalize", "ignore") if origin.get(n) == "none"}
    files = [{"kind": "between", "file": Path(file).name} for file in request.get("toward") or ()]
    if request.get("directions"):
        files += [{"kind": "file", "file": str(request["directions"])}] * (3 - len(files))
    axes = list(zip("xyz", request["spans"], strict=False))
    origins = [*files, *[origin] * len(axes)][: len(axes)]
    return {"directions": json.dumps(dict(zip("xyz", origins, strict=False)))}


def _join(texts: Sequence[object] | None) -> str:
    return ", ".join(map(str, texts or ()))
