"""Quantities of one landscape: their panels and curves against the values, on one scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh

from landscope import draw
from landscope.errors import DrawError
from landscope.landscape import Landscape

Rasterize = Callable[..., Any]
BOTH = ("loss", "averaged_loss")


@pytest.fixture
def averaged(bowl: Landscape) -> Landscape:
    """A bowl in nats, and its average, whose unit is not known."""
    data = bowl.data.assign(averaged_loss=bowl.data["loss"] * 3 + 1)
    data["averaged_loss"].attrs.clear()
    data["loss"].attrs["units"] = "nat"
    return Landscape(data)


@pytest.fixture
def averaged_line(averaged: Landscape) -> Landscape:
    data = averaged.data.isel(y=20, drop=True)
    return Landscape(data.assign(averaged_loss_stderr=data["averaged_loss"] * 0.1))


@pytest.mark.parametrize("kind", ["filled", "contour", "heatmap", "surface"])
def test_quantities_of_a_plane_are_side_by_side_with_one_color_bar(
    averaged: Landscape, kind: str, rasterize: Rasterize
) -> None:
    before = averaged.data.copy(deep=True)
    figure = draw.quantities_figure(averaged, BOTH, kind=kind)
    rasterize(figure)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["loss", "averaged loss"]
    assert [ax.get_ylabel() for ax in figure.axes[2:]] == ["loss (nat)"]
    assert figure.get_suptitle() == "ResNet-56"
    xr.testing.assert_identical(averaged.data, before)


def test_the_color_scale_is_that_of_all_of_them(averaged: Landscape) -> None:
    figure = draw.quantities_figure(averaged, BOTH, kind="heatmap", labels=["raw", "mean"])
    meshes = [c for ax in figure.axes[:2] for c in ax.collections if isinstance(c, QuadMesh)]
    values = [averaged.data[name].values for name in BOTH]
    for mesh, field in zip(meshes, values, strict=True):
        np.testing.assert_array_equal(np.asarray(mesh.get_array()), field)
        assert mesh.get_clim() == (values[0].min(), values[1].max())
    assert [ax.get_title() for ax in figure.axes[:2]] == ["raw", "mean"]
    assert figure.axes[-1].get_ylabel() == "raw, mean (nat)"


def test_quantities_of_a_line_share_axes_with_bands_of_their_errors(
    averaged_line: Landscape, rasterize: Rasterize
) -> None:
    figure = draw.quantities_figure(averaged_line, BOTH, scale="linear")
    rasterize(figure)
    (ax,) = figure.axes
    curves = [line for line in ax.lines if len(np.asarray(line.get_xdata())) > 4]
    for curve, name in zip(curves, BOTH, strict=True):
        values = averaged_line.data[name].values
        np.testing.assert_array_equal(np.asarray(curve.get_ydata()), values)
    (band,) = ax.collections
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    largest = averaged_line.data["averaged_loss"].values.max()
    assert heights.max() == pytest.approx(largest * (1 + 0.1 * 1.96), rel=1e-4)
    assert ax.get_ylim()[1] > heights.max()
    assert ax.get_ylabel() == "loss (nat)"
    box = ax.get_legend()
    assert box is not None
    assert [text.get_text() for text in box.get_texts()] == [
        "loss (nat)",
        "averaged loss (nat)",
        "± 1.96 standard errors (95%)",
    ]


def test_curves_of_a_line_can_be_named(averaged_line: Landscape) -> None:
    (ax,) = draw.quantities_figure(averaged_line, BOTH, labels=["raw", "mean"]).axes
    assert ax.get_ylabel() == "raw, mean (nat)"


def test_wrong_calls_are_explained(averaged: Landscape) -> None:
    with pytest.raises(
        DrawError, match="quantities='loss' does not name several: give them in a list"
    ):
        draw.quantities_figure(averaged, "loss")
    with pytest.raises(DrawError, match="quantity='lost' is not in the landscape; it has 'loss'"):
        draw.quantities_figure(averaged, ["loss", "lost"])
    with pytest.raises(DrawError, match=r"have different units \(%, nat\)"):
        draw.quantities_figure(averaged, ["loss", "accuracy"])
    with pytest.raises(DrawError, match="does not name 2 quantities"):
        draw.quantities_figure(averaged, BOTH, labels=["one"])
