"""The map of extreme eigenvalues over a slice, beside dense eigenvalues at each point.

The witness is a dense float64 Hessian by double backward through a deep copy of the model, over all
data in one batch: it knows nothing of products, Krylov spaces, batches or chains.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import landscope as ls
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.errors import NumericsError, ObjectiveError, ParamsError
from landscope.params import Params
from landscope.progress import Progress
from tests import cases

COLUMNS = {
    "loss", "hessian_min", "hessian_max", "convexity", "hessian_products", "hessian_rounding",
    "hessian_symmetry",
}  # fmt: skip
GRID = ls.Grid((5, 4), ((-1, 1), (-0.7, 0.8)))


def trained(*, steps: int = 60) -> cases.Case:
    """The small network near a minimum, in float64."""
    case = cases.mlp()
    model, inputs = case.model.double(), case.inputs.double()
    descent = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for _ in range(steps):
        descent.zero_grad()
        F.cross_entropy(model(inputs), case.targets).backward()
        descent.step()
    model.zero_grad(set_to_none=True)
    return cases.Case("trained", model, inputs, case.targets)


def dense(case: cases.Case, params: Params, *, wide: bool = False) -> np.ndarray:
    """Return the eigenvalues of the Hessian at a point, rising."""
    model = copy.deepcopy(case.model).double()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(params[name])
    leaves = [t for t in model.parameters() if t.ndim > 1 or not wide]
    loss = F.cross_entropy(model(case.inputs.double()), case.targets)
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves, create_graph=True)])
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(s, leaves, retain_graph=True)])
        for s in slope
    ]
    found: np.ndarray = np.linalg.eigvalsh(torch.stack(rows).numpy())
    return found


def mapped(
    case: cases.Case, grid: ls.Grid = GRID, *, quantity: Any = None, **options: Any
) -> tuple[ls.Landscape, ls.Plane]:
    objective = case.objective()
    plane = cases.plane(objective)
    chosen = ls.curvature.hessian_extremes() if quantity is None else quantity
    return ls.scan(objective, plane, grid, quantities=(chosen,), **options), plane


def ends(case: cases.Case, plane: ls.Plane, land: ls.Landscape, **options: Any) -> np.ndarray:
    """Return the smallest and the largest eigenvalue at every point, shape [2, y, x]."""
    values = [
        [dense(case, plane.at((float(x), float(y))), **options)[[0, -1]] for x in land.data["x"]]
        for y in land.data["y"]
    ]
    found: np.ndarray = np.moveaxis(np.array(values), -1, 0)
    return found


def assert_within(land: ls.Landscape, expected: np.ndarray, tolerance: float) -> None:
    """Each value is off by a share of its size, or of a thousandth of the largest."""
    scale = np.abs(expected).max(axis=0)
    for name, true in zip(("hessian_min", "hessian_max"), expected, strict=True):
        off = np.abs(land.data[name].values - true)
        assert np.all(off <= tolerance * np.maximum(np.abs(true), 1e-3 * scale)), name


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
@pytest.mark.parametrize("steps", [0, 60])
def test_the_map_is_that_of_dense_eigenvalues_to_its_tolerance(
    steps: int, tolerance: float
) -> None:
    case = trained(steps=steps)
    quantity = ls.curvature.hessian_extremes(eigenvalue_tol=tolerance)
    land, plane = mapped(case, quantity=quantity)
    assert set(land.data) == COLUMNS
    expected = ends(case, plane, land)
    assert np.ptp(expected[0]) > 0.1 * np.abs(expected[0]).max(), "it differs from place to place"
    assert_within(land, expected, 1.5 * tolerance)  # two may lie that near to each other


def test_convexity_is_the_size_of_the_ratio_and_products_are_counted() -> None:
    land, _ = mapped(trained())
    ratio = np.abs(land.data["hessian_min"] / land.data["hessian_max"])
    np.testing.assert_allclose(land.data["convexity"], ratio, rtol=1e-12)
    products = land.data["hessian_products"].values
    assert np.all(products == np.round(products))
    assert np.all((products >= 3) & (products <= 67))


def test_the_parameters_of_more_than_one_dimension_are_chosen_by_words() -> None:
    case = trained(steps=20)
    quantity = ls.curvature.hessian_extremes(select="dimension > 1", eigenvalue_tol=1e-4)
    land, plane = mapped(case, ls.Grid(3), quantity=quantity)
    expected = ends(case, plane, land, wide=True)
    assert_within(land, expected, 1e-4)
    assert np.abs(expected - ends(case, plane, land)).max() > 0.01, "biases make a difference"


def test_the_map_of_a_quadratic_is_constant() -> None:
    model, rows, right = cases.quadratic()
    objective = ls.Objective(model, nn.MSELoss(), (rows, right), batch_size=4)
    steps = [Params({"w": torch.randn(5, generator=cases.seeded(k)).double()}) for k in (1, 2)]
    land = ls.scan(
        objective, ls.Plane(objective.center, *steps), ls.Grid(4),
        quantities=(ls.curvature.hessian_extremes(eigenvalue_tol=1e-6),),
    )  # fmt: skip
    true = np.linalg.eigvalsh((2 / 11 * rows.T @ rows).numpy())
    np.testing.assert_allclose(land.data["hessian_min"], true[0], rtol=1e-6)
    np.testing.assert_allclose(land.data["hessian_max"], true[-1], rtol=1e-6)


class Crossing(nn.Module):
    """Curvatures 2 + t, 2 - t, -t and t along four axes: the ends change places at t = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(12, dtype=torch.float64))
        self.t = nn.Parameter(torch.zeros(1, dtype=torch.float64), requires_grad=True)

    def forward(self, rows: Tensor) -> Tensor:
        t = self.t
        still = torch.full_like(self.w[4:], 0.1)
        curves = torch.cat([2 + t, 2 - t, -t, t, still])
        return (0.5 * curves * self.w**2).sum() + 0.0 * rows[:, 0]


def test_ends_that_change_places_between_neighbors_are_found() -> None:
    """An eigenvector of the neighbor is exactly one here, but no longer of an end."""
    model = Crossing()
    objective = ls.Objective(
        model, ls.losses.custom(lambda m, batch: m(batch[0])), (torch.ones(4, 1), torch.ones(4))
    )
    along = Params({"w": torch.zeros(12).double(), "t": torch.ones(1).double()})
    grid = ls.Grid(9, (-0.8, 0.8))
    quantity = ls.curvature.hessian_extremes()
    land = ls.scan(objective, ls.Line(objective.center, along), grid, quantities=(quantity,))
    t = np.abs(land.data["x"].values)
    np.testing.assert_allclose(land.data["hessian_max"], 2 + t, rtol=0.01)
    np.testing.assert_allclose(land.data["hessian_min"], -t, rtol=0.01, atol=2e-5)


class Cliff(nn.Module):
    """A quadratic that is not a number, or infinite, beyond a place."""

    def __init__(self, beyond: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(6, dtype=torch.float64))
        self.beyond = beyond

    def forward(self, rows: Tensor) -> Tensor:
        lost = torch.where(self.w[0] > 0.4, self.beyond, 1.0)
        return lost * (rows @ self.w) ** 2


@pytest.mark.parametrize("beyond", [float("nan"), float("inf")])
def test_where_the_loss_is_no_number_there_is_a_hole_and_the_scan_goes_on(beyond: float) -> None:
    rows = torch.randn(9, 6, generator=cases.seeded(1), dtype=torch.float64)
    objective = ls.Objective(
        Cliff(beyond), ls.losses.custom(lambda m, batch: m(batch[0])), (rows, torch.ones(9))
    )
    ahead = Params({"w": torch.eye(6, dtype=torch.float64)[0] + 0.1})
    line = ls.Line(objective.center, ahead)
    grid, quantity = ls.Grid(9), ls.curvature.hessian_extremes(eigenvalue_tol=1e-6)
    land = ls.scan(objective, line, grid, quantities=(quantity,))
    hole = land.data["x"].values > 0.4 / 1.1
    assert 0 < hole.sum() < 9
    true = np.linalg.eigvalsh((2 / 9 * rows.T @ rows).numpy())
    for name, value in (("hessian_min", true[0]), ("hessian_max", true[-1])):
        np.testing.assert_array_equal(np.isnan(land.data[name]), hole)
        np.testing.assert_allclose(land.data[name][~hole], value, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(land.data["convexity"]), hole)
    with pytest.raises(NumericsError, match="not finite"):
        ls.curvature.extremes(ls.curvature.Hessian(objective, line.at((1.0,))))


def test_a_hole_in_the_middle_does_not_spoil_the_points_that_follow_it() -> None:
    rows = torch.randn(9, 6, generator=cases.seeded(1), dtype=torch.float64)
    objective = ls.Objective(
        Cliff(float("inf")), ls.losses.custom(lambda m, batch: m(batch[0])), (rows, torch.ones(9))
    )
    back = Params({"w": -torch.eye(6, dtype=torch.float64)[0]})
    start = Params({"w": torch.full((6,), 0.5, dtype=torch.float64)})
    quantity = ls.curvature.hessian_extremes()
    land = ls.scan(objective, ls.Line(start, back), ls.Grid(5), quantities=(quantity,))
    np.testing.assert_array_equal(np.isnan(land.data["hessian_max"]), [1, 1, 1, 0, 0])


def test_neighbors_make_it_cheaper() -> None:
    case = trained()
    quantity = ls.curvature.hessian_extremes()
    land, plane = mapped(case, ls.Grid(9, (-0.5, 0.5)), quantity=quantity)
    objective = case.objective()
    cold = [
        quantity(objective, plane.at((float(x), float(y))))["hessian_products"]
        for y in land.data["y"]
        for x in land.data["x"]
    ]
    assert float(land.data["hessian_products"].sum()) < sum(cold)


def test_a_journal_goes_on_to_the_same_map(tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def tell(now: Progress) -> None:
        if now.done == 7:
            raise EnoughError

    engine = Local(plan=Plan(threads=1))
    whole, _ = mapped(cases.mlp(), engine=engine)
    with pytest.raises(EnoughError):
        mapped(cases.mlp(), engine=engine, journal=tmp_path / "j", progress=tell)
    again, _ = mapped(cases.mlp(), engine=engine, journal=tmp_path / "j")
    for name in COLUMNS:
        assert again.data[name].values.tobytes() == whole.data[name].values.tobytes()


def test_a_calibrated_subset_is_a_sentence() -> None:
    with pytest.raises(ObjectiveError, match=r"samples=.*hessian_extremes\(samples="):
        mapped(cases.mlp(rows=400), samples=ls.Calibrated(50, 4))


def test_samples_of_its_own_give_the_map_over_these() -> None:
    case = trained(steps=0)
    quantity = ls.curvature.hessian_extremes(samples=10, seed=3, eigenvalue_tol=1e-6)
    land, plane = mapped(case, ls.Grid(2), quantity=quantity)
    drawn = torch.randperm(23, generator=cases.seeded(3))[:10].sort().values
    part = cases.Case("part", case.model, case.inputs[drawn], case.targets[drawn])
    assert_within(land, ends(part, plane, land), 1e-6)


def test_nothing_of_the_users_is_touched() -> None:
    case = cases.mlp()
    before = cases.remembered(case.model)
    mapped(case, ls.Grid(2))
    assert cases.remembered(case.model) == before


@pytest.mark.parametrize("name", ["GaussNewton", "Fisher"])
def test_a_map_may_be_of_another_matrix(name: str) -> None:
    """Witness: the dense matrix of the operator's own products at a point."""
    case, matrix = trained(steps=5), getattr(ls.curvature, name)
    quantity = ls.curvature.hessian_extremes(matrix=matrix, eigenvalue_tol=1e-6)
    land, plane = mapped(case, ls.Grid(2), quantity=quantity)
    operator = matrix(case.objective(), plane.at((-1.0, 1.0)))
    values = torch.linalg.eigvalsh(operator @ torch.eye(operator.shape[0], dtype=operator.dtype))
    largest = float(land.data["hessian_max"].sel(x=-1.0, y=1.0))
    assert largest == pytest.approx(float(values[-1]), rel=1e-5)


@pytest.mark.parametrize("matrix", ["ggn", ls.curvature.CurvatureOperator])
def test_a_map_of_no_known_matrix_is_refused(matrix: Any) -> None:
    with pytest.raises(ParamsError, match=r"matrix=.*; expected Hessian, GaussNewton or Fisher"):
        ls.curvature.hessian_extremes(matrix=matrix)
