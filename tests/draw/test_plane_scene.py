"""The numbers of the scenes of planes against numbers written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from landscope.draw.line_scene import build_line_scene
from landscope.draw.plane_scene import build_plane_scene, check_area
from landscope.errors import DrawError
from landscope.landscape import Landscape


def plane(values: Any, **attrs: Any) -> Landscape:
    field = np.asarray(values, dtype=np.float64)
    ny, nx = field.shape
    axes = {"y": np.linspace(-1, 1, ny), "x": np.linspace(-1, 1, nx)}
    return Landscape(xr.Dataset({"loss": (("y", "x"), field, attrs)}, axes))


def test_the_scale_is_log_when_all_is_positive_and_the_largest_above_20_times_the_smallest() -> (
    None
):
    assert build_plane_scene(plane([[1.0, 2.0], [3.0, 20.1]])).scale == "log"
    assert build_plane_scene(plane([[1.0, 2.0], [3.0, 20.0]])).scale == "linear"
    assert build_plane_scene(plane([[0.0, 2.0], [3.0, 99.0]])).scale == "linear"
    assert build_plane_scene(plane([[np.nan, 1.0], [np.inf, 99.0]])).scale == "log"


def test_percentages_are_linear_unless_a_log_scale_is_given() -> None:
    land = plane([[0.1, 2.0], [3.0, 99.0]], units="%")
    assert build_plane_scene(land).scale == "linear"
    assert build_plane_scene(land, scale="log").scale == "log"


def test_cells_without_a_height_are_masked_in_a_second_array(holed: Landscape) -> None:
    raw = holed.data["loss"].values.copy()
    scene = build_plane_scene(holed)
    np.testing.assert_array_equal(scene.values, raw)
    np.testing.assert_array_equal(np.isnan(scene.shown), ~np.isfinite(raw))
    np.testing.assert_array_equal(scene.shown[np.isfinite(raw)], raw[np.isfinite(raw)])
    assert (scene.num_holes, scene.hole_note) == (6, "6 not finite")


def test_on_a_log_scale_values_that_are_not_positive_are_holes_too() -> None:
    scene = build_plane_scene(plane([[-1.0, 0.0], [1.0, np.nan]]), scale="log")
    np.testing.assert_array_equal(scene.shown, [[np.nan, np.nan], [1.0, np.nan]])
    assert scene.hole_note == "1 not finite, 2 ≤ 0 (no place on a log scale)"
    assert build_plane_scene(plane([[-1.0, 0.0], [1.0, 2.0]])).num_holes == 0


def test_limits_are_the_smallest_and_largest_value_shown(holed: Landscape) -> None:
    finite = holed.data["loss"].values[np.isfinite(holed.data["loss"].values)]
    assert build_plane_scene(holed).limits == (finite.min(), finite.max())


def test_limits_are_shared_with_the_landscapes_of_the_figure() -> None:
    low, high = plane([[1.0, 2.0], [3.0, 4.0]]), plane([[3.0, 50.0], [60.0, 90.0]])
    scenes = [build_plane_scene(land, shared_with=[low, high]) for land in (low, high)]
    assert [scene.limits for scene in scenes] == [(1.0, 90.0)] * 2
    assert [scene.scale for scene in scenes] == ["log"] * 2
    assert build_plane_scene(low).limits == (1.0, 4.0)


def test_a_constant_landscape_gets_limits_about_its_value(constant: Landscape) -> None:
    low, high = build_plane_scene(constant).limits
    assert low < 0.7 < high


def test_about_twenty_levels_are_chosen_unless_levels_are_given(bowl: Landscape) -> None:
    scene = build_plane_scene(bowl)
    assert 10 <= len(scene.levels) <= 40
    assert {0.1, 1.0, 10.0, 100.0} <= set(scene.levels)
    assert build_plane_scene(bowl, levels=[3.0, 1.0]).levels.tolist() == [1.0, 3.0]
    assert len(build_plane_scene(bowl, levels=5).levels) < len(scene.levels)


def test_a_clip_limits_heights_and_colors_but_not_values() -> None:
    scene = build_plane_scene(plane([[1.0, 10.0], [100.0, 1000.0]]), clip=50.0)
    np.testing.assert_array_equal(scene.values, [[1.0, 10.0], [100.0, 1000.0]])
    np.testing.assert_array_equal(scene.shown, scene.values)
    np.testing.assert_allclose(scene.heights, np.log10([[1.0, 10.0], [50.0, 50.0]]), rtol=1e-15)
    assert (scene.num_clipped, scene.limits) == (2, (1.0, 50.0))


def test_heights_are_logarithms_on_a_log_scale_only() -> None:
    land = plane([[1.0, 10.0], [100.0, 1000.0]])
    np.testing.assert_allclose(build_plane_scene(land).heights, [[0.0, 1.0], [2.0, 3.0]])
    linear = build_plane_scene(land, scale="linear")
    np.testing.assert_array_equal(linear.heights, linear.values)


def test_center_and_lowest_cell_are_found(bowl: Landscape, rectangular: Landscape) -> None:
    scene = build_plane_scene(bowl)
    assert (scene.center, scene.center_value) == ((0.0, 0.0), bowl.data["loss"].values[20, 20])
    assert scene.lowest == (0.0, 0.0, 0.01)
    outside = build_plane_scene(rectangular)
    assert (outside.center, outside.center_value) == (None, None)
    assert outside.lowest == (-1.0, 0.5, 1.0)


def test_the_lowest_cell_is_a_finite_one(holed: Landscape) -> None:
    assert build_plane_scene(holed).lowest == (0.0, 0.0, holed.data["loss"].values[10, 10])


def test_a_center_between_cells_has_a_place_but_no_value() -> None:
    scene = build_plane_scene(plane([[1.0, 2.0], [3.0, 4.0]]))
    assert (scene.center, scene.center_value) == ((0.0, 0.0), None)


def test_cells_reach_halfway_to_their_neighbors(rectangular: Landscape) -> None:
    x, y = build_plane_scene(rectangular).edges
    np.testing.assert_allclose(x, [-1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75, 2.25])
    np.testing.assert_allclose(y, [1 / 3, 2 / 3, 1.0, 4 / 3, 5 / 3])


def test_a_lone_row_is_as_high_as_its_cells_are_wide() -> None:
    land = Landscape(
        xr.Dataset({"loss": (("y", "x"), [[1.0, 2.0]])}, {"y": [3.0], "x": [0.0, 0.5]})
    )
    np.testing.assert_allclose(build_plane_scene(land).edges[1], [2.75, 3.25])


def test_each_value_stays_at_its_coordinate_in_any_order_of_storage() -> None:
    stored = xr.DataArray(
        [[5.0, 6.0], [3.0, 4.0], [1.0, 2.0]], {"x": [3.0, 2.0, 1.0], "y": [0.0, 1.0]}, ("x", "y")
    )
    land = Landscape(xr.Dataset({"other": (("y", "x"), np.ones((2, 3))), "loss": stored}))
    scene = build_plane_scene(land, quantity="loss")
    np.testing.assert_array_equal(scene.x, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(scene.values, [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]])


def test_labels_say_name_and_unit(bowl: Landscape) -> None:
    scene = build_plane_scene(bowl, quantity="accuracy")
    assert scene.label == "accuracy (%)"
    assert (scene.x_label, scene.y_label) == (
        "direction x (filter-normalized)",
        "direction y (filter-normalized)",
    )
    assert scene.title == "ResNet-56"
    assert build_plane_scene(plane([[1.0, 2.0], [3.0, 4.0]])).title == ""


def test_one_plane_of_a_volume_can_be_drawn(volume: Landscape) -> None:
    scene = build_plane_scene(Landscape(volume.data.isel(z=2)))
    assert scene.values[3, 4] == 235.0


def test_a_scene_changes_nothing_in_the_landscape(any_plane: Landscape) -> None:
    before = any_plane.data.copy(deep=True)
    build_plane_scene(any_plane).shown[:] = -1
    xr.testing.assert_identical(any_plane.data, before)


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"quantity": "acc"}, "quantity='acc' is not in the landscape; it has 'loss', 'accuracy'"),
        ({"scale": "ln"}, "scale='ln' is not known; expected 'log' or 'linear'"),
        ({"limits": (2.0, 1.0)}, "cannot be the ends of a log color scale"),
        ({"limits": (0.0, 1.0)}, "two finite positive numbers"),
        ({"limits": (1.0, float("nan"))}, "cannot be the ends"),
        ({"levels": 0}, "levels=0 is too few"),
        ({"levels": [1.0, float("nan")]}, "are not contour levels"),
        ({"clip": float("inf")}, "clip=inf cannot limit a log height"),
        ({"clip": 0.0}, "finite positive number"),
        ({"clip": 0.001}, "clip=0.001 lies below the lowest value 0.01"),
    ],
)
def test_an_impossible_choice_is_explained(
    bowl: Landscape, choice: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DrawError) as caught:
        build_plane_scene(bowl, **choice)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_log_scale_without_a_positive_value_names_the_remedy() -> None:
    with pytest.raises(DrawError, match=r"no positive value.*use scale='linear'"):
        build_plane_scene(plane([[-1.0, -2.0], [0.0, -3.0]]), scale="log")


def test_a_landscape_without_a_finite_value_is_refused() -> None:
    with pytest.raises(DrawError, match="'loss' has no finite value"):
        build_plane_scene(plane([[np.nan, np.inf], [-np.inf, np.nan]]))


def test_values_too_large_for_any_picture_are_refused() -> None:
    for scale in ("log", "linear"):
        with pytest.raises(DrawError, match=r"ranges from 1 to 1e\+251, but a picture ends at"):
            build_plane_scene(plane([[1.0, 1e251], [1.0, 1.0]]), scale=scale)


def test_another_dimension_is_refused_with_the_remedy(
    bowl: Landscape, training: Landscape, volume: Landscape
) -> None:
    with pytest.raises(DrawError, match=r"draw a line with ls\.draw\.line"):
        build_plane_scene(training)
    with pytest.raises(DrawError, match=r"Landscape\(land\.data\.isel\(z=0\)\)"):
        build_plane_scene(volume)
    with pytest.raises(DrawError, match=r"draw a plane with ls\.draw\.contour"):
        build_line_scene(bowl)


def test_coordinates_must_be_finite_and_distinct() -> None:
    data = {"loss": (("y", "x"), np.ones((2, 2)))}
    with pytest.raises(DrawError, match="coordinates x are not finite or not distinct"):
        build_plane_scene(Landscape(xr.Dataset(data, {"y": [0.0, 1.0], "x": [1.0, 1.0]})))


def test_a_plane_of_one_point_width_has_no_area() -> None:
    with pytest.raises(DrawError, match=r"1 x 3 points \(y, x\).*use ls\.draw\.heatmap"):
        check_area(build_plane_scene(plane([[1.0, 2.0, 3.0]])), "contour lines")
