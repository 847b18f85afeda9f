"""The convexity of the loss over a plane: the map of Figure 7 in the 2018 paper.

Source: Li, Xu, Taylor, Studer, Goldstein 2018, arXiv 1712.09913, section 6 and Fig. 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from landscope.draw.axes import add_color_bar, choose_size, compute_plane_size, create_axes
from landscope.draw.figures import create_figure
from landscope.draw.levels import format_tick
from landscope.draw.panels import create_panels
from landscope.draw.plane_scene import PlaneScene, build_plane_scene
from landscope.draw.planes import paint_filled, paint_heatmap
from landscope.draw.values import (
    Landscapes,
    check_landscape,
    list_landscapes,
    list_quantities,
    name_landscapes,
)
from landscope.errors import DrawError
from landscope.landscape import Landscape

_LABEL = "|smallest / largest eigenvalue| of the Hessian"
_ABOVE = "#D55E00"  # color of values above the scale, distinct from the scale for all readers


def convexity(
    land: Landscape,
    *,
    title: str | None = None,
    limits: tuple[float, float] | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with a map of |smallest / largest eigenvalue| of the Hessian over a plane.

    The loss is convex where the map is dark (0); where it is bright (1), the loss curves down as
    much as up. Cells above the end of the color scale have a separate color and are counted.

    Args:
        land: A plane that was scanned with ``ls.curvature.hessian_extremes()``.
        title: The title; "" for none. Default: that of the landscape.
        limits: The ends of the color scale; (0, 1) is that of the paper. Default: from 0 to the
            largest value, at most to 1.
        size: Width and height of a new figure in inches. Default: that which suits the axes.
        ax: The axes to draw into. Default: axes in a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: When the landscape has no convexity, or cannot be drawn; the text explains what
            to do.

    Source: Li et al. 2018, arXiv 1712.09913, Fig. 7.

    Example:
        >>> extremes = ls.curvature.hessian_extremes()  # doctest: +SKIP
        >>> land = ls.scan(objective, plane, ls.Grid(11), quantities=(extremes,))  # doctest: +SKIP
        >>> axes = ls.draw.convexity(land)  # doctest: +SKIP
    """
    check_landscape(land)
    scene = _build_convexity_scene(land, [land], limits, title)
    if ax is None:
        ax = create_axes(compute_plane_size(scene, 6.4), size)
    _paint_map(scene, ax)
    return ax


def convexity_figure(
    lands: Landscapes,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    limits: tuple[float, float] | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Return a figure with the loss and the ``convexity`` map of one landscape, or of several.

    For one landscape the loss is on the left and the map on the right. For several, the losses are
    in a row, on one scale, and each map is below its loss.

    Args:
        lands: One plane that was scanned with ``ls.curvature.hessian_extremes()``, or several.
        labels: A title for each landscape. Default: the titles of the landscapes.
        title: The title of the figure; "" for none. Default: that of a single landscape.
        limits: The ends of the color scale of all maps; (0, 1) is that of the paper. Default: from
            0 to the largest value of all maps, at most to 1.
        size: Width and height of the figure in inches. Default: that which suits the maps.

    Returns:
        The figure.

    Raises:
        DrawError: When a landscape has no convexity, or cannot be drawn; the text explains what to
            do.

    Example:
        >>> figure = ls.draw.convexity_figure([a, b], labels=["skip", "no skip"])  # doctest: +SKIP
    """
    lands = list_landscapes(lands)
    maps = [_build_convexity_scene(land, lands, limits) for land in lands]
    losses = [build_plane_scene(land, shared_with=lands) for land in lands]
    names = name_landscapes(lands, labels)
    if len(lands) == 1:
        figure = _draw_beside(losses[0], maps[0], size)
        default = names[0] if labels else losses[0].title
    else:
        figure, default = _draw_below(losses, maps, names, size), ""
    figure.suptitle(default if title is None else title)
    return figure


def _draw_beside(
    loss: PlaneScene, convexity: PlaneScene, size: tuple[float, float] | None
) -> Figure:
    """Return a figure with the loss on the left and the map on the right."""
    figure, (left, right) = create_panels(2, compute_plane_size(loss, 4.4), size)
    paint_filled(loss, left)
    add_color_bar(loss, figure, ax=left, pad=0.03, aspect=22)
    _paint_map(convexity, right)
    _share_range(left, right)
    left.set_title(loss.label)
    right.set_title("convexity")
    return figure


def _draw_below(
    losses: Sequence[PlaneScene],
    maps: Sequence[PlaneScene],
    names: Sequence[str],
    size: tuple[float, float] | None,
) -> Figure:
    """Return a figure with the losses in a row and each map below its loss."""
    count, (width, height) = len(losses), compute_plane_size(losses[0], 4.6)
    figure = create_figure(choose_size(size, (width * count + 1.2, 2 * height)))
    upper, lower = figure.subplots(2, count, squeeze=False)
    meshes = []
    for k, name in enumerate(names):
        paint_filled(losses[k], upper[k])
        upper[k].set_title(name)
        meshes.append(_paint_cells(maps[k], lower[k]))
        _share_range(upper[k], lower[k])
    add_color_bar(losses[0], figure, ax=list(upper), shrink=0.9)
    figure.colorbar(
        meshes[0], ax=list(lower), label=_LABEL, extend=_choose_extend(maps), shrink=0.9
    )
    return figure


def _share_range(loss: Any, convexity: Any) -> None:
    """Cut the cells of a map, which extend half a step beyond the points, to the loss contours."""
    convexity.set(xlim=loss.get_xlim(), ylim=loss.get_ylim())


def _build_convexity_scene(
    land: Landscape,
    lands: Sequence[Landscape],
    limits: tuple[float, float] | None,
    title: str | None = None,
) -> PlaneScene:
    """Return the map of one of several landscapes on the color scale of all."""
    if any("convexity" not in list_quantities(each) for each in lands):
        raise DrawError(
            "The landscape has no variable 'convexity' over its plane: scan with"
            " quantities=(ls.curvature.hessian_extremes(),)."
        )
    if limits is None:
        values = np.concatenate([each.data["convexity"].values.ravel() for each in lands])
        largest = float(values[np.isfinite(values)].max(initial=0.0))
        limits = (0.0, min(largest, 1.0) or 1.0)
    return build_plane_scene(land, quantity="convexity", scale="linear", title=title, limits=limits)


def _paint_map(scene: PlaneScene, ax: Axes) -> None:
    mesh = _paint_cells(scene, ax)
    ax.figure.colorbar(
        mesh, ax=ax, label=_LABEL, extend=_choose_extend([scene]), pad=0.03, aspect=22
    )


def _choose_extend(scenes: Sequence[PlaneScene]) -> Any:
    """Return whether the color bar ends in an arrow: where a value lies above it."""
    above = any((scene.shown > scene.limits[1]).any() for scene in scenes)
    return "max" if above else "neither"


def _paint_cells(scene: PlaneScene, ax: Axes) -> QuadMesh:
    """Paint a map without its color bar, and count the values above 1 below it."""
    paint_heatmap(scene, ax)
    (mesh,) = (artist for artist in ax.collections if isinstance(artist, QuadMesh))
    mesh.set_cmap(matplotlib.colormaps[scene.colormap].with_extremes(over=_ABOVE))
    end = scene.limits[1]
    beyond = scene.shown[scene.shown > end]
    if beyond.size:
        largest = format_tick(float(beyond.max()), 3)
        label = f"above {format_tick(end, 3)}: {beyond.size}, up to {largest}"
        patch = Patch(facecolor=_ABOVE, label=label)
        legend = ax.get_legend()
        entries = legend.legend_handles if legend else []
        ax.legend(
            handles=[*(entry for entry in entries if entry is not None), patch],
            loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False,
            fontsize="small",
        )  # fmt: skip
    return mesh
