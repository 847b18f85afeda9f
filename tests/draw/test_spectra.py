"""Spectra: what matplotlib was given against densities of known eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from landscope import draw
from landscope.curvature.spectral_density import Spectrum
from landscope.errors import DrawError

Rasterize = Callable[..., Any]


def make_spectrum(bulk: int, outliers: list[float], *, singly: int | None = None) -> Spectrum:
    """``bulk`` eigenvalues at 0, and outliers, of which the first ``singly`` are known singly."""
    values = np.sort(np.array([*np.zeros(bulk), *outliers]))
    width = float(np.ptp(values)) / 200
    grid = np.linspace(values[0] - 4 * width, values[-1] + 4 * width, 2001)
    humps = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2)
    density = humps.mean(axis=1) / (width * math.sqrt(2 * math.pi))
    weights = np.full(len(values), 1 / len(values))
    known = np.sort(outliers[:singly])
    origin = np.zeros(len(values), dtype=int)
    return Spectrum(values, weights, known, grid, density, width, len(values), 60, origin)


@pytest.fixture
def network() -> Spectrum:
    return make_spectrum(1000, [-0.2, 1.0, 1.5, 2.0, 10.0])


def drawn(ax: Axes, what: str) -> list[Any]:
    return [line for line in ax.lines if line.get_gid() == what]


def legend(ax: Axes) -> list[str]:
    box = ax.get_legend()
    assert box is not None
    return [text.get_text() for text in box.get_texts()]


def numbers(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_the_density_is_drawn_as_it_is_on_a_log_axis(
    network: Spectrum, rasterize: Rasterize
) -> None:
    ax = draw.spectrum(network)
    assert np.ptp(rasterize(ax)) > 0
    (curve,) = drawn(ax, "density")
    np.testing.assert_array_equal(curve.get_xdata(), network.grid)
    low, high = network.nodes[[0, -1]]  # beyond them is nothing but smoothing
    positive = (network.density > 0) & (network.grid >= low) & (network.grid <= high)
    np.testing.assert_array_equal(curve.get_ydata()[positive], network.density[positive])
    assert np.isnan(curve.get_ydata()[~positive]).all()
    assert (ax.get_yscale(), ax.get_xscale()) == ("log", "linear")
    assert ax.get_xlabel() == "curvature (eigenvalue of the Hessian)"
    assert ax.get_ylabel() == "share of eigenvalues per unit of curvature"
    assert legend(ax)[0] == "1,005 eigenvalues (smoothing width 0.051)"


def test_the_ends_are_marked_with_their_values_and_outliers_have_a_tick_each(
    network: Spectrum,
) -> None:
    ax = draw.spectrum(network)
    (ticks,), (ends,) = drawn(ax, "outliers"), drawn(ax, "ends")
    np.testing.assert_array_equal(ticks.get_xdata(), [-0.2, 1.0, 1.5, 2.0, 10.0])
    np.testing.assert_array_equal(ends.get_xdata(), [-0.2, 10.0])
    assert numbers(ax) == ["\N{MINUS SIGN}0.2", "10"]


def test_an_end_that_was_not_computed_singly_is_a_bound() -> None:
    ax = draw.spectrum(make_spectrum(100, [1.0, 10.0, -0.2], singly=2))
    assert numbers(ax) == ["≤ \N{MINUS SIGN}0.2", "10"]


def test_the_hump_of_one_eigenvalue_reaches_the_dotted_line_and_ends_within_the_picture(
    network: Spectrum,
) -> None:
    ax = draw.spectrum(network)
    (one,) = drawn(ax, "single")
    lonely = network.density[np.abs(network.grid - 10) < 0.2].max()
    assert one.get_ydata()[0] == pytest.approx(lonely, rel=1e-2)
    low, high = ax.get_ylim()
    assert low == pytest.approx(lonely / 10, rel=1e-2)
    assert high > network.density.max()


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_visible_densities_are_within_the_horizontal_range(
    scale: str, rasterize: Rasterize
) -> None:
    spectrum = make_spectrum(5000, [1.0, 900.0])
    ax = draw.spectrum(spectrum, scale=scale)
    rasterize(ax)
    low, high = spectrum.nodes[[0, -1]]
    inside = (spectrum.grid >= low) & (spectrum.grid <= high)
    seen = spectrum.grid[inside & (spectrum.density >= ax.get_ylim()[0])]
    assert ax.get_xlim()[0] <= seen.min() < seen.max() <= ax.get_xlim()[1]
    room = ax.transData.transform([[900.0, 1.0]])[0, 0], ax.transAxes.transform([1.0, 0.0])[0]
    assert room[1] - room[0] > 0.1 * np.ptp(ax.transAxes.transform([[0, 0], [1, 1]])[:, 0])


def test_the_axis_is_logarithmic_on_both_sides_when_most_eigenvalues_are_near_0(
    rasterize: Rasterize,
) -> None:
    ax = draw.spectrum(make_spectrum(500, [-300.0, -2.0, 1.0, 2.0, 3.0, 900.0]))
    rasterize(ax)
    assert ax.get_xscale() == "asinh"
    marks = [text.get_text() for text in ax.get_xticklabels()]
    assert {"0", "100", "\N{MINUS SIGN}100"} <= set(marks)
    assert draw.spectrum(make_spectrum(500, [-1.0, 1.0, 9.0])).get_xscale() == "linear"


def test_a_given_scale_is_used(network: Spectrum) -> None:
    assert draw.spectrum(network, scale="log").get_xscale() == "asinh"
    far = make_spectrum(500, [1.0, 2.0, 900.0])
    assert draw.spectrum(far, scale="linear").get_xscale() == "linear"


def test_several_spectra_share_axes_with_a_color_and_a_row_of_ticks_each(
    network: Spectrum, rasterize: Rasterize
) -> None:
    ax = draw.spectrum(network, labels=["skips"])
    before = ax.get_xlim()
    draw.spectrum(make_spectrum(3000, [-5.0, 1.0, 2.0, 20.0]), ax=ax, labels=["no skips"])
    rasterize(ax)
    first, second = drawn(ax, "density")
    assert first.get_color() != second.get_color()
    assert [text.split(" (")[0] for text in legend(ax)][:2] == ["skips", "no skips"]
    assert len(legend(ax)) == 4
    rows = [row.get_ydata()[0] for row in drawn(ax, "outliers")]
    assert rows[0] > rows[1]
    assert ax.get_xlim()[0] < min(before[0], -5.0)
    assert ax.get_xlim()[1] > max(before[1], 20.0)
    top = max(np.nanmax(curve.get_ydata()) for curve in (first, second))
    assert ax.transAxes.inverted().transform(ax.transData.transform((0, top)))[1] < rows[1]


def test_a_spectrum_without_outliers_and_one_of_a_single_eigenvalue_are_drawn(
    rasterize: Rasterize,
) -> None:
    none = replace(make_spectrum(50, [-1.0, 4.0]), outliers=np.zeros(0))
    for spectrum in (none, replace(none, nodes=np.array([2.0]), weights=np.ones(1), size=1)):
        rasterize(draw.spectrum(spectrum))
        rasterize(draw.spectrum(spectrum, scale="log"))


def test_wrong_calls_are_explained(network: Spectrum) -> None:
    with pytest.raises(DrawError, match="scale='cubic' is not known; expected 'log' or 'linear'"):
        draw.spectrum(network, scale="cubic")
    with pytest.raises(DrawError, match="nowhere finite and positive"):
        draw.spectrum(replace(network, density=np.full(2001, np.nan)))
