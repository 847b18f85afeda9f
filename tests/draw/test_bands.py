"""Bands: mean, quartiles and extremes of five known lines, counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes

from landscope import draw
from landscope.errors import DrawError
from landscope.landscape import Landscape

Rasterize = Callable[..., Any]


def make_parabola(factor: float, points: int = 9) -> Landscape:
    x = np.linspace(-1, 1, points)
    data = xr.Dataset({"loss": ("x", 1 + factor * x**2), "accuracy": ("x", 100 - x**2)}, {"x": x})
    data["accuracy"].attrs["units"] = "%"
    return Landscape(data)


@pytest.fixture
def ensemble() -> list[Landscape]:
    return [make_parabola(factor) for factor in (1.0, 2.0, 3.0, 4.0, 10.0)]


def heights(ax: Axes, label: str) -> np.ndarray:
    (band,) = [band for band in ax.collections if band.get_label() == label]
    return np.concatenate([np.asarray(path.vertices) for path in band.get_paths()])


def test_an_ensemble_has_lines_mean_quartiles_and_extremes(
    ensemble: list[Landscape], rasterize: Rasterize
) -> None:
    ax = draw.loss_band(ensemble)
    assert np.ptp(rasterize(ax)) > 0
    for line, land in zip(ax.lines, ensemble, strict=False):
        np.testing.assert_array_equal(np.asarray(line.get_ydata()), land.data["loss"].values)
    (mean,) = [line for line in ax.lines if line.get_label() == "their mean"]
    np.testing.assert_allclose(np.asarray(mean.get_ydata()), make_parabola(4.0).data["loss"].values)
    assert heights(ax, "middle half of them")[:, 1].max() == pytest.approx(1 + 4)
    assert heights(ax, "smallest to largest")[:, 1].max() == pytest.approx(1 + 10)
    right = heights(ax, "middle half of them")
    assert right[right[:, 0] == 1][:, 1].min() == pytest.approx(1 + 2)
    assert (ax.get_ylabel(), ax.get_yscale()) == ("loss", "linear")
    box = ax.get_legend()
    assert box is not None
    assert [text.get_text() for text in box.get_texts()] == [
        "5 landscapes",
        "their mean",
        "middle half of them",
        "smallest to largest",
    ]


def test_a_hole_of_one_line_is_a_gap_in_mean_and_bands(
    ensemble: list[Landscape], rasterize: Rasterize
) -> None:
    ensemble[1].data["loss"].values[2] = np.nan
    ax = draw.loss_band(ensemble)
    rasterize(ax)
    (mean,) = [line for line in ax.lines if line.get_label() == "their mean"]
    assert list(np.flatnonzero(np.isnan(np.asarray(mean.get_ydata())))) == [2]
    gap = ensemble[1].data["x"].values[2]
    assert gap not in heights(ax, "smallest to largest")[:, 0]
    (cross,) = [line for line in ax.lines if line.get_marker() == "x"]
    assert list(np.asarray(cross.get_xdata())) == [gap]
    box = ax.get_legend()
    assert box is not None
    assert box.get_texts()[-1].get_text() == "not finite, or ≤ 0 on a log scale"


def test_a_percentage_and_a_scale_can_be_chosen(ensemble: list[Landscape]) -> None:
    ax = draw.loss_band(ensemble, quantity="accuracy")
    assert (ax.get_ylabel(), ax.get_ylim()) == ("accuracy (%)", (-2.0, 102.0))
    assert draw.loss_band(ensemble, scale="log").get_yscale() == "log"


def test_wrong_calls_are_explained(ensemble: list[Landscape], bowl: Landscape) -> None:
    with pytest.raises(DrawError, match="two landscapes or more, and 1 was given"):
        draw.loss_band(ensemble[:1])
    for other in (
        make_parabola(1.0, points=7),
        Landscape(make_parabola(1.0).data.assign_coords(x=range(9))),
    ):
        with pytest.raises(DrawError, match=r"different coordinates: scan all of them with the"):
            draw.loss_band([*ensemble, other])
    with pytest.raises(DrawError, match="different coordinates"):
        draw.loss_band([*ensemble, bowl])
    with pytest.raises(DrawError, match=r"draw a plane with ls\.draw\.contour"):
        draw.loss_band([bowl, bowl])
