"""What a 51 x 51 surface costs: landscope against the plain loop and its peers, in one process.

Speeds are medians of interleaved rounds. Errors are of ln(loss), against the full grid (300 random
cells for the network on 32 x 32 images). Run on a quiet machine: ``make bench``.
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
    ceiling,
    digits_case,
    peak_memory,
    plain_losses,
    resnet20_32,
    write,
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
    wanted = sys.argv[1:]
    rows: list[dict[str, Any]] = []
    for name in (*NETWORKS, "resnet20_32"):
        if wanted and name not in wanted:
            continue
        case = resnet20_32() if name == "resnet20_32" else digits_case(name)
        rows += measure(case)
        write("surfaces", rows)
    picture(rows)


def measure(case: Case) -> list[dict[str, Any]]:
    objective = case.objective
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    assert norm(plane.dx) > 0
    job = Job(objective, plane, points=2601, probes=choose_probes(GRID.axes(plane.dims)))
    with Local().open(job):
        pass  # the plan is found before the clocks run
    cost = ls.estimate(objective, plane, GRID)
    times, top, memory = interleaved(case, plane, job)
    medians = {name: statistics.median(t) for name, t in times.items()}
    rows = [row(case, name, medians, cost) for name in medians]
    for row_ in rows:
        share = cost.flops / cost.points / medians[row_["method"]] / top
        row_ |= {"share of ceiling": f"{share:.0%}", "peak MiB": f"{memory[row_['method']]:.0f}"}
    for row_ in rows:
        print("  ".join(f"{k} {v}" for k, v in row_.items()), flush=True)
    truth = exact(case, objective, plane)
    for name, sampler, terms in (
        ("landscope adaptive", ls.Adaptive(), None),
        ("landscope calibrated", GRID, SAMPLES),
        ("landscope both", ls.Adaptive(), SAMPLES),
    ):
        if terms is not None and len(case.targets) <= SAMPLES.size:
            continue
        found = cheap(objective, plane, sampler, terms, truth)
        seconds = found["seconds"]
        found |= {
            "network": case.name,
            "method": name,
            "ms a point": f"{1e3 * seconds / 2601:.3g}",
            "ratio": f"{2601 * medians['plain loop'] / seconds:.3g}",
        }
        rows.append(found)
        print("  ".join(f"{k} {v}" for k, v in found.items()), flush=True)
    return rows


def interleaved(
    case: Case, plane: ls.Plane, job: Job
) -> tuple[dict[str, list[float]], float, dict[str, float]]:
    """Return seconds a point by method, the FLOP/s of matrix products, and MiB by method."""
    small = len(case.targets) * sum(p.numel() for p in case.model.parameters()) < 1e8
    points = [(0.05 * k, -0.04 * k) for k in range(8 if small else 4)]
    plain, shipped = case.loader(), case.loader(workers=2)
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "as shipped (2 workers)": (2, lambda: plain_losses(case, plane, points[:2], shipped)),
        "plain loop": (len(points), lambda: plain_losses(case, plane, points, plain)),
        "loss-landscapes": (9, lambda: peer(case)),
        "landscope exact": (40 if small else 8, lambda: ours(job, 40 if small else 8)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, float] = {}
    tops = []
    for _ in range(ROUNDS):
        tops.append(ceiling())
        for name, (count, way) in ways.items():
            with peak_memory() as peak:
                began = time.perf_counter()
                seconds = way()
                took = time.perf_counter() - began
            times[name].append((seconds if isinstance(seconds, float) else took) / count)
            memory[name] = max(memory.get(name, 0.0), peak[0])
    return times, max(tops), memory


def ours(job: Job, count: int) -> float:
    """Return the seconds of some points, the weights written and the losses read included."""
    with Local().open(job) as pool:
        list(pool.run([(k, job.probes[0]) for k in range(pool.size)]))
        at = [(k, (0.05 * (k % 8), -0.04 * (k % 8))) for k in range(count)]
        began = time.perf_counter()
        list(pool.run(at))
        return time.perf_counter() - began


def peer(case: Case) -> None:
    """loss-landscapes 3.0.6 in its fastest use: the whole data as one batch; 3 x 3 points."""
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    metric = Loss(nn.CrossEntropyLoss(), case.inputs, case.targets)
    with torch.no_grad():
        loss_landscapes.random_plane(case.model, metric, 1, 3, "filter", deepcopy_model=True)


def row(case: Case, method: str, medians: dict[str, float], cost: ls.Cost) -> dict[str, Any]:
    return {
        "network": case.name,
        "method": method,
        "ms a point": f"{1e3 * medians[method]:.3g}",
        "ratio": f"{medians['plain loop'] / medians[method]:.3g}",
        "evaluations": 2601,
        "how": cost.plan if method == "landscope exact" else "",
    }


def exact(case: Case, objective: ls.Objective, plane: ls.Plane) -> np.ndarray:
    """Return ln(loss) on the full grid; NaN outside 300 random cells for the large network."""
    if case.name.startswith("digits"):
        land = ls.scan(objective, plane, GRID, progress=True)
        whole: np.ndarray = np.log(land.data["loss"].values)
        return whole
    (axis, _), found = GRID.axes(plane.dims), np.full((51, 51), np.nan)
    cells = np.random.default_rng(0).choice(2601, 300, replace=False)
    at = [(int(k), (float(axis[k % 51]), float(axis[k // 51]))) for k in cells]
    job = Job(objective, plane, points=2601, probes=choose_probes(GRID.axes(plane.dims)))
    with Local().open(job) as pool:
        for results in pool.run(at):
            for result in results:
                found.flat[result.point] = np.log(result.values["loss"])
    return found


def cheap(
    objective: ls.Objective,
    plane: ls.Plane,
    sampler: Any,
    terms: ls.Calibrated | None,
    truth: np.ndarray,
) -> dict[str, Any]:
    with peak_memory() as peak:
        began = time.perf_counter()
        land = ls.scan(objective, plane, sampler, samples=terms)
        seconds = time.perf_counter() - began
    there = np.isfinite(truth)
    error = np.abs(np.log(land.data["loss"].values) - truth)[there]
    bars = land.data["loss_error"].values[there]
    done = np.asarray(land.data.get("evaluated", np.ones_like(truth)), dtype=bool)
    rows = next(iter(objective.problem.batches.values())).rows
    share = 1 if terms is None else terms.size / rows
    anchors = 0 if terms is None else terms.anchors
    open_ = bars > 0
    return {
        "seconds": seconds,
        "evaluations": f"{anchors + (done.sum() - anchors) * share:.4g}",
        "points": int(done.sum()),
        "largest error": f"{error.max():.3g}",
        "99th percentile": f"{np.quantile(error, 0.99):.3g}",
        "mean error": f"{error.mean():.3g}",
        "covered by the bars": f"{(error <= bars)[open_].mean():.3f}",
        "peak MiB": f"{peak[0]:.0f}",
    }


def picture(rows: list[dict[str, Any]]) -> None:
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
            found = [r for r in rows if (r["network"], r["method"]) == (network, method)]
            if found:
                value = float(found[0]["ms a point"]) * 2601 / 1e3
                ax.barh(n + (k - len(methods) / 2) * height, value, height, color=colors[k],
                        label=method if n == 0 else None)  # fmt: skip
                told = f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"
                at = n + (k - len(methods) / 2) * height
                ax.text(value * 1.08, at, told, va="center_baseline", fontsize=6)
    ax.set_xscale("log")
    ax.set_yticks(range(len(networks)), networks)
    ax.invert_yaxis()
    ax.set_xlabel("seconds for a 51 x 51 surface (logarithmic; 2 CPU cores)")
    ax.margins(x=0.12)
    ax.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    figure.savefig(RESULTS / "surfaces.png", dpi=150)


if __name__ == "__main__":
    main()
