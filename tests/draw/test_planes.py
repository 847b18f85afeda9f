"""Flat pictures of planes: what matplotlib was given, and the pixels, against the values."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from landscope import draw
from landscope.draw.plane_scene import build_plane_scene
from landscope.errors import DrawError
from landscope.landscape import Landscape

Rasterize = Callable[..., npt.NDArray[Any]]
RENDERERS = [draw.contour, draw.filled, draw.heatmap]


def read_color(image: npt.NDArray[Any], ax: Axes, x: float, y: float) -> npt.NDArray[Any]:
    """The color of the pixel at a coordinate of ``ax``, 0 to 255, [3]."""
    column, row = ax.transData.transform((x, y))
    return np.asarray(image[image.shape[0] - 1 - int(row), int(column), :3], dtype=int)


def only(ax: Axes, kind: type) -> Any:
    artists = [child for child in ax.get_children() if isinstance(child, kind)]
    assert len(artists) == 1, artists
    return artists[0]


def lone_row() -> Landscape:
    return Landscape(
        xr.Dataset({"loss": (("y", "x"), [[1.0, 2, 3]])}, {"y": [3.0], "x": [0, 1, 2]})
    )


@pytest.mark.parametrize("scale", [None, "log", "linear"])
@pytest.mark.parametrize("render", RENDERERS)
def test_every_plane_is_drawn_without_a_warning_and_unchanged(
    render: Callable[..., Axes], any_plane: Landscape, scale: str | None, rasterize: Rasterize
) -> None:
    before = any_plane.data.copy(deep=True)
    assert np.ptp(rasterize(render(any_plane, scale=scale))) > 0
    xr.testing.assert_identical(any_plane.data, before)


def test_cells_of_a_heatmap_are_at_their_coordinates(rectangular: Landscape) -> None:
    ax = draw.heatmap(rectangular, scale="linear")
    corners = only(ax, QuadMesh).get_coordinates()
    centers = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    x, y = np.meshgrid(rectangular.data["x"].values, rectangular.data["y"].values)
    np.testing.assert_allclose(centers, np.stack([x, y], axis=-1), atol=1e-12)
    np.testing.assert_array_equal(only(ax, QuadMesh).get_array(), rectangular.data["loss"].values)


def test_the_pixel_at_a_coordinate_has_the_color_of_its_value(
    rectangular: Landscape, rasterize: Rasterize
) -> None:
    ax = draw.heatmap(rectangular, scale="linear")
    image = rasterize(ax, dpi=80)
    loss = rectangular.data["loss"]
    for j, y in enumerate(loss["y"].values):
        for i, x in enumerate(loss["x"].values):
            share = (float(loss[j, i]) - 1.0) / 36.0
            expected = np.round(np.asarray(colormaps["viridis"](share))[:3] * 255)
            color = read_color(image, ax, x + 0.05, y + 0.03)
            np.testing.assert_allclose(color, expected, atol=2)


@pytest.mark.parametrize("render", [draw.filled, draw.heatmap])
def test_holes_are_gray_and_their_neighbors_are_not(
    render: Callable[..., Axes], holed: Landscape, rasterize: Rasterize
) -> None:
    ax = render(holed)
    at = partial(read_color, rasterize(ax, dpi=80), ax)
    x, y = holed.data["x"].values, holed.data["y"].values
    for j, i in [(3, 4), (16, 12), (10, 17)]:
        assert np.ptp(at(x[i], y[j])) == 0
        assert 150 < at(x[i], y[j]).min() < 250
    assert np.ptp(at(x[8], y[8])) > 20


def test_the_legend_tells_what_is_hatched(holed: Landscape, bowl: Landscape) -> None:
    for render in RENDERERS:
        legend = render(holed).get_legend()
        assert legend is not None
        assert "6 not finite" in [text.get_text() for text in legend.get_texts()]
        (name,) = render(bowl).get_legend().get_texts()  # type: ignore[union-attr]
        assert name.get_text() == "the model: (0, 0)"


def test_both_models_of_a_plane_between_them_are_marked(bowl: Landscape) -> None:
    origins = {"x": {"kind": "between", "file": "other.pt"}, "y": {"kind": "random"}}
    land = Landscape(bowl.data.assign_attrs(directions=json.dumps(origins)))
    ax = draw.contour(land)
    places = {
        line.get_marker(): tuple(np.asarray(line.get_xydata()).ravel().tolist())
        for line in ax.lines
    }
    assert places == {"+": (0, 0), "x": (1, 0)}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [  # type: ignore[union-attr]
        "the model: (0, 0)",
        "other.pt: (1, 0)",
    ]


def test_contour_lines_cut_no_corner_through_a_hole(holed: Landscape) -> None:
    lines = only(draw.contour(holed), ContourSet)
    x, y = holed.data["x"].values, holed.data["y"].values
    for path in lines.get_paths():
        inside = np.hypot(path.vertices[:, 0] - x[17], path.vertices[:, 1] - y[10]) < 0.07
        assert not inside.any()


def test_contours_are_at_the_levels_of_the_scene_in_its_colors(bowl: Landscape) -> None:
    scene, lines = build_plane_scene(bowl), only(draw.contour(bowl), ContourSet)
    low, high = scene.limits
    assert list(lines.levels) == [v for v in scene.levels if low < v < high]
    share = np.log(lines.levels / low) / np.log(high / low)
    np.testing.assert_allclose(lines.get_edgecolor(), colormaps["viridis"](share), atol=0.01)


def test_contour_lines_are_labeled_in_plain_digits(bowl: Landscape) -> None:
    texts = {text.get_text() for text in draw.contour(bowl).texts}
    assert {"0.1", "10"} <= texts


def test_levels_and_limits_of_the_user_are_used(bowl: Landscape) -> None:
    lines = only(draw.contour(bowl, levels=[0.5, 5.0]), ContourSet)
    assert list(lines.levels) == [0.5, 5.0]
    mesh = only(draw.heatmap(bowl, limits=(0.1, 1.0)), QuadMesh)
    assert mesh.get_clim() == (0.1, 1.0)
    bands = only(draw.filled(bowl, limits=(0.1, 1.0)), ContourSet)
    assert (bands.levels[0], bands.levels[-1], bands.extend) == (0.1, 1.0, "both")


def test_a_plane_without_a_level_says_so_instead_of_warning(constant: Landscape) -> None:
    assert "0.7 everywhere" in [text.get_text() for text in draw.contour(constant).texts]


def test_color_bars_carry_the_unit_and_round_numbers(bowl: Landscape, rasterize: Rasterize) -> None:
    ax = draw.heatmap(bowl)
    rasterize(ax)
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "loss"
    ticks = [label.get_text() for label in bar.get_yticklabels()]
    assert ticks == ["0.01", "0.1", "1", "10", "100", "1000"]
    assert draw.filled(bowl, quantity="accuracy").figure.axes[1].get_ylabel() == "accuracy (%)"


@pytest.mark.parametrize("render", RENDERERS)
def test_a_picture_is_drawn_into_the_axes_that_are_given(
    render: Callable[..., Axes], bowl: Landscape
) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert render(bowl, ax=right) is right
    assert (right.get_xlabel(), left.get_xlabel()) == ("direction x (filter-normalized)", "")
    assert right.get_ylabel() == "direction y (filter-normalized)"


@pytest.mark.parametrize("render", RENDERERS)
def test_the_center_is_marked_where_it_is_inside(
    render: Callable[..., Axes], bowl: Landscape, rectangular: Landscape
) -> None:
    cross = render(bowl).lines
    assert [line.get_xydata().tolist() for line in cross] == [[[0.0, 0.0]]]  # type: ignore[union-attr]
    assert not render(rectangular).lines


def test_axes_have_one_unit_length_unless_the_plane_is_a_thin_strip() -> None:
    x, y = np.linspace(0, 10, 4), np.linspace(0, 1, 3)
    strip = Landscape(xr.Dataset({"loss": (("y", "x"), np.ones((3, 4)) * x)}, {"y": y, "x": x}))
    square = Landscape(xr.Dataset({"loss": (("y", "x"), np.eye(3))}, {"y": y, "x": y * 2}))
    assert draw.heatmap(strip).get_aspect() == "auto"
    assert draw.heatmap(square).get_aspect() == 1.0


def test_an_axis_of_one_point_has_cells_but_no_contours() -> None:
    mesh = only(draw.heatmap(lone_row()), QuadMesh)
    np.testing.assert_allclose(mesh.get_coordinates()[:, 0, 1], [2.5, 3.5])
    for render in (draw.contour, draw.filled, draw.surface):
        with pytest.raises(DrawError, match=r"use ls\.draw\.heatmap"):
            render(lone_row())


def test_very_large_values_are_drawn(rasterize: Rasterize) -> None:
    x = np.linspace(-1, 1, 5)
    loss = 10 ** (249 * abs(x[:, None] * x))
    land = Landscape(xr.Dataset({"loss": (("y", "x"), loss)}, {"y": x, "x": x}))
    for render in (*RENDERERS, draw.surface):
        for scale in ("log", "linear"):
            assert np.ptp(rasterize(render(land, scale=scale))) > 0


def test_nearly_equal_values_get_labels_that_differ() -> None:
    x = np.linspace(-1, 1, 5)
    loss = np.log(10) + 1e-6 * x[:, None] * x
    land = Landscape(xr.Dataset({"loss": (("y", "x"), loss)}, {"y": x, "x": x}))
    bar = draw.heatmap(land).figure.axes[1]
    ticks = [bar.yaxis.get_major_formatter()(v) for v in bar.get_yticks()]
    assert len(set(ticks)) == len(ticks) > 3


def test_drawing_needs_no_pyplot_and_landscope_needs_no_matplotlib_until_it_draws() -> None:
    code = (
        "import sys, landscope; assert 'matplotlib' not in sys.modules;"
        "import landscope.draw; assert 'matplotlib.pyplot' not in sys.modules;"
        "import landscope.draw.webpage; assert callable(landscope.draw.page)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_holes_are_hatched_cell_by_cell(holed: Landscape) -> None:
    hatched = only(draw.heatmap(holed), PolyCollection)
    centers = sorted(
        path.vertices[:4].mean(axis=0).round(9).tolist() for path in hatched.get_paths()
    )
    x, y = holed.data["x"].values, holed.data["y"].values
    at = np.argwhere(~np.isfinite(holed.data["loss"].values))
    assert centers == sorted([round(x[i], 9), round(y[j], 9)] for j, i in at)
