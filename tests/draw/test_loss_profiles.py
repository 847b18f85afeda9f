"""Profiles: curves of known numbers against what matplotlib was given; quartiles by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from landscope import draw
from landscope.analysis.representative_planes import Representativeness
from landscope.curvature.eigensolver import Extremes
from landscope.errors import DrawError

Rasterize = Callable[..., Any]
RANDOM = "5 random directions"

ENDS, ERRORS = torch.tensor([-0.25, 4.0], dtype=torch.float64), torch.zeros(2)


def make_result(*, floor: float = 1.0, at: float | None = None) -> Representativeness:
    """Five random parabolas, two extreme ones, and optionally one to an initialization."""
    x = np.linspace(-1, 1, 11)
    return Representativeness(
        distances=x,
        random=floor + np.arange(1.0, 6.0)[:, None] * x**2,
        sharpest=floor + 8 * x**2,
        steepest=floor - 0.5 * floor * x**2,
        initialization=None if at is None else floor + 2 * x**2,
        initialization_at=at,
        curvatures=np.arange(5.0),
        plane_smallest=np.arange(3.0),
        extremes=Extremes(ENDS, ERRORS, ERRORS, (), converged=True, products=9),
        loss=floor,
        unit=2.0,
        size=12345,
    )


def curve(ax: Axes, label: str) -> Any:
    (line,) = [line for line in ax.lines if str(line.get_label()).startswith(label)]
    return line


def edges(ax: Axes, label: str) -> tuple[float, float]:
    """The lowest and the highest value of a band."""
    (band,) = [band for band in ax.collections if band.get_label() == label]
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    return float(heights.min()), float(heights.max())


def legend(where: Any) -> list[str]:
    return [text.get_text() for text in where.get_texts()]


def test_random_directions_are_drawn_each_with_their_mean_quartiles_and_extremes(
    rasterize: Rasterize,
) -> None:
    result = make_result()
    ax = draw.curvature_profiles(result)
    assert np.ptp(rasterize(ax)) > 0
    np.testing.assert_array_equal(curve(ax, RANDOM).get_ydata(), result.random[0])
    for k, line in enumerate(ax.lines[:5]):
        np.testing.assert_array_equal(np.asarray(line.get_ydata()), result.random[k])
    np.testing.assert_allclose(curve(ax, "their mean").get_ydata(), 1 + 3 * result.distances**2)
    assert edges(ax, "middle half of them") == (1.0, 5.0)
    assert edges(ax, "smallest to largest") == (1.0, 6.0)


def test_extreme_directions_are_named_with_their_curvatures() -> None:
    result = make_result(at=-0.5)
    ax = draw.curvature_profiles(result)
    for label, profile in (
        ("sharpest direction (curvature 4)", result.sharpest),
        ("direction of the smallest eigenvalue (curvature \N{MINUS SIGN}0.25)", result.steepest),
        ("way from the initialization", result.initialization),
    ):
        assert curve(ax, label).get_label() == label
        np.testing.assert_array_equal(curve(ax, label).get_ydata(), profile)
    curves = [curve(ax, label) for label in ("sharpest", "direction of", "way from")]
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 3
    assert {line.get_label() for line in curves} <= set(legend(ax.get_legend()))
    assert ax.get_xlabel() == "distance (in mean lengths of a random direction)"
    assert ax.get_ylabel() == "loss"
    assert ax.get_title() == "12,345 parameters"


def test_the_initialization_is_marked_at_its_position() -> None:
    ax = draw.curvature_profiles(make_result(at=-0.5))
    assert list(curve(ax, "the initialization").get_xdata()) == [-0.5, -0.5]
    assert not ax.texts


def test_an_initialization_outside_the_picture_is_named(rasterize: Rasterize) -> None:
    ax = draw.curvature_profiles(make_result(at=-3.0))
    rasterize(ax)
    assert [text.get_text() for text in ax.texts] == [
        "\N{LEFTWARDS ARROW} initialization at \N{MINUS SIGN}3"
    ]
    assert ax.get_xlim() == (-1.0, 1.0)
    assert "the initialization" not in legend(ax.get_legend())


def test_the_scale_is_log_where_the_loss_grows_twentyfold_unless_another_is_given() -> None:
    assert draw.curvature_profiles(make_result()).get_yscale() == "linear"
    assert draw.curvature_profiles(make_result(floor=0.01)).get_yscale() == "log"
    assert draw.curvature_profiles(make_result(floor=0.01), scale="linear").get_yscale() == "linear"
    with pytest.raises(DrawError, match="scale='cubic' is not known"):
        draw.curvature_profiles(make_result(), scale="cubic")


def test_missing_values_are_gaps_of_mean_and_bands_with_a_cross(rasterize: Rasterize) -> None:
    result = make_result()
    result.random[2, 0] = np.inf
    result.sharpest[10] = np.nan
    ax = draw.curvature_profiles(result)
    rasterize(ax)
    mean = curve(ax, "their mean").get_ydata()
    assert list(np.flatnonzero(np.isnan(mean))) == [0]
    assert np.isnan(curve(ax, "sharpest").get_ydata()[10])
    (crosses,) = [line for line in ax.lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(np.asarray(crosses.get_xdata()), [-1.0, 1.0])
    assert legend(ax.get_legend())[-1] == "2 not finite"


def test_several_minima_are_side_by_side_on_one_scale_with_one_legend(
    rasterize: Rasterize,
) -> None:
    figure = draw.representativeness_figure(
        [make_result(), make_result(floor=0.01, at=-0.5)], labels=["a", "b"]
    )
    rasterize(figure)
    first, second = figure.axes
    assert first.get_ylim() == second.get_ylim()
    assert (first.get_yscale(), second.get_yscale()) == ("log", "log")
    assert first.get_title() == "a\ncurvature \N{MINUS SIGN}0.25 to 4"
    (box,) = figure.legends
    assert legend(box) == [
        RANDOM,
        "their mean",
        "middle half of them",
        "smallest to largest",
        "sharpest direction",
        "direction of the smallest eigenvalue",
        "way from the initialization",
        "the initialization",
    ]


def test_minima_with_different_numbers_of_directions_have_one_entry_for_them() -> None:
    fewer = replace(make_result(), random=make_result().random[:4])
    figure = draw.representativeness_figure([make_result(), fewer])
    assert legend(figure.legends[0])[0] == "random directions"
    assert figure.axes[0].get_title().startswith("12,345 parameters")


def test_wrong_calls_are_explained() -> None:
    with pytest.raises(DrawError, match=r"No result of ls\.representativeness was given"):
        draw.representativeness_figure([])
    with pytest.raises(DrawError, match="does not name 1 of the minima"):
        draw.representativeness_figure([make_result()], labels=["a", "b"])
