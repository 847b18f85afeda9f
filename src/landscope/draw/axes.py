"""Axes, ticks and color bars that the pictures share."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from landscope.draw.labels import tick
from landscope.draw.levels import digits_for, round_numbers
from landscope.draw.plane_scene import PlaneScene

COLORS = "viridis"  # even in lightness, and readable by color-blind people and in print


def add_color_bar(scene: PlaneScene, figure: Any, **place: Any) -> None:
    """Draw the color scale of ``scene`` into ``figure``; ``place`` is where, as for colorbar()."""
    bar = figure.colorbar(color_scale(scene), label=scene.label, **place)
    mark_axis(bar.ax.yaxis, scene.limits, scene.scale)


def mark_axis(axis: Any, limits: tuple[float, float], scale: str, *, count: int = 7) -> None:
    """Put ticks at round numbers, written in plain digits, on an axis of a picture."""
    marks = round_numbers(*limits, scale=scale, count=count)
    digits = digits_for(marks)
    axis.set_major_locator(FixedLocator([*marks]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, digits)))
    axis.set_minor_locator(NullLocator())


def few_ticks(axis: Any, *, prune: str | None = None) -> None:
    """Put about five ticks along an axis, however large the picture: its layout is then stable."""
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], prune=prune))


def color_scale(scene: PlaneScene) -> ScalarMappable:
    """Return what maps values of ``scene`` to colors."""
    return ScalarMappable(norm(scene), COLORS)


def norm(scene: PlaneScene) -> Normalize:
    """Return the norm that maps values of ``scene`` to [0, 1]."""
    low, high = scene.limits
    return LogNorm(low, high) if scene.scale == "log" else Normalize(low, high)


def new_axes(size: tuple[float, float], **kind: Any) -> Axes:
    """Return empty axes in a figure of their own, ``size`` inches wide and high."""
    axes: Axes = Figure(figsize=size, layout="compressed").add_subplot(**kind)
    return axes


def plane_size(scene: PlaneScene, width: float) -> tuple[float, float]:
    """Return the size in inches of a picture that the plane fills."""
    right, up = (float(np.ptp(edge)) for edge in scene.edges)
    return area_size(right, up, width)


def area_size(right: float, up: float, width: float) -> tuple[float, float]:
    """Return the size in inches of a picture of an area; labels take about 1.7 by 1."""
    ratio = up / right if one_unit(right, up) else 0.75
    return (width, max((width - 1.7) * ratio + 1.0, 3.0))


def one_unit(right: float, up: float) -> bool:
    """Tell whether both axes can have one unit length without a thin strip of a picture."""
    return 1 / 3 <= right / up <= 3
