"""Pictures of a plane with matplotlib: contour lines, filled contours and exact cells.

Each function draws into the axes that it is given, or into a new figure of its own. Figures are
made without pyplot, so that nothing global changes and nothing opens a window; see the picture with
``save(axes, "picture.png")`` or, in a notebook, with ``axes.figure`` as the last line of a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from landscope.draw.axes import (
    COLORS,
    add_color_bar,
    few_ticks,
    new_axes,
    norm,
    one_unit,
    plane_size,
)
from landscope.draw.labels import label_lines, legend_under, tick
from landscope.draw.levels import FloatArray, digits_for
from landscope.draw.plane_scene import PlaneScene, build_plane_scene, need_area
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
    levels: int | Sequence[float] | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with labeled contour lines of a plane, colored by their level.

    Args:
        land: a landscape with dims ("y", "x").
        quantity: name of a variable. Default: ``land.quantity``.
        scale: "log" or "linear". Default: log when all finite values are positive, are no
            percentages, and the largest is more than 20 times the smallest.
        levels: how many levels (about), or the levels themselves. Default: about 20 round numbers.
        limits: ends of the color scale. Default: smallest and largest value shown.
        ax: where to draw. Default: a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: when the landscape cannot be drawn so; the text says what to do.

    Example:
        >>> axes = ls.draw.contour(land, scale="log")  # doctest: +SKIP
        >>> ls.draw.save(axes, "contour.pdf")  # doctest: +SKIP
    """
    scene = build_plane_scene(land, quantity=quantity, scale=scale, levels=levels, limits=limits)
    return _drawn(scene, ax, paint_contour)


def filled(
    land: Landscape,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    levels: int | Sequence[float] | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with filled contours of a plane; the arguments are those of ``contour``.

    Raises:
        DrawError: when the landscape cannot be drawn so; the text says what to do.

    Example:
        >>> axes = ls.draw.filled(land, quantity="accuracy")  # doctest: +SKIP
    """
    scene = build_plane_scene(land, quantity=quantity, scale=scale, levels=levels, limits=limits)
    return _drawn(scene, ax, paint_filled)


def heatmap(
    land: Landscape,
    *,
    quantity: str | None = None,
    scale: str | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with one colored cell for each value of a plane, centered on its coordinates.

    Nothing lies between the values and the eye: no level is chosen and nothing is interpolated.

    The arguments are those of ``contour``, without levels; an axis of one point is welcome.

    Raises:
        DrawError: when the landscape cannot be drawn so; the text says what to do.

    Example:
        >>> axes = ls.draw.heatmap(land)  # doctest: +SKIP
    """
    return _drawn(
        build_plane_scene(land, quantity=quantity, scale=scale, limits=limits), ax, paint_heatmap
    )


def error_map(land: Landscape, *, scale: str | None = None, ax: Axes | None = None) -> Axes:
    """Return axes with the estimated error of each cell, and a dot where it was evaluated.

    Args:
        land: a plane of an adaptive scan, or of one on drawn samples.
        scale: "log" or "linear", of the colors. Default: what suits the values.
        ax: where to draw. Default: a new figure.

    Raises:
        DrawError: when the landscape has no estimated errors: its values are exact.

    Example:
        >>> axes = ls.draw.error_map(land)  # doctest: +SKIP
    """
    name = f"{land.quantity}_error"
    if name not in land.data or len(land.dims) != 2:
        raise DrawError(
            f"the landscape has no variable {name!r} over a plane: scan a plane with ls.Adaptive()"
            " or samples=ls.Calibrated(); the values of a full grid are exact."
        )
    axes = heatmap(land, quantity=name, ax=ax, scale=scale)
    if "evaluated" in land.data:
        y, x = land.axes
        j, i = np.nonzero(np.asarray(land.data["evaluated"].values))
        axes.plot(
            x[i], y[j], ls="none", marker="o", ms=3.2, mfc="white", mec="black", mew=0.5,
            label=f"evaluated: {len(i):,} of {len(x) * len(y):,}",
        )  # fmt: skip
        under: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13)}
        axes.legend(**under, ncols=2, frameon=False, fontsize="small")
    return axes


def paint_contour(scene: PlaneScene, ax: Axes, *, clear: FloatArray | None = None) -> None:
    """Draw labeled contour lines into ``ax``; labels keep away from the points ``clear``, [n, 2].

    A label that is half hidden reads as another number.
    """
    need_area(scene, "contour lines")
    _holes(scene, ax)
    _finish(scene, ax, scene.x, scene.y)
    inside = visible_levels(scene)
    if inside.size:
        lines = ax.contour(
            scene.x, scene.y, _masked(scene), inside, norm=norm(scene), cmap=COLORS, linewidths=1.2
        )
        label_lines(ax, lines, clear)
    else:
        ax.text(0.5, 0.55, _flat_note(scene), transform=ax.transAxes, ha="center", color="0.35")


def paint_filled(scene: PlaneScene, ax: Axes) -> None:
    """Draw filled contours into ``ax``; what they leave free is hatched."""
    need_area(scene, "filled contours")
    ax.patch.set(**_HOLE)
    low, high = scene.limits
    inside = scene.levels[(scene.levels > low) & (scene.levels < high)]
    bands = np.unique([low, *inside, high])
    colors: dict[str, Any] = {"norm": norm(scene), "cmap": COLORS}
    if scene.span is not None:
        beyond = scene.span[0] < low, scene.span[1] > high
        extend = {(True, False): "min", (False, True): "max", (True, True): "both"}
        colors["extend"] = extend.get(beyond, "neither")
        ax.contourf(scene.x, scene.y, _masked(scene), bands, **colors)
    _finish(scene, ax, scene.x, scene.y)


def paint_heatmap(scene: PlaneScene, ax: Axes) -> None:
    """Draw one exact cell for each value into ``ax``; holes are hatched."""
    _holes(scene, ax)
    x_edges, y_edges = scene.edges
    colors: dict[str, Any] = {"norm": norm(scene), "cmap": COLORS}
    # As an image a mesh has no hairlines between its cells in a PDF.
    ax.pcolormesh(x_edges, y_edges, _masked(scene), shading="flat", rasterized=True, **colors)
    _finish(scene, ax, *scene.edges)


def visible_levels(scene: PlaneScene) -> FloatArray:
    """Return the levels that cross this landscape, [levels]."""
    low, high = scene.span or (np.inf, -np.inf)
    return scene.levels[(scene.levels > low) & (scene.levels < high)]


def _drawn(scene: PlaneScene, ax: Axes | None, paint: Painter) -> Axes:
    if ax is None:
        ax = new_axes(plane_size(scene, 6.4))
    paint(scene, ax)
    add_color_bar(scene, ax.figure, ax=ax, pad=0.03, aspect=22)
    return ax


def _masked(scene: PlaneScene) -> Any:
    return np.ma.masked_invalid(scene.shown)


def _holes(scene: PlaneScene, ax: Axes) -> None:
    """Hatch the cells that have nothing to paint."""
    x, y = scene.edges
    j, i = np.nonzero(np.isnan(scene.shown))
    across, up = [x[i], x[i + 1], x[i + 1], x[i]], [y[j], y[j], y[j + 1], y[j + 1]]
    ax.add_collection(PolyCollection([*np.stack([across, up], axis=-1).swapaxes(0, 1)], **_HOLE))


def _flat_note(scene: PlaneScene) -> str:
    if scene.span is None:
        return "nothing to draw"
    low, high = (tick(end, digits_for(scene.span)) for end in scene.span)
    return f"{low} everywhere" if low == high else f"no level between {low} and {high}"


def _finish(scene: PlaneScene, ax: Axes, x: FloatArray, y: FloatArray) -> None:
    """Set title, labels, range and aspect; mark the center; say what the holes are."""
    ax.set(xlabel=scene.x_label, ylabel=scene.y_label, title=scene.title)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.set_aspect("equal" if one_unit(*(float(np.ptp(edge)) for edge in scene.edges)) else "auto")
    few_ticks(ax.xaxis)
    few_ticks(ax.yaxis)
    marks = _cross(ax) if scene.center is not None else []
    if scene.holes:
        legend_under(ax, [*marks, Patch(label=scene.hole_note, **_HOLE)])


def _cross(ax: Axes) -> list[Line2D]:
    outline = [withStroke(linewidth=3.5, foreground="black")]
    cross: dict[str, Any] = {"marker": "+", "ls": "none", "ms": 9, "mew": 1.6, "color": "white"}
    return ax.plot(0, 0, path_effects=outline, label="center (0, 0)", zorder=5, **cross)
