"""The numbers of the scenes of lines against numbers written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from landscope.draw.line_scene import build_line_scene
from landscope.errors import DrawError
from landscope.landscape import Landscape


def test_a_line_is_drawn_with_every_loss_and_every_percentage(training: Landscape) -> None:
    training.data["train_accuracy_stderr"] = training.data["train_accuracy"]
    scene = build_line_scene(training)
    kinds = [(series.quantity, series.percent, series.test) for series in scene.series]
    assert kinds == [
        ("train_loss", False, False),
        ("test_loss", False, True),
        ("train_accuracy", True, False),
        ("test_accuracy", True, True),
    ]
    assert [t.quantity for t in build_line_scene(training, quantity="test_loss").series] == [
        "test_loss"
    ]


def test_percentages_do_not_take_part_in_the_scale_of_a_line(training: Landscape) -> None:
    scene = build_line_scene(training, scale="log")
    losses = np.concatenate([training.data[n].values for n in ("train_loss", "test_loss")])
    assert scene.limits == (losses.min(), losses.max())
    training.data["train_accuracy"].values[0] = 0.0
    assert not np.isnan(build_line_scene(training, scale="log").series[2].shown).any()


def test_lines_in_one_figure_share_limits(training: Landscape, shifted: Landscape) -> None:
    scenes = [
        build_line_scene(land, shared_with=[training, shifted]) for land in (training, shifted)
    ]
    assert scenes[0].limits == scenes[1].limits
    assert scenes[0].limits != build_line_scene(training).limits


def test_holes_of_a_line_are_at_their_coordinates(broken_line: Landscape) -> None:
    scene = build_line_scene(broken_line)
    np.testing.assert_allclose(scene.hole_positions, [-1.0, -0.7, -0.5, 0.4])
    assert scene.hole_note == "4 not finite"


def test_a_line_without_anything_finite_is_refused() -> None:
    land = Landscape(xr.Dataset({"loss": (("x",), [np.nan, np.nan])}, {"x": [0.0, 1.0]}))
    with pytest.raises(DrawError, match="'loss' has no finite value"):
        build_line_scene(land)
    land.data["loss"].attrs["units"] = "%"
    with pytest.raises(DrawError, match="'loss' has no finite value"):
        build_line_scene(land)
