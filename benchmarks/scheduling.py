"""What it costs to keep many workers busy: dispatch, journal, Ray.

    python benchmarks/scheduling.py            all of it, two minutes
    python benchmarks/scheduling.py simulate   a thousand workers and a million points, simulated
    python benchmarks/scheduling.py journal    values a second
    python benchmarks/scheduling.py ray        this machine, two workers, against local threads

Rows of the simulation come in pairs: points that do not say how many are to come, and that do.
The simulation drives the scheduler that the executor and Ray engines use. Its workers are events
on a clock; its driver spends, for each chunk, the time that this very loop takes, or a longer one
that a cluster may take (measured here by the third part).
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
RAY = 4.5e-4  # seconds of the driver a chunk, measured with Ray on this machine


def main() -> None:
    parts = {"simulate": simulations, "journal": journal, "ray": ray}
    for name in sys.argv[1:] or parts:
        parts[name]()


def simulations() -> None:
    print(f"{'workers':>8}{'points':>10}{'ms':>6}{'us to send':>12}{'chunks':>9}{'us a point':>12}"
          f"{'share of work':>15}{'wall lost':>11}{'peak MB':>9}")  # fmt: skip
    for points in (POINTS // 10, POINTS):
        for driver in (0.0, RAY):
            simulate(WORKERS, points, SECONDS, driver)
            simulate(WORKERS, points, SECONDS, driver, known=True)
    simulate(100, POINTS // 10, SECONDS, RAY)
    simulate(8, POINTS // 10, 0.001, RAY)


def simulate(workers: int, count: int, seconds: float, driver: float, known: bool = False) -> None:
    """Print one row: what dispatch takes, and how much longer all is than without it.

    driver: seconds that sending a chunk and taking its answer take besides.
    """
    draw = random.Random(0)
    points = Points(count) if known else iter(Points(count))
    scheduler = Scheduler(points, workers)
    flying: list[tuple[float, int, Chunk, float]] = []  # when it ends, its worker, points, seconds
    free_at = [0.0] * workers  # when a worker has done all that it has
    held = [0] * workers  # chunks
    asked: list[tuple[float, int]] = [(0.0, k) for k in range(workers)]
    now = spent = work = 0.0
    chunks = 0
    while True:
        began = time.perf_counter()
        while asked:
            at, worker = asked.pop()
            while held[worker] < scheduler.prefetch and (chunk := scheduler.next_chunk()):
                now = max(now, at) + driver
                took = sum(seconds * draw.uniform(0.8, 1.2) for _ in chunk)
                free_at[worker] = max(free_at[worker], now) + took
                heapq.heappush(flying, (free_at[worker], worker, chunk, took))
                held[worker] += 1
                work += took
                chunks += 1
        if not flying:
            break
        at, worker, chunk, took = heapq.heappop(flying)
        scheduler.complete(chunk, took)
        held[worker] -= 1
        asked.append((at, worker))
        step = time.perf_counter() - began
        spent += step
        now = max(now, at) + step
    assert scheduler.finished
    wall = max(free_at)
    lost = wall / (work / workers) - 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{workers:>8}{count:>10}{1e3 * seconds:>6.0f}{1e6 * driver:>12.0f}{chunks:>9}"
          f"{1e6 * spent / count:>12.2f}{spent / work:>15.5%}{lost:>11.2%}"
          f"{peak:>9.0f}")  # fmt: skip


class Points:
    """Points that are made when they are taken, and say how many are left, as a scan's do."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.each = ((k, (0.001 * (k % 1000), 0.001 * (k // 1000))) for k in range(count))

    def __iter__(self) -> Iterator[Point]:
        return self.each

    def __length_hint__(self) -> int:
        return self.left


def journal() -> None:
    """Print how many values a second a journal takes, by how many come at once."""
    for group in (1, 10, 100):
        count = 3000 * min(group, 10)
        with tempfile.TemporaryDirectory() as folder, ls.Journal(Path(folder) / "j") as kept:
            kept.begin({"what": "benchmark"})
            results = [Result(k, {"loss": 0.5, "accuracy": 50.0}, 0.05) for k in range(count)]
            began = time.perf_counter()
            for k in range(0, count, group):
                kept.write(results[k : k + group])
            took = time.perf_counter() - began
        print(f"journal, {group:>3} points at once: {2 * count / took:>9,.0f} values a second")


def ray() -> None:
    """Print what two workers of each engine take for the same points, in turns."""
    print(f"load of this machine before: {os.getloadavg()[0]:.2f}")
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
                    pass  # every worker has opened the job now
                start = time.perf_counter()
                found = [result for results in pool.run(points) for result in results]
                end = time.perf_counter()
            busy = sum(result.seconds for result in found) / 2
            values.append({result.point: result.values["loss"] for result in found})
            row = (start - began, end - start, (end - start) / busy - 1, time.perf_counter() - end)
            times.setdefault(type(engine).__name__, []).append(row)
    assert all(one == values[0] for one in values), "engines differ"
    for kind, rows in times.items():
        opening, wall, over, closing = (
            statistics.median(column) for column in zip(*rows, strict=True)
        )
        print(f"{name}, {kind:<9} {1e3 * wall / len(points):>7.2f} ms a point,"
              f" {over:>6.1%} over the workers' own seconds; start {opening:.1f} s, end"
              f" {closing:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
