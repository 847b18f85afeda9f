"""A layout that cuts nothing: long titles and labels are wrapped, 3-D boxes are made smaller.

Matplotlib's layouts leave room for the height of a title or label and ignore its length. This one
runs whenever a picture is drawn, so it also fits texts that were set afterwards.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from mpl_toolkits.mplot3d import Axes3D

_MARGIN = 6.0  # points that are free at each border
_LETTER = 0.55  # mean width of a letter, in units of the font size
_LINE = 1.2  # height of a line, in units of the font size
_AXIS_3D = 0.48  # length of a projected axis of a 3-D box, as a share of the sides of its axes
_BREAKS = re.compile(r"(\s+)|(?<=[/_:,])")  # where a line may end
_ZOOM: Final = 1.8294640721620434 * 25 / 24  # norm of matplotlib's box aspect at zoom 1
_ROUNDS = 4  # of making a 3-D box smaller
_SMALLEST = 0.6  # factor of a box in one round


class FittingLayout(ConstrainedLayoutEngine):
    """Constrained layout for texts of any length."""

    def execute(self, fig: Any) -> None:
        """Arrange the axes; wrap what is too long, and arrange them again."""
        boxes = [ax for ax in fig.axes if isinstance(ax, Axes3D)]
        for ax in boxes:
            _update_projection(ax)
        super().execute(fig)
        for _ in range(2):
            if not sum(wrap_text(text, limit) for text, limit in _list_texts(fig)):
                break
            super().execute(fig)
        for _ in range(_ROUNDS):
            if not sum(_shrink_box(fig, ax) for ax in boxes):
                break
            super().execute(fig)


def wrap_text(text: Text, limit: float) -> bool:
    """Break a text into lines of at most ``limit`` points; return whether it was too long."""
    letter = _LETTER * float(text.get_fontsize())
    most = max(int(limit / letter), 8)
    lines = text.get_text().split("\n")
    if not text.get_visible() or max(map(len, lines)) <= most:
        return False
    wrapper = textwrap.TextWrapper(most)
    wrapper.wordsep_re = _BREAKS
    text.set_text("\n".join(wrapper.fill(line) for line in lines))
    return True


def _list_texts(fig: Any) -> Iterator[tuple[Text, float]]:
    """Yield titles and labels with the length in points that each may have."""
    points = 72 / fig.dpi
    width, height = fig.bbox.size * points
    if fig._suptitle is not None:
        yield fig._suptitle, width - 2 * _MARGIN
    for ax in fig.axes:
        columns, rows = _count_panels(ax)
        across = _measure_room(ax.bbox.intervalx * points, width)
        if columns > 1:  # as wide as its panel
            across = min(across, 1.1 * ax.bbox.width * points)
        yield ax.title, across - 2 * _MARGIN
        if isinstance(ax, Axes3D):
            yield from _list_labels_3d(ax, points)
        else:
            up = min(height / rows, _measure_room(ax.bbox.intervaly * points, height))
            before = ax.xaxis.label.get_text().count("\n")
            yield ax.xaxis.label, across - 2 * _MARGIN
            _move_legend(ax, ax.xaxis.label.get_text().count("\n") - before)
            yield ax.yaxis.label, up - 2 * _MARGIN


def _list_labels_3d(ax: Any, points: float) -> Iterator[tuple[Text, float]]:
    """Yield the labels of a 3-D box, with room for their lines between ticks and label."""
    sides = _AXIS_3D * ax.bbox.width * points, _AXIS_3D * ax.bbox.height * points
    for axis, limit in ((ax.xaxis, sides[0]), (ax.yaxis, sides[0]), (ax.zaxis, sides[1])):
        before = axis.label.get_text().count("\n")
        yield axis.label, limit
        lines = axis.label.get_text().count("\n") - before
        axis.labelpad += lines * _LINE / 2 * axis.label.get_fontsize()


def _move_legend(ax: Axes, lines: int) -> None:
    """Move a legend that is below the label of the x axis down by some lines of the label."""
    legend: Any = ax.get_legend()
    if lines and legend is not None and legend.get_bbox_to_anchor().y0 < ax.bbox.y0:
        label = float(ax.xaxis.label.get_fontsize())
        legend.borderaxespad += lines * _LINE * label / legend.get_texts()[0].get_fontsize()


def _measure_room(interval: Any, length: float) -> float:
    """Return the length of the longest text that is centered on an interval and is not cut."""
    center = float(interval.mean())
    return 2 * min(center, length - center)


def _count_panels(ax: Axes) -> tuple[int, int]:
    """Return the numbers of columns and rows among which axes share the width and the height."""
    spec = ax.get_subplotspec()
    if spec is None:
        return 1, 1
    grid = spec.get_gridspec()
    return (
        math.ceil(grid.ncols / len(spec.colspan)),
        math.ceil(grid.nrows / len(spec.rowspan)),
    )


def _shrink_box(fig: Any, ax: Any) -> bool:
    """Make a 3-D box smaller if its labels extend beyond the figure; return whether they did."""
    box = ax.get_tightbbox(fig._get_renderer())  # any format: .svg too
    width, height = fig.bbox.size
    over = max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)
    if over <= 0:
        return False
    aspect = ax.get_box_aspect()
    zoom = float((aspect**2).sum() ** 0.5) / _ZOOM
    factor = max(1 - 2.2 * over / min(width, height), _SMALLEST)
    ax.set_box_aspect(aspect / zoom, zoom=factor * zoom)
    _update_projection(ax)
    return True


def _update_projection(ax: Any) -> None:
    """Project the box as it is now: matplotlib does so when it draws, after the layout."""
    ax.M = ax.get_proj()
