"""Laws 13 and 14, of curvature: an eigenvalue is a second difference, a trace the first moment.

The witness of the first is a scan of losses, which knows nothing of second derivatives; of the
second, the trace of a dense Hessian (tests/oracles/dense.py).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import landscope as ls
from landscope import params
from tests import cases
from tests.cases import Case
from tests.oracles import dense

MAKES: tuple[Callable[[], Case], ...] = (*cases.CASES, cases.transformer, cases.lstm)
every_case = pytest.mark.parametrize("make", MAKES, ids=lambda make: str(make.__name__))
STEP = 1e-3


# ------------------------------------------------------------------------------------ law 13


@every_case
def test_along_an_eigenvector_the_surface_bends_by_its_eigenvalue(make: Callable[[], Case]) -> None:
    objective = make().objective(precision="float64")
    hessian = ls.curvature.Hessian(objective)
    pairs = ls.curvature.eigenpairs(hessian, residual_tol=1e-6)
    dx, dy = ls.directions.eigenvectors(hessian, residual_tol=1e-6)
    for found, expected in ((dx, pairs.vectors[0]), (dy, pairs.vectors[1])):
        assert params.norm(found) == pytest.approx(1.0)
        assert abs(params.dot(found, expected)) == pytest.approx(1.0)
    plane = ls.Plane(objective.center, dx, dy)
    loss = ls.scan(objective, plane, ls.Grid(3, (-STEP, STEP))).data["loss"].to_numpy()
    assert loss.dtype == "float64"
    along_x = (loss[1, 2] - 2 * loss[1, 1] + loss[1, 0]) / STEP**2
    along_y = (loss[2, 1] - 2 * loss[1, 1] + loss[0, 1]) / STEP**2
    mixed = (loss[2, 2] - loss[2, 0] - loss[0, 2] + loss[0, 0]) / (4 * STEP**2)
    assert along_x == pytest.approx(float(pairs.value[0]), rel=1e-5)
    assert along_y == pytest.approx(float(pairs.value[1]), rel=1e-5)
    assert abs(mixed) < 1e-5 * abs(along_x)


def test_parameters_that_a_hessian_leaves_out_stand_still_on_its_plane() -> None:
    objective = cases.mlp().objective(precision="float64")
    hessian = ls.curvature.Hessian(objective, select="2.*")
    (dx,) = ls.directions.eigenvectors(hessian, 1, "largest", residual_tol=1e-6)
    assert list(dx) == list(objective.center)
    assert dx["0.weight"].count_nonzero() == 0
    line = ls.Line(objective.center, dx)
    loss = ls.scan(objective, line, ls.Grid(3, (-STEP, STEP))).data["loss"].to_numpy()
    value = float(ls.curvature.eigenpairs(hessian, 1, "largest", residual_tol=1e-6).value[0])
    assert (loss[2] - 2 * loss[1] + loss[0]) / STEP**2 == pytest.approx(value, rel=1e-5)


# ------------------------------------------------------------------------------------ law 14


@every_case
def test_weights_sum_to_one_and_the_first_moment_is_the_trace_over_p(
    make: Callable[[], Case],
) -> None:
    case = make()
    model = dense.clone(case.model)
    inputs = case.inputs.double()
    matrix = dense.hessian(
        lambda: F.cross_entropy(model(inputs), case.targets), dense.leaves(model)
    )
    hessian = ls.curvature.Hessian(case.objective(precision="float64"))
    estimated = ls.curvature.trace(hessian, relative_stderr_tol=0.2)
    assert abs(estimated.value - float(matrix.trace())) < 4 * estimated.stderr
    found = ls.curvature.spectrum(hessian, num_vectors=8, num_steps=16)
    assert float(found.weights.sum()) == pytest.approx(1.0, abs=1e-12)
    values = torch.linalg.eigvalsh(matrix)
    rest = values[values.abs().argsort()][: len(values) - len(found.outliers)]
    share = len(rest) / len(values)
    # The variance of v'Av for v on a sphere of n dimensions is 2 var(eigenvalues) / (n + 2).
    error = share * float((2 * rest.var() / (len(rest) + 2) / 8) ** 0.5)
    assert found.moment(1) == pytest.approx(float(values.mean()), abs=4 * error)
    assert error < abs(float(values.mean()))
