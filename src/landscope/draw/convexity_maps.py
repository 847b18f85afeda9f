"""How convex the loss is over a plane: the map of the 2018 paper's Figure 7.

Source: Li, Xu, Taylor, Studer, Goldstein 2018, arXiv 1712.09913, section 6 and Fig. 7.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from landscope.draw.axes import COLORS, add_color_bar, new_axes, plane_size
from landscope.draw.labels import tick
from landscope.draw.panels import panel_grid
from landscope.draw.plane_scene import PlaneScene, build_plane_scene
from landscope.draw.planes import paint_filled, paint_heatmap
from landscope.draw.values import Landscapes, list_landscapes, named, names_of
from landscope.errors import DrawError
from landscope.landscape import Landscape

_LABEL = "|smallest / largest eigenvalue| of the Hessian"
_LIMITS = (0.0, 1.0)  # as in the paper, so that maps can be compared by eye
_BEYOND = "#D55E00"  # for more than 1; not a color of the scale, also to color-blind people


def convexity(land: Landscape, *, ax: Axes | None = None) -> Axes:
    """Return axes with a map of |smallest / largest eigenvalue| of the Hessian over a plane.

    Dark (0) is where the loss is convex, bright (1) where it bends down as much as up. The color
    scale is that of the paper, from 0 to 1; more than 1 has a color of its own, and is counted.

    Args:
        land: a plane that was scanned with ``ls.curvature.hessian_extremes()``.
        ax: where to draw. Default: a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: when the landscape has no convexity, or cannot be drawn; the text says what to
            do.

    Source: Li et al. 2018, arXiv 1712.09913, Fig. 7.

    Example:
        >>> extremes = ls.curvature.hessian_extremes()  # doctest: +SKIP
        >>> land = ls.scan(objective, plane, ls.Grid(11), quantities=(extremes,))  # doctest: +SKIP
        >>> axes = ls.draw.convexity(land)  # doctest: +SKIP
    """
    scene = _scene(land)
    if ax is None:
        ax = new_axes(plane_size(scene, 6.4))
    _paint(scene, ax)
    return ax


def convexity_figure(lands: Landscapes, *, labels: Sequence[str] | None = None) -> Figure:
    """Return a figure with the loss and the map of ``convexity`` of one landscape, or of several.

    The loss of one landscape stands at the left of its map; those of several stand in a row above
    their maps, on one scale.

    Args:
        lands: one plane that was scanned with ``ls.curvature.hessian_extremes()``, or several.
        labels: a title for each. Default: the landscapes' titles.

    Raises:
        DrawError: when one has no convexity, or cannot be drawn; the text says what to do.

    Example:
        >>> figure = ls.draw.convexity_figure([a, b], labels=["skip", "no skip"])  # doctest: +SKIP
    """
    lands = list_landscapes(lands)
    maps = [_scene(land) for land in lands]
    losses = [build_plane_scene(land, beside=lands) for land in lands]
    names = named(lands, labels)
    if len(lands) == 1:
        return _beside(losses[0], maps[0], names[0] if labels else losses[0].title)
    return _below(losses, maps, names)


def _beside(loss: PlaneScene, convexity: PlaneScene, title: str) -> Figure:
    """Return a figure with the loss at the left and its map at the right."""
    figure, (left, right) = panel_grid(2, plane_size(loss, 5.6))
    paint_filled(loss, left)
    add_color_bar(loss, figure, ax=left, pad=0.03, aspect=22)
    _paint(convexity, right)
    # Cells reach half a step beyond the points: the picture of both ends at the points.
    right.set(xlim=left.get_xlim(), ylim=left.get_ylim())
    left.set_title(loss.label)
    right.set_title("convexity")
    if title:
        figure.suptitle(title)
    return figure


def _below(
    losses: Sequence[PlaneScene], maps: Sequence[PlaneScene], names: Sequence[str]
) -> Figure:
    """Return a figure with losses in a row, and each map below its loss."""
    count, (width, height) = len(losses), plane_size(losses[0], 4.6)
    figure = Figure(figsize=(width * count + 1.2, 2 * height), layout="compressed")
    axes = figure.subplots(2, count, squeeze=False)
    for k, name in enumerate(names):
        paint_filled(losses[k], axes[0, k])
        axes[0, k].set_title(name)
        _paint_cells(maps[k], axes[1, k])
        axes[1, k].set(xlim=axes[0, k].get_xlim(), ylim=axes[0, k].get_ylim())
    add_color_bar(losses[0], figure, ax=list(axes[0]), shrink=0.9)
    (mesh,) = (drawn for drawn in axes[1, 0].collections if isinstance(drawn, QuadMesh))
    figure.colorbar(mesh, ax=list(axes[1]), label=_LABEL, extend="max", shrink=0.9)
    return figure


def _scene(land: Landscape) -> PlaneScene:
    if "convexity" not in names_of(land):
        raise DrawError(
            "The landscape has no variable 'convexity' over its plane: scan with"
            " quantities=(ls.curvature.hessian_extremes(),)."
        )
    return build_plane_scene(land, quantity="convexity", scale="linear", limits=_LIMITS)


def _paint(scene: PlaneScene, ax: Axes) -> None:
    mesh = _paint_cells(scene, ax)
    ax.figure.colorbar(mesh, ax=ax, label=_LABEL, extend="max", pad=0.03, aspect=22)


def _paint_cells(scene: PlaneScene, ax: Axes) -> QuadMesh:
    """Paint a map without its color bar; values above 1 are counted below it."""
    paint_heatmap(scene, ax)
    (mesh,) = (drawn for drawn in ax.collections if isinstance(drawn, QuadMesh))
    mesh.set_cmap(_colors())
    beyond = int((scene.shown > _LIMITS[1]).sum())
    if beyond:
        largest = tick(float(scene.shown[scene.shown > _LIMITS[1]].max()), 3)
        patch = Patch(facecolor=_BEYOND, label=f"above 1: {beyond}, up to {largest}")
        old = ax.get_legend()
        others = old.legend_handles if old else []
        ax.legend(
            handles=[*(h for h in others if h is not None), patch], loc="upper center",
            bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False, fontsize="small",
        )  # fmt: skip
    return mesh


def _colors() -> Colormap:
    return matplotlib.colormaps[COLORS].with_extremes(over=_BEYOND)
