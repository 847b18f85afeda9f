"""Paths over a surface: what matplotlib was given against the heights of path and surface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpl_toolkits.mplot3d.art3d import Line3D, Line3DCollection

from landscope import draw
from landscope.errors import DrawError
from landscope.landscape import Landscape
from tests.draw.artists import read_legend

Change = Callable[..., Any]


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_over_a_surface_a_path_is_at_its_own_loss(
    scale: str, ground: Landscape, descent: Any, rasterize: Callable[..., Any]
) -> None:
    ax: Any = draw.path_surface(ground, descent, scale=scale)
    height = np.log10 if scale == "log" else np.asarray
    (segments, stems) = (
        next(c for c in ax.collections if c.get_gid() == gid) for gid in ("path", "stems")
    )
    assert isinstance(segments, Line3DCollection)
    at = np.c_[descent["x"], descent["y"], height(descent["loss"])]
    np.testing.assert_allclose(segments._segments3d, np.stack([at[:-1], at[1:]], axis=1))
    foot = np.c_[at[:, :2], height(descent["projected_loss"])]
    np.testing.assert_allclose(stems._segments3d, np.stack([at, foot], axis=1))
    assert np.ptp(rasterize(ax)) > 0


def test_a_stem_is_drawn_only_where_the_heights_differ(
    ground: Landscape, descent: Any, changed: Change
) -> None:
    same = descent["loss"].copy()
    same[4:] = descent["projected_loss"][4:]
    ax: Any = draw.path_surface(ground, changed(descent, loss=same))
    assert len(next(c for c in ax.collections if c.get_gid() == "stems")._segments3d) == 4


def test_the_box_contains_a_path_that_is_higher_or_wider_than_the_surface(
    ground: Landscape, descent: Any, changed: Change
) -> None:
    part = Landscape(ground.data.isel(x=slice(8, None)))
    ax: Any = draw.path_surface(part, changed(descent, loss=100 * descent["loss"]), scale="linear")
    assert ax.get_xlim3d()[0] <= -3.0
    assert ax.get_zlim3d()[1] >= 100 * descent["loss"].max()


def test_the_path_is_always_drawn_over_the_surface(ground: Landscape, descent: Any) -> None:
    ax: Any = draw.path_surface(ground, descent)
    assert ax.computed_zorder is False
    skin, *rest = ax.collections
    assert all(other.get_zorder() > skin.get_zorder() for other in rest)


def test_a_clip_limits_the_heights_of_paths_and_a_note_says_so(
    ground: Landscape, descent: Any
) -> None:
    ax: Any = draw.path_surface(ground, descent, scale="linear", clip=2.0)
    segments = next(c for c in ax.collections if c.get_gid() == "path")
    assert np.max([segment[:, 2].max() for segment in segments._segments3d]) == 2.0
    count = int((descent["loss"] > 2).sum())
    assert f"above 2, drawn at it: {count} of 21" in read_legend(ax)


def test_metrics_have_heights_too(ground: Landscape, descent: Any, changed: Change) -> None:
    ground.data["accuracy"] = 100 / (1 + ground.data["loss"])
    rated = changed(descent, accuracy=np.linspace(10, 90, 21), projected_accuracy=np.full(21, 50.0))
    ax: Any = draw.path_surface(ground, [rated, rated], quantity="accuracy", scale="linear")
    lines = [line for line in ax.lines if isinstance(line, Line3D) and line.get_gid() == "path"]
    for line in lines:
        np.testing.assert_array_equal(line.get_data_3d()[2], np.linspace(10, 90, 21))
    with pytest.raises(DrawError, match="'SGD' has no finite 'accuracy', so it has no height"):
        draw.path_surface(ground, descent, quantity="accuracy")


def test_the_training_loss_of_a_landscape_is_the_loss_of_a_path(
    ground: Landscape, descent: Any
) -> None:
    renamed = Landscape(ground.data.rename(loss="train_loss"))
    ax: Any = draw.path_surface(renamed, descent, scale="linear")
    segments = next(c for c in ax.collections if c.get_gid() == "path")
    np.testing.assert_array_equal([s[0, 2] for s in segments._segments3d], descent["loss"][:-1])
