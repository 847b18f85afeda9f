"""Pictures of a plane with matplotlib: contour lines, filled contours, exact cells, errors.

Each function draws into the axes that it is given, or into a new figure. Outside
notebooks, figures are created without pyplot, so that no global state changes and no window opens.
To see a picture, write it with ``save(axes, "picture.png")``, or end a notebook cell with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from landscope.draw.axes import (
    add_color_bar,
    allows_equal_aspect,
    compute_plane_size,
    create_axes,
    limit_ticks,
    make_norm,
)
from landscope.draw.labels import add_legend_below, label_contours
from landscope.draw.levels import FloatArray, count_digits, format_tick
from landscope.draw.plane_scene import PlaneScene, build_plane_scene, check_area
from landscope.draw.values import check_landscape
from landscope.errors import DrawError
from landscope.landscape import Landscape

_HOLE: dict[str, Any] = {
    "facecolor": "0.93",
    "edgecolor": "0.70",
    "hatch": "/////",
    "linewidth": 0.0,
}

Painter = Callable[[PlaneScene, Any], None]


def contour(
    land: Landscape,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    title: str | None = None,
    levels: int | Sequence[float] | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with labeled contour lines of a plane, colored by their level.

    Args:
        land: A landscape with dims ("y", "x").
        quantity: The name of a variable. Default: ``land.quantity``.
        scale: "log" or "linear". Default: log when all finite values are positive, are not
            percentages, and the largest is more than 20 times the smallest.
        title: The title; "" for none. Default: that of the landscape.
        levels: The number of levels (about), or the levels themselves. Default: about 20 round
            numbers.
        limits: The ends of the color scale. Default: the smallest and largest value shown.
        cmap: The name of a color map of matplotlib. Default: viridis.
        size: Width and height of a new figure in inches. Default: that which suits the axes.
        ax: The axes to draw into. Default: axes in a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: When the landscape cannot be drawn this way; the text explains what to do.

    Example:
        >>> axes = ls.draw.contour(land, scale="log")  # doctest: +SKIP
        >>> ls.draw.save(axes, "contour.pdf")  # doctest: +SKIP
    """
    scene = build_plane_scene(
        land, quantity=quantity, scale=scale, title=title, levels=levels, limits=limits, cmap=cmap
    )
    return _draw(scene, ax, paint_contour, size)


def filled(
    land: Landscape,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    title: str | None = None,
    levels: int | Sequence[float] | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with filled contours of a plane; the arguments are those of ``contour``.

    Raises:
        DrawError: When the landscape cannot be drawn this way; the text explains what to do.

    Example:
        >>> axes = ls.draw.filled(land, quantity="accuracy")  # doctest: +SKIP
    """
    scene = build_plane_scene(
        land, quantity=quantity, scale=scale, title=title, levels=levels, limits=limits, cmap=cmap
    )
    return _draw(scene, ax, paint_filled, size)


def heatmap(
    land: Landscape,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    title: str | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with one colored cell for each value of a plane, centered on its coordinates.

    This picture shows exactly the computed values: it has no levels and no interpolation.

    The arguments are those of ``contour`` without levels; an axis may have a single point.

    Raises:
        DrawError: When the landscape cannot be drawn this way; the text explains what to do.

    Example:
        >>> axes = ls.draw.heatmap(land)  # doctest: +SKIP
    """
    scene = build_plane_scene(
        land, quantity=quantity, scale=scale, title=title, limits=limits, cmap=cmap
    )
    return _draw(scene, ax, paint_heatmap, size)


def error_map(
    land: Landscape,
    *,
    scale: str | None = None,
    title: str | None = None,
    cmap: str | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with the estimated error of each cell, and a dot for each evaluated point.

    Args:
        land: A plane of an adaptive scan, or of a scan on a subset of the samples.
        scale: "log" or "linear". Default: log when all finite errors are positive and the largest
            is more than 20 times the smallest.
        title: The title; "" for none. Default: that of the landscape.
        cmap: The name of a color map of matplotlib. Default: viridis.
        size: Width and height of a new figure in inches. Default: that which suits the axes.
        ax: The axes to draw into. Default: axes in a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: When the landscape has no estimated errors because its values are exact.

    Example:
        >>> axes = ls.draw.error_map(land)  # doctest: +SKIP
    """
    check_landscape(land)
    name = f"{land.quantity}_error"
    if name not in land.data or len(land.dims) != 2:
        raise DrawError(
            f"The landscape has no variable {name!r} over a plane: scan a plane with ls.Adaptive()"
            " or samples=ls.Calibrated(); the values of a full grid are exact."
        )
    axes = heatmap(land, quantity=name, scale=scale, title=title, cmap=cmap, size=size, ax=ax)
    if "evaluated" in land.data:
        y, x = land.axes
        j, i = np.nonzero(np.asarray(land.data["evaluated"].values))
        axes.plot(
            x[i], y[j], ls="none", marker="o", ms=3.2, mfc="white", mec="black", mew=0.5,
            label=f"evaluated: {len(i):,} of {len(x) * len(y):,}",
        )  # fmt: skip
        placement: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13)}
        axes.legend(**placement, ncols=2, frameon=False, fontsize="small")
    return axes


def paint_contour(scene: PlaneScene, ax: Axes, *, avoid: FloatArray | None = None) -> None:
    """Draw labeled contour lines into ``ax``.

    Args:
        scene: The plane.
        ax: The axes to draw into.
        avoid: Points that no label may come near, [n, 2]: a label that is half hidden reads as
            another number.
    """
    check_area(scene, "contour lines")
    _hatch_holes(scene, ax)
    _set_up_axes(scene, ax, scene.x, scene.y)
    levels = _select_visible_levels(scene)
    if levels.size:
        lines = ax.contour(
            scene.x, scene.y, _mask_holes(scene), levels, norm=make_norm(scene),
            cmap=scene.colormap, linewidths=1.2,
        )  # fmt: skip
        label_contours(ax, lines, avoid)
    else:
        note = _describe_flat_plane(scene)
        ax.text(0.5, 0.55, note, transform=ax.transAxes, ha="center", color="0.35")


def paint_filled(scene: PlaneScene, ax: Axes) -> None:
    """Draw filled contours into ``ax``; holes are hatched."""
    check_area(scene, "filled contours")
    ax.patch.set(**_HOLE)
    low, high = scene.limits
    inside = scene.levels[(scene.levels > low) & (scene.levels < high)]
    boundaries = np.unique([low, *inside, high])
    colors: dict[str, Any] = {"norm": make_norm(scene), "cmap": scene.colormap}
    if scene.span is not None:
        beyond = scene.span[0] < low, scene.span[1] > high
        extend = {(True, False): "min", (False, True): "max", (True, True): "both"}
        colors["extend"] = extend.get(beyond, "neither")
        ax.contourf(scene.x, scene.y, _mask_holes(scene), boundaries, **colors)
    _set_up_axes(scene, ax, scene.x, scene.y)


def paint_heatmap(scene: PlaneScene, ax: Axes) -> None:
    """Draw one exact cell for each value into ``ax``; holes are hatched."""
    _hatch_holes(scene, ax)
    x, y = scene.edges
    colors: dict[str, Any] = {"norm": make_norm(scene), "cmap": scene.colormap}
    # A rasterized mesh has no hairlines between its cells in a PDF.
    ax.pcolormesh(x, y, _mask_holes(scene), shading="flat", rasterized=True, **colors)
    _set_up_axes(scene, ax, x, y)


def _draw(
    scene: PlaneScene, ax: Axes | None, paint: Painter, size: tuple[float, float] | None
) -> Axes:
    if ax is None:
        ax = create_axes(compute_plane_size(scene, 6.4), size)
    paint(scene, ax)
    add_color_bar(scene, ax.figure, ax=ax, pad=0.03, aspect=22)
    return ax


def _select_visible_levels(scene: PlaneScene) -> FloatArray:
    """Return the levels that cross this landscape, [levels]."""
    low, high = scene.span or (np.inf, -np.inf)
    return scene.levels[(scene.levels > low) & (scene.levels < high)]


def _mask_holes(scene: PlaneScene) -> Any:
    return np.ma.masked_invalid(scene.shown)


def _hatch_holes(scene: PlaneScene, ax: Axes) -> None:
    x, y = scene.edges
    j, i = np.nonzero(np.isnan(scene.shown))
    across, up = [x[i], x[i + 1], x[i + 1], x[i]], [y[j], y[j], y[j + 1], y[j + 1]]
    ax.add_collection(PolyCollection([*np.stack([across, up], axis=-1).swapaxes(0, 1)], **_HOLE))


def _describe_flat_plane(scene: PlaneScene) -> str:
    if scene.span is None:
        return "nothing to draw"
    low, high = (format_tick(end, count_digits(scene.span)) for end in scene.span)
    return f"{low} everywhere" if low == high else f"no level between {low} and {high}"


def _set_up_axes(scene: PlaneScene, ax: Axes, x: FloatArray, y: FloatArray) -> None:
    """Set title, labels, ranges and aspect; mark the center; describe the holes."""
    ax.set(xlabel=scene.x_label, ylabel=scene.y_label, title=scene.title)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    width, height = (float(np.ptp(edge)) for edge in scene.edges)
    ax.set_aspect("equal" if allows_equal_aspect(width, height) else "auto")
    limit_ticks(ax.xaxis)
    limit_ticks(ax.yaxis)
    entries: list[Artist] = [*_mark_models(scene, ax)]
    if scene.num_holes:
        entries.append(Patch(label=scene.hole_note, **_HOLE))
    if entries:
        add_legend_below(ax, entries, columns=3)


def _mark_models(scene: PlaneScene, ax: Axes) -> list[Line2D]:
    """Mark the model, at the origin, and other models on the plane; return the marks."""
    style: dict[str, Any] = {"ls": "none", "ms": 9, "mew": 1.6, "color": "white", "zorder": 5}
    style["path_effects"] = [withStroke(linewidth=3.5, foreground="black")]
    lines = []
    for (x, y), name in scene.marks:
        is_origin = (x, y) == (0, 0)
        if is_origin and scene.center is None:  # a path starts or ends there
            continue
        label = f"{name}: ({format_tick(x)}, {format_tick(y)})"
        lines += ax.plot(x, y, marker="+" if is_origin else "x", label=label, **style)
    return lines
