"""Synthetic landscapes with known numbers, which all renderers draw.

They are fixtures because pytest's importlib mode lets no test module import its neighbor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


def make_plane(
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
    return _add_labels(data)


def make_line(x: npt.ArrayLike, *, title: str = "", **fields: npt.ArrayLike) -> Landscape:
    arrays = {n: (("x",), np.asarray(f, dtype=np.float64)) for n, f in fields.items()}
    return _add_labels(xr.Dataset(arrays, {"x": x}, {"title": title} if title else {}))


def _add_labels(data: xr.Dataset) -> Landscape:
    for name, variable in data.variables.items():
        if name in NOTES:
            variable.attrs["long_name"] = NOTES[str(name)]
        if "accuracy" in str(name):
            variable.attrs.update(units="%", long_name=str(name).replace("_", " "))
    return Landscape(data)


def make_bowl(*, points: int = 41, depth: float = 1e-2, title: str = "ResNet-56") -> Landscape:
    """A smooth bowl: depth at the center, about 1e3 in the corners; with an accuracy."""
    x = np.linspace(-1, 1, points)
    r2 = x[None, :] ** 2 + (1.3 * x[:, None] - 0.2 * x[None, :]) ** 2
    loss = depth * 10 ** (5 * (r2 / r2.max()) ** 0.7)
    return make_plane(loss, x, x, title=title, accuracy=100 / (1 + loss**0.6))


@pytest.fixture
def bowl() -> Landscape:
    return make_bowl()


@pytest.fixture
def shallow() -> Landscape:
    """A bowl like ``bowl`` whose lowest value is 1 instead of 0.01."""
    return make_bowl(depth=1.0, title="shallow")


@pytest.fixture
def rugged() -> Landscape:
    """Hills and pits, as of a deep network without skip connections; with an accuracy."""
    x = np.linspace(-1, 1, 41)
    u, v = np.meshgrid(x, x)
    hills = np.sin(9 * u + 3 * v) * np.cos(7 * v - 2 * u) + 0.6 * np.sin(17 * u * v + 5 * v)
    loss = 10 ** (2.2 * (u**2 + v**2) + 0.55 * hills - 0.5)
    return make_plane(loss, x, x, title="ResNet-56 without skips", accuracy=100 / (1 + loss))


@pytest.fixture
def holed() -> Landscape:
    """A bowl of 21 x 21 with three NaN, two infinite and one minus infinite cell."""
    land = make_bowl(points=21, title="with holes")
    loss = land.data["loss"].values
    loss[3, 4] = loss[3, 5] = loss[16, 12] = np.nan
    loss[0, 0] = loss[20, 20] = np.inf
    loss[10, 17] = -np.inf
    return land


@pytest.fixture
def signed() -> Landscape:
    """A saddle with negative values, positive values and zero at the center."""
    x = np.linspace(-1, 1, 31)
    return make_plane(3 * x[None, :] ** 2 - 2 * x[:, None] ** 2, x, x, title="saddle")


@pytest.fixture
def rectangular() -> Landscape:
    """7 columns over [-1, 2] and 4 rows over [0.5, 1.5]: the center is outside."""
    x, y = np.linspace(-1, 2, 7), np.linspace(0.5, 1.5, 4)
    return make_plane(10.0 * np.arange(4)[:, None] + np.arange(7) + 1, x, y, title="rectangular")


@pytest.fixture
def constant() -> Landscape:
    x = np.linspace(-1, 1, 5)
    return make_plane(np.full((5, 5), 0.7), x, x)


@pytest.fixture
def huge() -> Landscape:
    """A diverging network: from 1 to 1e200."""
    x = np.linspace(-1, 1, 11)
    return make_plane(10 ** (200 * np.abs(x[None, :] * x[:, None])), x, x)


def make_training_line(shift: float, title: str) -> Landscape:
    """A line as in the 2018 paper: from one network at 0 to another at 1."""
    x = np.linspace(-0.5, 1.5, 81)
    loss = 3 * x**2 * (x - 1 - shift) ** 2 + 0.02
    wide = 1.4 * loss + 0.25 + 0.1 * np.sin(6 * x + shift)
    return make_line(
        x,
        title=title,
        train_loss=loss,
        test_loss=wide,
        train_accuracy=100 * np.exp(-loss),
        test_accuracy=95 * np.exp(-0.8 * wide),
    )


@pytest.fixture
def broken_line() -> Landscape:
    """A line with NaN, infinity, an isolated point, and a value of zero."""
    x = np.linspace(-1, 1, 21)
    loss = 10 ** (4 * x**2 - 2)
    loss[[3, 5, 14]] = np.nan
    loss[0] = np.inf
    return make_line(x, loss=loss, title="broken line")


@pytest.fixture
def training() -> Landscape:
    return make_training_line(0.0, "small batch, large batch")


@pytest.fixture
def shifted() -> Landscape:
    return make_training_line(0.4, "another run")


@pytest.fixture
def volume() -> Landscape:
    """A volume of 3 x 4 x 5 whose loss is 100 z + 10 y + x in steps."""
    z, y, x = np.meshgrid(np.arange(3), np.arange(4), np.arange(5), indexing="ij")
    axes = {"z": [-1.0, 0.0, 1.0], "y": np.linspace(-1, 1, 4), "x": np.linspace(-1, 1, 5)}
    return Landscape(xr.Dataset({"loss": (("z", "y", "x"), 100.0 * z + 10 * y + x + 1)}, axes))


@dataclass
class FakePath:
    """A path over a plane with the members of the paths that ``ls.paths.project`` returns."""

    data: xr.Dataset
    name: str = ""

    def __getitem__(self, column: str) -> npt.NDArray[np.float64]:
        return np.asarray(self.data[column].values, dtype=np.float64)


def hill(x: npt.ArrayLike, y: npt.ArrayLike, z: npt.ArrayLike = 0.0) -> npt.NDArray[np.float64]:
    """A loss of three parameters; the plane of the pictures is z = 0, its center the origin."""
    x, y, z = np.asarray(x), np.asarray(y), np.asarray(z)
    return np.asarray(0.01 + x**2 / 2 + 2 * y**2 + z**2)


def make_descent(
    name: str, *, start: tuple[float, float, float] = (-3.0, 1.6, 1.2), momentum: float = 0.0
) -> FakePath:
    """Gradient descent on ``hill``: 21 checkpoints; the learning rate falls at the 11th."""
    point, speed, places = np.array(start), np.zeros(3), []
    rates = np.array([0.1] * 10 + [0.02] * 11)
    for rate in rates:
        places.append(point)
        speed = momentum * speed - rate * np.array([1.0, 4.0, 2.0]) * point
        point = point + speed
    x, y, z = np.array(places).T
    columns = {
        "x": x,
        "y": y,
        "distance": np.abs(z),
        "relative_distance": np.abs(z) / np.sqrt(x**2 + y**2 + z**2),
        "loss": hill(x, y, z),
        "projected_loss": hill(x, y),
        "step": 7.0 * np.arange(21),
        "epoch": np.arange(21.0),
        "learning_rate": rates,
    }
    data = xr.Dataset({n: ("checkpoint", v) for n, v in columns.items()}, attrs={"title": name})
    return FakePath(data, name)


@pytest.fixture
def ground() -> Landscape:
    """``hill`` over the plane z = 0 that contains the paths below."""
    x, y = np.linspace(-4, 2, 31), np.linspace(-1.5, 2.5, 21)
    land = make_plane(hill(*np.meshgrid(x, y)), x, y, title="descent")
    for k, dim in enumerate("xy", 1):
        land.data[dim].attrs["long_name"] = f"principal component {k} (60.5% of the variation)"
    return land


@pytest.fixture
def descent() -> FakePath:
    return make_descent("SGD")


@pytest.fixture
def heavy() -> FakePath:
    """Another path over ``ground``, from the same start."""
    return make_descent("momentum", momentum=0.7)


@pytest.fixture
def changed() -> Callable[..., FakePath]:
    """A path with other columns, or without those that are None."""

    def change(path: FakePath, **columns: npt.ArrayLike | None) -> FakePath:
        data = path.data.drop_vars([n for n, v in columns.items() if v is None and n in path.data])
        new = {n: ("checkpoint", np.asarray(v)) for n, v in columns.items() if v is not None}
        return FakePath(data.assign(new), path.name)

    return change


@pytest.fixture
def trained() -> tuple[Landscape, FakePath]:
    """Logistic regression on the digits by batches: a real path on the plane of its components.

    Principal components by NumPy's SVD; the loss in NumPy.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    inputs, targets = digits.data[:600] / 16, np.eye(10)[digits.target[:600]]

    def loss(weights: npt.NDArray[np.float64]) -> float:
        scores = inputs @ weights.reshape(64, 10)
        top = scores.max(axis=1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(scores - top).sum(axis=1))
        return float((total - (scores * targets).sum(axis=1)).mean())

    rng, weights, places = np.random.default_rng(0), np.zeros((64, 10)), []
    rates = [2.0] * 12 + [0.2] * 8
    for rate in rates:
        places.append(weights.ravel())
        for rows in np.array_split(rng.permutation(600), 20):
            scores = np.exp(inputs[rows] @ weights)
            odds = scores / scores.sum(axis=1, keepdims=True)
            weights = weights - rate * inputs[rows].T @ (odds - targets[rows]) / len(rows)
    stack = np.array(places)
    center = stack[-1]
    directions = np.linalg.svd(stack - center, full_matrices=False)[2][:2]
    at = (stack - center) @ directions.T
    low, high = at.min(axis=0) - 2, at.max(axis=0) + 2
    x, y = (np.linspace(low[k], high[k], 15) for k in range(2))
    field = [[loss(center + np.array([a, b]) @ directions) for a in x] for b in y]
    far = np.linalg.norm(stack - center, axis=1)
    off = np.linalg.norm(stack - center - at @ directions, axis=1)
    columns = {
        "x": at[:, 0],
        "y": at[:, 1],
        "distance": off,
        "relative_distance": np.divide(off, far, out=np.zeros(20), where=far > 0),
        "loss": [loss(point) for point in stack],
        "projected_loss": [loss(center + c @ directions) for c in at],
        "epoch": np.arange(20.0),
        "learning_rate": rates,
    }
    data = xr.Dataset({n: ("checkpoint", np.asarray(v)) for n, v in columns.items()})
    return make_plane(field, x, y, title="logistic regression"), FakePath(data, "SGD")


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
