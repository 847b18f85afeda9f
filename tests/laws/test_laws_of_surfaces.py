"""The laws of a right surface (evidence.md), for every case and kind of slice.

Witnesses: the closed form of a quadratic in float64; a plain loop over a deep copy of the model
with all data in one batch; statistics computed from activations with ``mean`` and ``var``. None of
them uses batches, borrowed tensors, terms or the scan.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import landscope as ls
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.errors import CallError
from tests import cases
from tests.cases import Case

every_case = pytest.mark.parametrize("make", cases.CASES, ids=lambda make: str(make.__name__))


@every_case
def test_the_center_cell_equals_the_loss_of_the_model(make: Callable[[], Case]) -> None:
    case = make()
    objective = case.objective()
    land = ls.scan(objective, cases.plane(objective), ls.Grid(3))
    center = float(land.data["loss"].sel(x=0.0, y=0.0))
    assert center == objective.loss()
    assert center == pytest.approx(cases.plain_loss(case, {}), rel=1e-6)
    assert center == pytest.approx(cases.plain_loss(case, {}, double=True), rel=1e-6)


def test_the_surface_of_a_quadratic_equals_its_closed_form() -> None:
    model, rows, right = cases.quadratic()
    objective = ls.Objective(model, nn.MSELoss(), (rows, right), batch_size=4)
    assert objective.center["w"].dtype == torch.float64
    plane = cases.plane(objective)
    land = ls.scan(objective, plane, ls.Grid((5, 4), ((-1, 2), (-3, 1))))
    A, b, w = rows.numpy(), right.numpy(), model.w.detach().numpy()
    for j, y in enumerate(np.linspace(-3, 1, 4)):
        for i, x in enumerate(np.linspace(-1, 2, 5)):
            point = w + x * plane.dx["w"].numpy() + y * plane.dy["w"].numpy()
            H, g = 2 * A.T @ A / len(b), -2 * A.T @ b / len(b)
            expected = point @ H @ point / 2 + g @ point + b @ b / len(b)
            assert float(land.data["loss"][j, i]) == pytest.approx(expected, rel=1e-12)


@every_case
def test_a_scan_equals_the_plain_loop(make: Callable[[], Case]) -> None:
    case = make()
    objective = case.objective()
    plane = cases.plane(objective)
    land = ls.scan(objective, plane, ls.Grid((4, 3), ((-1, 2), (-0.5, 1.5))))
    xs, ys = [-1.0, 0.0, 1.0, 2.0], [-0.5, 0.5, 1.5]
    expected = [
        [
            cases.plain_loss(
                case,
                {n: c + x * plane.dx[n] + y * plane.dy[n] for n, c in plane.center.items()},
                double=True,
            )
            for x in xs
        ]
        for y in ys
    ]
    np.testing.assert_allclose(land.data["loss"].values, expected, rtol=1e-5)


def steps() -> tuple[ls.Objective, list[ls.params.Params]]:
    """A model of three numbers with loss a + 10 b + 100 c, and a direction along each."""

    def readable(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs @ torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64) + 0 * targets

    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.abc = nn.Parameter(torch.zeros(3, dtype=torch.float64))

        def forward(self, rows: Tensor) -> Tensor:
            return self.abc.expand(len(rows), 3)

    objective = ls.Objective(Three(), readable, (torch.zeros(5, 1), torch.zeros(5)))
    along = [ls.params.Params({"abc": row}) for row in torch.eye(3, dtype=torch.float64)]
    return objective, along


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 5), (1, 3), (3, 1), (1, 1)])
def test_rows_and_columns_of_a_plane_lie_where_the_axes_say(shape: tuple[int, int]) -> None:
    objective, (dx, dy, _) = steps()
    land = ls.scan(objective, ls.Plane(objective.center, dx, dy), ls.Grid(shape, ((-1, 2), (3, 5))))
    assert land.data["loss"].dims == ("y", "x")
    np.testing.assert_allclose(land.data["x"], np.linspace(-1, 2, shape[0]), rtol=1e-15)
    np.testing.assert_allclose(land.data["y"], np.linspace(3, 5, shape[1]), rtol=1e-15)
    for j, y in enumerate(np.linspace(3, 5, shape[1])):
        for i, x in enumerate(np.linspace(-1, 2, shape[0])):
            assert float(land.data["loss"][j, i]) == pytest.approx(x + 10 * y, abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_points_of_a_line_lie_where_the_axis_says(count: int) -> None:
    objective, (dx, _, _) = steps()
    land = ls.scan(objective, ls.Line(objective.center, dx), ls.Grid(count, (-0.5, 1)))
    assert land.data["loss"].dims == ("x",)
    np.testing.assert_allclose(land.data["loss"], np.linspace(-0.5, 1, count), atol=1e-15)


def test_the_points_of_a_volume_lie_where_the_axes_say() -> None:
    objective, (dx, dy, dz) = steps()
    volume = ls.Volume(objective.center, dx, dy, dz)
    land = ls.scan(objective, volume, ls.Grid((4, 3, 2), ((0, 1), (2, 3), (4, 5))))
    assert land.data["loss"].dims == ("z", "y", "x")
    assert land.data["loss"].shape == (2, 3, 4)
    for k, z in enumerate([4.0, 5.0]):
        for j, y in enumerate([2.0, 2.5, 3.0]):
            for i, x in enumerate([0.0, 1 / 3, 2 / 3, 1.0]):
                expected = x + 10 * y + 100 * z
                assert float(land.data["loss"][k, j, i]) == pytest.approx(expected, rel=1e-14)


def lived_in(case: Case) -> nn.Module:
    """The model of a case after some use: mixed flags, gradients, an odd thread count."""
    case.model.train()
    next(case.model.children()).eval()
    first = next(p for p in case.model.parameters() if p.requires_grad)
    first.grad = torch.ones_like(first)
    next(iter(case.model.parameters())).requires_grad_(True)
    return case.model


@every_case
@pytest.mark.parametrize("options", [{}, {"buffers": "recompute"}, {"precision": "float64"}])
def test_nothing_of_the_users_is_changed_by_a_scan(
    make: Callable[[], Case], options: dict[str, Any]
) -> None:
    case = make()
    model = lived_in(case)
    before = cases.remembered(model)
    objective = case.objective(**options)
    ls.scan(objective, cases.plane(objective), ls.Grid(2))
    objective.gradient()
    objective.terms()
    assert cases.remembered(model) == before


@every_case
@pytest.mark.parametrize("buffers", ["keep", "recompute"])
@pytest.mark.parametrize("moment", [1, 9, 17])
def test_nothing_of_the_users_is_changed_by_an_exception_in_the_loss(
    make: Callable[[], Case], buffers: Literal["keep", "recompute"], moment: int
) -> None:
    case = make()
    model = lived_in(case)
    calls = [0]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] >= moment:  # and at each later call
            torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002 - disturbs the state
            torch.set_num_threads(1)
            raise KeyError("in the middle")
        return F.cross_entropy(outputs, targets, reduction="none")

    before = cases.remembered(model)
    objective = ls.Objective(model, loss, case.data, batch_size=8, buffers=buffers)
    with pytest.raises((KeyError, CallError), match="in the middle"):
        ls.scan(objective, cases.plane(objective), ls.Grid(3))
    assert cases.remembered(model) == before


@every_case
def test_an_uneven_last_batch_does_not_change_the_loss(make: Callable[[], Case]) -> None:
    case = make()
    exact = cases.plain_loss(case, {}, double=True)
    for size in (1, 3, 7, len(case.inputs)):
        objective = case.objective(batch_size=size, precision="float64")
        assert objective.loss() == pytest.approx(exact, rel=1e-12)
        assert float(objective.terms().mean()) == pytest.approx(exact, rel=1e-12)


def test_batch_norm_statistics_that_are_kept_are_those_of_the_user() -> None:
    case = cases.batch_norm_cnn()
    case.model.train()  # forward passes write statistics: each point must start from the user's
    objective = case.objective(batch_size=19)
    plane = cases.plane(objective)
    land = ls.scan(objective, plane, ls.Grid(3))
    for j, y in enumerate([-1.0, 0.0, 1.0]):
        point = plane.at((1.0, y))
        assert float(land.data["loss"][j, 2]) == pytest.approx(
            cases.plain_loss(case, point, double=True), rel=1e-5
        )
    assert "batch norm" in land.data.attrs["notes"]


def recomputed_loss(case: Case, point: Mapping[str, Tensor]) -> float:
    """Cross-entropy in float64 after the statistics were taken from the activations by hand."""
    model = copy.deepcopy(case.model).double().eval()
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in point.items():
            own[name].copy_(value)
        rows = case.inputs.double()
        for layer in model.children():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                channels = rows.movedim(1, 0).flatten(1)
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.copy_(channels.mean(dim=1))
                layer.running_var.copy_(channels.var(dim=1, correction=1))
            rows = layer(rows)
        return float(F.cross_entropy(rows, case.targets))


@pytest.mark.parametrize("size", [7, 19])
def test_batch_norm_statistics_are_recomputed_from_the_data_at_every_point(size: int) -> None:
    case = cases.batch_norm_cnn()
    objective = case.objective(buffers="recompute", precision="float64", batch_size=size)
    plane = cases.plane(objective)
    land = ls.scan(objective, plane, ls.Grid(3))
    for j, y in enumerate([-1.0, 0.0, 1.0]):
        for i, x in enumerate([-1.0, 0.0, 1.0]):
            expected = recomputed_loss(case, plane.at((x, y)))
            assert float(land.data["loss"][j, i]) == pytest.approx(expected, rel=1e-10)


def test_a_slice_over_states_moves_batch_norm_statistics_itself() -> None:
    case = cases.batch_norm_cnn()
    objective = case.objective()
    goal = copy.deepcopy(case.model)
    with torch.no_grad():
        for tensor in goal.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1.3)
    other = ls.Objective(goal, nn.CrossEntropyLoss(), case.data)
    before = cases.remembered(case.model)
    line = ls.Line(objective.states, ls.directions.between(objective.states, other.states))
    land = ls.scan(objective, line, ls.Grid(3, (0, 1)))
    values = land.data["loss"].values
    assert values[0] == pytest.approx(cases.plain_loss(case, {}), rel=1e-6)
    moved = {n: t for n, t in goal.state_dict().items() if t.is_floating_point()}
    assert values[2] == pytest.approx(cases.plain_loss(case, moved), rel=1e-5)
    assert not np.isnan(values).any()
    assert cases.remembered(case.model) == before


@pytest.mark.parametrize("buffers", ["keep", "recompute"])
@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_gives_no_nan_and_keeps_its_statistics(
    buffers: Literal["keep", "recompute"], track: bool, training: bool
) -> None:
    case = cases.batch_norm_cnn(track=track)
    case.model.train(training)
    before = cases.remembered(case.model)
    objective = case.objective(buffers=buffers)
    land = ls.scan(objective, cases.plane(objective), ls.Grid(3, (-2, 2)))
    assert np.isfinite(land.data["loss"].values).all()
    assert cases.remembered(case.model) == before


def test_frozen_unused_tied_integer_and_zero_tensors_are_handled() -> None:
    case = cases.odd()
    objective = case.objective()
    assert {n.split(".")[0] for n in objective.center} == {"first", "second", "unused", "last"}
    assert "second.weight" not in objective.center  # it is first.weight, once
    for normalize in ("filter", "layer", "weight", "dfilter", "dlayer", None):
        for ignore in ("biasbn", None):
            dx, dy = ls.directions.random(
                objective.center,
                2,
                normalize=normalize,
                ignore=ignore,
                seed=3,
            )
            land = ls.scan(objective, ls.Plane(objective.center, dx, dy), ls.Grid(2))
            assert np.isfinite(land.data["loss"].values).all()
    gradient = objective.gradient()
    assert not gradient["unused.weight"].any()


def test_all_parameters_zero_still_scan() -> None:
    case = cases.mlp()
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.zero_()
    objective = case.objective()
    land = ls.scan(objective, cases.plane(objective), ls.Grid(3))
    np.testing.assert_allclose(land.data["loss"], math.log(cases.CLASSES), rtol=1e-6)


VALUES = [0.0, -2.5, math.nan, math.inf, -math.inf, 5e-324, 1e300, 1 / 3]


def table() -> tuple[ls.Objective, ls.Line]:
    """A line whose loss at x = 0, 1, 2, ... is the x-th of VALUES, and nothing else."""

    class Where(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, rows: Tensor) -> Tensor:
            return self.x.expand(len(rows))

    def look_up(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.tensor(VALUES, dtype=torch.float64)[outputs.detach().round().long()]

    objective = ls.Objective(Where(), look_up, (torch.zeros(1, 1), torch.zeros(1)))
    return objective, ls.Line(objective.center, ls.params.Params({"x": torch.ones(1).double()}))


def assert_same_bits(found: Any, expected: Any) -> None:
    a, b = (np.asarray(v, dtype=np.float64) for v in (found, expected))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".csv"])
def test_odd_losses_survive_journal_resume_and_files(suffix: str, tmp_path: Path) -> None:
    objective, line = table()
    grid = ls.Grid(len(VALUES), (0, len(VALUES) - 1))
    path = tmp_path / "journal.sqlite"
    land = ls.scan(objective, line, grid, journal=path)
    assert_same_bits(land.data["loss"], VALUES)
    with ls.Journal(path) as journal:
        assert_same_bits([v["loss"] for v in journal.values().values()], VALUES)
    resumed = ls.scan(objective, line, grid, journal=path)
    assert_same_bits(resumed.data["loss"], VALUES)
    loaded = ls.load(resumed.save(tmp_path / f"land{suffix}"))
    assert_same_bits(loaded.data["loss"], VALUES)
    assert loaded.data.identical(land.data)


def test_a_nan_in_the_middle_of_a_surface_alters_no_other_cell() -> None:
    case = cases.mlp()
    objective = case.objective()
    dx, dy = (cases.plane(objective).dx, cases.plane(objective).dy)
    huge = ls.params.Params({n: t * 1e38 for n, t in dx.items()})
    land = ls.scan(objective, ls.Plane(objective.center, huge, dy), ls.Grid(3, (-100, 100)))
    column = ls.scan(objective, ls.Line(objective.center, dy), ls.Grid(3, (-100, 100)))
    values = land.data["loss"].values
    assert not np.isfinite(values[:, 0]).any()
    assert_same_bits(values[:, 1], column.data["loss"].values)


@every_case
@pytest.mark.parametrize("buffers", ["keep", "recompute"])
def test_the_same_question_gives_the_same_surface_bit_for_bit(
    make: Callable[[], Case], buffers: Literal["keep", "recompute"]
) -> None:
    lands = []
    for seed in (0, 1):
        torch.manual_seed(seed)  # what the user did before is no part of the question
        objective = make().objective(buffers=buffers)
        lands.append(ls.scan(objective, cases.plane(objective), ls.Grid(3)))
    assert lands[0].data.identical(lands[1].data)
    assert json.loads(lands[0].data.attrs["fingerprints"])["buffer mode"] == buffers
    assert_same_bits(lands[0].data["loss"], lands[1].data["loss"])


# Law 12: parallel equals serial


@every_case
@pytest.mark.parametrize("buffers", ["keep", "recompute"])
def test_several_workers_give_the_surface_of_one_bit_for_bit(
    make: Callable[[], Case], buffers: Literal["keep", "recompute"]
) -> None:
    metrics = {"accuracy": ls.losses.accuracy}
    objective = make().objective(metrics=metrics, buffers=buffers)
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    grid = ls.Grid((5, 3), ((-1, 1), (0, 1)))
    lands = [
        ls.scan(objective, plane, grid, engine=Local(plan=Plan(workers=workers, threads=1)))
        for workers in (1, 3)
    ]
    assert lands[0].data.identical(lands[1].data)
