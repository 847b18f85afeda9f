"""3-D surfaces: faces are counted by hand, heights are compared with the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from landscope import draw
from landscope.errors import DrawError
from landscope.landscape import Landscape


def corners(ax: Axes) -> Any:
    """Corners of all faces, [faces, 4, 3]."""
    (skin,) = [child for child in ax.get_children() if isinstance(child, Poly3DCollection)]
    faces = skin._faces
    return np.asarray(faces)[..., :3]


def plane(values: Any) -> Landscape:
    field = np.asarray(values, dtype=np.float64)
    ny, nx = field.shape
    axes = {"y": np.linspace(-1, 1, ny), "x": np.linspace(-1, 1, nx)}
    return Landscape(xr.Dataset({"loss": (("y", "x"), field)}, axes))


@pytest.mark.parametrize("scale", [None, "log"])
def test_every_plane_is_drawn_without_a_warning_and_unchanged(
    any_plane: Landscape, scale: str | None, rasterize: Callable[..., Any]
) -> None:
    before = any_plane.data.copy(deep=True)
    assert np.ptp(rasterize(draw.surface(any_plane, scale=scale))) > 0
    xr.testing.assert_identical(any_plane.data, before)


def test_faces_that_touch_a_hole_are_missing() -> None:
    values = np.arange(1.0, 37.0).reshape(6, 6)
    whole = len(corners(draw.surface(plane(values), scale="linear")))
    values[2, 3] = np.nan  # inside: four faces
    values[0, 0] = np.inf  # in a corner: one face
    left = len(corners(draw.surface(plane(values), scale="linear")))
    assert left / whole == pytest.approx(20 / 25)


def test_no_face_reaches_into_a_hole(holed: Landscape) -> None:
    x, y = holed.data["x"].values, holed.data["y"].values
    middles = corners(draw.surface(holed)).mean(axis=1)
    near = (np.abs(middles[:, 0] - x[17]) < 0.1) & (np.abs(middles[:, 1] - y[10]) < 0.1)
    assert not near.any()


def test_corners_of_the_surface_have_the_heights_of_the_values() -> None:
    land = plane([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0], [3.0, 30.0, 300.0]])
    drawn = corners(draw.surface(land, scale="log")).reshape(-1, 3)
    for j, y in enumerate([-1.0, 0.0, 1.0]):
        for i, x in enumerate([-1.0, 0.0, 1.0]):
            here = (np.abs(drawn[:, 0] - x) < 1e-9) & (np.abs(drawn[:, 1] - y) < 1e-9)
            np.testing.assert_allclose(drawn[here, 2], np.log10(land.data["loss"].values[j, i]))


def test_the_vertical_axis_tells_values_not_logarithms(bowl: Landscape) -> None:
    ax: Any = draw.surface(bowl)
    ticks = dict(zip(ax.get_zticks(), [t.get_text() for t in ax.get_zticklabels()], strict=True))
    assert ticks[0.0] == "1"
    assert ticks[2.0] == "100"
    assert ax.get_zlabel() == ""  # the color bar says it once
    assert ax.figure.axes[-1].get_ylabel() == "loss"


def test_both_ends_of_both_horizontal_axes_have_a_tick(bowl: Landscape) -> None:
    ax: Any = draw.surface(bowl)
    for axis in (ax.xaxis, ax.yaxis):
        assert axis.get_ticklocs()[[0, -1]].tolist() == [-1.0, 1.0]
        assert len({text.get_text() for text in axis.get_ticklabels()}) == 5


def test_a_clip_flattens_larger_heights_and_a_note_says_so(bowl: Landscape) -> None:
    ax: Any = draw.surface(bowl, clip=10.0)
    assert corners(ax)[..., 2].max() == pytest.approx(1.0)
    count = int((bowl.data["loss"].values > 10).sum())
    assert f"{count} heights above 10 are drawn at it" in [text.get_text() for text in ax.texts]
    assert corners(draw.surface(bowl))[..., 2].max() == pytest.approx(3.0)


def test_holes_are_named_under_the_title(holed: Landscape) -> None:
    assert "holes: 6 not finite" in [text.get_text() for text in draw.surface(holed).texts]


def test_the_floor_and_the_hills_differ_in_color_and_light(bowl: Landscape) -> None:
    (skin,) = [c for c in draw.surface(bowl).get_children() if isinstance(c, Poly3DCollection)]
    colors = np.asarray(skin._facecolor3d)
    assert np.ptp(colors[:, 0]) > 0.4
    assert colors[:, :3].max() <= 1.0


def test_a_surface_is_drawn_into_the_3d_axes_that_are_given(bowl: Landscape) -> None:
    ax = Figure().add_subplot(projection="3d")
    assert draw.surface(bowl, ax=ax) is ax
    with pytest.raises(DrawError, match="projection='3d'"):
        draw.surface(bowl, ax=Figure().add_subplot())
