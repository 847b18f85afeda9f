"""One self-contained page with landscapes that can be turned with the mouse.

The file contains plotly.js, the data, and the parts of the page (the folder ``web``, with
``page.html`` as the template). It requests nothing from the network, which its content security
policy forbids. Values are stored in the shortest digits that give back the same number; JSON has no
NaN, so cells that are not finite are null, and a list of marks says which they are.

The module is called ``webpage`` so that ``landscope.draw.page`` is always the function: an imported
module of that name would take its place.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, overload

import numpy as np
from matplotlib.colors import to_hex
from plotly.offline import get_plotlyjs

from landscope.draw.explanations import explain
from landscope.draw.levels import FloatArray
from landscope.draw.line_scene import build_line_scene
from landscope.draw.path_scene import PATH_COLORMAP, PathScene, ProjectedPaths, build_path_scenes
from landscope.draw.plane_scene import build_plane_scene, check_area
from landscope.draw.saving import check_suffix, replace_file
from landscope.draw.scales import resolve_scale
from landscope.draw.values import (
    Landscapes,
    choose_quantities,
    format_label,
    is_percent,
    list_landscapes,
    list_quantities,
    name_landscapes,
    read_axis,
    read_line,
    read_plane,
    read_title,
)
from landscope.errors import DrawError
from landscope.landscape import Landscape
from landscope.scanning.provenance import describe, list_others

MAX_PLANES = 6  # each takes one of the few WebGL contexts that a browser provides
SUFFIXES = (".html", ".htm")
_FRAME_HEIGHT = 900  # pixels, of a page in a notebook: the controls, a surface and its contours
_MODULE_SYNTAX = re.compile(r"^(?:import [^;]*;\n|export )", re.MULTILINE)


@dataclass(frozen=True)
class WebPage:
    """An interactive page in memory: a notebook shows it below the cell.

    Args:
        html: The whole page.
        title: Its title.
    """

    html: str
    title: str

    def __repr__(self) -> str:
        return f"<WebPage {self.title!r}: {len(self.html) / 1e6:.1f} MB; save(path) writes it>"

    def _repr_html_(self) -> str:
        source, name = html.escape(self.html), html.escape(self.title)
        return (
            f'<iframe srcdoc="{source}" title="{name}" width="100%" height="{_FRAME_HEIGHT}"'
            ' sandbox="allow-scripts allow-downloads" style="border:0"></iframe>'
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file that ends in .html; return its path.

        Raises:
            DrawError: When the path has another suffix, or the file cannot be written.
        """
        path = check_suffix(path, SUFFIXES, "a page")
        with replace_file(path) as part:
            part.write_text(self.html, encoding="utf-8")
        return path


@overload
def page(
    lands: Landscapes,
    path: str | os.PathLike[str],
    *,
    quantity: str | None = ...,
    labels: Sequence[str] | None = ...,
    title: str | None = ...,
    paths: ProjectedPaths | Sequence[ProjectedPaths | None] | None = ...,
) -> Path: ...


@overload
def page(
    lands: Landscapes,
    path: None = ...,
    *,
    quantity: str | None = ...,
    labels: Sequence[str] | None = ...,
    title: str | None = ...,
    paths: ProjectedPaths | Sequence[ProjectedPaths | None] | None = ...,
) -> WebPage: ...


def page(
    lands: Landscapes,
    path: str | os.PathLike[str] | None = None,
    *,
    quantity: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    paths: ProjectedPaths | Sequence[ProjectedPaths | None] | None = None,
) -> Path | WebPage:
    """Write an interactive page that works without a network, and return its path.

    Without a path the page itself is returned, which a notebook shows below the cell.

    Planes are side by side, each as a surface that can be turned, with its contours below; lines
    share one chart. A reader can switch between log and linear heights and between quantities,
    limit the heights, link the views, and read exact values under the pointer.

    Training paths are drawn over the contours, and at their true loss over the surface, with
    vertical lines to the surface. Charts below show their distance off the plane, and the loss at
    the checkpoints and at their projections.

    Args:
        lands: One to six planes, or any number of lines.
        path: A file that ends in .html; its folder is created if necessary. Default: no file.
        quantity: The variable to show first. Default: that of the first landscape; for lines, every
            loss and every percentage.
        labels: A name for each landscape. Default: the titles of the landscapes.
        title: The title of the page. Default: the title of a single landscape, else "Loss
            landscapes".
        paths: For one plane, one path over it or several: results of ``ls.paths.project``. For a
            list of planes, a list with a path, several paths or None for each plane.

    Returns:
        The path, or the page if no path was given. A page takes about 5 MB, nearly all of it
        plotly.js.

    Raises:
        DrawError: When the landscapes cannot be drawn this way, or the file cannot be written.

    Example:
        >>> ls.draw.page([a, b], "skips.html", labels=["skip", "no skip"])  # doctest: +SKIP
    """
    is_single = isinstance(lands, Landscape)
    lands = list_landscapes(lands)
    if path is not None:
        check_suffix(path, SUFFIXES, "a page")
    heading = title or (read_title(lands[0]) if len(lands) == 1 else "") or "Loss landscapes"
    content = _build_content(lands, quantity, name_landscapes(lands, labels), heading)
    _add_paths(content, lands, [paths] if is_single else paths)
    whole = WebPage(_render(content), heading)
    return whole if path is None else whole.save(path)


def _render(content: dict[str, Any]) -> str:
    """Return the page: the template with data or a file of ``web`` in place of each mark."""
    parts = {
        "title": html.escape(content["title"]),
        "data": _escape_for_script(content),
        "plotly": get_plotlyjs(),
    }
    return re.sub(
        r"@@([\w.]+)@@",
        lambda mark: parts.get(mark[1]) or _read_part(mark[1]),
        _read_part("page.html"),
    )


def _read_part(name: str) -> str:
    """Return a file of ``web``; a script without imports and exports: all share one scope."""
    text = (files("landscope.draw") / "web" / name).read_text(encoding="utf-8")
    return _MODULE_SYNTAX.sub("", text) if name.endswith(".js") else text


def _escape_for_script(content: dict[str, Any]) -> str:
    """Return JSON without the characters that could end a script element or a comment."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _build_content(
    lands: Sequence[Landscape], quantity: str | None, names: Sequence[str], heading: str
) -> dict[str, Any]:
    kind = "line" if lands[0].dims == ("x",) else "plane"
    first = (_check_lines if kind == "line" else _check_planes)(lands, quantity)
    quantities = [list_quantities(land) for land in lands]
    shared = [name for name in quantities[0] if all(name in names for names in quantities)]
    drawable = [n for n in shared if any(np.isfinite(land.data[n]).any() for land in lands)]
    return {
        "kind": kind,
        "title": heading,
        "explanation": explain(lands),
        "quantity": first,
        "curves": choose_quantities(lands[0]) if kind == "line" else [],
        "quantities": [_build_quantity(lands, name) for name in drawable],
        "landscapes": [
            _build_landscape(land, label, drawable)
            for land, label in zip(lands, names, strict=True)
        ],
    }


def _check_planes(lands: Sequence[Landscape], quantity: str | None) -> str:
    """Refuse planes that cannot be drawn; return the quantity to show first."""
    if len(lands) > MAX_PLANES:
        raise DrawError(
            f"{len(lands)} planes were given; a page shows at most {MAX_PLANES}, since a browser"
            " draws few surfaces at once: write several pages."
        )
    first = quantity or lands[0].quantity
    for land in lands:
        check_area(build_plane_scene(land, quantity=first, shared_with=lands), "surfaces")
    return first


def _check_lines(lands: Sequence[Landscape], quantity: str | None) -> str:
    """Refuse lines that cannot be drawn; return the quantity to show first, "" for all."""
    for land in lands:
        build_line_scene(land, quantity=quantity or choose_quantities(lands[0]), shared_with=lands)
    return quantity or ""


def _build_quantity(lands: Sequence[Landscape], name: str) -> dict[str, Any]:
    fields = [_read_values(land, name) for land in lands]
    percent = is_percent(lands[0], name)
    return {
        "name": name,
        "label": format_label(lands[0], name),
        "percent": percent,
        "scale": resolve_scale(fields, None, name=name, percent=percent),
        "log": any((field[np.isfinite(field)] > 0).any() for field in fields),
    }


def _build_landscape(land: Landscape, label: str, names: Sequence[str]) -> dict[str, Any]:
    values = {name: _read_values(land, name) for name in names}
    return {
        "label": label,
        "axes": {str(d): _build_axis(land, str(d)) for d in land.dims},
        "values": {name: _replace_nonfinite(field) for name, field in values.items()},
        "marks": {name: _list_nonfinite(field) for name, field in values.items()},
        "attrs": [[key, text] for key, text in (describe(land) | list_others(land)).items()],
    }


def _add_paths(content: dict[str, Any], lands: Sequence[Landscape], paths: Any) -> None:
    """Add to each landscape the paths over it, if there are any."""
    if paths is None:
        return
    paths = list(paths) if isinstance(paths, Sequence) else [paths]
    if all(each is None for each in paths):
        return
    if content["kind"] == "line":
        raise DrawError("paths= was given with a line, but paths are drawn over planes.")
    if len(paths) != len(lands):
        raise DrawError(
            f"paths= has {len(paths)} entries for {len(lands)} planes: give a path, a list of paths"
            " or None for each plane."
        )
    content["explanation"] = explain(lands, has_paths=True)
    content["pathColors"] = [to_hex(PATH_COLORMAP(share)) for share in np.linspace(0, 1, 8)]
    for part, land, over_land in zip(content["landscapes"], lands, paths, strict=True):
        if over_land is not None:
            part["pathGroup"] = _build_paths(build_path_scenes(over_land, land=land), land)


def _build_paths(paths: Sequence[PathScene], land: Landscape) -> dict[str, Any]:
    """Return the paths over one landscape, with their heights for each known quantity."""
    losses = [field for path in paths for field in (path.loss, path.projected_loss)]
    known = any(np.isfinite(field).any() for field in losses)
    return {
        "time": paths[0].time_label,
        "scale": resolve_scale(losses, None, name="loss") if known else "",
        "paths": [_build_path(path) | {"heights": _build_heights(path, land)} for path in paths],
    }


def _build_path(path: PathScene) -> dict[str, Any]:
    """Return one path, with None for every value that is not finite or unknown."""
    columns = {
        "x": path.x,
        "y": path.y,
        "time": path.time,
        "rate": path.learning_rate,
        "distance": path.distance,
        "percent": path.percent,
        "loss": path.loss,
        "projected": path.projected_loss,
    }
    return {
        "name": path.name,
        "color": path.color,
        "drops": path.drops,
        "rates": path.rates.tolist(),
        **{name: _replace_nonfinite(values) for name, values in columns.items()},
    }


def _build_heights(path: PathScene, land: Landscape) -> dict[str, list[Any]]:
    """Return the known values at the checkpoints and at their projections, by quantity."""
    pairs = {name: path.read_pair(name) for name in list_quantities(land)}
    return {
        name: [_replace_nonfinite(values) for values in pair]
        for name, pair in pairs.items()
        if np.isfinite(pair[0]).any()
    }


def _build_axis(land: Landscape, dim: str) -> dict[str, Any]:
    return {"label": format_label(land, dim), "at": read_axis(land, dim).tolist()}


def _read_values(land: Landscape, name: str) -> FloatArray:
    return (read_line if land.dims == ("x",) else read_plane)(land, name)


def _replace_nonfinite(field: FloatArray) -> list[Any]:
    """Return the values as nested lists, with None for every value that is not finite."""
    plain = field.astype(object)
    plain[~np.isfinite(field)] = None
    return list(plain.tolist())


def _list_nonfinite(field: FloatArray) -> dict[str, list[int]]:
    """Return the flat indices of the values that are not finite, by kind."""
    flat = field.ravel()
    kinds = {"nan": np.isnan(flat), "inf": np.isposinf(flat), "-inf": np.isneginf(flat)}
    return {kind: np.flatnonzero(where).tolist() for kind, where in kinds.items()}
