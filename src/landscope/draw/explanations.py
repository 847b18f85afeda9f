"""What a picture shows, in sentences: its middle, its unit, and its marks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from landscope.draw.scales import contains_zero
from landscope.draw.values import format_label, read_axis
from landscope.landscape import Landscape

_UNITS = {
    "filter": "A step of 1 along an axis changes each filter (the weights that feed one unit) by as"
    " much as its own norm.",
    "layer": "A step of 1 along an axis changes each layer by as much as its own norm.",
    "weight": "A step of 1 along an axis changes each weight by a random multiple of itself.",
}


def explain(lands: Sequence[Landscape], *, has_paths: bool = False) -> str:
    """Return what the pictures of landscapes show, in one to three sentences.

    Args:
        lands: Lines or planes of one kind.
        has_paths: Whether paths of training are drawn over them.
    """
    land = lands[0]
    origins = _read_origins(land)
    kinds = {str(origin.get("kind")) for origin in origins.values()}
    sentences = [
        _explain_center(land, kinds, has_paths=has_paths),
        *_explain_targets(origins),
        *_explain_units(lands),
        f"Heights and colors are the {format_label(land, land.quantity)}."
        if len(land.dims) > 1
        else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def list_marks(land: Landscape) -> list[tuple[tuple[float, ...], str]]:
    """Return the coordinates, x first, and the names of the models that lie on a slice.

    The model itself is at the origin, and the other models of ``between`` directions are at 1.
    """
    origins, dims = _read_origins(land), land.dims[::-1]
    kinds = {str(origin.get("kind")) for origin in origins.values()}
    name = "origin" if "principal component" in kinds else "the model"
    marks = [((0.0,) * len(dims), name)]
    for dim, origin in origins.items():
        if origin.get("kind") == "between" and dim in dims:
            place = tuple(float(each == dim) for each in dims)
            marks.append((place, str(origin.get("file", "the other model"))))
    axes = {dim: read_axis(land, dim) for dim in dims}
    return [
        (place, text) for place, text in marks
        if all(axes[d][0] <= c <= axes[d][-1] for d, c in zip(dims, place, strict=True))
    ]  # fmt: skip


def _explain_center(land: Landscape, kinds: set[str], *, has_paths: bool) -> str:
    if not all(contains_zero(read_axis(land, dim)) for dim in land.dims):
        return ""
    place = "x = 0" if len(land.dims) == 1 else "The cross at (0, 0)"
    if has_paths or "principal component" in kinds:
        return f"{place} is the origin of the plane: the end of a single path, the mean of several."
    return f"{place} is the model."


def _explain_targets(origins: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return where the other models of ``between`` directions are."""
    targets = {dim: o for dim, o in origins.items() if o.get("kind") == "between"}
    return [
        f"{dim} = 1 is {origin.get('file', 'the other model')}." for dim, origin in targets.items()
    ]


def _explain_units(lands: Sequence[Landscape]) -> list[str]:
    """Return what 1 means along random directions, where it is the same for all landscapes."""
    every = [origin for land in lands for origin in _read_origins(land).values()]
    random = [origin for origin in every if origin.get("kind") in ("random", "seeded")]
    normalizations = {str(origin.get("normalize")) for origin in random}
    same = len(random) == len(every) and len(normalizations) == 1
    return [_UNITS[name] for name in normalizations if same and name in _UNITS]


def _read_origins(land: Landscape) -> dict[str, Mapping[str, Any]]:
    """Return how the direction of each axis was made, as far as it is known."""
    try:
        origins = json.loads(str(land.data.attrs.get("directions", "{}")))
    except ValueError:
        return {}
    is_known = isinstance(origins, dict)
    return {d: o for d, o in origins.items() if isinstance(o, dict)} if is_known else {}
