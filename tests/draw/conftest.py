"""Synthetic landscapes with known numbers, on which all renderers are tried.

They are fixtures because pytest's importlib mode lets no test module import its neighbor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from landscope.landscape import Landscape

NOTES = {"x": "direction x (filter-normalized)", "y": "direction y (filter-normalized)"}


def plane_of(
    values: npt.ArrayLike,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    title: str = "",
    **more: npt.ArrayLike,
) -> Landscape:
    """A plane of one loss, and of accuracies (in percent) given by name."""
    fields = {"loss": values, **more}
    data = xr.Dataset(
        {name: (("y", "x"), np.asarray(field, dtype=np.float64)) for name, field in fields.items()},
        {"x": x, "y": y},
        {"title": title, "seed": 0} if title else {"seed": 0},
    )
    return _labeled(data)


def line_of(x: npt.ArrayLike, *, title: str = "", **fields: npt.ArrayLike) -> Landscape:
    arrays = {n: (("x",), np.asarray(f, dtype=np.float64)) for n, f in fields.items()}
    return _labeled(xr.Dataset(arrays, {"x": x}, {"title": title} if title else {}))


def _labeled(data: xr.Dataset) -> Landscape:
    for name, variable in data.variables.items():
        if name in NOTES:
            variable.attrs["long_name"] = NOTES[str(name)]
        if "accuracy" in str(name):
            variable.attrs.update(units="%", long_name=str(name).replace("_", " "))
    return Landscape(data)


def bowl_of(*, points: int = 41, depth: float = 1e-2, title: str = "ResNet-56") -> Landscape:
    """A smooth bowl: depth at the center, about 1e3 in the corners; with an accuracy."""
    x = np.linspace(-1, 1, points)
    r2 = x[None, :] ** 2 + (1.3 * x[:, None] - 0.2 * x[None, :]) ** 2
    loss = depth * 10 ** (5 * (r2 / r2.max()) ** 0.7)
    return plane_of(loss, x, x, title=title, accuracy=100 / (1 + loss**0.6))


@pytest.fixture
def bowl() -> Landscape:
    return bowl_of()


@pytest.fixture
def shallow() -> Landscape:
    """A bowl like ``bowl`` whose floor lies at 1 instead of 0.01."""
    return bowl_of(depth=1.0, title="shallow")


@pytest.fixture
def rugged() -> Landscape:
    """Hills and pits, as of a deep network without skip connections; with an accuracy."""
    x = np.linspace(-1, 1, 41)
    u, v = np.meshgrid(x, x)
    hills = np.sin(9 * u + 3 * v) * np.cos(7 * v - 2 * u) + 0.6 * np.sin(17 * u * v + 5 * v)
    loss = 10 ** (2.2 * (u**2 + v**2) + 0.55 * hills - 0.5)
    return plane_of(loss, x, x, title="ResNet-56 without skips", accuracy=100 / (1 + loss))


@pytest.fixture
def holed() -> Landscape:
    """A bowl of 21 x 21 with three NaN, two infinite and one minus infinite cell."""
    land = bowl_of(points=21, title="with holes")
    loss = land.data["loss"].values
    loss[3, 4] = loss[3, 5] = loss[16, 12] = np.nan
    loss[0, 0] = loss[20, 20] = np.inf
    loss[10, 17] = -np.inf
    return land


@pytest.fixture
def signed() -> Landscape:
    """A saddle with negative values, positive values and zero at the center."""
    x = np.linspace(-1, 1, 31)
    return plane_of(3 * x[None, :] ** 2 - 2 * x[:, None] ** 2, x, x, title="saddle")


@pytest.fixture
def rectangular() -> Landscape:
    """7 columns over [-1, 2] and 4 rows over [0.5, 1.5]: the center is outside."""
    x, y = np.linspace(-1, 2, 7), np.linspace(0.5, 1.5, 4)
    return plane_of(10.0 * np.arange(4)[:, None] + np.arange(7) + 1, x, y, title="rectangular")


@pytest.fixture
def constant() -> Landscape:
    x = np.linspace(-1, 1, 5)
    return plane_of(np.full((5, 5), 0.7), x, x)


@pytest.fixture
def huge() -> Landscape:
    """A diverging network: from 1 to 1e200."""
    x = np.linspace(-1, 1, 11)
    return plane_of(10 ** (200 * np.abs(x[None, :] * x[:, None])), x, x)


def training_of(shift: float, title: str) -> Landscape:
    """A line as in the 2018 paper: from one network at 0 to another at 1."""
    x = np.linspace(-0.5, 1.5, 81)
    loss = 3 * x**2 * (x - 1 - shift) ** 2 + 0.02
    wide = 1.4 * loss + 0.25 + 0.1 * np.sin(6 * x + shift)
    return line_of(
        x,
        title=title,
        train_loss=loss,
        test_loss=wide,
        train_accuracy=100 * np.exp(-loss),
        test_accuracy=95 * np.exp(-0.8 * wide),
    )


@pytest.fixture
def broken_line() -> Landscape:
    """A line with NaN, infinity, a lonely point, and a value of zero."""
    x = np.linspace(-1, 1, 21)
    loss = 10 ** (4 * x**2 - 2)
    loss[[3, 5, 14]] = np.nan
    loss[0] = np.inf
    return line_of(x, loss=loss, title="broken line")


@pytest.fixture
def training() -> Landscape:
    return training_of(0.0, "small batch, large batch")


@pytest.fixture
def shifted() -> Landscape:
    return training_of(0.4, "another run")


@pytest.fixture
def volume() -> Landscape:
    """A volume of 3 x 4 x 5 whose loss is 100 z + 10 y + x in steps."""
    z, y, x = np.meshgrid(np.arange(3), np.arange(4), np.arange(5), indexing="ij")
    axes = {"z": [-1.0, 0.0, 1.0], "y": np.linspace(-1, 1, 4), "x": np.linspace(-1, 1, 5)}
    return Landscape(xr.Dataset({"loss": (("z", "y", "x"), 100.0 * z + 10 * y + x + 1)}, axes))


@pytest.fixture(
    params=["bowl", "rugged", "holed", "signed", "rectangular", "constant", "huge", "shallow"]
)
def any_plane(request: pytest.FixtureRequest) -> Landscape:
    land: Landscape = request.getfixturevalue(request.param)
    return land


@pytest.fixture(params=["training", "broken_line"])
def any_line(request: pytest.FixtureRequest) -> Landscape:
    land: Landscape = request.getfixturevalue(request.param)
    return land


@pytest.fixture
def rasterize() -> Callable[..., npt.NDArray[Any]]:
    """Draw a figure, or that of some axes: its pixels, [height, width, 4]."""

    def draw(picture: Figure | Axes, dpi: float = 30) -> npt.NDArray[Any]:
        figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
        assert figure is not None
        figure.set_dpi(dpi)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())

    return draw
