"""Paths over planes: what matplotlib was given against the columns of the path.

The path of the fixtures is gradient descent on a quadratic loss of three parameters, projected
onto the plane of two: its positions, distances and losses are closed forms in the fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib import colormaps
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

from landscope import draw
from landscope.draw.path_scene import PATH_COLORMAP, build_path_scenes
from landscope.errors import DrawError
from landscope.landscape import Landscape
from tests.draw.artists import find_artist, find_marks, read_legend

KINDS = ["contour", "filled", "heatmap"]
Change = Callable[..., Any]


def lab(colors: Any) -> Any:
    """CIELAB of sRGB colors [..., 3], for a white of D65: the formulas of CIE 15."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
         [0.0193339, 0.1191920, 0.9503041]]
    )  # fmt: skip
    share = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_is_drawn_at_its_coordinates_in_the_colors_of_its_epochs(
    kind: str, ground: Landscape, descent: Any, rasterize: Callable[..., Any]
) -> None:
    before = descent.data.copy(deep=True)
    ax = draw.path(ground, descent, kind=kind)
    (dots,) = (c for c in ax.collections if isinstance(c, PathCollection))
    places = np.stack([descent["x"], descent["y"]], axis=-1)
    np.testing.assert_array_equal(dots.get_offsets(), places)
    np.testing.assert_array_equal(dots.get_array(), np.arange(21.0))
    segments = find_artist(ax, "path")
    assert isinstance(segments, LineCollection)
    np.testing.assert_array_equal(
        segments.get_segments(), np.stack([places[:-1], places[1:]], axis=1)
    )
    np.testing.assert_array_equal(segments.get_array(), np.arange(20) + 0.5)
    assert (segments.get_cmap(), segments.get_clim()) == (PATH_COLORMAP, (0.0, 20.0))
    assert np.ptp(rasterize(ax)) > 0
    xr.testing.assert_identical(descent.data, before)


def test_start_end_and_drops_are_marked_and_named(ground: Landscape, descent: Any) -> None:
    ax = draw.path(ground, descent)
    x, y = descent["x"], descent["y"]
    assert find_marks(ax, "o") == [[x[0], y[0]]]
    assert find_marks(ax, "*") == [[x[20], y[20]]]
    assert find_marks(ax, "v") == [[x[10], y[10]]]
    origin, *names = read_legend(ax)
    assert origin == "origin: (0, 0)"
    assert names == ["start", "end", "learning rate falls: 0.1 → 0.02"]


def test_axes_name_the_explained_variance_and_have_one_unit(
    ground: Landscape, descent: Any
) -> None:
    ax = draw.path(ground, descent)
    assert ax.get_xlabel() == "principal component 1 (60.5% of the variation)"
    assert ax.get_ylabel() == "principal component 2\n(60.5% of the variation)"
    assert ax.get_title() == "descent"
    assert ax.get_aspect() == 1.0
    assert ax.get_xlim() == (-4.0, 2.0)


def test_the_path_and_the_surface_have_a_color_bar_each(ground: Landscape, descent: Any) -> None:
    bars = [bar.get_ylabel() for bar in draw.path(ground, descent).figure.axes[1:]]
    assert bars == ["loss", "epoch"]


def test_several_paths_differ_by_color_and_line_style_and_are_named(
    ground: Landscape, descent: Any, heavy: Any
) -> None:
    ax = draw.path(ground, [descent, heavy], labels=["plain", "heavy ball"])
    first, second = find_artist(ax, "path"), find_artist(ax, "path", 1)
    np.testing.assert_array_equal(first.get_xydata(), np.c_[descent["x"], descent["y"]])
    np.testing.assert_array_equal(second.get_xydata(), np.c_[heavy["x"], heavy["y"]])
    assert first.get_color() != second.get_color()
    assert first.get_linestyle() == "-" != second.get_linestyle()
    assert read_legend(ax)[1:3] == ["plain", "heavy ball"]
    assert read_legend(ax)[3:] == ["start", "end", "learning rate falls: 0.1 → 0.02"]
    assert len(find_marks(ax, "*")) == len(find_marks(ax, "v")) == 2
    assert [bar.get_ylabel() for bar in ax.figure.axes[1:]] == ["loss"]


def test_other_drops_of_each_path_are_marked_without_their_numbers(
    ground: Landscape, descent: Any, heavy: Any, changed: Change
) -> None:
    other = changed(heavy, learning_rate=10 * heavy["learning_rate"])
    assert "learning rate falls" in read_legend(draw.path(ground, [descent, other]))


def test_the_rates_in_the_legend_begin_before_the_first_drop(
    ground: Landscape, descent: Any, changed: Change
) -> None:
    warm = np.r_[np.linspace(0, 0.1, 6), np.full(8, 0.1), np.full(7, 0.001)]
    rates = {
        "learning rate falls: 0.1 → 0.001": warm,
        "learning rate falls: 0.1 → 0.02": np.r_[np.nan, descent["learning_rate"][1:]],
        "learning rate falls": np.repeat([0.1, 0.01, 0.1, 0.01], [5, 5, 5, 6]),  # and rises between
    }
    for entry, rate in rates.items():
        assert entry in read_legend(draw.path(ground, changed(descent, learning_rate=rate)))


def test_paths_of_one_color_differ_by_their_dashes(descent: Any) -> None:
    looks = [(trail.color, str(trail.line_style)) for trail in build_path_scenes([descent] * 40)]
    assert len(set(looks)) == 40
    assert len({color for color, _ in looks[:7]}) == 7


def test_the_colors_of_a_path_are_even_in_lightness_and_far_from_those_of_the_surface() -> None:
    share = np.linspace(0, 1, 18)  # 15 of the 256 colors apart
    ours, viridis = (lab(colors(share)[:, :3]) for colors in (PATH_COLORMAP, colormaps["viridis"]))
    steps = np.diff(ours[:, 0])
    assert (steps > 0.6 * steps.mean()).all()
    assert (steps < 1.5 * steps.mean()).all()
    apart = np.linalg.norm(ours[:, None] - viridis[None], axis=-1)
    assert apart.min() > 35


def test_a_path_can_be_colored_by_any_known_column(ground: Landscape, descent: Any) -> None:
    by_loss = find_artist(draw.path(ground, descent, color="loss"), "path")
    middle = np.sqrt(descent["loss"][1:] * descent["loss"][:-1])
    np.testing.assert_allclose(by_loss.get_array(), middle)  # a log scale, as 5 / 0.01 is wide
    rate = draw.path(ground, descent, color="learning_rate")
    assert rate.figure.axes[2].get_ylabel() == "learning rate"


def test_time_is_the_epoch_else_the_step_else_the_number_of_the_checkpoint(
    ground: Landscape, descent: Any, heavy: Any, changed: Change
) -> None:
    nowhere = np.full(21, np.nan)
    stepped = changed(descent, epoch=nowhere)
    assert draw.path(ground, stepped).figure.axes[2].get_ylabel() == "step"
    (blank,) = build_path_scenes(changed(descent, epoch=None, step=None))
    assert (blank.time_label, blank.time.tolist()) == ("checkpoint", list(range(21)))
    assert {trail.time_label for trail in build_path_scenes([stepped, heavy])} == {"step"}
    backwards = changed(descent, epoch=descent["epoch"][::-1])
    assert build_path_scenes(backwards)[0].time_label == "step"


def test_a_path_that_leaves_the_grid_extends_the_axes_and_says_so(
    ground: Landscape, descent: Any
) -> None:
    part = Landscape(ground.data.isel(x=slice(10, None)))  # from x = -2 on
    outside = int((descent["x"] < -2.1).sum())
    assert outside == 4
    for kind in KINDS:
        ax = draw.path(part, descent, kind=kind)
        assert f"not scanned: {outside} of 21 checkpoints lie here" in read_legend(ax)
        assert ax.get_xlim()[0] < descent["x"].min()
        assert ax.get_xlim()[1] == pytest.approx(2.0, abs=0.11)
        (patch,) = [patch for patch in ax.patches if isinstance(patch, PathPatch)]
        corners = np.asarray(patch.get_path().vertices).reshape(2, 5, 2)
        (around, inside) = (np.ptp(rectangle, axis=0) for rectangle in corners)
        np.testing.assert_allclose(around, [np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())])
        assert (inside < around).any()
    assert not draw.path(ground, descent).patches


def test_checkpoints_without_coordinates_are_gaps_and_are_counted(
    ground: Landscape, descent: Any, changed: Change, rasterize: Callable[..., Any]
) -> None:
    x = descent["x"].copy()
    x[[0, 5]] = np.nan
    ax = draw.path(ground, changed(descent, x=x))
    assert len(find_artist(ax, "path").get_segments()) == 17
    assert find_marks(ax, "o") == [[x[1], descent["y"][1]]]
    assert "no finite coordinates: 2 of 21 checkpoints" in read_legend(ax)
    assert np.ptp(rasterize(ax)) > 0


def test_the_center_has_no_cross_where_a_path_ends(
    ground: Landscape, descent: Any, changed: Change
) -> None:
    assert find_marks(draw.path(ground, descent), "+") == [[0.0, 0.0]]
    x, y = descent["x"].copy(), descent["y"].copy()
    x[-1] = y[-1] = 0.0
    assert find_marks(draw.path(ground, changed(descent, x=x, y=y)), "+") == []


def test_a_path_of_one_checkpoint_is_drawn(
    ground: Landscape, descent: Any, rasterize: Callable[..., Any]
) -> None:
    descent.data = descent.data.isel(checkpoint=[0])
    ax = draw.path(ground, descent)
    assert find_marks(ax, "o") == find_marks(ax, "*") == [[-3.0, 1.6]]
    for picture in (ax, draw.path_errors_figure(descent), draw.path_surface(ground, descent)):
        assert np.ptp(rasterize(picture)) > 0


def test_a_path_is_drawn_into_the_axes_that_are_given(ground: Landscape, descent: Any) -> None:
    ax = Figure().add_subplot()
    assert draw.path(ground, descent, ax=ax) is ax


def test_holes_and_marks_share_one_legend(ground: Landscape, descent: Any) -> None:
    ground.data["loss"].values[0, 0] = np.nan
    names = read_legend(draw.path(ground, descent))
    assert {"origin: (0, 0)", "1 not finite", "start", "end"} <= set(names)


def test_paths_are_named_once_in_a_figure(ground: Landscape, descent: Any, heavy: Any) -> None:
    plane, upper, *_ = draw.path_figure(ground, [descent, heavy]).axes
    assert read_legend(plane)[1:3] == ["SGD", "momentum"]
    assert read_legend(upper) == ["relative (left)", "absolute (right)", "learning rate falls"]
    assert read_legend(draw.path_errors_figure([descent, heavy]).axes[0])[:2] == ["SGD", "momentum"]


def test_other_types_than_paths_and_landscapes_are_refused(ground: Landscape, descent: Any) -> None:
    expected = "expected the result of ls.paths.project"
    paths: list[Any] = [None, ground, {"x": 1}, [descent, descent.data]]
    for odd in paths:
        with pytest.raises(DrawError, match=expected):
            draw.path(ground, odd)
        with pytest.raises(DrawError, match=expected):
            draw.path_errors_figure(odd)
    lands: list[Any] = [descent, ground.data]
    for odd in lands:
        with pytest.raises(DrawError, match=f"land is a {type(odd).__name__}; expected a Landsc"):
            draw.path(odd, descent)


def test_both_panels_together_are_a_figure(
    trained: tuple[Landscape, Any], rasterize: Callable[..., Any]
) -> None:
    figure = draw.path_figure(*trained, kind="filled")
    plane, upper, lower = figure.axes[:3]
    assert len(find_artist(plane, "path").get_segments()) == 19
    np.testing.assert_array_equal(find_artist(lower, "loss").get_ydata(), trained[1]["loss"])
    assert upper.get_xlim() == lower.get_xlim()
    assert np.ptp(rasterize(figure, dpi=50)) > 0


def test_a_path_over_another_plane_is_refused(ground: Landscape, descent: Any) -> None:
    ground.data.attrs["fingerprints"] = '{"slice": "Plane a"}'
    draw.path(ground, descent)  # without a fingerprint of its plane
    descent.data.attrs["slice"] = "Plane a"
    draw.path(ground, descent)
    descent.data.attrs["slice"] = "Plane b"
    for render in (draw.path, draw.path_figure, draw.path_surface):
        with pytest.raises(DrawError, match="onto another plane than the one that was scanned"):
            render(ground, descent)


def test_wrong_calls_are_explained(
    ground: Landscape, descent: Any, changed: Change, training: Landscape, volume: Landscape
) -> None:
    nan = np.full(21, np.nan)
    for render in (draw.path, draw.path_figure, draw.path_surface):
        with pytest.raises(DrawError, match="No path was given"):
            render(ground, [])
        with pytest.raises(DrawError, match=r"draw a line with ls\.draw\.line"):
            render(training, descent)
        with pytest.raises(DrawError, match=r"isel\(z=0\)"):
            render(volume, descent)
        with pytest.raises(DrawError, match="'SGD' has no variable 'y', so it is not over a plane"):
            render(ground, changed(descent, y=None))
        with pytest.raises(DrawError, match="'SGD' has a variable 'z'"):
            render(ground, changed(descent, z=nan))
        with pytest.raises(DrawError, match="No checkpoint of the path 'SGD' has finite coord"):
            render(ground, changed(descent, x=nan))
        with pytest.raises(DrawError, match=r"labels=\['a', 'b'\] does not name 1 path"):
            render(ground, descent, labels=["a", "b"])
        with pytest.raises(DrawError, match="color='accuracy' is not known for the path 'SGD'"):
            render(ground, descent, color="accuracy")
        with pytest.raises(DrawError, match="color='loss' colors a single path, but 2 were given"):
            render(ground, [descent, descent], color="loss")
    with pytest.raises(DrawError, match="kind='surface' is not known; expected one of 'filled'"):
        draw.path(ground, descent, kind="surface")
    with pytest.raises(DrawError, match="projection='3d'"):
        draw.path_surface(ground, descent, ax=Figure().add_subplot())
    with pytest.raises(DrawError, match="has no finite 'loss'"):
        draw.path_surface(ground, changed(descent, loss=None))


def test_a_path_without_a_name_has_a_number(descent: Any) -> None:
    descent.name = ""
    assert [trail.name for trail in build_path_scenes([descent, descent])] == ["path 1", "path 2"]
