"""Several landscapes side by side on one scale, for comparison by eye."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from landscope.draw.axes import add_color_bar, choose_size, compute_plane_size
from landscope.draw.figures import add_axes, create_figure
from landscope.draw.line_scene import build_line_scene
from landscope.draw.lines import add_line_legend, paint_lines
from landscope.draw.plane_scene import PlaneScene, build_plane_scene
from landscope.draw.planes import Painter, paint_contour, paint_filled, paint_heatmap
from landscope.draw.surfaces import VIEW, paint_surface
from landscope.draw.values import Landscapes, list_landscapes, name_landscapes
from landscope.errors import DrawError
from landscope.landscape import Landscape

PAINTERS: dict[str, Painter] = {
    "filled": paint_filled,
    "contour": paint_contour,
    "heatmap": paint_heatmap,
    "surface": partial(paint_surface, zoom=0.88),
}
_MAX_COLUMNS = 3  # more would be too small to read on a page
_SURFACE, _LINE = (4.8, 4.4), (4.6, 3.4)  # inches, width and height of a panel


def side_by_side_figure(
    lands: Landscapes,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    kind: str = "filled",
    levels: int | Sequence[float] | None = None,
    clip: float | None = None,
    cmap: str | None = None,
    view: tuple[float, float] = VIEW,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Return a figure with one panel for each landscape, all on one scale with one color bar.

    Args:
        lands: One landscape, or several of the same kind: planes or lines.
        quantity: The name of a variable. Default: that of the first landscape; for lines, every
            loss and every percentage.
        scale: "log" or "linear". Default: log when all finite values of all landscapes are
            positive and the largest is more than 20 times the smallest.
        labels: A title for each panel. Default: the titles of the landscapes.
        title: The title of the figure. Default: none.
        kind: "filled", "contour", "heatmap" or "surface" for planes, "line" for lines.
        levels: The number of levels (about), or the levels themselves. Default: about 20 round
            numbers.
        clip: The largest height of surfaces. Default: no clip.
        cmap: The name of a color map of matplotlib. Default: viridis.
        view: Elevation and azimuth of surfaces, in degrees. Default: (32, -58).
        size: Width and height of the figure in inches. Default: that which suits the panels.

    Returns:
        The figure.

    Raises:
        DrawError: When the landscapes cannot be drawn this way; the text explains what to do.

    Example:
        >>> figure = ls.draw.side_by_side_figure([a, b], labels=["a", "b"])  # doctest: +SKIP
        >>> ls.draw.save(figure, "skips.pdf")  # doctest: +SKIP
    """
    lands = list_landscapes(lands)
    names = name_landscapes(lands, labels)
    if kind == "line":
        figure = _draw_lines(lands, names, quantity, scale, size)
        figure.suptitle(title or "")
        return figure
    if kind not in PAINTERS:
        raise DrawError(
            f"kind={kind!r} is not known; expected 'line' or one of"
            f" {', '.join(map(repr, PAINTERS))}."
        )
    name = quantity or lands[0].quantity
    choices: dict[str, Any] = {"scale": scale, "levels": levels, "clip": clip, "cmap": cmap}
    scenes = [
        build_plane_scene(land, quantity=name, shared_with=lands, **choices) for land in lands
    ]
    figure = _draw_planes(scenes, names, kind, view, size)
    figure.suptitle(title or "")
    return figure


def _draw_planes(
    scenes: Sequence[PlaneScene],
    names: Sequence[str],
    kind: str,
    view: tuple[float, float],
    size: tuple[float, float] | None,
) -> Figure:
    is_surface = kind == "surface"
    options = {"projection": "3d"} if is_surface else {}
    panel = _SURFACE if is_surface else compute_plane_size(scenes[0], 4.6)
    figure, axes = create_panels(len(scenes), panel, size, **options)
    for scene, name, ax in zip(scenes, names, axes, strict=True):
        if is_surface:
            paint_surface(scene, ax, zoom=0.88, view=view)
            ax.set_zlabel("")  # the color bar has this label, and the next panel would hide it
        else:
            PAINTERS[kind](scene, ax)
        ax.set_title(name)
    add_color_bar(scenes[0], figure, ax=axes, shrink=0.8)
    return figure


def _draw_lines(
    lands: Sequence[Landscape],
    names: Sequence[str],
    quantity: str | None,
    scale: str | None,
    size: tuple[float, float] | None,
) -> Figure:
    scenes = [
        build_line_scene(land, quantity=quantity, scale=scale, shared_with=lands) for land in lands
    ]
    figure, axes = create_panels(len(lands), _LINE, size)
    for scene, title, ax in zip(scenes, names, axes, strict=True):
        paint_lines([scene], ax)
        ax.set_title(title)
    add_line_legend(scenes, figure, loc="outside lower center")
    return figure


def create_panels(
    count: int, panel: tuple[float, float], size: tuple[float, float] | None = None, **options: Any
) -> tuple[Figure, list[Any]]:
    """Return a new figure with ``count`` axes in rows of at most three.

    Args:
        count: The number of panels.
        panel: The width and height of a panel in inches.
        size: The width and height of the figure that a user gave.
        options: Keywords of ``add_axes``.
    """
    columns = 2 if count == 4 else min(count, _MAX_COLUMNS)
    rows = math.ceil(count / columns)
    figure = create_figure(choose_size(size, (panel[0] * columns + 1.2, panel[1] * rows)))
    places = [(rows, columns, k + 1) for k in range(count)]
    return figure, [add_axes(figure, place, **options) for place in places]
