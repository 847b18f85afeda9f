"""From the landscape of a line to plain arrays: scale, limits, labels and error bands.

A renderer paints a scene; every decision about the picture is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landscope.draw.levels import FloatArray
from landscope.draw.scales import (
    holds_zero,
    hole_note_of,
    limits_of,
    nothing_of,
    paintable,
    resolve_scale,
)
from landscope.draw.values import (
    axis_values,
    curves_of,
    is_percent,
    label_of,
    line_values,
    title_of,
)
from landscope.errors import DrawError
from landscope.landscape import Landscape

_QUANTILE = 1.959964  # of the normal distribution: 95% on both sides together
_LEAST_OF_BAND = 10.0  # on a log scale: how far below its curve a band is followed, as a factor


@dataclass(frozen=True, eq=False)
class Trace:
    """One quantity along a line, ready to paint."""

    quantity: str  # the name of the variable
    label: str  # with its unit
    values: FloatArray  # [nx], as they were computed
    shown: FloatArray  # [nx], NaN where there is nothing to paint on this scale
    percent: bool  # its unit is %: it belongs on the right-hand axis
    test: bool  # measured on data that were held out: it is drawn dashed
    margin: FloatArray | None = None  # [nx], half the width of the 95% interval; None: not known


@dataclass(frozen=True, eq=False)
class LineScene:
    """Several quantities along a line, ready to paint."""

    x: FloatArray  # [nx], rising
    traces: tuple[Trace, ...]
    scale: str  # "log" | "linear", of the traces that are no percentages
    limits: tuple[float, float]  # of these traces; may be shared by several scenes
    x_label: str
    title: str  # empty when the landscape has none
    center: float | None  # 0 when it lies within the axis

    @property
    def hole_positions(self) -> FloatArray:
        """Coordinates at which some trace has nothing to paint, [holes]."""
        return self.x[np.any([np.isnan(trace.shown) for trace in self.traces], axis=0)]

    @property
    def hole_note(self) -> str:
        """What the holes are, in words; empty when there are none."""
        return hole_note_of([t.values for t in self.traces], [t.shown for t in self.traces])


def build_line_scene(
    land: Landscape,
    *,
    quantity: str | Sequence[str] | None = None,
    scale: str | None = None,
    beside: Sequence[Landscape] = (),
) -> LineScene:
    """Return quantities of a line as plain arrays, with all that is decided about their picture.

    Args:
        land: a landscape with dims ("x",).
        quantity: name of a variable, or several. Default: every loss and every percentage.
        scale: "log" or "linear", of the quantities that are no percentages. Default: log when all
            their finite values are positive and the largest is more than 20 times the smallest.
        beside: landscapes that are drawn with this one: they all get one scale and one pair of
            limits.

    Returns:
        The scene; arrays of shape [nx].

    Raises:
        DrawError: when the landscape is no line, has no such quantity, or nothing to paint.

    Example:
        >>> scene = build_line_scene(land)  # doctest: +SKIP
        >>> [trace.label for trace in scene.traces]  # doctest: +SKIP
        ['loss', 'accuracy (%)']
    """
    if isinstance(quantity, str):
        quantity = [quantity]
    names = list(quantity) if quantity else curves_of(land)
    left = [line_values(one, n) for one in (land, *beside) for n in names if not is_percent(one, n)]
    scale = resolve_scale(left, scale, name=names[0]) if left else "linear"
    traces = tuple(_trace(land, name, scale) for name in names)
    unsure = [(o, n) for o in (land, *beside) for n in names if f"{n}_stderr" in o.data]
    bands = [end for one, name in unsure for end in _reach(_trace(one, name, scale), scale)]
    if all(np.isnan(trace.shown).all() for trace in traces):
        raise DrawError(nothing_of(names[0]))
    x = axis_values(land, "x")
    return LineScene(
        x=x,
        traces=traces,
        scale=scale,
        limits=limits_of([*(paintable(field, scale) for field in left), *bands], scale),
        x_label=label_of(land, "x"),
        title=title_of(land),
        center=0.0 if holds_zero(x) else None,
    )


def _trace(land: Landscape, name: str, scale: str) -> Trace:
    values = line_values(land, name)
    percent, error = is_percent(land, name), f"{name}_stderr"
    return Trace(
        quantity=name,
        label=label_of(land, name),
        values=values,
        shown=paintable(values, "linear" if percent else scale),
        percent=percent,
        test=name.startswith(("test", "val")),
        margin=_QUANTILE * line_values(land, error) if error in land.data else None,
    )


def _reach(trace: Trace, scale: str) -> list[FloatArray]:
    """Return the ends of the error bands that a picture has to hold.

    On a log scale a band may reach down to nothing, and would take all of the picture with it.
    """
    if trace.margin is None or trace.percent:
        return []
    low, high = trace.shown - trace.margin, trace.shown + trace.margin
    if scale == "log":
        low = np.where(low >= trace.shown / _LEAST_OF_BAND, low, np.nan)
    return [paintable(low, scale), paintable(high, scale)]
