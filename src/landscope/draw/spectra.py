"""The density of a Hessian's eigenvalues: a tall peak near 0 and a few far out, on a log axis.

The density is smoothed, so one eigenvalue alone is a hump of a known height. That height is drawn,
and the picture ends a decade below it: what is lower is the foot of a hump, not an eigenvalue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from landscope.draw.axes import few_ticks, mark_axis, new_axes
from landscope.draw.bands import UNDER
from landscope.draw.labels import tick
from landscope.draw.levels import FloatArray, round_numbers
from landscope.draw.lines import CYCLE
from landscope.draw.scales import LOG_RATIO, SCALES, paintable
from landscope.draw.values import as_list, texts_of
from landscope.errors import DrawError

if TYPE_CHECKING:
    from landscope.curvature.spectral_density import Spectrum

_ROW = 0.06  # height of a row of ticks, as a share of the picture
_BELOW = 10.0  # how far below the hump of one eigenvalue the picture ends, as a factor
_LINEAR = 0.02  # share of the range about 0 within which a log scale is linear: about one hump
_SIDE = 0.16  # margins at the left and right, for the numbers there, as a share of the range
_TICK: dict[str, Any] = {"ls": "none", "marker": "|", "clip_on": False}


def spectrum(
    spectra: Spectrum | Sequence[Spectrum],
    *,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with the density of eigenvalues over curvature, on a log axis upwards.

    The ticks at the top are the eigenvalues that were found singly, between the smallest and the
    largest of all. The dotted line is the height that the smoothing gives to one eigenvalue.
    A spectrum is added to a picture by a call with the same ``ax``.

    Args:
        spectra: what ``ls.curvature.spectrum`` returned, once or several times.
        scale: of the curvature: "linear", or "log": logarithmic both ways from 0, and linear near
            it, within a fiftieth of the range, where the smoothing is what one would see. Default:
            log when the largest is more than 20 times the median of those found singly, or when
            the axes have it already.
        labels: a name for each spectrum. Default: how many parameters there are.
        ax: where to draw. Default: a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: when the scale is unknown, or the density is nowhere finite and positive.

    Example:
        >>> ax = ls.draw.spectrum([a, b], labels=["skips", "no skips"])  # doctest: +SKIP
    """
    if scale not in (None, *SCALES):
        raise DrawError(
            f"scale={scale!r} is not known; expected 'log' or 'linear', or None to let the values"
            " decide."
        )
    spectra = as_list(spectra, "spectrum")
    names = [f"{each.size:,} eigenvalues" for each in spectra]
    names = names if labels is None else texts_of(labels, len(spectra), "spectra")
    densities = [paintable(each.density, "log") for each in spectra]
    if any(np.isnan(density).all() for density in densities):
        raise DrawError("The density is nowhere finite and positive: look at spectrum.nodes.")
    if ax is None:
        ax = new_axes((6.8, 4.4))
    for each, density, name in zip(spectra, densities, names, strict=True):
        _paint(each, density, ax, name)
        _frame(ax, scale or _scale(each, ax))
    _legend(ax)
    return ax


def _paint(spectrum: Spectrum, shown: FloatArray, ax: Axes, name: str) -> None:
    """Draw one density, the height of one eigenvalue and a row of ticks."""
    row = len(_drawn(ax, "density"))
    color = CYCLE[row % len(CYCLE)]
    name = f"{name} (smoothing width {tick(spectrum.width, 2)})"
    ax.plot(spectrum.grid, shown, color=color, lw=1.4, gid="density", label=name)
    one = 1 / (spectrum.size * spectrum.width * math.sqrt(2 * math.pi))
    ax.axhline(one, color=color, lw=0.8, ls=":", gid="one")
    _mark_ends(spectrum, ax, color, row=row)


def _scale(spectrum: Spectrum, ax: Axes) -> str:
    """Return the scale that shows more of what was found singly."""
    if ax.get_xscale() == "asinh":
        return "log"
    sizes = np.abs(spectrum.outliers)
    wide = sizes.size > 0 and sizes.max() > LOG_RATIO * np.median(sizes)
    return "log" if wide else "linear"


def _mark_ends(spectrum: Spectrum, ax: Axes, color: str, *, row: int) -> None:
    """Put a row of ticks at the top: what was found singly, and the two ends with their values."""
    height = 1 - _ROW * (row + 0.6)
    across: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "color": color}
    found = spectrum.outliers
    ax.plot(found, np.full(found.shape, height), ms=7, mew=0.9, gid="outliers", **_TICK, **across)
    ends = spectrum.nodes[[0, -1]]
    ax.plot(ends, [height] * 2, ms=11, mew=2, gid="ends", **_TICK, **across)
    for value, sign, away, side in zip(ends, "≤≥", (-5, 5), ("right", "left"), strict=True):
        # A node that did not settle lies within the spectrum: the end is further out.
        text = tick(value, 3) if value in found else f"{sign} {tick(value, 3)}"
        ax.annotate(
            text, (value, height), (away, 0), xycoords=ax.get_xaxis_transform(),
            textcoords="offset points", ha=side, va="center", color=color, fontsize=8.5,
        )  # fmt: skip


def _frame(ax: Axes, scale: str) -> None:
    """Let the axes span all spectra that are in them, with room for the rows at the top."""
    floor, peak = _values(ax, "one").min() / _BELOW, np.nanmax(_values(ax, "density"))
    rows = len(_drawn(ax, "density"))
    low, high = math.log10(floor), math.log10(peak)
    ax.set_ylim(floor, 10 ** (low + (high - low) / (1 - _ROW * (rows + 1))))
    ax.set_yscale("log")
    mark_axis(ax.yaxis, (floor, peak), "log", count=8)
    _span_curvature(ax, scale, floor)
    ax.set_xlabel("curvature (eigenvalue of the Hessian)")
    ax.set_ylabel("share of eigenvalues per unit of curvature")
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    if rows == 1:
        ax.axvline(0, color="0.75", linewidth=0.8, zorder=0.9)


def _span_curvature(ax: Axes, scale: str, floor: float) -> None:
    """Let the axis of the curvature span all humps, with room for numbers beside the ends."""
    ends = np.concatenate([np.asarray(line.get_xdata()) for line in _drawn(ax, "ends")])
    places = np.concatenate([np.asarray(line.get_xdata()) for line in _drawn(ax, "density")])
    seen = places[_values(ax, "density") >= floor]
    low, high = float(ends.min()), float(ends.max())
    if scale == "log" and low < high:
        # Unlike "symlog" it has no kink, which would look like a feature of the density.
        ax.set_xscale("asinh", linear_width=_LINEAR * (high - low))
    elif scale == "linear":
        ax.set_xscale("linear")
    scaled = ax.xaxis.get_transform()
    low_at, high_at = scaled.transform([low, high])
    side = _SIDE * (high_at - low_at)
    left, right = scaled.inverted().transform([low_at - side, high_at + side])
    ax.set_xlim(min(left, seen.min()), max(right, seen.max()))
    if ax.get_xscale() == "asinh":
        _mark_both_ways(ax, low, high)
    else:
        few_ticks(ax.xaxis)


def _mark_both_ways(ax: Axes, low: float, high: float) -> None:
    """Put ticks at 0 and at round numbers to both sides, but for those that would touch 0."""
    most = max(-low, high)
    ahead = round_numbers(_LINEAR * (high - low), most, scale="log", count=4)
    marks = [0.0, *ahead[ahead <= high], *-ahead[ahead <= -low]]
    ax.xaxis.set_major_locator(FixedLocator(marks))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    ax.xaxis.set_minor_locator(NullLocator())


def _legend(ax: Axes) -> None:
    """Say below the axes which spectra are in them, and what the ticks and dots are."""
    handles = [
        *_drawn(ax, "density"),
        Line2D([], [], color="0.3", label="found singly (thick: smallest, largest)", ms=8, **_TICK),
        Line2D([], [], color="0.3", lw=0.8, ls=":", label="height of one eigenvalue"),
    ]
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = 2 if longest < 50 else 1
    ax.legend(handles=handles, ncols=columns, frameon=False, fontsize="small", **UNDER)


def _drawn(ax: Axes, what: str) -> list[Line2D]:
    return [line for line in ax.lines if line.get_gid() == what]


def _values(ax: Axes, what: str) -> FloatArray:
    found = [np.asarray(line.get_ydata(), dtype=np.float64) for line in _drawn(ax, what)]
    return np.concatenate(found)
