"""`certain` never contradicts the full grid, on forty surfaces of known curvature (see _surfaces).

Witness: the same plane evaluated at every point in float64, and the matrices of its second
differences, whose eigenvalues numpy computes. For convex functions no cell at all may be certain.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import landscope as ls
from landscope.analysis.shape_statistics import Shape, shape
from landscope.cli.report import print_shape
from landscope.engines import Local, Plan

SIZE = 15


class Function(nn.Module):
    """Two parameters; the loss of sample i is f(x, y) plus noise_i, whose mean is zero."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(2, dtype=dtype))
        self.function = function

    def forward(self, noise: Tensor) -> Tensor:
        return self.function(self.place[0], self.place[1]) * (1 + 0.2 * noise)


def value(outputs: Tensor, targets: Tensor) -> Tensor:
    del targets
    return outputs[:, 0]


def _rotate(x: Tensor, y: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    c, s = np.cos(angle), np.sin(angle)
    return c * x + s * y, c * y - s * x


def _saddle(ratio: float, angle: float) -> Callable[[Tensor, Tensor], Tensor]:
    def f(x: Tensor, y: Tensor) -> Tensor:
        u, v = _rotate(x, y, angle)
        return 4 + u**2 - ratio * v**2

    return f


def _bowl(ratio: float, angle: float) -> Callable[[Tensor, Tensor], Tensor]:
    def f(x: Tensor, y: Tensor) -> Tensor:
        u, v = _rotate(x, y, angle)
        return 0.01 + u**2 + ratio * v**2

    return f


FUNCTIONS: list[tuple[str, Callable[[Tensor, Tensor], Tensor]]] = [
    ("bowl", _bowl(1.0, 0.0)),
    ("valley", _bowl(0.01, 0.5)),
    ("cylinder", _bowl(0.0, 0.3)),
    ("log", lambda x, y: torch.log1p(torch.exp(5 * x - y)) + torch.log1p(torch.exp(-5 * x))),
    ("kink", lambda x, y: 1 + torch.relu(x + y - 0.3) + torch.abs(x)),
    ("saddle", _saddle(1.0, 0.0)),
    ("turned saddle", _saddle(0.5, 0.7)),
    ("flat saddle", _saddle(0.1, 0.4)),
    ("two basins", lambda x, y: 0.1 + (x**2 - 0.3) ** 2 + y**2),
    ("waves", lambda x, y: 3 + torch.sin(4 * x) + torch.cos(3 * y)),
]
CONVEX = {"bowl", "valley", "cylinder", "log", "kink"}


def _scan(
    function: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype,
    sampler: ls.Grid | ls.Adaptive,
    samples: ls.Calibrated | None = None,
) -> ls.Landscape:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(300, 1, generator=generator, dtype=torch.float64)
    data = (noise - noise.mean()).to(dtype), torch.zeros(300)
    precision = str(dtype).removeprefix("torch.")
    objective = ls.Objective(Function(function, dtype), value, data, precision=precision)
    along = [ls.params.Params({"place": row.to(dtype)}) for row in torch.eye(2)]
    plane = ls.Plane(objective.center, *along)
    return ls.scan(objective, plane, sampler, samples=samples, engine=Local(plan=Plan()))


def _eigenvalues(land: ls.Landscape) -> np.ndarray:
    """The eigenvalues of the matrices of second differences, with one cell less at each border."""
    f, h = land.data["loss"].values, 2 / (SIZE - 1)
    a = (f[1:-1, 2:] - 2 * f[1:-1, 1:-1] + f[1:-1, :-2]) / h**2
    b = (f[2:, 1:-1] - 2 * f[1:-1, 1:-1] + f[:-2, 1:-1]) / h**2
    c = (f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / (4 * h**2)
    return np.linalg.eigvalsh(np.stack([np.stack([a, c], -1), np.stack([c, b], -1)], -1))


def _surfaces(name: str) -> list[ls.Landscape]:
    """Four incomplete or rounded scans of one function, around whose grid they are compared."""
    function = dict(FUNCTIONS)[name]
    grid = ls.Grid(SIZE)
    adaptive = ls.Adaptive(resolution=SIZE, tolerance=0.01)
    return [
        _scan(function, torch.float32, grid),
        _scan(function, torch.float32, adaptive),
        _scan(function, torch.float64, grid, ls.Calibrated(100)),
        _scan(function, torch.float64, adaptive, ls.Calibrated(100)),
    ]


@pytest.mark.parametrize("name", [name for name, _ in FUNCTIONS])
def test_no_certain_cell_is_denied_by_the_full_grid_in_float64(name: str) -> None:
    exact = _eigenvalues(_scan(dict(FUNCTIONS)[name], torch.float64, ls.Grid(SIZE)))
    bends = exact[..., 0] < -0.01 * np.abs(exact).max(-1)
    for land in _surfaces(name):
        bending = shape(land).bending
        assert not (bending.certain[1:-1, 1:-1] & ~bends).any()
        if name in CONVEX:
            assert not bending.certain.any()
            assert not bending.above.any()
        told = bending.told[1:-1, 1:-1]
        missed = told & bends & ~(bending.certain | bending.possible)[1:-1, 1:-1]
        assert not missed.any()  # what bends and is judged is at least possible


@pytest.mark.parametrize("name", ["saddle", "turned saddle", "flat saddle"])
def test_what_bends_everywhere_is_found_nearly_everywhere(name: str) -> None:
    numbers = shape(_scan(dict(FUNCTIONS)[name], torch.float32, ls.Grid(SIZE)))
    assert numbers.nonconvex > 0.8  # chords of knight's moves leave the grid near its border
    adaptive = _scan(dict(FUNCTIONS)[name], torch.float32, ls.Adaptive(resolution=SIZE))
    assert shape(adaptive).bending.above.any()


def test_rounding_alone_is_never_certain() -> None:
    """A convex loss on planes so small that differences of values are rounding."""
    for reach in (1e-5, 1e-4, 1e-3):
        numbers = shape(_scan(_bowl(0.3, 0.2), torch.float32, ls.Grid(31, (-reach, reach))))
        assert numbers.nonconvex == 0.0


def _land(values: np.ndarray, **further: np.ndarray) -> Shape:
    dims = ("y", "x")[2 - values.ndim :]
    variables = {"loss": (dims, values), **{n: (dims, v) for n, v in further.items()}}
    axes = {dim: np.linspace(-1, 1, size) for dim, size in zip(dims, values.shape, strict=True)}
    return shape(ls.Landscape(xr.Dataset(variables, axes)))


def test_predicted_cells_are_not_told_and_not_the_lowest() -> None:
    x = np.linspace(-1, 1, 9)
    values = 2 - (x[None] ** 2 + x[:, None] ** 2)
    evaluated = np.ones((9, 9), dtype=np.int8)
    evaluated[4, 4] = evaluated[0, 0] = 0
    error = np.where(evaluated, 0.0, 0.1)
    numbers = _land(values, evaluated=evaluated, loss_error=error)
    assert int(numbers.bending.told.sum()) == 49 - 9 - 1
    assert numbers.nonconvex == 1.0
    assert np.isnan(numbers.center)
    assert numbers.at != (-1.0, -1.0)
    assert numbers.rivals == 1  # the predicted corner; the other two are equal, not lower


def test_one_row_with_holes_and_one_point_have_no_nan_in_their_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for values in (
        np.ones((1, 5)), np.ones((5, 1)), np.ones((1, 1)), np.ones(1), np.ones(2),
        np.where(np.eye(5) > 0, np.nan, 1.0), np.where(np.arange(9) < 7, np.nan, 1.0),
    ):  # fmt: skip
        print_shape(_land(values))
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert printed.count("not told") >= 6
