"""Messages between driver and workers: results come before failures, errors keep their types."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from landscope.engines.job import Point, Result
from landscope.engines.plan import Plan
from landscope.engines.remote_job import Failure, RemoteJob, collect_results
from landscope.engines.scheduling import Scheduler
from landscope.engines.serialization import Payload
from landscope.errors import EngineError, ObjectiveError
from tests.engines import distant

REMOTE = RemoteJob(Payload("file.safetensors", "00", 1), threads=3)
POINTS: list[Point] = [(k, (float(k),)) for k in range(2)]


def test_the_results_of_several_answers_come_together_and_then_the_first_failure() -> None:
    scheduler = Scheduler(POINTS, 1, size=1)
    first, second = scheduler.next_chunk(), scheduler.next_chunk()
    failure = Failure("ZeroDivisionError", "too far out", (1.0,), "traceback")
    answers: Any = [(second, ([], failure)), (first, ([(0, {"loss": 2.0}, 0.5, None)], None))]
    results = collect_results(scheduler, answers)
    assert next(results) == [Result(0, {"loss": 2.0}, 0.5)]
    with pytest.raises(EngineError, match=r"at the point \(1\.0,\), failed with ZeroDivision"):
        next(results)
    assert scheduler.next_chunk() == ()
    assert scheduler.finished


def test_per_sample_losses_become_tensors() -> None:
    scheduler = Scheduler(POINTS[:1], 1)
    row = (0, {"loss": 2.0}, 0.5, np.array([[1.0, 3.0], [1.0, 1.0]]))
    ((result,),) = collect_results(scheduler, [(scheduler.next_chunk(), ([row], None))])
    assert torch.equal(result.per_sample, torch.tensor(row[3]))
    assert result.per_sample.dtype is torch.float64


def test_an_answer_that_is_a_failure_has_no_results() -> None:
    scheduler = Scheduler(POINTS, 1)
    answers = [(scheduler.next_chunk(), Failure("KeyError", "'a'", None, "traceback"))]
    with pytest.raises(EngineError, match=r"^a worker failed with KeyError: 'a'\.") as caught:
        list(collect_results(scheduler, answers))
    assert caught.value.__notes__ == ["In the worker:\ntraceback"]


def test_an_error_of_landscope_keeps_its_type_and_text() -> None:
    with pytest.raises(ObjectiveError) as caught:
        Failure("ObjectiveError", "expected a number", (0.0,), "traceback").throw()
    assert str(caught.value) == "expected a number"


def test_the_plan_of_the_user_comes_before_that_of_the_journal() -> None:
    job = replace(distant.job(), plan=Plan(workers=4, rows=7).dumps())
    assert REMOTE.with_plan_of(distant.job(), None) == REMOTE
    of_journal = REMOTE.with_plan_of(job, None)
    assert Plan.loads(of_journal.plan) == Plan(workers=1, threads=3, rows=7)
    of_user = REMOTE.with_plan_of(job, Plan(workers=2, threads=1, rows=5))
    assert Plan.loads(of_user.plan) == Plan(workers=1, threads=1, rows=5)
    assert of_user.threads == 1
