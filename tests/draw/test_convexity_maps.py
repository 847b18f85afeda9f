"""Convexity maps: the cells against the values, and the color scale of the paper's Figure 7."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgba

from landscope import draw
from landscope.errors import DrawError
from landscope.landscape import Landscape

Rasterize = Callable[..., Any]
LABEL = "|smallest / largest eigenvalue| of the Hessian"


@pytest.fixture
def bending(rectangular: Landscape) -> Landscape:
    """A convexity that rises to 0.9 along x, over 4 x 7 points."""
    share = np.tile(np.linspace(0, 0.9, 7), (4, 1))
    return Landscape(rectangular.data.assign(convexity=(("y", "x"), share)))


def find_mesh(ax: Axes) -> QuadMesh:
    (mesh,) = [drawn for drawn in ax.collections if isinstance(drawn, QuadMesh)]
    return mesh


def legend(ax: Axes) -> list[str]:
    box = ax.get_legend()
    return [text.get_text() for text in box.get_texts()] if box else []


def test_the_map_shows_each_value_on_a_scale_from_0_to_the_largest_or_to_1(
    bending: Landscape, rasterize: Rasterize
) -> None:
    assert find_mesh(draw.convexity(bending)).get_clim() == (0.0, 0.9)
    ax = draw.convexity(bending, limits=(0.0, 1.0))
    assert np.ptp(rasterize(ax)) > 0
    mesh = find_mesh(ax)
    np.testing.assert_array_equal(np.asarray(mesh.get_array()), bending.data["convexity"].values)
    assert mesh.get_clim() == (0.0, 1.0)
    bar = ax.get_figure(root=True).axes[-1]  # type: ignore[union-attr]
    assert bar.get_ylabel().replace("\n", " ") == LABEL
    assert bar.get_ylim() == (0.0, 1.0)
    assert mesh.colorbar is not None
    assert mesh.colorbar.extend == "neither"
    assert not legend(ax)


def test_values_above_1_have_a_separate_color_and_are_counted(
    bending: Landscape, rasterize: Rasterize
) -> None:
    values = bending.data["convexity"].values
    values[0, 0], values[1, 2], values[3, 3] = 1.5, 3.25, np.nan
    ax = draw.convexity(bending)
    rasterize(ax)
    mesh = find_mesh(ax)
    assert mesh.colorbar is not None
    assert mesh.colorbar.extend == "max"
    scale = mesh.get_cmap()
    assert to_hex(mesh.to_rgba([3.25])[0]) == "#d55e00"  # type: ignore[arg-type]
    assert all(tuple(color) != to_rgba("#d55e00") for color in scale(np.linspace(0, 1, 256)))
    assert legend(ax)[-2:] == ["1 not finite", "above 1: 2, up to 3.25"]


def test_the_loss_is_next_to_its_convexity_with_the_same_ranges(
    bending: Landscape, rasterize: Rasterize
) -> None:
    figure = draw.convexity_figure(bending)
    rasterize(figure)
    left, right = figure.axes[:2]
    assert (left.get_title(), right.get_title()) == ("loss", "convexity")
    assert (left.get_xlim(), left.get_ylim()) == (right.get_xlim(), right.get_ylim())
    assert (left.get_xlim(), left.get_ylim()) == ((-1.0, 2.0), (0.5, 1.5))
    assert [bar.get_ylabel().replace("\n", " ") for bar in figure.axes[2:]] == ["loss", LABEL]
    assert figure.get_suptitle() == "rectangular"


def test_a_landscape_without_convexity_is_refused_with_the_remedy(
    bowl: Landscape, training: Landscape
) -> None:
    for land in (bowl, training):
        for drawing in (draw.convexity, draw.convexity_figure):
            with pytest.raises(
                DrawError, match=r"scan with quantities=\(ls\.curvature\.hessian_extremes\(\),\)"
            ):
                drawing(land)


def test_several_maps_are_below_their_losses_on_one_scale(bending: Landscape) -> None:
    steep = Landscape(bending.data.assign(convexity=3 * bending.data["convexity"]))
    figure = draw.convexity_figure([bending, steep], labels=["skip", "no skip"])
    maps = [m for ax in figure.axes for m in ax.collections if isinstance(m, QuadMesh)]
    shown = [float(np.max(np.asarray(m.get_array()))) for m in maps if m.get_clim() == (0.0, 1.0)]
    assert shown[:2] == pytest.approx([0.9, 2.7])
    assert [ax.get_title() for ax in figure.axes[:2]] == ["skip", "no skip"]
    assert legend(figure.axes[3]) == ["above 1: 16, up to 2.7"]
    with pytest.raises(DrawError, match="hessian_extremes"):
        draw.convexity_figure([bending, Landscape(bending.data.drop_vars("convexity"))])
