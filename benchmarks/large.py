"""A 51 x 51 surface over 50,000 samples: a calibrated adaptive scan against the plain loop.

The time of the scan is measured completely; that of the plain loop is extrapolated from 20 points.
Errors are those of ln(loss) at 300 random points that are computed exactly.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import landscope as ls
from benchmarks.common import (
    Case,
    augment_digits,
    measure_peak_memory,
    run_plain_loop,
    write_results,
)
from landscope.engines.job import Job, choose_probes
from landscope.engines.local import Local
from landscope.zoo import digits

SAMPLES = 50_000
CALIBRATED = ls.Calibrated(2000, anchors=36)
GRID = ls.Grid(51)


def main() -> None:
    rows = []
    for name in sys.argv[1:] or ("digits_resnet20", "digits_resnet56"):
        rows.append(measure(Case(name, digits.load_trained(name), *augment_digits(SAMPLES))))
        print("  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
        write_results("large", rows)


def measure(case: Case) -> dict[str, Any]:
    objective = case.objective
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    with measure_peak_memory() as peak:
        began = time.perf_counter()
        land = ls.scan(objective, plane, ls.Adaptive(), samples=CALIBRATED)
        seconds = time.perf_counter() - began
    axis = GRID.axes(plane.dims)[0]
    numbers = np.random.default_rng(0).choice(2601, 300, replace=False)
    points = [(float(axis[k % 51]), float(axis[k // 51])) for k in numbers]
    began = time.perf_counter()
    plain = run_plain_loop(case, plane, points[:20], case.loader())
    naive = (time.perf_counter() - began) / 20 * 2601
    truth = compute_losses(objective, plane, points)
    np.testing.assert_allclose(truth[:20], plain, rtol=1e-5)
    loss, bars = (land.data[n].values.ravel()[numbers] for n in ("loss", "loss_error"))
    error = np.abs(np.log(loss) - np.log(truth))
    evaluated, anchors = int(land.data["evaluated"].sum()), CALIBRATED.anchors
    return {
        "network": case.name,
        "samples": SAMPLES,
        "full passes": f"{anchors + (evaluated - anchors) * CALIBRATED.size / SAMPLES:.3g}",
        "points": evaluated,
        "mean error": f"{error.mean():.3g}",
        "99th percentile": f"{np.quantile(error, 0.99):.3g}",
        "largest error": f"{error.max():.3g}",
        "covered by the bars": f"{(error <= bars)[bars > 0].mean():.3f}",
        "mean bar": f"{bars.mean():.3g}",
        "seconds": f"{seconds:.1f}",
        "plain loop seconds": f"{naive:.0f}",
        "ratio": f"{naive / seconds:.0f}",
        "peak MiB": f"{peak[0]:.0f}",
    }


def compute_losses(
    objective: ls.Objective, plane: ls.Plane, points: list[tuple[float, float]]
) -> np.ndarray:
    losses = np.zeros(len(points))
    job = Job(objective, plane, points=2601, probes=choose_probes(GRID.axes(plane.dims)))
    with Local().open(job) as pool:
        for results in pool.run(enumerate(points)):
            for result in results:
                losses[result.point] = result.values["loss"]
    return losses


if __name__ == "__main__":
    main()
