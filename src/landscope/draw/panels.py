"""Several landscapes side by side on one scale, so that they can be compared by eye."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from landscope.draw.axes import add_color_bar, plane_size
from landscope.draw.line_scene import build_line_scene
from landscope.draw.lines import line_legend, paint_lines
from landscope.draw.plane_scene import build_plane_scene
from landscope.draw.planes import Painter, paint_contour, paint_filled, paint_heatmap
from landscope.draw.surfaces import paint_surface
from landscope.draw.values import Landscapes, list_landscapes, named
from landscope.errors import DrawError
from landscope.landscape import Landscape

PAINTERS: dict[str, Painter] = {
    "filled": paint_filled,
    "contour": paint_contour,
    "heatmap": paint_heatmap,
    "surface": partial(paint_surface, zoom=0.88),
}
_COLUMNS = 3  # more would be too small to read on a page
_SURFACE, _LINE = (4.8, 4.4), (4.6, 3.4)  # inches, wide and high


def side_by_side_figure(
    lands: Landscapes,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    kind: str = "filled",
) -> Figure:
    """Return a figure with one panel for each landscape, all on one scale with one color bar.

    Args:
        lands: one landscape, or several of the same kind: planes or lines.
        quantity: name of a variable. Default: that of the first landscape; for lines, every loss
            and every percentage.
        scale: "log" or "linear". Default: log when all finite values of all landscapes are
            positive and the largest is more than 20 times the smallest.
        labels: a title for each panel. Default: the landscapes' titles.
        kind: "filled", "contour", "heatmap" or "surface" for planes, "line" for lines.

    Returns:
        The figure.

    Raises:
        DrawError: when the landscapes cannot be drawn so; the text says what to do.

    Example:
        >>> figure = ls.draw.side_by_side_figure([a, b], labels=["a", "b"])  # doctest: +SKIP
        >>> ls.draw.save(figure, "skips.pdf")  # doctest: +SKIP
    """
    lands = list_landscapes(lands)
    names = named(lands, labels)
    if kind == "line":
        return _line_panels(lands, names, quantity, scale)
    if kind not in PAINTERS:
        raise DrawError(
            f"kind={kind!r} is not known; expected 'line' or one of"
            f" {', '.join(map(repr, PAINTERS))}."
        )
    return _plane_panels(lands, names, kind, quantity, scale)


def _plane_panels(
    lands: Sequence[Landscape],
    names: Sequence[str],
    kind: str,
    quantity: str | None,
    scale: str | None,
) -> Figure:
    chosen = quantity or lands[0].quantity
    scenes = [build_plane_scene(one, quantity=chosen, scale=scale, beside=lands) for one in lands]
    flat = {} if kind != "surface" else {"projection": "3d"}
    size = _SURFACE if kind == "surface" else plane_size(scenes[0], 4.6)
    figure, axes = panel_grid(len(lands), size, **flat)
    for scene, name, ax in zip(scenes, names, axes, strict=True):
        PAINTERS[kind](scene, ax)
        ax.set_title(name)
        if kind == "surface":
            ax.set_zlabel("")  # the color bar says it, and a neighbor would hide it
    add_color_bar(scenes[0], figure, ax=axes, shrink=0.8)
    return figure


def _line_panels(
    lands: Sequence[Landscape], names: Sequence[str], quantity: str | None, scale: str | None
) -> Figure:
    scenes = [build_line_scene(one, quantity=quantity, scale=scale, beside=lands) for one in lands]
    figure, axes = panel_grid(len(lands), _LINE)
    for scene, name, ax in zip(scenes, names, axes, strict=True):
        paint_lines([scene], ax)
        ax.set_title(name)
    line_legend(scenes, figure, loc="outside lower center")
    return figure


def panel_grid(count: int, panel: tuple[float, float], **kind: Any) -> tuple[Figure, list[Any]]:
    """Return a figure with ``count`` axes in rows of at most three."""
    columns = 2 if count == 4 else min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    size = (panel[0] * columns + 1.2, panel[1] * rows)
    figure = Figure(figsize=size, layout="compressed")
    return figure, [figure.add_subplot(rows, columns, k + 1, **kind) for k in range(count)]
