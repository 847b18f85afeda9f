"""Axes, ticks and color bars that all pictures share."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from landscope.draw.figures import add_axes, create_figure
from landscope.draw.levels import choose_round_numbers, count_digits, format_tick
from landscope.draw.plane_scene import PlaneScene
from landscope.draw.scales import read_numbers
from landscope.errors import DrawError

_LARGEST = 100.0  # inches, of a picture


def create_axes(
    default: tuple[float, float], size: tuple[float, float] | None = None, **options: Any
) -> Axes:
    """Return empty axes in a new figure, ``size`` inches wide and high.

    Args:
        default: The size that is taken if none is given.
        size: The size that the user gave.
        options: Keywords of ``add_axes``.

    Raises:
        DrawError: When the size is not that of a picture.
    """
    axes: Axes = add_axes(create_figure(choose_size(size, default)), **options)
    return axes


def choose_size(
    size: tuple[float, float] | None, default: tuple[float, float]
) -> tuple[float, float]:
    """Return the width and height of a figure in inches: those that were given, or the default.

    Raises:
        DrawError: When the size is not two numbers from 1 to 100.
    """
    if size is None:
        return default
    sides = read_numbers(size, 2)
    if not sides or not all(1 <= side <= _LARGEST for side in sides):
        raise DrawError(
            f"size={size!r} is not the size of a picture: give its width and height in inches, such"
            " as (6, 4)."
        )
    return sides[0], sides[1]


def compute_plane_size(scene: PlaneScene, width: float) -> tuple[float, float]:
    """Return the width and height in inches of a picture of a plane."""
    right, up = (float(np.ptp(edge)) for edge in scene.edges)
    return compute_area_size(right, up, width)


def compute_area_size(right: float, up: float, width: float) -> tuple[float, float]:
    """Return the width and height in inches of a picture of an area; labels take 1.7 by 1.0."""
    ratio = up / right if allows_equal_aspect(right, up) else 0.75
    return (width, max((width - 1.7) * ratio + 1.0, 3.0))


def allows_equal_aspect(right: float, up: float) -> bool:
    """Tell whether both axes can have the same unit length without a very thin picture."""
    return 1 / 3 <= right / up <= 3


def add_color_bar(scene: PlaneScene, figure: Any, **placement: Any) -> None:
    """Draw the color scale of ``scene`` into ``figure``, placed as by ``figure.colorbar``."""
    mappable = ScalarMappable(make_norm(scene), scene.colormap)
    bar = figure.colorbar(mappable, label=scene.label, **placement)
    set_round_ticks(bar.ax.yaxis, scene.limits, scene.scale)


def make_norm(scene: PlaneScene) -> Normalize:
    """Return the norm that maps values of ``scene`` to [0, 1]."""
    low, high = scene.limits
    return LogNorm(low, high) if scene.scale == "log" else Normalize(low, high)


def set_round_ticks(axis: Any, limits: tuple[float, float], scale: str, *, count: int = 7) -> None:
    """Put about ``count`` ticks at round numbers on an axis, without minor ticks."""
    ticks = choose_round_numbers(*limits, scale=scale, count=count)
    digits = count_digits(ticks)
    axis.set_major_locator(FixedLocator([*ticks]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value, digits)))
    axis.set_minor_locator(NullLocator())


def limit_ticks(axis: Any) -> None:
    """Put about five ticks on an axis at any size of the picture, which keeps its layout stable."""
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
