"""Jobs for workers in other processes, which import this module or receive it by value."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import landscope as ls
from landscope.engines.job import Engine, Job, Point, Result, WorkerPool
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.engines.serialization import Payload
from landscope.params import Params
from tests import cases

POINTS: list[Point] = [(k, (0.1 * (k % 7) - 0.3, 0.05 * (k // 7))) for k in range(42)]
SERIAL = Local(plan=Plan(workers=1, threads=1))


def job() -> Job:
    objective = cases.batch_norm_cnn().objective(metrics={"accuracy": ls.losses.accuracy})
    return Job(objective, cases.plane(objective), (steepness,), points=len(POINTS))


def steepness(objective: ls.Objective, params: Params) -> dict[str, float]:
    gradient = objective.gradient(params)
    return {"steepness": float(torch.cat([g.reshape(-1) for g in gradient.values()]).norm())}


def evaluate(
    engine: Engine, job: Job, points: Sequence[Point] = POINTS, *, per_sample: bool = False
) -> dict[int, Result]:
    with engine.open(job) as pool:
        return {r.point: r for rs in pool.run(points, per_sample=per_sample) for r in rs}


def note_points(pool: WorkerPool, points: Sequence[Point], known: list[int]) -> None:
    """Run points and append the indices of the results to a list, until an error ends the run."""
    for results in pool.run(points):
        known += [result.point for result in results]


def check_equal(results: dict[int, Result], expected: dict[int, Result]) -> None:
    """Assert that two runs gave the same values bit for bit."""
    assert sorted(results) == sorted(expected)
    for index, result in results.items():
        assert result.values == expected[index].values
        if result.per_sample is not None or expected[index].per_sample is not None:
            assert torch.equal(result.per_sample, expected[index].per_sample)


class Slow:
    """A squared error that takes some time, and notes the process that computes it."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        (self.folder / str(os.getpid())).touch()
        time.sleep(self.seconds)
        return (outputs[:, 0] - targets).square()


class Fragile:
    """A squared error that fails, or kills its process, where the outputs are large."""

    def __init__(self, limit: float, *, deadly: bool = False) -> None:
        self.limit, self.deadly = limit, deadly

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if float(outputs.abs().max()) > self.limit:
            if self.deadly:
                os._exit(1)
            raise ZeroDivisionError("too far out")
        return (outputs[:, 0] - targets).square()


class DyingWorker:
    """An actor that dies before it can begin."""

    def receive(self, payload: Payload) -> None:
        os._exit(1)


class FailingWorker:
    """An actor that raises an error before it can begin."""

    def receive(self, payload: Payload) -> None:
        raise ZeroDivisionError("odd")


def line_job(loss: object) -> Job:
    """The line on which the outputs of a model are x times those at 1."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)
    objective = ls.Objective(model, loss, (torch.eye(2), torch.zeros(2)))
    start, step = Params({"weight": torch.zeros(1, 2)}), Params({"weight": torch.ones(1, 2)})
    return Job(objective, ls.Line(start, step))


def along(count: int) -> list[Point]:
    return [(k, (float(k),)) for k in range(count)]
