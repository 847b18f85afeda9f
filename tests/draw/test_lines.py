"""Lines: what matplotlib was given against the values, and the style of the 2018 figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscope import draw
from landscope.errors import DrawError
from landscope.landscape import Landscape

Rasterize = Callable[..., Any]


def curves(ax: Axes) -> list[Any]:
    """The curves: all lines with more than two points, without marks."""
    return [line for line in ax.lines if len(line.get_xdata()) > 4 and line.get_marker() == "."]  # type: ignore[arg-type]


def find_right_axes(ax: Axes) -> Axes:
    (other,) = [axes for axes in ax.figure.axes if axes is not ax]
    return other


def legend(ax: Axes) -> list[str]:
    box = ax.get_legend()
    assert box is not None
    return [text.get_text() for text in box.get_texts()]


@pytest.mark.parametrize("scale", [None, "log", "linear"])
def test_every_line_is_drawn_without_a_warning_and_unchanged(
    any_line: Landscape, scale: str | None, rasterize: Rasterize
) -> None:
    before = any_line.data.copy(deep=True)
    assert np.ptp(rasterize(draw.line(any_line, scale=scale))) > 0
    xr.testing.assert_identical(any_line.data, before)


def test_losses_are_on_the_left_and_percentages_on_the_right(training: Landscape) -> None:
    ax = draw.line(training)
    right = find_right_axes(ax)
    for side, names in (
        (ax, ("train_loss", "test_loss")),
        (right, ("train_accuracy", "test_accuracy")),
    ):
        for curve, name in zip(curves(side), names, strict=True):
            np.testing.assert_array_equal(curve.get_ydata(), training.data[name].values)
            np.testing.assert_array_equal(curve.get_xdata(), training.data["x"].values)
            assert curve.get_linestyle() == ("--" if name.startswith("test") else "-")
    assert curves(ax)[0].get_color() == curves(ax)[1].get_color() != curves(right)[0].get_color()
    assert (ax.get_ylabel(), right.get_ylabel()) == ("loss", "accuracy (%)")
    assert ax.get_xlabel() == "direction x (filter-normalized)"
    assert legend(ax) == ["train loss", "test loss", "train accuracy (%)", "test accuracy (%)"]


def test_percentages_alone_take_the_left_axis(training: Landscape) -> None:
    ax = draw.line(training, quantity="test_accuracy")
    assert ax.figure.axes == [ax]
    assert ax.get_ylim() == (-2.0, 102.0)
    assert ax.get_ylabel() == "test accuracy (%)"


def test_quantities_without_a_common_name_are_all_named(training: Landscape) -> None:
    training.data["sharpness"] = training.data["train_loss"] * 2
    ax = draw.line(training, quantity=["train_loss", "sharpness"])
    assert ax.get_ylabel() == "train loss, sharpness"
    assert curves(ax)[0].get_color() != curves(ax)[1].get_color()


def test_a_log_axis_has_round_numbers_in_plain_digits(
    broken_line: Landscape, rasterize: Rasterize
) -> None:
    ax = draw.line(broken_line)
    rasterize(ax)
    assert ax.get_yscale() == "log"
    assert {"0.01", "1", "100"} <= {label.get_text() for label in ax.get_yticklabels()}


def test_missing_values_are_gaps_with_a_cross_and_an_isolated_point_is_visible(
    broken_line: Landscape,
) -> None:
    ax = draw.line(broken_line)
    (curve,) = curves(ax)
    lost = ~np.isfinite(broken_line.data["loss"].values)
    np.testing.assert_array_equal(np.isnan(curve.get_ydata()), lost)
    assert curve.get_markevery() == [4]
    (crosses,) = [line for line in ax.lines if line.get_marker() == "x"]
    np.testing.assert_allclose(np.asarray(crosses.get_xdata()), broken_line.data["x"].values[lost])
    assert legend(ax) == ["loss", "4 not finite"]


def test_repeats_are_thin_lines_of_one_color(training: Landscape, shifted: Landscape) -> None:
    ax = draw.line([training, shifted], quantity="train_loss")
    first, second = curves(ax)
    assert first.get_color() == second.get_color()
    assert first.get_linewidth() < curves(draw.line(training))[0].get_linewidth()
    assert legend(ax) == ["train loss"]
    assert ax.get_title() == "2 landscapes"


def test_labeled_landscapes_have_a_color_each(training: Landscape, shifted: Landscape) -> None:
    ax = draw.line([training, shifted], labels=["SGD", "Adam"])
    sgd, sgd_test, adam, _ = curves(ax)
    assert sgd.get_color() == sgd_test.get_color() != adam.get_color()
    styles = {line.get_linestyle() for line in (*curves(ax), *curves(find_right_axes(ax)))}
    assert len(styles) == 4
    assert legend(ax)[:2] == ["SGD", "Adam"]
    assert ax.get_title() == ""


def test_holes_of_several_landscapes_are_named_once(broken_line: Landscape) -> None:
    names = legend(draw.line([broken_line, broken_line]))
    assert names == ["loss", "not finite, or ≤ 0 on a log scale"]


def test_a_line_is_drawn_into_the_axes_that_are_given(training: Landscape) -> None:
    ax = Figure().add_subplot()
    assert draw.line(training, ax=ax) is ax


def test_very_large_values_are_drawn(rasterize: Rasterize) -> None:
    x = np.linspace(-1, 1, 5)
    land = Landscape(xr.Dataset({"loss": (("x",), 10 ** (249 * np.abs(x)))}, {"x": x}))
    assert np.ptp(rasterize(draw.line(land))) > 0


def test_wrong_calls_are_explained(training: Landscape, bowl: Landscape) -> None:
    with pytest.raises(DrawError, match=r"labels=\['a'\] does not name 2 landscape"):
        draw.line([training, training], labels=["a"])
    with pytest.raises(DrawError, match="No landscape was given"):
        draw.line([])
    with pytest.raises(DrawError, match=r"not \('x',\)"):
        draw.line(bowl)


def test_a_curve_with_a_standard_error_has_a_visible_band_of_95_percent(
    training: Landscape, rasterize: Rasterize
) -> None:
    training.data["train_loss_stderr"] = training.data["train_loss"] * 0 + 0.5
    ax = draw.line(training, scale="linear")
    rasterize(ax)
    (band,) = ax.collections
    corners = np.asarray(band.get_paths()[0].vertices)
    loss = training.data["train_loss"].values
    assert corners[:, 1].max() == pytest.approx(loss.max() + 1.959964 * 0.5)
    assert corners[:, 1].min() == pytest.approx(loss.min() - 1.959964 * 0.5)
    low, high = ax.get_ylim()
    assert low < corners[:, 1].min() < corners[:, 1].max() < high
    assert "± 1.96 standard errors (95%)" in legend(ax)


def test_a_band_below_zero_leaves_a_log_picture_at_its_bottom(
    training: Landscape, rasterize: Rasterize
) -> None:
    loss = training.data["train_loss"]
    plain = draw.line(training, quantity="train_loss", scale="log").get_ylim()
    for error in (0.1 * loss, 0.51 * loss, 5 * loss):
        training.data["train_loss_stderr"] = error
        ax = draw.line(training, quantity="train_loss", scale="log")
        rasterize(ax)
        assert plain[0] / 20 < ax.get_ylim()[0] <= plain[0]
        assert ax.get_ylim()[1] > plain[1]


def test_both_models_of_a_line_between_them_are_named(training: Landscape) -> None:
    origin = {"x": {"kind": "between", "file": "other.pt"}}
    ax = draw.line(Landscape(training.data.assign_attrs(directions=json.dumps(origin))))
    names = [text.get_text() for text in ax.get_legend().get_texts()]  # type: ignore[union-attr]
    assert names[-2:] == ["x = 0: the model", "x = 1: other.pt"]
    upright = [line for line in ax.lines if np.ravel(line.get_xdata()).tolist() in ([0, 0], [1, 1])]
    assert len(upright) == 2
