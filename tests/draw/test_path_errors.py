"""Distances and losses of a path: what matplotlib was given against the columns of the path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from landscope import draw
from landscope.errors import DrawError
from landscope.landscape import Landscape
from tests.draw.artists import find_artist, read_legend

Change = Callable[..., Any]


def test_distances_are_above_losses(descent: Any) -> None:
    figure = draw.path_errors_figure(descent)
    upper, lower, right = figure.axes
    np.testing.assert_allclose(
        find_artist(upper, "relative").get_ydata(), 100 * descent["relative_distance"]
    )
    np.testing.assert_array_equal(find_artist(right, "absolute").get_ydata(), descent["distance"])
    np.testing.assert_array_equal(find_artist(lower, "loss").get_ydata(), descent["loss"])
    np.testing.assert_array_equal(
        find_artist(lower, "projected").get_ydata(), descent["projected_loss"]
    )
    for ax, gid in [(upper, "relative"), (lower, "loss"), (right, "absolute")]:
        np.testing.assert_array_equal(find_artist(ax, gid).get_xdata(), descent["epoch"])
    drawn = [np.asarray(one.get_xdata()).tolist() for ax in (upper, lower) for one in ax.lines]
    falls = [at for at in drawn if at == [10, 10]]
    assert len(falls) == 2
    assert (lower.get_xlabel(), lower.get_yscale()) == ("epoch", "log")
    assert read_legend(upper) == ["relative (left)", "absolute (right)", "learning rate falls"]
    assert read_legend(lower) == ["at the checkpoint", "at its projection: the surface"]


def test_at_the_center_itself_there_is_no_relative_distance(descent: Any, changed: Change) -> None:
    distance, share = descent["distance"].copy(), descent["relative_distance"].copy()
    distance[-1] = share[-1] = 0.0
    ended = changed(descent, distance=distance, relative_distance=share)
    drawn = find_artist(draw.path_errors_figure(ended).axes[0], "relative").get_ydata()
    assert np.flatnonzero(np.isnan(drawn)).tolist() == [20]


def test_without_losses_there_are_distances_only(
    ground: Landscape, descent: Any, changed: Change
) -> None:
    bare = changed(descent, loss=None, projected_loss=None)
    assert len(draw.path_errors_figure(bare).axes) == 2  # left and right
    assert len(draw.path_figure(ground, bare).axes) == 3


def test_a_loss_that_is_not_finite_leaves_a_gap_and_a_cross(descent: Any, changed: Change) -> None:
    loss = descent["loss"].copy()
    loss[[3, 4]] = np.nan, np.inf
    lower = draw.path_errors_figure(changed(descent, loss=loss)).axes[1]
    assert np.flatnonzero(np.isnan(find_artist(lower, "loss").get_ydata())).tolist() == [3, 4]
    assert find_artist(lower, "nonfinite").get_xdata().tolist() == [3.0, 4.0]
    assert read_legend(lower)[-1] == "not finite"


def test_errors_of_several_paths_have_their_colors_and_given_axes(
    ground: Landscape, descent: Any, heavy: Any
) -> None:
    figure = Figure()
    axes = list(figure.subplots(2, 1))
    assert draw.path_errors_figure([descent, heavy], axes=axes) is figure
    over = draw.path(ground, [descent, heavy])
    for k in range(2):
        assert (
            find_artist(axes[0], "relative", k).get_color()
            == find_artist(over, "path", k).get_color()
        )
    assert read_legend(axes[0])[:2] == ["SGD", "momentum"]
    with pytest.raises(DrawError, match="axes has 1; these paths need 2"):
        draw.path_errors_figure(descent, axes=axes[:1])
