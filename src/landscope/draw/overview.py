"""A landscape at a glance: its picture in one figure, and a summary for notebooks.

:meth:`landscope.Landscape.plot` and the display of a landscape in a notebook come from here.
"""

from __future__ import annotations

import base64
import html
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from landscope.draw.axes import add_color_bar, choose_size
from landscope.draw.figures import add_axes, create_figure, forget_figure, render_png
from landscope.draw.levels import format_number, format_tick
from landscope.draw.lines import line
from landscope.draw.panels import side_by_side_figure
from landscope.draw.plane_scene import PlaneScene, build_plane_scene
from landscope.draw.planes import paint_filled, paint_heatmap
from landscope.draw.surfaces import VIEW, paint_surface
from landscope.draw.values import (
    check_landscape,
    format_label,
    list_quantities,
    read_axis,
    read_title,
    read_unit,
)
from landscope.draw.webpage import page
from landscope.errors import LandscopeError
from landscope.landscape import Landscape
from landscope.scanning.provenance import describe, list_others

_SIZE = (11.4, 4.6)  # inches, of a plane: the surface, and the contours beside it
_PARTS = 5  # of a volume, in one figure: the middle one is among them
_THUMBNAIL_DPI = 72


def overview_figure(
    land: Landscape,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    title: str | None = None,
    levels: int | Sequence[float] | None = None,
    clip: float | None = None,
    cmap: str | None = None,
    view: tuple[float, float] = VIEW,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Return a figure with the picture that suits a landscape.

    A line is drawn as a curve; a plane as a surface with its filled contours beside it, or as cells
    where an axis has a single point; a volume as up to five planes, evenly spaced along z.

    Args:
        land: A line, a plane or a volume.
        quantity: The name of a variable. Default: ``land.quantity``; for lines, every loss and
            every percentage.
        scale: "log" or "linear". Default: log when all finite values are positive, are not
            percentages, and the largest is more than 20 times the smallest.
        title: The title; "" for none. Default: that of the landscape.
        levels: The number of levels (about), or the levels themselves. Default: about 20 round
            numbers.
        clip: The largest height of the surface. Default: no clip.
        cmap: The name of a color map of matplotlib. Default: viridis.
        view: Elevation and azimuth of the surface, in degrees. Default: (32, -58).
        size: Width and height of the figure in inches. Default: that which suits the landscape.

    Returns:
        The figure.

    Raises:
        DrawError: When the landscape cannot be drawn; the text explains what to do.

    Example:
        >>> figure = ls.draw.overview_figure(land)  # doctest: +SKIP
        >>> figure.savefig("overview.png")  # doctest: +SKIP
    """
    check_landscape(land)
    if len(land.dims) == 1:
        axes = line(land, quantity=quantity, scale=scale, title=title, size=size)
        figure = axes.get_figure(root=True)
        assert figure is not None
        return figure
    choices: dict[str, Any] = {"scale": scale, "levels": levels, "cmap": cmap}
    title = read_title(land) if title is None else title
    if len(land.dims) == 3:
        return _draw_volume(land, quantity=quantity, title=title, size=size, **choices)
    scene = build_plane_scene(land, quantity=quantity, title=title, clip=clip, **choices)
    return _draw_plane(scene, view, size)


def _draw_plane(
    scene: PlaneScene, view: tuple[float, float], size: tuple[float, float] | None
) -> Figure:
    figure = create_figure(choose_size(size, _SIZE))
    figure.suptitle(scene.title)
    if min(scene.values.shape) < 2:
        ax = add_axes(figure)
        paint_heatmap(scene, ax)
    else:
        left, ax = add_axes(figure, (1, 2, 1), projection="3d"), add_axes(figure, (1, 2, 2))
        paint_surface(scene, left, zoom=0.95, view=view)
        left.set(title="", zlabel="")  # the color bar has the label
        paint_filled(scene, ax)
    ax.set_title("")
    add_color_bar(scene, figure, ax=ax, pad=0.03, aspect=22)
    return figure


def _draw_volume(land: Landscape, **choices: Any) -> Figure:
    heights = read_axis(land, "z")
    chosen = np.unique(np.linspace(0, heights.size - 1, _PARTS).round().astype(int))
    data = land.data.sortby("z")
    parts = [Landscape(data.isel(z=k, drop=True)) for k in chosen]
    labels = [f"z = {format_tick(heights[k], 3)}" for k in chosen]
    kind = "heatmap" if min(len(axis) for axis in land.axes[1:]) < 2 else "filled"
    return side_by_side_figure(parts, labels=labels, kind=kind, **choices)


def show_page(land: Landscape, **options: Any) -> None:
    """Show the page of a landscape below the cell of a notebook, or else in the browser.

    Args:
        land: The landscape.
        options: Keywords of ``page``.

    Raises:
        DrawError: When the landscape cannot be drawn; the text explains what to do.
    """
    whole = page(land, **options)
    if "ipykernel" in sys.modules:
        sys.modules["IPython"].display.display(whole)
        return
    file = whole.save(Path(tempfile.mkdtemp(prefix="landscope-")) / "landscape.html")
    webbrowser.open(file.as_uri())


def build_html(land: Landscape) -> str:
    """Return what a notebook shows of a landscape: a picture, its range, and where it is from."""
    origin = {n: text for n, text in describe(land).items() if n != "fingerprints"}
    rows = [*_list_ranges(land), *origin.items(), *list_others(land).items()]
    cells = "".join(
        f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
        for name, text in rows
    )
    return (
        f"<div><strong>{html.escape(describe_kind(land))}</strong><br>{_build_thumbnail(land)}"
        f"<table>{cells}</table></div>"
    )


def describe_kind(land: Landscape) -> str:
    """Return the kind and the size of a landscape: "Landscape: a plane of 51 x 41 points"."""
    kind = {1: "line", 2: "plane", 3: "volume"}[len(land.dims)]
    counts = " x ".join(str(axis.size) for axis in reversed(land.axes))
    return f"Landscape: a {kind} of {counts} points"


def _list_ranges(land: Landscape) -> list[tuple[str, str]]:
    """Return the range of each quantity and of each axis, with its unit."""
    rows = [(name, _describe_range(land, name)) for name in list_quantities(land)]
    for dim in reversed(land.dims):
        first, last = (format_number(float(end), 3) for end in read_axis(land, dim)[[0, -1]])
        rows.append((dim, f"{first} to {last}: {format_label(land, dim)}"))
    return rows


def _describe_range(land: Landscape, name: str) -> str:
    values = np.asarray(land.data[name].values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "no finite value"
    low, high = format_number(finite.min(), 3), format_number(finite.max(), 3)
    text = f"{low} to {high} {read_unit(land, name)}".rstrip()
    holes = values.size - finite.size
    return f"{text}, {holes} not finite" if holes else text


def _build_thumbnail(land: Landscape) -> str:
    """Return the overview as an image element; empty where a landscape cannot be drawn."""
    try:
        figure = overview_figure(land)
    except LandscopeError as error:
        return f"<em>{html.escape(str(error))}</em>"
    forget_figure(figure)
    width = round(figure.get_figwidth() * _THUMBNAIL_DPI)
    encoded = base64.b64encode(render_png(figure, 2 * _THUMBNAIL_DPI)).decode()
    return f"<img alt='overview' width='{width}' src='data:image/png;base64,{encoded}'>"
