from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from landscope.errors import SamplerError
from landscope.sampling.adaptive import Adaptive
from landscope.sampling.grid import Grid, as_sampler


def test_axes_are_those_of_linspace() -> None:
    x, y = Grid((5, 3), ((-2.0, 1.0), (0.5, 4.0))).axes(("x", "y"))
    np.testing.assert_allclose(x, np.linspace(-2.0, 1.0, 5), rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(y, np.linspace(0.5, 4.0, 3), rtol=1e-15)
    assert x.dtype == y.dtype == np.float64


@pytest.mark.parametrize("reach", [1.0, 0.1, 0.3, 1e-7, 3e5])
@pytest.mark.parametrize("count", [3, 11, 51])
def test_a_symmetric_axis_holds_an_exact_zero_and_mirrors_itself(count: int, reach: float) -> None:
    (axis,) = Grid(count, (-reach, reach)).axes(("x",))
    assert axis[count // 2] == 0.0
    assert axis.tolist() == (-axis[::-1]).tolist()
    assert bool((np.diff(axis) > 0).all())


@pytest.mark.parametrize("reach", [0.1, 0.3, 0.7, 1.1])
def test_an_axis_ends_exactly_where_the_span_says(reach: float) -> None:
    for count in range(2, 60):
        (axis,) = Grid(count, (-reach, 2 * reach)).axes(("x",))
        assert (axis[0], axis[-1]) == (-reach, 2 * reach)


def test_an_axis_of_one_point_stands_at_the_first_coordinate() -> None:
    x, y = Grid((1, 2), ((0.25, 3.0), (-1.0, 1.0))).axes(("x", "y"))
    assert x.tolist() == [0.25]
    assert y.tolist() == [-1.0, 1.0]


def test_an_axis_of_one_point_lies_at_the_center_of_a_symmetric_span() -> None:
    for span in ((-1.0, 1.0), (-0.3, 0.3), ((-1.0, 1.0), (-2.0, 2.0), (-3.0, 3.0))):
        assert [a.tolist() for a in Grid(1, span).axes(("x", "y", "z"))] == [[0.0]] * 3
    assert [a.tolist() for a in Grid((1, 2)).axes(("x", "y"))] == [[0.0], [-1.0, 1.0]]


def test_an_axis_of_one_point_may_begin_and_end_there() -> None:
    (axis,) = Grid(1, (0.5, 0.5)).axes(("x",))
    assert axis.tolist() == [0.5]
    x, y = Grid((1, 3), ((0.5, 0.5), (-1.0, 1.0))).axes(("x", "y"))
    assert (x.tolist(), y.tolist()) == ([0.5], [-1.0, 0.0, 1.0])
    x, y = Grid(1, ((0.5, 0.5), (2.0, 2.0))).axes(("x", "y"))
    assert (x.tolist(), y.tolist()) == ([0.5], [2.0])


@pytest.mark.parametrize("dims", [("x",), ("x", "y"), ("x", "y", "z")])
def test_one_resolution_and_one_span_stand_for_all_axes(dims: tuple[str, ...]) -> None:
    axes = Grid(3, (0.0, 1.0)).axes(dims)
    assert [a.tolist() for a in axes] == [[0.0, 0.5, 1.0]] * len(dims)


def test_a_grid_asks_for_each_point_once_with_x_running_fastest() -> None:
    grid = Grid((3, 2))
    assert grid.ask((2, 3), {}) == [0, 1, 2, 3, 4, 5]
    assert grid.ask((2, 3), {1: "done", 4: "done"}) == [0, 2, 3, 5]
    assert grid.ask((2, 3), dict.fromkeys(range(6))) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0,), "resolution=0; expected whole numbers of 1 or more"),
        ((-3,), "resolution=-3; expected whole numbers"),
        ((2.5,), r"resolution=2\.5; expected whole numbers"),
        ((True,), "resolution=True; expected whole numbers"),
        (((3, 0),), r"resolution=\(3, 0\); expected whole numbers"),
        ((float("nan"),), "resolution=nan; expected whole numbers"),
        (("many",), "resolution='many'; expected whole numbers"),
        ((None,), "resolution=None; expected whole numbers"),
        ((3, (1.0, -1.0)), "runs from 1 to -1; the first coordinate must be below the last"),
        ((3, (1.0, 1.0)), "runs from 1 to 1; the first coordinate must be below the last"),
        ((2, (1.0, 1.0)), "below the last: both may be equal only on an axis of one point"),
        (((1, 3), (1.0, 1.0)), "runs from 1 to 1; the first coordinate must be below the last"),
        ((3, ((0, 1), (2, 2))), "runs from 2 to 2; the first coordinate must be below the last"),
        (((1, 3), ((0, 0), (2, 2))), "runs from 2 to 2; the first coordinate must be below"),
        ((1, (1.0, -1.0)), "runs from 1 to -1; .*: swap them"),
        ((3, ((0, 1), (2, 1))), "runs from 2 to 1"),
        ((3, (0.0, float("inf"))), r"span=\(0\.0, inf\); expected finite coordinates"),
        ((3, (float("nan"), 0.0)), r"span=\(nan, 0\.0\); expected finite coordinates"),
        ((3, (1.0, 2.0, 3.0)), r"expected a pair \(first, last\)"),
        ((3, 1.0), r"span=1\.0; expected a pair"),
        ((3, "wide"), "span='wide'; expected a pair"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_with_a_sentence(
    arguments: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(SamplerError, match=words):
        Grid(*arguments)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid((3, 4, 5)), r"resolution is given for 3 axes; the slice has 2 \(x, y\)"),
        (Grid(3, ((0, 1), (0, 1), (0, 1))), r"span is given for 3 axes; the slice has 2 \(x, y\)"),
    ],
)
def test_another_number_of_axes_is_refused_with_a_sentence(grid: Grid, words: str) -> None:
    with pytest.raises(SamplerError, match=words):
        grid.axes(("x", "y"))


@pytest.mark.parametrize("number", [5, 5.0, np.int64(5)])
def test_a_whole_number_is_a_grid_on_the_span(number: Any) -> None:
    assert as_sampler(number, (0.0, 1.0)) == Grid(5, (0.0, 1.0))


def test_no_sampler_is_the_default_grid_on_the_span_and_a_sampler_is_itself() -> None:
    assert as_sampler(None, (-1.0, 1.0)) == Grid()
    for sampler in (Grid(3), Adaptive()):
        assert as_sampler(sampler, (0.0, 1.0)) is sampler


@pytest.mark.parametrize("nonsense", [0, -3, 2.5, "51", True, float("nan"), (51, 41), {}, Grid])
def test_what_is_no_sampler_is_refused_with_a_sentence(nonsense: Any) -> None:
    words = re.escape(f"sampler={nonsense!r}; expected a whole number of points along each axis")
    with pytest.raises(SamplerError, match=words):
        as_sampler(nonsense, (-1.0, 1.0))
