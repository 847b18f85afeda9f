"""Panels share one scale: their norms are compared with the union of all values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from landscope import draw
from landscope.errors import DrawError
from landscope.landscape import Landscape

Rasterize = Callable[..., Any]


def titles(figure: Any) -> list[str]:
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


@pytest.mark.parametrize("kind", ["filled", "contour", "heatmap", "surface"])
def test_planes_of_every_kind_are_side_by_side_with_one_color_bar(
    kind: str, bowl: Landscape, holed: Landscape, constant: Landscape, rasterize: Rasterize
) -> None:
    figure = draw.side_by_side_figure([bowl, holed, constant], kind=kind, labels=["a", "b", "c"])
    rasterize(figure)
    assert titles(figure) == ["a", "b", "c"]
    assert len(figure.axes) == 4
    assert figure.axes[-1].get_ylabel() == "loss"


def test_all_panels_have_the_color_scale_of_all_values(bowl: Landscape, rugged: Landscape) -> None:
    figure = draw.side_by_side_figure([bowl, rugged], kind="heatmap")
    both = np.concatenate([land.data["loss"].values.ravel() for land in (bowl, rugged)])
    meshes = [c for ax in figure.axes[:2] for c in ax.collections if isinstance(c, QuadMesh)]
    assert [mesh.get_clim() for mesh in meshes] == [(both.min(), both.max())] * 2
    assert titles(figure) == ["ResNet-56", "ResNet-56 without skips"]


def test_surfaces_have_one_height_axis(bowl: Landscape, shallow: Landscape) -> None:
    figure = draw.side_by_side_figure([bowl, shallow], kind="surface")
    first, second = figure.axes[:2]
    assert first.get_zlim() == second.get_zlim()  # type: ignore[attr-defined]


def test_lines_are_side_by_side_on_one_range(
    training: Landscape, shifted: Landscape, rasterize: Rasterize
) -> None:
    figure = draw.side_by_side_figure([training, shifted], kind="line")
    rasterize(figure)
    first, second = [ax for ax in figure.axes if ax.get_title()]
    assert first.get_ylim() == second.get_ylim()
    assert len(figure.legends) == 1


def test_four_panels_make_a_square_and_five_make_two_rows(bowl: Landscape) -> None:
    rows, columns = [], []
    for count in (4, 5):
        panels: list[Any] = draw.side_by_side_figure([bowl] * count, kind="heatmap").axes[:-1]
        places = [panel.get_subplotspec() for panel in panels]
        rows.append(max(place.rowspan.stop for place in places))
        columns.append(max(place.colspan.stop for place in places))
    assert (rows, columns) == ([2, 2], [2, 3])


def test_a_landscape_of_holes_only_is_drawn_next_to_others(
    bowl: Landscape, signed: Landscape, rasterize: Rasterize
) -> None:
    signed.data["loss"].values[:] = np.nan
    for kind in ("filled", "contour", "heatmap", "surface"):
        figure = draw.side_by_side_figure([bowl, signed], kind=kind)
        rasterize(figure)


def test_wrong_calls_are_explained(bowl: Landscape, training: Landscape) -> None:
    with pytest.raises(DrawError, match="kind='pie' is not known; expected 'line' or one of"):
        draw.side_by_side_figure([bowl], kind="pie")
    with pytest.raises(DrawError, match="No landscape was given"):
        draw.side_by_side_figure([])
    with pytest.raises(DrawError, match=r"draw a line with ls\.draw\.line"):
        draw.side_by_side_figure([bowl, training])
    with pytest.raises(DrawError, match="does not name 1 landscape"):
        draw.side_by_side_figure([bowl], labels="a")
