"""The cost of a 51 x 51 surface: landscope, the plain loop and another library, in one process.

Times are medians of interleaved rounds. Errors are those of ln(loss), compared with the full grid
(with 300 random points for the network on 32 x 32 images). Run this on a quiet machine:
``make bench``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import landscope as ls
from benchmarks.common import (
    Case,
    load_case,
    load_resnet20_32,
    measure_ceiling,
    measure_peak_memory,
    run_plain_loop,
    write_results,
)
from landscope.engines.job import Job, choose_probes
from landscope.engines.local import Local
from landscope.params import norm

ROUNDS = 5
GRID = ls.Grid(51)
NETWORKS = (
    "digits_mlp", "digits_resnet20", "digits_resnet20_noshort", "digits_resnet56",
    "digits_resnet56_noshort",
)  # fmt: skip
SAMPLES = ls.Calibrated(900, anchors=36)


def main() -> None:
    names = sys.argv[1:]
    rows: list[dict[str, Any]] = []
    for name in (*NETWORKS, "resnet20_32"):
        if names and name not in names:
            continue
        case = load_resnet20_32() if name == "resnet20_32" else load_case(name)
        rows += measure(case)
        write_results("surfaces", rows)
    draw_times(rows)


def measure(case: Case) -> list[dict[str, Any]]:
    objective = case.objective
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    assert norm(plane.dx) > 0
    job = Job(objective, plane, points=2601, probes=choose_probes(GRID.axes(plane.dims)))
    with Local().open(job):
        pass  # so that the plan is measured before the clocks run
    cost = ls.estimate(objective, plane, GRID)
    times, ceiling, memory = measure_interleaved(case, plane, job)
    medians = {name: statistics.median(t) for name, t in times.items()}
    rows = [make_row(case, name, medians, cost) for name in medians]
    for row in rows:
        share = cost.flops / cost.points / medians[row["method"]] / ceiling
        row |= {"share of ceiling": f"{share:.0%}", "peak MiB": f"{memory[row['method']]:.0f}"}
        print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return rows + measure_scans(case, objective, plane, medians["plain loop"])


def measure_scans(
    case: Case, objective: ls.Objective, plane: ls.Plane, plain_seconds: float
) -> list[dict[str, Any]]:
    """Return a row for each cheap scan; the plain loop takes ``plain_seconds`` per point."""
    rows = []
    truth = compute_log_loss(case, objective, plane)
    for name, sampler, samples in (
        ("landscope adaptive", ls.Adaptive(), None),
        ("landscope calibrated", GRID, SAMPLES),
        ("landscope both", ls.Adaptive(), SAMPLES),
    ):
        if samples is not None and len(case.targets) <= SAMPLES.size:
            continue
        row = measure_scan(objective, plane, sampler, samples, truth)
        row |= {
            "network": case.name,
            "method": name,
            "ms a point": f"{1e3 * row['seconds'] / 2601:.3g}",
            "ratio": f"{2601 * plain_seconds / row['seconds']:.3g}",
        }
        rows.append(row)
        print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return rows


def measure_interleaved(
    case: Case, plane: ls.Plane, job: Job
) -> tuple[dict[str, list[float]], float, dict[str, float]]:
    """Return the seconds per point by method, the FLOP/s of matrix products, and MiB by method."""
    is_small = len(case.targets) * sum(p.numel() for p in case.model.parameters()) < 1e8
    points = [(0.05 * k, -0.04 * k) for k in range(8 if is_small else 4)]
    count = 40 if is_small else 8
    loader, parallel = case.loader(), case.loader(workers=2)
    methods: dict[str, tuple[int, Callable[[], object]]] = {
        "as shipped (2 workers)": (2, lambda: run_plain_loop(case, plane, points[:2], parallel)),
        "plain loop": (len(points), lambda: run_plain_loop(case, plane, points, loader)),
        "loss-landscapes": (9, lambda: run_loss_landscapes(case)),
        "landscope exact": (count, lambda: time_points(job, count)),
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    memory: dict[str, float] = {}
    ceilings = []
    for _ in range(ROUNDS):
        ceilings.append(measure_ceiling())
        for name, (points_run, run) in methods.items():
            with measure_peak_memory() as peak:
                began = time.perf_counter()
                seconds = run()
                elapsed = time.perf_counter() - began
            times[name].append((seconds if isinstance(seconds, float) else elapsed) / points_run)
            memory[name] = max(memory.get(name, 0.0), peak[0])
    return times, max(ceilings), memory


def time_points(job: Job, count: int) -> float:
    """Return the seconds of some points, including writing the weights and reading the losses."""
    with Local().open(job) as pool:
        list(pool.run([(k, job.probes[0]) for k in range(pool.size)]))
        points = [(k, (0.05 * (k % 8), -0.04 * (k % 8))) for k in range(count)]
        began = time.perf_counter()
        list(pool.run(points))
        return time.perf_counter() - began


def run_loss_landscapes(case: Case) -> None:
    """Run loss-landscapes 3.0.6 in its fastest form: all data as one batch, 3 x 3 points."""
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    metric = Loss(nn.CrossEntropyLoss(), case.inputs, case.targets)
    with torch.no_grad():
        loss_landscapes.random_plane(case.model, metric, 1, 3, "filter", deepcopy_model=True)


def make_row(case: Case, method: str, medians: dict[str, float], cost: ls.Cost) -> dict[str, Any]:
    return {
        "network": case.name,
        "method": method,
        "ms a point": f"{1e3 * medians[method]:.3g}",
        "ratio": f"{medians['plain loop'] / medians[method]:.3g}",
        "evaluations": 2601,
        "how": cost.plan if method == "landscope exact" else "",
    }


def compute_log_loss(case: Case, objective: ls.Objective, plane: ls.Plane) -> np.ndarray:
    """Return ln(loss) on the full grid; of the large network at 300 random points, else NaN."""
    if case.name.startswith("digits"):
        land = ls.scan(objective, plane, GRID, progress=True)
        log_loss: np.ndarray = np.log(land.data["loss"].values)
        return log_loss
    (axis, _), log_loss = GRID.axes(plane.dims), np.full((51, 51), np.nan)
    numbers = np.random.default_rng(0).choice(2601, 300, replace=False)
    points = [(int(k), (float(axis[k % 51]), float(axis[k // 51]))) for k in numbers]
    job = Job(objective, plane, points=2601, probes=choose_probes(GRID.axes(plane.dims)))
    with Local().open(job) as pool:
        for results in pool.run(points):
            for result in results:
                log_loss.flat[result.point] = np.log(result.values["loss"])
    return log_loss


def measure_scan(
    objective: ls.Objective,
    plane: ls.Plane,
    sampler: Any,
    samples: ls.Calibrated | None,
    truth: np.ndarray,
) -> dict[str, Any]:
    with measure_peak_memory() as peak:
        began = time.perf_counter()
        land = ls.scan(objective, plane, sampler, samples=samples)
        seconds = time.perf_counter() - began
    is_known = np.isfinite(truth)
    error = np.abs(np.log(land.data["loss"].values) - truth)[is_known]
    bars = land.data["loss_error"].values[is_known]
    evaluated = np.asarray(land.data.get("evaluated", np.ones_like(truth)), dtype=bool)
    rows = next(iter(objective.problem.batches.values())).rows
    share = 1 if samples is None else samples.size / rows
    anchors = 0 if samples is None else samples.anchors
    return {
        "seconds": seconds,
        "evaluations": f"{anchors + (evaluated.sum() - anchors) * share:.4g}",
        "points": int(evaluated.sum()),
        "largest error": f"{error.max():.3g}",
        "99th percentile": f"{np.quantile(error, 0.99):.3g}",
        "mean error": f"{error.mean():.3g}",
        "covered by the bars": f"{(error <= bars)[bars > 0].mean():.3f}",
        "peak MiB": f"{peak[0]:.0f}",
    }


def draw_times(rows: list[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    from benchmarks.common import RESULTS

    networks = list(dict.fromkeys(r["network"] for r in rows))
    methods = list(dict.fromkeys(r["method"] for r in rows))
    figure = Figure(figsize=(9, 5), layout="constrained")
    ax = figure.add_subplot()
    colors = ["0.75", "0.55", "#cc79a7", "#56b4e9", "#0072b2", "#009e73", "#d55e00"]
    height = 0.8 / len(methods)
    for k, method in enumerate(methods):
        for n, network in enumerate(networks):
            matching = [r for r in rows if (r["network"], r["method"]) == (network, method)]
            if matching:
                value = float(matching[0]["ms a point"]) * 2601 / 1e3
                ax.barh(n + (k - len(methods) / 2) * height, value, height, color=colors[k],
                        label=method if n == 0 else None)  # fmt: skip
                text = f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"
                y = n + (k - len(methods) / 2) * height
                ax.text(value * 1.08, y, text, va="center_baseline", fontsize=6)
    ax.set_xscale("log")
    ax.set_yticks(range(len(networks)), networks)
    ax.invert_yaxis()
    ax.set_xlabel("seconds for a 51 x 51 surface (logarithmic; 2 CPU cores)")
    ax.margins(x=0.12)
    ax.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    figure.savefig(RESULTS / "surfaces.png", dpi=150)


if __name__ == "__main__":
    main()
