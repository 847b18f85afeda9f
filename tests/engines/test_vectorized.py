"""Several points in one pass. The witness is the plain pass, point by point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.engines import local, tuning, vectorized
from landscope.engines.job import Job, choose_probes
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.params import Params
from tests.cases import seeded

PLACES = [(0, (0.0, 0.0)), (1, (0.3, -0.2)), (2, (-0.5, 0.1)), (3, (1.0, 1.0)), (4, (0.2, 0.7))]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path / "cache"))


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    model[2].weight = model[0].weight
    return model


def _convolutions() -> nn.Module:
    model = nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip
    model[2].running_mean = torch.linspace(-0.1, 0.1, 4)
    return model.eval()


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    model[0].weight.requires_grad_(False)
    return model


def _squares(params: Params) -> Tensor:
    return torch.stack([t.square().sum() for t in params.values()]).sum() * 0.01


def _objective(make: Any, **options: Any) -> ls.Objective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = make()
    data = torch.randn(50, 6, generator=seeded(0)), torch.randint(3, (50,), generator=seeded(1))
    metrics = {"accuracy": ls.losses.accuracy}
    return ls.Objective(
        model, nn.CrossEntropyLoss(), data, batch_size=16, metrics=metrics, **options
    )


def _evaluate(job: Job, plan: Plan) -> list[dict[str, float]]:
    with Local(plan=plan).open(job) as pool:
        found = {r.point: r.values for results in pool.run(PLACES) for r in results}
    return [found[k] for k, _ in PLACES]


@pytest.mark.parametrize("kind", ["bezier", "polyline"])
@pytest.mark.parametrize("make", [_tied, _convolutions])
def test_points_of_a_curve_in_one_pass_have_the_values_of_the_plain_pass(
    make: Any, kind: Any
) -> None:
    objective = _objective(make)
    center = objective.center
    nodes = [center, *ls.directions.random(center, ignore=None)]
    job = Job(objective, ls.Curve(nodes, kind), points=400)
    places = [(k, (t,)) for k, t in enumerate((0.0, 0.3, 0.5, 0.9, 1.0))]
    with Local(plan=Plan(points=4)).open(job) as pool:
        assert pool.workers[0].vectorized is not None
        found = {r.point: r.values for results in pool.run(places) for r in results}
    with Local(plan=Plan()).open(job) as pool:
        expected = {r.point: r.values for results in pool.run(places) for r in results}
    for k, _ in places:
        assert found[k] == pytest.approx(expected[k], rel=1e-5)


def _job(objective: ls.Objective, *, states: bool = False) -> Job:
    center = objective.states if states else objective.center
    plane = ls.Plane(center, *ls.directions.random(center, ignore=None))
    return Job(objective, plane, points=400, probes=choose_probes(ls.Grid(5).axes(plane.dims)))


@pytest.mark.parametrize("make", [_tied, _convolutions, _frozen])
@pytest.mark.parametrize("workers", [1, 2])
def test_points_in_one_pass_have_the_values_of_single_ones(make: Any, workers: int) -> None:
    job = _job(_objective(make))
    found = _evaluate(job, Plan(workers=workers, threads=1, points=2))
    for one, other in zip(found, _evaluate(job, Plan()), strict=True):
        assert one == pytest.approx(other, rel=3e-6)


def test_test_data_penalty_and_states_go_together_too() -> None:
    test = torch.randn(20, 6, generator=seeded(5)), torch.randint(3, (20,), generator=seeded(6))
    objective = _objective(_convolutions, test_data=test, penalty=_squares)
    job = _job(objective, states=True)
    plain = _evaluate(job, Plan())
    assert set(plain[0]) == {"train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    for one, other in zip(_evaluate(job, Plan(points=3)), plain, strict=True):
        assert one == pytest.approx(other, rel=3e-6)


def test_without_memory_for_several_they_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(vectorized.VectorizedEvaluator, "values", none_left)
    job = _job(_objective(_tied))
    assert _evaluate(job, Plan(points=4)) == _evaluate(job, Plan())


def test_a_model_that_cannot_go_together_is_not_tried_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            found: Tensor = self.layer(inputs)
            return found if float(found.sum()) > 0 else -found

    tried: list[Plan] = []
    open_pool = local._open_pool

    def spy(job: Job, objectives: Any, plan: Plan, data: Any) -> Any:
        tried.append(plan)
        return open_pool(job, objectives, plan, data)

    monkeypatch.setattr(tuning, "MIN_EVALUATIONS", 1000)
    monkeypatch.setattr(local, "_open_pool", spy)
    job = _job(_objective(Deciding))
    with Local().open(job) as pool:
        assert Plan.loads(pool.plan).points == 1
    assert sum(plan.points > 1 for plan in tried) == 1
