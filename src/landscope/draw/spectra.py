"""The density of the eigenvalues of a Hessian: a high peak near 0 and a few outliers.

The density is smoothed, so a single eigenvalue is a Gaussian of known height. This height is drawn,
and the picture ends a decade below it: smaller densities are tails of Gaussians, not eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from landscope.draw.axes import create_axes, limit_ticks, set_round_ticks
from landscope.draw.bands import BELOW
from landscope.draw.labels import arrange_in_columns
from landscope.draw.levels import FloatArray, choose_round_numbers, format_tick
from landscope.draw.lines import COLOR_CYCLE
from landscope.draw.scales import LOG_RATIO, check_scale, hide_unpaintable
from landscope.draw.values import check_labels, list_values
from landscope.errors import DrawError

if TYPE_CHECKING:
    from landscope.curvature.spectral_density import Spectrum

_ROW = 0.06  # height of a row of ticks, as a share of the picture
_FLOOR_RATIO = 10.0  # the height of a single eigenvalue over the bottom of the picture
_LINEAR = 0.02  # share of the range around 0 where a log scale is linear: about one Gaussian
_SIDE = 0.16  # margins on the left and right, for numbers, as a share of the range
_TICK: dict[str, Any] = {"ls": "none", "marker": "|", "clip_on": False}


def spectrum(
    spectra: Spectrum | Sequence[Spectrum],
    *,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with the density of eigenvalues over curvature, with a vertical log axis.

    The ticks at the top are the smallest and the largest eigenvalue, and between them the
    eigenvalues that were computed singly. The dotted line is the height of a single eigenvalue
    after smoothing. A call with the axes of another spectrum adds to that picture.

    Args:
        spectra: The result of ``ls.curvature.spectrum``, or several results.
        scale: "log" or "linear", of the curvature. A log scale is logarithmic on both sides of 0,
            and linear near 0, within a fiftieth of the range, where it would show the smoothing.
            Default: log when the largest eigenvalue is more than 20 times the median of those that
            were computed singly, or when the axes have a log scale already.
        labels: A name for each spectrum. Default: the number of eigenvalues.
        title: The title. Default: none.
        size: Width and height of a new figure in inches. Default: 6.8 by 4.4.
        ax: The axes to draw into. Default: axes in a new figure.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        DrawError: When there is no spectrum, the scale is unknown, the labels do not fit, or a
            density is nowhere finite and positive.

    Example:
        >>> ax = ls.draw.spectrum([a, b], labels=["skips", "no skips"])  # doctest: +SKIP
    """
    check_scale(scale)
    spectra = list_values(spectra, "spectrum")
    names = [f"{each.size:,} eigenvalues" for each in spectra]
    names = names if labels is None else check_labels(labels, len(spectra), "spectra")
    densities = [_cut_tails(each) for each in spectra]
    if any(np.isnan(density).all() for density in densities):
        raise DrawError("The density is nowhere finite and positive: look at spectrum.nodes.")
    if ax is None:
        ax = create_axes((6.8, 4.4), size)
    for each, density, name in zip(spectra, densities, names, strict=True):
        _paint_spectrum(each, density, ax, name)
        _set_up_axes(ax, scale or _choose_scale(each, ax))
    if title is not None:
        ax.set_title(title)
    _add_legend(ax)
    return ax


def _cut_tails(spectrum: Spectrum) -> FloatArray:
    """Return the density between the smallest and the largest eigenvalue, NaN elsewhere.

    Beyond them it is nothing but smoothing, which would look like eigenvalues below the smallest.
    """
    low, high = spectrum.nodes[[0, -1]]
    inside = (spectrum.grid >= low) & (spectrum.grid <= high)
    inside |= not inside.any()  # all eigenvalues are equal
    return hide_unpaintable(np.where(inside, spectrum.density, np.nan), "log")


def _paint_spectrum(spectrum: Spectrum, density: FloatArray, ax: Axes, name: str) -> None:
    """Draw a density, the height of a single eigenvalue, and a row of ticks."""
    row = len(_find_lines(ax, "density"))
    color = COLOR_CYCLE[row % len(COLOR_CYCLE)]
    name = f"{name} (smoothing width {format_tick(spectrum.width, 2)})"
    ax.plot(spectrum.grid, density, color=color, lw=1.4, gid="density", label=name)
    single = 1 / (spectrum.size * spectrum.width * math.sqrt(2 * math.pi))
    ax.axhline(single, color=color, lw=0.8, ls=":", gid="single")
    _mark_eigenvalues(spectrum, ax, color, row=row)


def _choose_scale(spectrum: Spectrum, ax: Axes) -> str:
    """Return the scale that shows more of the eigenvalues that were computed singly."""
    if ax.get_xscale() == "asinh":
        return "log"
    sizes = np.abs(spectrum.outliers)
    wide = sizes.size > 0 and sizes.max() > LOG_RATIO * np.median(sizes)
    return "log" if wide else "linear"


def _mark_eigenvalues(spectrum: Spectrum, ax: Axes, color: str, *, row: int) -> None:
    """Add a row of ticks at the top: single eigenvalues, and the two ends with their values."""
    height = 1 - _ROW * (row + 0.6)
    style: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "color": color} | _TICK
    outliers, ends = spectrum.outliers, spectrum.nodes[[0, -1]]
    heights = np.full(outliers.shape, height)
    ax.plot(outliers, heights, ms=7, mew=0.9, gid="outliers", **style)
    ax.plot(ends, [height] * 2, ms=11, mew=2, gid="ends", **style)
    for value, sign, offset, side in zip(ends, "≤≥", (-5, 5), ("right", "left"), strict=True):
        # A node that has not converged lies within the spectrum, which extends beyond it.
        text = format_tick(value, 3) if value in outliers else f"{sign} {format_tick(value, 3)}"
        ax.annotate(
            text, (value, height), (offset, 0), xycoords=ax.get_xaxis_transform(),
            textcoords="offset points", ha=side, va="center", color=color, fontsize=8.5,
        )  # fmt: skip


def _set_up_axes(ax: Axes, scale: str) -> None:
    """Set the ranges to those of all spectra in the axes, with room for the rows of ticks."""
    floor, peak = (
        _read_heights(ax, "single").min() / _FLOOR_RATIO,
        np.nanmax(_read_heights(ax, "density")),
    )
    rows = len(_find_lines(ax, "density"))
    low, high = math.log10(floor), math.log10(peak)
    ax.set_ylim(floor, 10 ** (low + (high - low) / (1 - _ROW * (rows + 1))))
    ax.set_yscale("log")
    set_round_ticks(ax.yaxis, (floor, peak), "log", count=8)
    _set_curvature_range(ax, scale, floor)
    ax.set_xlabel("curvature (eigenvalue of the Hessian)")
    ax.set_ylabel("share of eigenvalues per unit of curvature")
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    if rows == 1:
        ax.axvline(0, color="0.75", linewidth=0.8, zorder=0.9)


def _set_curvature_range(ax: Axes, scale: str, floor: float) -> None:
    """Set the range of curvature to that of all visible densities, with room for numbers."""
    ends = np.concatenate([np.asarray(line.get_xdata()) for line in _find_lines(ax, "ends")])
    grid = np.concatenate([np.asarray(line.get_xdata()) for line in _find_lines(ax, "density")])
    visible = grid[_read_heights(ax, "density") >= floor]
    low, high = float(ends.min()), float(ends.max())
    if scale == "log" and low < high:
        # Unlike "symlog" it has no kink, which would look like a feature of the density.
        ax.set_xscale("asinh", linear_width=_LINEAR * (high - low))
    elif scale == "linear":
        ax.set_xscale("linear")
    transform = ax.xaxis.get_transform()
    scaled_low, scaled_high = transform.transform([low, high])
    side = _SIDE * (scaled_high - scaled_low)
    left, right = transform.inverted().transform([scaled_low - side, scaled_high + side])
    ax.set_xlim(min(left, visible.min()), max(right, visible.max()))
    if ax.get_xscale() == "asinh":
        _set_two_sided_ticks(ax, low, high)
    else:
        limit_ticks(ax.xaxis)


def _set_two_sided_ticks(ax: Axes, low: float, high: float) -> None:
    """Put ticks at 0 and at round numbers on both sides, except those too close to 0."""
    largest = max(-low, high)
    sizes = choose_round_numbers(_LINEAR * (high - low), largest, scale="log", count=4)
    ticks = [0.0, *sizes[sizes <= high], *-sizes[sizes <= -low]]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))
    ax.xaxis.set_minor_locator(NullLocator())


def _add_legend(ax: Axes) -> None:
    """Name the spectra, the ticks and the dotted line below the axes."""
    handles = [
        *_find_lines(ax, "density"),
        Line2D([], [], color="0.3", label="found singly (thick: smallest, largest)", ms=8, **_TICK),
        Line2D([], [], color="0.3", lw=0.8, ls=":", label="height of one eigenvalue"),
    ]
    columns = arrange_in_columns(ax, handles, 2, extra_width=1.0)
    ax.legend(**columns, frameon=False, fontsize="small", **BELOW)


def _find_lines(ax: Axes, gid: str) -> list[Line2D]:
    return [line for line in ax.lines if line.get_gid() == gid]


def _read_heights(ax: Axes, gid: str) -> FloatArray:
    heights = [np.asarray(line.get_ydata(), dtype=np.float64) for line in _find_lines(ax, gid)]
    return np.concatenate(heights)
