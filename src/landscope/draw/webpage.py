"""One self-contained page with landscapes that can be turned with the mouse.

The file holds plotly.js, the data and the code of the page (``page.html``), and asks the network
for nothing: its content security policy forbids it. Values are stored as they are, in the shortest
digits that give back the same number; JSON has no NaN, so such cells are null and are named in a
list of marks beside them.

The module is called ``webpage`` so that ``landscope.draw.page`` is always the function: a module
of that name would take its place whenever it is imported.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from landscope.draw.choices import resolve_scale
from landscope.draw.fields import (
    axis_values,
    curves_of,
    is_percent,
    label_of,
    line_values,
    named,
    names_of,
    plane_values,
    several,
    title_of,
)
from landscope.draw.levels import FloatArray
from landscope.draw.scene import line_scene, need_area, plane_scene
from landscope.errors import DrawError
from landscope.files import whole
from landscope.landscape import Landscape

MOST_PLANES = 6  # each takes one of the few WebGL contexts that a browser grants
SUFFIXES = (".html", ".htm")


def page(
    land_or_lands: Landscape | Sequence[Landscape],
    path: str | os.PathLike[str],
    *,
    quantity: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> Path:
    """Write an interactive page that works without a network, and return its path.

    Planes stand side by side, each as a surface that can be turned above its contours; lines share
    one chart. A reader switches between log and linear heights and between quantities, limits the
    heights, links the views, and reads exact values under the pointer.

    Args:
        land_or_lands: one to six planes, or any number of lines.
        path: a file that ends in .html; folders are made as needed.
        quantity: what to show first. Default: that of the first landscape; for lines, every loss
            and every percentage.
        labels: a name for each landscape. Default: their titles.
        title: of the page. Default: the title of a single landscape, else "Loss landscapes".

    Returns:
        The path. The file takes about 5 MB, nearly all of it plotly.js.

    Raises:
        DrawError: when the landscapes cannot be drawn so, or the place cannot be written.

    Example:
        >>> ls.draw.page([a, b], "skips.html", labels=["skip", "no skip"])  # doctest: +SKIP
    """
    path, lands = Path(path), several(land_or_lands)
    if path.suffix not in SUFFIXES:
        raise DrawError(
            f"path={str(path)!r} ends in {path.suffix!r}; a page is saved as .html: choose this"
            " ending."
        )
    heading = title or (title_of(lands[0]) if len(lands) == 1 else "") or "Loss landscapes"
    text = _render(_content(lands, quantity, named(lands, labels), heading))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DrawError(
            f"{path} cannot be written ({error}): choose a folder that you may write to."
        ) from error
    return path


def _render(content: dict[str, Any]) -> str:
    """Return the page: the template with its three marks filled in, each once."""
    parts = {
        "title": html.escape(content["title"]),
        "data": _script_safe(content),
        "plotly": get_plotlyjs(),
    }
    template = files("landscope.draw").joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"@@(\w+)@@", lambda mark: parts[mark[1]], template)


def _script_safe(content: dict[str, Any]) -> str:
    """Return JSON that holds no character with which a script element or a comment could end."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _content(
    lands: Sequence[Landscape], quantity: str | None, names: Sequence[str], heading: str
) -> dict[str, Any]:
    kind = "line" if lands[0].dims == ("x",) else "plane"
    first = (_check_lines if kind == "line" else _check_planes)(lands, quantity)
    shared = [n for n in names_of(lands[0]) if all(n in names_of(land) for land in lands)]
    drawable = [n for n in shared if any(np.isfinite(land.data[n]).any() for land in lands)]
    return {
        "kind": kind,
        "title": heading,
        "quantity": first,
        "curves": curves_of(lands[0]) if kind == "line" else [],
        "quantities": [_quantity(lands, name) for name in drawable],
        "landscapes": [
            _landscape(land, label, drawable) for land, label in zip(lands, names, strict=True)
        ],
    }


def _check_planes(lands: Sequence[Landscape], quantity: str | None) -> str:
    """Let the scene refuse what cannot be drawn; return the quantity to show first."""
    if len(lands) > MOST_PLANES:
        raise DrawError(
            f"{len(lands)} planes were given; a page shows at most {MOST_PLANES}, since a browser"
            " draws few surfaces at once: write several pages."
        )
    first = quantity or lands[0].quantity
    for land in lands:
        need_area(plane_scene(land, quantity=first, beside=lands), "surfaces")
    return first


def _check_lines(lands: Sequence[Landscape], quantity: str | None) -> str:
    """Let the scene refuse what cannot be drawn; return the quantity to show first, or "all"."""
    for land in lands:
        line_scene(land, quantities=quantity or curves_of(lands[0]), beside=lands)
    return quantity or ""


def _quantity(lands: Sequence[Landscape], name: str) -> dict[str, Any]:
    fields = [_values(land, name) for land in lands]
    percent = is_percent(lands[0], name)
    return {
        "name": name,
        "label": label_of(lands[0], name),
        "percent": percent,
        "scale": resolve_scale(fields, None, name=name, percent=percent),
        "log": any((field[np.isfinite(field)] > 0).any() for field in fields),
    }


def _landscape(land: Landscape, label: str, names: Sequence[str]) -> dict[str, Any]:
    values = {name: _values(land, name) for name in names}
    return {
        "label": label,
        "axes": {str(d): _axis(land, str(d)) for d in land.dims},
        "values": {name: _nulls(field) for name, field in values.items()},
        "marks": {name: _marks(field) for name, field in values.items()},
        "attrs": [[str(key), str(value)] for key, value in land.data.attrs.items()],
    }


def _axis(land: Landscape, dim: str) -> dict[str, Any]:
    return {"label": label_of(land, dim), "at": axis_values(land, dim).tolist()}


def _values(land: Landscape, name: str) -> FloatArray:
    return (line_values if land.dims == ("x",) else plane_values)(land, name)


def _nulls(field: FloatArray) -> list[Any]:
    """Return the values as nested lists with None for each that is not finite."""
    plain = field.astype(object)
    plain[~np.isfinite(field)] = None
    return list(plain.tolist())


def _marks(field: FloatArray) -> dict[str, list[int]]:
    """Return the flat positions of what is not finite, by its kind."""
    flat = field.ravel()
    kinds = {"nan": np.isnan(flat), "inf": np.isposinf(flat), "-inf": np.isneginf(flat)}
    return {kind: np.flatnonzero(where).tolist() for kind, where in kinds.items()}
