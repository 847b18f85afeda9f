"""The convexity map of the 2018 scripts, computed again over their own directions.

Witnesses: the file of eigenvalues that the scripts wrote; and float64 eigenvalues by ARPACK (to
1e-8) of a double backward over all 512 images at once, written down here because they take minutes.
They know neither of batches nor of float32, and one of them is found again below.

The scripts' largest eigenvalues are right to 1e-5. Their smallest carry the solver's tolerance as a
share of the shifted spectrum: up to 0.2% off here, and 9% at the center, where it is near 0.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

import landscope as ls
from landscope.formats import reference_h5
from tests.formats.test_reference_h5 import (
    DIRECTIONS,
    FOLDER,
    SQUARE,
    A,
    _members,
    _model,
    _raw,
)

BATCHES = 4
SMALLEST = np.array(
    [
        [-13.16106198, -9.37648217, -5.90111296, -4.25929864, -6.77728882],
        [-8.80103318, -4.98745606, -1.82685161, -1.64445103, -5.10494966],
        [-5.36021599, -1.51431184, -0.20743023, -2.05603694, -5.92372627],
        [-3.53368829, -1.59329377, -1.84515762, -4.72000856, -7.95296680],
        [-5.47858532, -4.71388202, -5.06162488, -5.89899041, -8.58207596],
    ]
)
LARGEST = np.array(
    [
        [109.1665001, 60.39542664, 37.71231604, 67.40531256, 73.53821855],
        [55.91109209, 31.81269254, 22.59954349, 26.31668849, 37.71252757],
        [37.01033730, 17.69920654, 10.84882966, 22.52677777, 40.62402721],
        [34.09703825, 22.23307636, 22.88034191, 38.85371707, 47.25437896],
        [44.69582938, 37.80589008, 37.94388792, 51.77706217, 48.43960899],
    ]
)


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """The data, prepared as the scripts did, in float64."""
    stored = np.load(FOLDER / "data.npz")
    mean = torch.tensor([125.3, 123.0, 113.9]).double().div(255)[:, None, None]
    spread = torch.tensor([63.0, 62.1, 66.7]).double().div(255)[:, None, None]
    pixels = torch.tensor(stored["train_images"]).permute(0, 3, 1, 2).double() / 255
    return (pixels - mean) / spread, torch.tensor(stored["train_labels"]).long()


def extremes_by_scipy(x: float, y: float) -> np.ndarray:
    """Return the smallest and the largest eigenvalue at a point, in float64."""
    model = _model(A / "model_10.t7").double()
    moves = [_members(DIRECTIONS, group) for group in ("xdirection", "ydirection")]
    with torch.no_grad():
        for tensor, dx, dy in zip(model.parameters(), *moves, strict=True):
            tensor.add_(x * torch.tensor(dx).double() + y * torch.tensor(dy).double())
    leaves = [t for t in model.parameters() if t.ndim > 1]
    inputs, targets = images()
    loss = nn.functional.cross_entropy(model(inputs), targets)
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves, create_graph=True)])

    def times(vector: np.ndarray) -> np.ndarray:
        given = torch.tensor(vector.ravel())
        parts = torch.autograd.grad(slope, leaves, given, retain_graph=True)
        found: np.ndarray = torch.cat([g.flatten() for g in parts]).numpy()
        return found

    size = len(slope)
    operator = LinearOperator((size, size), matvec=times, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
    found: np.ndarray = eigsh(
        operator, 2, which="BE", ncv=9, tol=1e-2, v0=start, return_eigenvectors=False
    )
    return np.sort(found)


@pytest.fixture(scope="module")
def land() -> ls.Landscape:
    """Our map over the scripts' pair of directions, at the default tolerance of 1%.

    Every second point of theirs: all 25 were compared once, and take half a minute.
    """
    inputs, targets = images()
    objective = ls.Objective(
        _model(A / "model_10.t7"),
        nn.CrossEntropyLoss(),
        (inputs.float(), targets),
        batch_size=128,
    )
    plane = ls.Plane(objective.center, *reference_h5.read_directions(DIRECTIONS, objective.center))
    quantity = ls.curvature.hessian_extremes(select="dimension > 1")
    return ls.scan(objective, plane, ls.Grid(3), quantities=(quantity,))


def test_what_is_written_down_here_is_what_scipy_finds() -> None:
    found = extremes_by_scipy(-1.0, -1.0)
    np.testing.assert_allclose(found, [SMALLEST[0, 0], LARGEST[0, 0]], rtol=1e-4)


def test_the_file_is_the_sum_over_four_batches() -> None:
    raw = _raw(SQUARE)
    np.testing.assert_allclose(raw["max_eig"].reshape(5, 5) / BATCHES, LARGEST, rtol=1e-5)
    off = np.abs(raw["min_eig"].reshape(5, 5) / BATCHES / SMALLEST - 1)
    assert off[2, 2] == pytest.approx(0.0926, abs=1e-4)
    off[2, 2] = 0
    assert off.max() < 0.002


def test_the_largest_eigenvalues_of_the_scripts_are_found_again(land: ls.Landscape) -> None:
    theirs = reference_h5.read_surface(SQUARE, batches=BATCHES).data
    largest = theirs["hessian_max"].values[::2, ::2]
    np.testing.assert_allclose(land.data["hessian_max"], largest, rtol=0.01)
    np.testing.assert_allclose(land.data["hessian_max"], LARGEST[::2, ::2], rtol=0.01)


def test_the_smallest_eigenvalues_are_those_of_a_float64_solve(land: ls.Landscape) -> None:
    np.testing.assert_allclose(land.data["hessian_min"], SMALLEST[::2, ::2], rtol=0.01)


def test_convexity_is_the_ratio_of_the_paper(land: ls.Landscape) -> None:
    theirs = reference_h5.read_surface(SQUARE, batches=BATCHES).data
    expected = np.abs(SMALLEST / LARGEST)[::2, ::2]
    np.testing.assert_allclose(land.data["convexity"], expected, rtol=0.02)
    away = np.ones((3, 3), dtype=bool)
    away[1, 1] = False  # where the scripts' smallest eigenvalue is 9% off
    ours = land.data["convexity"].values[away]
    np.testing.assert_allclose(ours, theirs["convexity"].values[::2, ::2][away], rtol=0.02)
