"""What planes show of a point beside what is there, on surfaces whose every number is known.

The witness is a quadratic 1.5 + mean s (a . theta - b)^2 over given rows a and signs s: its Hessian
is written down from these, and curvatures, eigenvalues and profiles follow by NumPy alone. The
interval of a share is that of SciPy.
"""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

import landscope as ls
from landscope import directions, params
from landscope.analysis.representative_planes import (
    Representativeness,
    measure_plane,
    wilson_interval,
)
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.errors import DeterminismError, LandscopeError, ParamsError
from landscope.params import Params, flatten
from landscope.progress import Progress
from tests import cases

SIZE = 23


class Row(nn.Module):
    """Rows a -> a . (all parameters in a row)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(3, 2)
        with torch.no_grad():
            for k, tensor in enumerate(self.parameters()):
                tensor.copy_(torch.randn(tensor.shape, generator=cases.seeded(k)))

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ flatten(dict(self.named_parameters()))


def signed(model: nn.Module, batch: Any) -> Tensor:
    rows, targets = batch
    found: Tensor = 1.5 + targets[:, 1] * (model(rows) - targets[:, 0]) ** 2
    return found


def objective(*, negative: int = 0, off: float = 0.0, **options: Any) -> ls.Objective:
    """A quadratic around the model's own parameters, or around a place that is off them."""
    model = Row().double()
    rows = torch.randn(40, SIZE, generator=cases.seeded(8), dtype=torch.float64)
    signs = torch.ones(40, dtype=torch.float64)
    signs[:negative] = -1.0
    targets = torch.stack([model(rows).detach() + off, signs], dim=1)
    return ls.Objective(model, ls.losses.custom(signed), (rows, targets), batch_size=16, **options)


def hessian_of(given: ls.Objective) -> np.ndarray:
    rows, targets = given.problem.sources[""]
    found: np.ndarray = (2 / 40 * (rows * targets[:, 1:]).T @ rows).numpy()
    return found


def vector(given: Params) -> np.ndarray:
    return np.concatenate([t.detach().numpy().ravel() for t in given.values()])


def drawn(given: ls.Objective, planes: int, seed: int = 0) -> list[np.ndarray]:
    """Return the directions of each plane, rows [2, p]."""
    found = []
    for k in range(planes):
        pair = directions.random(given.center, 2, seed=seed * 1_000_003 + k)
        found.append(np.stack([vector(d) for d in pair]))
    return found


def beside_the_center(given: ls.Objective) -> Params:
    return Params({n: t + 1.0 for n, t in given.center.items()})


def seen(given: ls.Objective, planes: int = 3, **options: Any) -> Representativeness:
    options = {"resolution": 5, "eigenvalue_tol": 1e-8, **options}
    return ls.representativeness(given, num_planes=planes, **options)


@pytest.mark.parametrize("negative", [0, 9])
def test_curvatures_are_those_of_the_matrix(negative: int) -> None:
    given = objective(negative=negative)
    found, matrix = seen(given, 4), hessian_of(given)
    values, vectors = np.linalg.eigh(matrix)
    pairs = drawn(given, 4)
    units = [d / np.linalg.norm(d) for pair in pairs for d in pair]
    np.testing.assert_allclose(found.curvatures, [u @ matrix @ u for u in units], rtol=1e-10)
    for pair, smallest in zip(pairs, found.plane_smallest, strict=True):
        basis = np.linalg.qr(pair.T)[0]
        plane = np.linalg.eigvalsh(basis.T @ matrix @ basis)
        assert smallest == pytest.approx(plane[0], rel=1e-10)
    assert found.extremes.smallest == pytest.approx(values[0], rel=1e-7)
    assert found.extremes.largest == pytest.approx(values[-1], rel=1e-7)
    rows = [vector(v) for v in found.extremes.vectors]
    assert abs(rows[0] @ vectors[:, 0]) == pytest.approx(1, abs=1e-6)
    assert abs(rows[1] @ vectors[:, -1]) == pytest.approx(1, abs=1e-6)
    assert found.unit == pytest.approx(np.mean([np.linalg.norm(d) for p in pairs for d in p]))
    assert found.loss == pytest.approx(1.5)
    assert found.size == SIZE


def test_the_least_curvature_of_a_plane_does_not_depend_on_the_directions_that_span_it() -> None:
    given = objective(negative=9)
    dx, dy = directions.random(given.center, 2)
    skew = Params({n: 3 * dx[n] + 0.5 * dy[n] for n in dx})
    hessian = ls.curvature.Hessian(given)
    _, smallest = measure_plane(hessian, dx, dy)
    assert measure_plane(hessian, dx, skew)[1] == pytest.approx(smallest, rel=1e-9)


def test_profiles_are_losses_at_equal_distances() -> None:
    given = objective(negative=9, off=0.3)
    start = beside_the_center(given)
    found = seen(given, 2, initialization=start, radius=0.8)
    np.testing.assert_allclose(found.distances, [-0.8, -0.4, 0, 0.4, 0.8])
    center = vector(given.center)
    pairs = drawn(given, 2)
    low, high = (vector(v) for v in found.extremes.vectors)
    toward = center - vector(start)
    ways = [d for pair in pairs for d in pair]  # as they are, in their own lengths
    ways += [found.unit * w / np.linalg.norm(w) for w in (high, low, toward)]
    assert found.initialization is not None
    profiles = [*found.random, found.sharpest, found.steepest, found.initialization]
    for way, profile in zip(ways, profiles, strict=True):
        points = [torch.tensor(center + t * way) for t in found.distances]
        expected = [given.loss(params.unflatten(point, given.center)) for point in points]
        np.testing.assert_allclose(profile, expected, rtol=1e-10)
    assert found.initialization_at == pytest.approx(-np.linalg.norm(toward) / found.unit)
    back = given.loss(
        params.unflatten(torch.tensor(center + found.initialization_at * ways[-1]), given.center)
    )
    assert back == pytest.approx(given.loss(start)), "negative distances lead back to it"


def test_random_profiles_go_as_far_as_the_others() -> None:
    """One axis for all: the random directions have one mean length, which is the unit."""
    given = objective()
    lengths = [np.linalg.norm(d) for pair in drawn(given, 3) for d in pair]
    np.testing.assert_allclose(lengths, seen(given).unit, rtol=1e-6)


def test_without_an_initialization_there_is_no_way_from_it() -> None:
    found = seen(objective(), 2)
    assert found.initialization is None
    assert found.initialization_at is None
    assert found.numbers["initialization_distance"] is None


def test_a_point_that_is_given_takes_the_place_of_the_center() -> None:
    given = objective()
    point = beside_the_center(given)
    found = seen(given, 2, params=point)
    assert found.loss == pytest.approx(given.loss(point))
    np.testing.assert_allclose(found.random[:, 2], found.loss, rtol=1e-12)
    assert found.unit != seen(given, 2).unit, "filters are measured at that point"


def test_the_numbers_are_those_of_the_fields() -> None:
    found = seen(objective(negative=9), 4)
    n = found.numbers
    planes = int((found.plane_smallest < 0).sum())
    assert 0 < planes <= 4
    assert (n["planes"], n["planes_with_negative_curvature"]) == (4, planes)
    interval = binomtest(planes, 4).proportion_ci(method="wilson")
    assert (n["share_low"], n["share_high"]) == pytest.approx(tuple(interval), abs=1e-6)
    assert n["curvature_random_mean"] == pytest.approx(found.curvatures.mean())
    stderr = found.curvatures.std(ddof=1) / math.sqrt(8)
    assert n["curvature_random_stderr"] == pytest.approx(stderr)
    edges = found.random[:, [0, -1]]
    assert n["edge_loss_mean"] == pytest.approx(edges.mean())
    assert (n["edge_loss_least"], n["edge_loss_most"]) == (edges.min(), edges.max())
    assert n["edge_loss_sharpest"] == found.sharpest[[0, -1]].max()
    assert n["edge_loss_steepest"] == found.steepest[[0, -1]].min()
    bends = (found.curvatures < 0).mean()  # a profile of a quadratic bends everywhere alike
    assert n["nonconvex_random"] == pytest.approx(bends)
    assert n["lower_than_center_random"] == pytest.approx(bends * 4 / 5)
    assert (n["negative_curvature"], n["parameters"]) == (True, SIZE)


@pytest.mark.parametrize(
    ("count", "total"), [(0, 10), (1, 10), (5, 10), (10, 10), (0, 2), (3, 1000)]
)
def test_the_interval_of_a_share_is_wilsons(count: int, total: int) -> None:
    low, high = wilson_interval(count, total)
    expected = binomtest(count, total).proportion_ci(method="wilson")
    assert low == pytest.approx(expected.low, abs=1e-7)
    assert high == pytest.approx(expected.high, abs=1e-7)


def test_rounding_at_the_center_makes_no_lower_point() -> None:
    """A profile is made with other batches than the loss: at the center they may differ a bit."""
    case = cases.mlp(rows=200)
    start = case.objective().center
    given = case.objective(penalty=lambda p: 1e3 * _distance(p, start))
    engine = Local(plan=Plan(threads=1, rows=3))
    found = ls.representativeness(given, num_planes=3, resolution=3, engine=engine)
    assert np.abs(found.random[:, 1] / found.loss - 1).max() < 1e-6
    shifted = Representativeness(**{**vars(found), "loss": float(found.random[0, 1]) * (1 + 1e-7)})
    for one in (found, shifted):
        assert one.numbers["lower_than_center_random"] == 0


def _distance(point: Params, center: Params) -> Tensor:
    return torch.stack([(t - center[n]).square().sum() for n, t in point.items()]).sum()


def test_float32_does_not_call_a_convex_loss_that_fits_a_saddle() -> None:
    """The cross-entropy of a linear model is convex; at 1e-6 its curvature is mostly rounding."""
    for seed in range(4):
        torch.manual_seed(seed)
        targets = torch.randint(3, (30,))
        inputs = torch.randn(30, 6) + 6 * torch.randn(3, 6)[targets]
        model = nn.Linear(6, 3)
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        given = ls.Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
        result = ls.representativeness(given, num_planes=2, resolution=3)
        assert result.is_saddle_like is False
        assert result.numbers["planes_with_negative_curvature"] == 0
        double = ls.Objective(model, nn.CrossEntropyLoss(), (inputs, targets), precision="float64")
        right = ls.curvature.extremes(ls.curvature.Hessian(double))
        for k in range(2):
            error = float(result.extremes.residual[k] + right.residual[k]) + 1e-12 * right.largest
            assert abs(float(result.extremes.value[k] - right.value[k])) <= error


def test_a_surface_that_is_no_number_at_the_edge_has_numbers() -> None:
    model = Row().double()
    rows, targets = objective().problem.sources[""]

    def walled(model: nn.Module, batch: Any) -> Tensor:
        far = (model(batch[0]) - batch[1][:, 0]).abs().max() > 1e-3
        return signed(model, batch) + (math.nan if far else 0.0)

    given = ls.Objective(model, ls.losses.custom(walled), (rows, targets))
    found = ls.representativeness(given, num_planes=2, resolution=3)
    assert np.isnan(found.random[:, [0, -1]]).all()
    assert math.isnan(found.numbers["edge_loss_mean"])


# --- running it ---------------------------------------------------------------------------------


def test_the_same_call_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def stop(now: Progress) -> None:
        assert now.total == 2 * 3 + 2
        if now.done == 4:
            raise EnoughError

    reports: list[Progress] = []
    with pytest.raises(EnoughError):
        seen(objective(), journal=tmp_path / "deep" / "f", progress=stop)
    files = sorted(path.name for path in (tmp_path / "deep" / "f").glob("*.sqlite"))
    assert files == [f"profile_{k}.sqlite" for k in range(4)]
    whole = seen(objective())
    with sqlite3.connect(tmp_path / "deep" / "f" / "profile_3.sqlite") as journal:
        journal.execute("UPDATE value SET value = 123 WHERE point = 1")  # as if it were so
    journal.close()
    whole.random[3, 1] = 123
    again = seen(objective(), journal=tmp_path / "deep" / "f", progress=reports.append)
    assert [(now.done, now.total) for now in reports] == [(k, 8) for k in range(9)]
    np.testing.assert_array_equal(again.random, whole.random)
    assert again.numbers == whole.numbers, "all are as if never stopped"


def test_a_folder_of_another_question_is_refused(tmp_path: Path) -> None:
    seen(objective(), 2, journal=tmp_path)
    with pytest.raises(LandscopeError, match="another"):
        seen(objective(), 2, journal=tmp_path, radius=0.5)


def test_other_seeds_see_other_planes() -> None:
    one, two = (seen(objective(), 2, seed=s) for s in (0, 1))
    assert not np.isclose(one.curvatures[:, None], two.curvatures[None]).any()
    assert len(np.unique(one.curvatures.round(9))) == 4


def test_the_model_is_given_back_as_it_was() -> None:
    case = cases.batch_norm_cnn()
    before = cases.remembered(case.model)
    ls.representativeness(case.objective(), num_planes=2, resolution=3, eigenvalue_tol=0.1)
    assert cases.remembered(case.model) == before


@pytest.mark.parametrize("planes", [0, 1])
def test_one_plane_is_no_sample(planes: int) -> None:
    with pytest.raises(ParamsError, match=f"num_planes={planes}; expected 2 or more"):
        ls.representativeness(objective(), num_planes=planes)


def test_points_of_another_network_are_refused() -> None:
    given = objective()
    for name in ("params", "initialization"):
        with pytest.raises(ParamsError, match=f"{name} has 'other'"):
            seen(given, 2, **{name: {**given.center, "other": torch.ones(2, 2)}})
        short = {n: t for n, t in given.center.items() if n != "second.weight"}
        with pytest.raises(ParamsError, match=r"lacks 'second\.weight'"):
            seen(given, 2, **{name: short})


def test_an_initialization_at_the_point_itself_is_a_sentence() -> None:
    given = objective()
    with pytest.raises(ParamsError, match=r"initialization is the point itself"):
        seen(given, 2, initialization=given.center)


def test_a_network_without_filters_is_a_sentence() -> None:
    """Random directions hold vectors still: here they would be nothing."""
    model, rows, right = cases.quadratic()
    with pytest.raises(ParamsError, match=r"random directions .* zero"):
        ls.representativeness(ls.Objective(model, nn.MSELoss(), (rows, right)), num_planes=2)


def test_a_loss_that_is_random_is_a_sentence_before_anything_is_computed() -> None:
    def tell(_: Progress) -> None:
        raise AssertionError("a profile was begun")

    with pytest.raises(DeterminismError, match="dropout"):
        ls.representativeness(cases.dropout().objective(), num_planes=2, progress=tell)


def test_parameters_that_hold_nan_are_a_sentence() -> None:
    case = cases.mlp()
    with torch.no_grad():
        next(case.model.parameters())[0, 0] = float("nan")
    with pytest.raises(ParamsError, match="hold NaN or infinity"):
        ls.representativeness(case.objective(), num_planes=2, resolution=5)
