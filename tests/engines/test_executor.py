"""The executor engine: its values are those of the local engine in this process, to the bit."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import landscope as ls
from landscope.engines import remote_worker
from landscope.engines.executor import Executor
from landscope.engines.job import Point
from landscope.engines.plan import Plan
from landscope.engines.remote_job import Failure, RemoteJob
from landscope.engines.serialization import pack
from landscope.errors import CallError, EngineError, ObjectiveError
from landscope.objective.torch_losses import as_loss
from tests import cases
from tests.engines import distant

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two processes that import everything anew."""
    with ProcessPoolExecutor(2, SPAWN) as pool:
        yield pool


def test_values_equal_serial_ones_to_the_bit(pool: ProcessPoolExecutor) -> None:
    serial = distant.evaluate(distant.SERIAL, distant.job())
    assert set(serial[0].values) == {"loss", "accuracy", "steepness"}
    distant.check_equal(distant.evaluate(Executor(pool), distant.job()), serial)


def test_one_worker_gives_what_two_give(pool: ProcessPoolExecutor) -> None:
    one = distant.evaluate(Executor(pool, workers=1, threads=1, chunk=5), distant.job())
    distant.check_equal(distant.evaluate(Executor(pool, workers=2, threads=1), distant.job()), one)


def test_single_terms_come_back(pool: ProcessPoolExecutor) -> None:
    points = distant.POINTS[:9]
    serial = distant.evaluate(distant.SERIAL, distant.job(), points, per_sample=True)
    assert serial[0].per_sample.shape == (2, 19)
    again = distant.evaluate(Executor(pool), distant.job(), points, per_sample=True)
    distant.check_equal(again, serial)


def test_a_whole_scan_is_the_same_with_workers(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    def scan(name: str, **options: object) -> ls.Landscape:
        objective = cases.mlp().objective()
        grid, path = ls.Grid(7), tmp_path / name
        return ls.scan(objective, cases.plane(objective), grid, journal=path, **options)  # type: ignore[arg-type]

    serial = scan("a", engine=distant.SERIAL)
    many = scan("b", engine=Executor(pool))
    assert many.data["loss"].values.tobytes() == serial.data["loss"].values.tobytes()
    with ls.Journal(tmp_path / "a") as a, ls.Journal(tmp_path / "b") as b:
        assert a.values() == b.values()
        assert Plan.loads(b.settings()["plan"]) == Plan(workers=1, threads=1)


def test_a_plan_that_is_given_or_kept_is_followed(pool: ProcessPoolExecutor) -> None:
    plan = Plan(workers=2, threads=1, rows=5, forward="fused")
    expected = Plan(workers=1, threads=1, rows=5, forward="fused")
    remembered = replace(distant.job(), plan=plan.dumps())
    for engine, job in (Executor(pool, plan=plan), distant.job()), (Executor(pool), remembered):
        distant.evaluate(engine, job)
        with engine.open(job) as worker_pool:
            assert Plan.loads(worker_pool.plan) == expected


def test_points_are_taken_as_they_are_needed(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    asked: list[int] = []

    def points() -> Iterator[Point]:
        for point in distant.along(1000):
            asked.append(point[0])
            yield point

    job = distant.line_job(distant.Slow(tmp_path, 0.05))
    with Executor(pool).open(job) as worker_pool:
        run = worker_pool.run(points())
        first = next(run)
        run.close()
        assert first
        assert len(asked) <= 2 * 2
        later = {r.point for results in worker_pool.run(distant.along(3)) for r in results}
    assert later == {0, 1, 2}, "a run that was given up leaves nothing behind"


def test_a_loss_that_fails_in_a_worker_is_a_sentence_with_the_point(
    pool: ProcessPoolExecutor,
) -> None:
    job = distant.line_job(distant.Fragile(4.5))
    known: list[int] = []
    with Executor(pool, chunk=6).open(job) as worker_pool:
        with pytest.raises(CallError, match=r"too far out.* at the point \(5\.0,\)") as got:
            distant.note_points(worker_pool, distant.along(6), known)
        assert sorted(known) == [0, 1, 2, 3, 4], "what was found before is given"
    assert "distant.py" in got.value.__notes__[0]


def test_an_error_of_landscope_stays_what_it_is(pool: ProcessPoolExecutor) -> None:
    job = distant.line_job(distant.Fragile(-1.0))
    problem = replace(job.objective.problem, loss=as_loss(_text))
    job = replace(job, objective=ls.Objective.of(problem))
    with (
        Executor(pool).open(job) as worker_pool,
        pytest.raises(ObjectiveError, match=r"returned a str; expected a number"),
    ):
        list(worker_pool.run(distant.along(1)))


def _text(outputs: object, targets: object) -> str:
    return f"{outputs}{targets}"


def test_a_worker_that_dies_breaks_the_pool_and_is_a_sentence(tmp_path: Path) -> None:
    job = distant.line_job(distant.Fragile(4.5, deadly=True))
    known: list[int] = []
    with ProcessPoolExecutor(1, SPAWN) as pool:
        engine = Executor(pool, threads=1, chunk=1)
        with (
            engine.open(job) as worker_pool,
            pytest.raises(EngineError, match=r"died, and with it the whole pool"),
        ):
            distant.note_points(worker_pool, distant.along(50), known)
        assert known == [0, 1, 2, 3, 4], "what was found before is given"
        with pytest.raises(EngineError, match=r"died, and with it"), engine.open(job):
            pass


def test_threads_of_a_forked_process_are_a_sentence_and_no_endless_wait() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        with pytest.raises(EngineError, match=r"forks .*get_context\('spawn'\)"):
            distant.evaluate(Executor(pool, threads=2), distant.job())
        once = distant.evaluate(Executor(pool, threads=1), distant.job(), distant.POINTS[:3])
    serial = distant.evaluate(distant.SERIAL, distant.job(), distant.POINTS[:3])
    distant.check_equal(once, serial)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: nothing is missing")
def test_a_worker_without_the_gpu_that_it_needs_is_a_sentence(
    pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    remote_job = RemoteJob(pack(distant.job(), folder=tmp_path), device="cuda")
    failure = pool.submit(remote_worker.prepare, remote_job).result()
    assert isinstance(failure, Failure)
    with pytest.raises(EngineError, match=r"a worker has none: give workers GPUs"):
        failure.throw()


def test_nothing_of_the_user_is_changed(pool: ProcessPoolExecutor) -> None:
    job = distant.job()
    before = cases.remembered(job.objective.model)
    distant.evaluate(Executor(pool), job, distant.POINTS[:5])
    assert cases.remembered(job.objective.model) == before


def test_memory_of_the_driver_does_not_grow_with_the_points(pool: ProcessPoolExecutor) -> None:
    import tracemalloc

    job = distant.line_job(distant.Fragile(math.inf))
    peaks = []
    with Executor(pool).open(job) as worker_pool:
        for count in (500, 5000):
            tracemalloc.start()
            for _ in worker_pool.run((k, (0.5,)) for k in range(count)):
                pass
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 4 * peaks[0] + 1e6


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        (object(), {}, r"executor is a object; expected a concurrent.futures.Executor"),
        (ThreadPoolExecutor(1), {}, r"has threads.*ls.engines.Local"),
        (None, {"workers": 0}, r"workers=0; expected 1 or more"),
        (None, {"chunk": 0}, r"chunk=0; expected 1 or more"),
    ],
)
def test_a_wrong_argument_is_a_sentence(
    pool: ProcessPoolExecutor, given: object, options: dict[str, int], sentence: str
) -> None:
    with pytest.raises(EngineError, match=sentence):
        Executor(given or pool, **options)  # type: ignore[arg-type]


def test_the_pool_stays_open(pool: ProcessPoolExecutor) -> None:
    assert pool.submit(time.monotonic).result() > 0
