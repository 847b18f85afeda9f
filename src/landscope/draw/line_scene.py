"""From the landscape of a line to plain arrays: scale, limits, labels and error bands.

A renderer paints a scene; every decision about the picture is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landscope.draw.explanations import list_marks
from landscope.draw.levels import FloatArray
from landscope.draw.scales import (
    contains_zero,
    describe_holes,
    explain_no_values,
    hide_unpaintable,
    resolve_limits,
    resolve_scale,
)
from landscope.draw.values import (
    choose_quantities,
    format_label,
    is_percent,
    read_axis,
    read_line,
    read_title,
)
from landscope.errors import DrawError
from landscope.landscape import Landscape

_QUANTILE = 1.959964  # of the standard normal distribution: 95% within it on both sides
_MAX_BAND_RATIO = 10.0  # on a log scale: error bands are shown down to a tenth of their curve


@dataclass(frozen=True, eq=False)
class LineSeries:
    """One quantity along a line, ready to paint."""

    quantity: str  # the name of the variable
    label: str  # with its unit
    values: FloatArray  # [nx], raw
    shown: FloatArray  # [nx], NaN where the scale cannot show the value
    percent: bool  # whether its unit is %, so that it belongs to the right-hand axis
    test: bool  # whether it was measured on held-out data, so that it is dashed
    margin: FloatArray | None = None  # [nx], half the width of the 95% interval; None: unknown


@dataclass(frozen=True, eq=False)
class LineScene:
    """Several quantities along a line, ready to paint."""

    x: FloatArray  # [nx], rising
    series: tuple[LineSeries, ...]
    scale: str  # "log" | "linear", of the series that are not percentages
    limits: tuple[float, float]  # of the same series; may be shared by several scenes
    x_label: str
    title: str  # empty when the landscape has none
    center: float | None  # 0 when it lies within the axis
    marks: list[tuple[tuple[float, ...], str]]  # coordinates and names of models on the line

    @property
    def hole_positions(self) -> FloatArray:
        """Coordinates at which a value of some series cannot be painted, [holes]."""
        return self.x[np.any([np.isnan(series.shown) for series in self.series], axis=0)]

    @property
    def hole_note(self) -> str:
        """The number of holes of each kind, as a text; empty when there are none."""
        return describe_holes([s.values for s in self.series], [s.shown for s in self.series])


def build_line_scene(
    land: Landscape,
    *,
    quantity: str | Sequence[str] | None = None,
    scale: str | None = None,
    shared_with: Sequence[Landscape] = (),
) -> LineScene:
    """Return quantities of a line as plain arrays, with all choices for their picture.

    Args:
        land: A landscape with dims ("x",).
        quantity: The name of a variable, or several. Default: every loss and every percentage.
        scale: "log" or "linear", of the quantities that are not percentages. Default: log when all
            their finite values are positive and the largest is more than 20 times the smallest.
        shared_with: The landscapes in the same figure; they share scale and limits.

    Returns:
        The scene; arrays of shape [nx].

    Raises:
        DrawError: When the landscape is not a line, has no such quantity, or no value to paint.

    Example:
        >>> scene = build_line_scene(land)  # doctest: +SKIP
        >>> [series.label for series in scene.series]  # doctest: +SKIP
        ['loss', 'accuracy (%)']
    """
    if isinstance(quantity, str):
        quantity = [quantity]
    names = list(quantity) if quantity else choose_quantities(land)
    columns = [(each, name) for each in (land, *shared_with) for name in names]
    left = [read_line(each, name) for each, name in columns if not is_percent(each, name)]
    scale = resolve_scale(left, scale, name=names[0]) if left else "linear"
    series = tuple(_build_series(land, name, scale) for name in names)
    if all(np.isnan(each.shown).all() for each in series):
        raise DrawError(explain_no_values(names[0]))
    uncertain = [(each, name) for each, name in columns if f"{name}_stderr" in each.data]
    bands = [
        end
        for each, name in uncertain
        for end in _compute_band(_build_series(each, name, scale), scale)
    ]
    x = read_axis(land, "x")
    return LineScene(
        x=x,
        series=series,
        scale=scale,
        limits=resolve_limits([*(hide_unpaintable(f, scale) for f in left), *bands], scale),
        x_label=format_label(land, "x"),
        title=read_title(land),
        center=0.0 if contains_zero(x) else None,
        marks=list_marks(land),
    )


def _build_series(land: Landscape, name: str, scale: str) -> LineSeries:
    values = read_line(land, name)
    percent, error = is_percent(land, name), f"{name}_stderr"
    return LineSeries(
        quantity=name,
        label=format_label(land, name),
        values=values,
        shown=hide_unpaintable(values, "linear" if percent else scale),
        percent=percent,
        test=name.startswith(("test", "val")),
        margin=_QUANTILE * read_line(land, error) if error in land.data else None,
    )


def _compute_band(series: LineSeries, scale: str) -> list[FloatArray]:
    """Return the ends of an error band, as far as they extend the limits of the picture.

    On a log scale a band can reach down to nearly 0, where it would use up the whole picture.
    """
    if series.margin is None or series.percent:
        return []
    low, high = series.shown - series.margin, series.shown + series.margin
    if scale == "log":
        low = np.where(low >= series.shown / _MAX_BAND_RATIO, low, np.nan)
    return [hide_unpaintable(low, scale), hide_unpaintable(high, scale)]
