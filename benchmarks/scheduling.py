"""The overhead of many workers: the scheduler, the journal, Ray.

    python benchmarks/scheduling.py            all parts, two minutes
    python benchmarks/scheduling.py simulate   a simulation of 1,000 workers and a million points
    python benchmarks/scheduling.py journal    values per second
    python benchmarks/scheduling.py ray        two workers on this machine, against local threads

The simulation uses the scheduler of the executor and Ray engines. Its workers are events on a
clock; for each chunk, its driver spends the time of this loop, or the longer time of a cluster
(which the third part measures). Rows come in pairs: an unknown and a known number of points.
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

import landscope as ls
from landscope.engines.executor import Executor
from landscope.engines.job import Engine, Job, Point, Result
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.engines.ray import Ray
from landscope.engines.scheduling import Chunk, Scheduler
from landscope.zoo import CATALOG, digits

WORKERS, POINTS, SECONDS = 1000, 1_000_000, 0.05
RAY = 4.5e-4  # seconds of the driver per chunk, measured with Ray


def main() -> None:
    parts = {"simulate": run_simulations, "journal": measure_journal, "ray": measure_ray}
    for name in sys.argv[1:] or parts:
        parts[name]()


def run_simulations() -> None:
    print(f"{'workers':>8}{'points':>10}{'ms':>6}{'us to send':>12}{'chunks':>9}{'us a point':>12}"
          f"{'share of work':>15}{'wall lost':>11}{'peak MB':>9}")  # fmt: skip
    for points in (POINTS // 10, POINTS):
        for driver in (0.0, RAY):
            simulate(WORKERS, points, SECONDS, driver)
            simulate(WORKERS, points, SECONDS, driver, known=True)
    simulate(100, POINTS // 10, SECONDS, RAY)
    simulate(8, POINTS // 10, 0.001, RAY)


def simulate(workers: int, count: int, seconds: float, driver: float, known: bool = False) -> None:
    """Print a row: the time of dispatch, and by how much it delays the end.

    Args:
        workers: The number of workers.
        count: The number of points.
        seconds: The mean time of a point.
        driver: The additional seconds to send a chunk and to receive its result.
        known: Whether the scheduler knows the number of points.
    """
    scheduler = Scheduler(Points(count) if known else iter(Points(count)), workers)
    end, busy, spent, chunks = run_workers(scheduler, workers, seconds, driver)
    lost = end / (busy / workers) - 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{workers:>8}{count:>10}{1e3 * seconds:>6.0f}{1e6 * driver:>12.0f}{chunks:>9}"
          f"{1e6 * spent / count:>12.2f}{spent / busy:>15.5%}{lost:>11.2%}"
          f"{peak:>9.0f}")  # fmt: skip


def run_workers(
    scheduler: Scheduler, workers: int, seconds: float, driver: float
) -> tuple[float, float, float, int]:
    """Return when simulated workers end, the seconds of all, those of this loop, and chunks."""
    draw = random.Random(0)
    running: list[tuple[float, int, Chunk, float]] = []  # end, worker, points, seconds
    requests = [(0.0, k) for k in range(workers)]  # time, worker
    free_at, queued = [0.0] * workers, [0] * workers  # end and chunks of each worker
    now = spent = busy = 0.0
    chunks = 0
    while True:
        began = time.perf_counter()
        while requests:
            requested, worker = requests.pop()
            while queued[worker] < scheduler.prefetch and (chunk := scheduler.next_chunk()):
                now = max(now, requested) + driver
                took = sum(seconds * draw.uniform(0.8, 1.2) for _ in chunk)
                free_at[worker] = max(free_at[worker], now) + took
                heapq.heappush(running, (free_at[worker], worker, chunk, took))
                queued[worker] += 1
                busy += took
                chunks += 1
        if not running:
            assert scheduler.finished
            return max(free_at), busy, spent, chunks
        end, worker, chunk, took = heapq.heappop(running)
        scheduler.complete(chunk, took)
        queued[worker] -= 1
        requests.append((end, worker))
        step = time.perf_counter() - began
        spent += step
        now = max(now, end) + step


class Points:
    """Points that are made on demand, with a length hint, like those of a scan."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.points = ((k, (0.001 * (k % 1000), 0.001 * (k // 1000))) for k in range(count))

    def __iter__(self) -> Iterator[Point]:
        return self.points

    def __length_hint__(self) -> int:
        return self.left


def measure_journal() -> None:
    """Print how many values per second a journal writes, by the number of points at once."""
    for group in (1, 10, 100):
        count = 3000 * min(group, 10)
        with tempfile.TemporaryDirectory() as folder, ls.Journal(Path(folder) / "j") as journal:
            journal.begin({"what": "benchmark"})
            results = [Result(k, {"loss": 0.5, "accuracy": 50.0}, 0.05) for k in range(count)]
            began = time.perf_counter()
            for k in range(0, count, group):
                journal.write(results[k : k + group])
            seconds = time.perf_counter() - began
        print(f"journal, {group:>3} points at once: {2 * count / seconds:>9,.0f} values per second")


def measure_ray() -> None:
    """Print the time of two workers of each engine for the same points, interleaved."""
    print(f"load before: {os.getloadavg()[0]:.2f}")
    torch.manual_seed(0)
    for name, count in (("digits_resnet56", 120), ("digits_mlp", 4000)):
        objective = ls.Objective(
            CATALOG[name].build().eval(), torch.nn.CrossEntropyLoss(), digits.load_data()
        )
        dx, dy = ls.directions.random(objective.center)
        plane = ls.Plane(objective.center, dx, dy)
        points: list[Point] = [(k, (0.001 * k, -0.0005 * k)) for k in range(count)]
        plan = Plan(workers=2, threads=1, rows=256)
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            engines: tuple[Engine, ...] = (
                Local(plan=plan), Executor(pool, plan=plan), Ray(workers=2, plan=plan),
            )  # fmt: skip
            compare(name, engines, Job(objective, plane, points=count), points)


def compare(name: str, engines: tuple[Engine, ...], job: Job, points: list[Point]) -> None:
    values: list[dict[int, float]] = []
    times: dict[str, list[tuple[float, ...]]] = {}
    for _ in range(3):
        for engine in engines:
            began = time.perf_counter()
            with engine.open(job) as pool:
                for _results in pool.run([(k, points[k][1]) for k in range(8)]):
                    pass  # so that every worker has opened the job
                start = time.perf_counter()
                computed = [result for results in pool.run(points) for result in results]
                end = time.perf_counter()
            busy = sum(result.seconds for result in computed) / 2
            values.append({result.point: result.values["loss"] for result in computed})
            row = (start - began, end - start, (end - start) / busy - 1, time.perf_counter() - end)
            times.setdefault(type(engine).__name__, []).append(row)
    assert all(losses == values[0] for losses in values), "engines differ"
    for kind, rows in times.items():
        opening, wall, over, closing = (
            statistics.median(column) for column in zip(*rows, strict=True)
        )
        print(f"{name}, {kind:<9} {1e3 * wall / len(points):>7.2f} ms per point,"
              f" {over:>6.1%} over the seconds of the workers; start {opening:.1f} s, end"
              f" {closing:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
