"""Shape numbers against surfaces whose curvature is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

import landscope as ls
from landscope.analysis.shape_statistics import shape
from landscope.errors import DrawError

X, Y = np.linspace(-1, 1, 9), np.linspace(-2, 1, 7)


def _plane(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> ls.Landscape:
    values = function(X[None, :], Y[:, None]) + np.zeros((7, 9))
    return ls.Landscape(xr.Dataset({"loss": (("y", "x"), values)}, {"x": X, "y": Y}))


def _line(values: np.ndarray, x: np.ndarray = X) -> ls.Landscape:
    return ls.Landscape(xr.Dataset({"loss": (("x",), values)}, {"x": x}))


@pytest.mark.parametrize(
    ("function", "share"),
    [
        (lambda x, y: x**2 + y**2, 0.0),
        (lambda x, y: x**2 + x * y + y**2, 0.0),
        (lambda x, y: 1e-6 * (x**2 + 30 * y**2) + 5, 0.0),
        (lambda x, y: 3 * x - y, 0.0),
        (lambda x, y: x**2, 0.0),
        (lambda x, y: x**2 - y**2, 1.0),
        (lambda x, y: x * y, 1.0),
        (lambda x, y: x**2 + 3 * x * y + y**2, 1.0),  # convex along both axes, not between them
        (lambda x, y: -(x**2) - y**2, 1.0),
        (lambda x, y: x**2 + y**3, 0.6),  # inner rows y = -1.5, -1, -0.5, 0, 0.5: three bend down
    ],
)
def test_the_share_of_cells_that_are_not_convex(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], share: float
) -> None:
    assert shape(_plane(function)).nonconvex == pytest.approx(share)


def test_a_bowl_in_numbers() -> None:
    found = shape(_plane(lambda x, y: (x - 0.5) ** 2 + (y + 1) ** 2 + 2))
    assert found.lowest == 2.0
    assert found.at == (0.5, -1.0)
    assert found.center == 0.25 + 1 + 2
    border = [
        (x - 0.5) ** 2 + (y + 1) ** 2 + 2 for x in X for y in Y if abs(x) == 1 or y in (-2.0, 1.0)
    ]
    assert found.rim == pytest.approx(float(np.median(border)))
    assert found.holes == 0


def test_holes_are_counted_and_left_out() -> None:
    def function(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        values: np.ndarray = x**2 - y**2 + np.zeros((7, 9))
        values[0, 0], values[3, 4], values[6, 8] = math.nan, math.inf, -math.inf
        return values

    found = shape(_plane(function))
    assert found.holes == 3
    assert found.nonconvex == 1.0
    assert found.lowest == -4.0
    assert found.at == (0.0, -2.0)
    assert math.isfinite(found.rim)


def test_a_line_is_not_convex_where_it_bends_down() -> None:
    assert shape(_line(X**2)).nonconvex == 0.0
    assert shape(_line(-(X**2))).nonconvex == 1.0
    found = shape(_line(np.abs(X) * -1.0))
    assert found.nonconvex == pytest.approx(1 / 7)  # the kink alone
    assert found.rim == -1.0
    assert found.at == (-1.0,)
    assert found.center == 0.0


def test_without_the_origin_on_the_grid_there_is_no_center() -> None:
    found = shape(_line(np.array([1.0, 2.0, 4.0, 8.0]), np.array([0.5, 1.0, 1.5, 2.0])))
    assert math.isnan(found.center)


def test_a_grid_without_inner_cells_has_no_share() -> None:
    assert math.isnan(shape(_line(np.array([1.0, 2.0]), np.array([0.0, 1.0]))).nonconvex)


def test_what_has_no_shape_is_refused() -> None:
    with pytest.raises(DrawError, match="'beauty' is not a quantity"):
        shape(_line(X), "beauty")
    with pytest.raises(DrawError, match="no finite value"):
        shape(_line(X * math.nan))
    axes = {"x": [0.0], "y": [0.0], "z": [0.0]}
    with pytest.raises(DrawError, match="line or a plane"):
        shape(ls.Landscape(xr.Dataset({"loss": (("z", "y", "x"), [[[1.0]]])}, axes)))
