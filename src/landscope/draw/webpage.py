"""One self-contained page with landscapes that can be turned with the mouse.

The file holds plotly.js, the data, and the parts of the page (the folder ``web``, with
``page.html`` as the template). It asks the network for nothing: its content security policy forbids
it. Values are stored as they are, in the shortest digits that give back the same number; JSON has
no NaN, so such cells are null and are named in a list of marks.

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
from matplotlib.colors import to_hex
from plotly.offline import get_plotlyjs

from landscope.draw.levels import FloatArray
from landscope.draw.line_scene import build_line_scene
from landscope.draw.path_scene import EMBER, Paths, Trail, trails_of
from landscope.draw.plane_scene import build_plane_scene, need_area
from landscope.draw.saving import checked, written
from landscope.draw.scales import resolve_scale
from landscope.draw.values import (
    Landscapes,
    axis_values,
    curves_of,
    is_percent,
    label_of,
    line_values,
    list_landscapes,
    named,
    names_of,
    plane_values,
    title_of,
)
from landscope.errors import DrawError
from landscope.landscape import Landscape

MOST_PLANES = 6  # each takes one of the few WebGL contexts that a browser grants
SUFFIXES = (".html", ".htm")
_MODULE_SYNTAX = re.compile(r"^(?:import [^;]*;\n|export )", re.MULTILINE)


def page(
    lands: Landscapes,
    path: str | os.PathLike[str],
    *,
    quantity: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    paths: Paths | Sequence[Paths | None] | None = None,
) -> Path:
    """Write an interactive page that works without a network, and return its path.

    Planes stand side by side, each as a surface that can be turned above its contours; lines share
    one chart. A reader switches between log and linear heights and between quantities, limits the
    heights, links the views, and reads exact values under the pointer.

    Paths of training lie over the contours, and float over the surface at their true loss, with
    upright lines to the height of the surface; charts below tell how far off the plane they run,
    and what the loss is there and at their projections.

    Args:
        lands: one to six planes, or any number of lines.
        path: a file that ends in .html; folders are made as needed.
        quantity: what to show first. Default: that of the first landscape; for lines, every loss
            and every percentage.
        labels: a name for each landscape. Default: their titles.
        title: of the page. Default: the title of a single landscape, else "Loss landscapes".
        paths: for one plane, one path over it or several: what ``ls.paths.project`` returned. For
            a list of planes a list that holds, for each, a path, several, or None.

    Returns:
        The path. The file takes about 5 MB, nearly all of it plotly.js.

    Raises:
        DrawError: when the landscapes cannot be drawn so, or the place cannot be written.

    Example:
        >>> ls.draw.page([a, b], "skips.html", labels=["skip", "no skip"])  # doctest: +SKIP
    """
    alone = isinstance(lands, Landscape)
    path, lands = checked(path, SUFFIXES, "a page"), list_landscapes(lands)
    heading = title or (title_of(lands[0]) if len(lands) == 1 else "") or "Loss landscapes"
    content = _content(lands, quantity, named(lands, labels), heading)
    _add_paths(content, lands, [paths] if alone else paths)
    text = _render(content)
    with written(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _render(content: dict[str, Any]) -> str:
    """Return the page: the template with data or a file of ``web`` in place of each mark."""
    parts = {
        "title": html.escape(content["title"]),
        "data": _script_safe(content),
        "plotly": get_plotlyjs(),
    }
    return re.sub(
        r"@@([\w.]+)@@",
        lambda mark: parts.get(mark[1]) or _read_part(mark[1]),
        _read_part("page.html"),
    )


def _read_part(name: str) -> str:
    """Return a file of ``web``; scripts without imports and exports, for they share one scope."""
    text = (files("landscope.draw") / "web" / name).read_text(encoding="utf-8")
    return _MODULE_SYNTAX.sub("", text) if name.endswith(".js") else text


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
        need_area(build_plane_scene(land, quantity=first, beside=lands), "surfaces")
    return first


def _check_lines(lands: Sequence[Landscape], quantity: str | None) -> str:
    """Let the scene refuse what cannot be drawn; return the quantity to show first, or "all"."""
    for land in lands:
        build_line_scene(land, quantity=quantity or curves_of(lands[0]), beside=lands)
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


def _add_paths(content: dict[str, Any], lands: Sequence[Landscape], paths: Any) -> None:
    """Add to each landscape the paths over it, or nothing where there are none."""
    if paths is None:
        return
    paths = list(paths) if isinstance(paths, Sequence) else [paths]
    if all(each is None for each in paths):
        return
    if content["kind"] == "line":
        raise DrawError("paths= was given with a line: a path is drawn over a plane.")
    if len(paths) != len(lands):
        raise DrawError(
            f"paths= has {len(paths)} entries for {len(lands)} planes: give for each plane a path,"
            " a list of them, or None."
        )
    content["ember"] = [to_hex(EMBER(share)) for share in np.linspace(0, 1, 8)]
    for part, land, own in zip(content["landscapes"], lands, paths, strict=True):
        if own is not None:
            part["walked"] = _walked(trails_of(own, land=land), land)


def _walked(trails: Sequence[Trail], land: Landscape) -> dict[str, Any]:
    """Return paths over one landscape, with their heights for each quantity that they know."""
    losses = [field for trail in trails for field in (trail.loss, trail.projected_loss)]
    known = any(np.isfinite(field).any() for field in losses)
    return {
        "time": trails[0].time_label,
        "scale": resolve_scale(losses, None, name="loss") if known else "",
        "paths": [_path(trail) | {"heights": _heights(trail, land)} for trail in trails],
    }


def _path(trail: Trail) -> dict[str, Any]:
    """Return one path; null is what is not finite or not known."""
    columns = {
        "x": trail.x,
        "y": trail.y,
        "time": trail.time,
        "rate": trail.learning_rate,
        "distance": trail.distance,
        "percent": trail.percent,
        "loss": trail.loss,
        "projected": trail.projected_loss,
    }
    return {
        "name": trail.name,
        "color": trail.color,
        "drops": trail.drops,
        "rates": trail.rates.tolist(),
        **{name: _nulls(values) for name, values in columns.items()},
    }


def _heights(trail: Trail, land: Landscape) -> dict[str, list[Any]]:
    """Return what is known at the checkpoints and at their projections, by quantity."""
    known = {name: trail.heights(name) for name in names_of(land)}
    return {
        name: [_nulls(values) for values in pair]
        for name, pair in known.items()
        if np.isfinite(pair[0]).any()
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
