"""The command behind a run, as one would type it, and how another command differs from it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from landscope.cli.scan_request import ScanRequest

_DEFAULTS = {field.name: field.default for field in fields(ScanRequest)}
_NO_OPTIONS = ("command", "target", "folders", "network", "spans")  # of a request
_NAMES = {"hessian_tolerance": "--tolerance", "kind": "--kind"}


def describe_command(request: Mapping[str, Any], run: Path) -> str:
    """Return the command that asks for the same, "" if it is unknown; without default options.

    Args:
        request: The command and its options, as in run.json.
        run: The folder of the run.
    """
    name = str(request.get("command", "scan"))
    if not request or name == "import":
        return ""
    if name == "demo":
        return f"landscope demo --out {shlex.quote(str(run.parent))}"
    targets = request.get("folders") or [request.get("target", "TARGET")]
    words = ["landscope", name, *map(str, targets)]
    for option, values in list_options(request).items():
        words += [f"{option}={value}" if value.startswith("-") else f"{option} {shlex.quote(value)}"
                  if value else option for value in values]  # fmt: skip
    return " ".join([*words, f"--out {shlex.quote(str(run))}"])


def list_options(request: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the options of a request that are not at their defaults: name -> values.

    The value of a flag is "".

    Args:
        request: The command and its options, as in run.json.
    """
    options: dict[str, list[str]] = {}
    spans = request.get("spans") or ()
    if request.get("command") == "trajectory":
        options["--target"] = [str(request.get("target"))]
        options |= {"--grid": [str(spans[0][2])]} if spans else {}
    elif request.get("command") != "import":
        options |= {f"--{dim}": [_span(s)] for dim, s in zip("xyz", spans, strict=False)}
    for key, value in request.items():
        if key in _NO_OPTIONS or value is None or (key in _DEFAULTS and value == _DEFAULTS[key]):
            continue
        option = _NAMES.get(key, f"--{key.replace('_', '-')}")
        if isinstance(value, bool):
            options[option if value else f"--no-{option[2:]}"] = [""]
        elif isinstance(value, list | tuple):
            options |= {option: [str(each) for each in value]} if value else {}
        else:
            options[option] = [f"{value:g}" if isinstance(value, float) else str(value)]
    return options


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in which options two requests differ: what each was, and is now.

    Args:
        before: The recorded request, as in run.json.
        now: The request of this command.
    """
    now = json.loads(json.dumps(dict(now), default=str))
    differences = [
        f"{word} was {before.get(key)}, now {now.get(key)}"
        for key, word in (("command", "the command"), ("target", "TARGET"), ("folders", "DIR"))
        if before.get(key) != now.get(key)
    ]
    options = list_options(before), list_options(now)
    for name in {**options[0], **options[1]}:
        texts = [_describe_values(each.get(name)) for each in options]
        if texts[0] != texts[1]:
            differences.append(f"{name} was {texts[0]}, now {texts[1]}")
    return differences


def _span(span: Sequence[Any]) -> str:
    first, last, points = span
    return f"auto:{points}" if first is None else f"{first:g}:{last:g}:{points}"


def _describe_values(values: Sequence[str] | None) -> str:
    return "not given" if values is None else " ".join(values) or "given"
