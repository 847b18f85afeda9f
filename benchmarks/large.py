"""A 51 x 51 surface over 50,000 samples: calibrated and adaptive against the plain loop.

Our time is that of the whole scan; the plain loop's is extrapolated from 20 of its points. Errors
are of ln(loss), over 300 random cells computed exactly.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import landscope as ls
from benchmarks.common import Case, enlarged, peak_memory, plain_losses, write
from landscope.engines.job import Job, choose_probes
from landscope.engines.local import Local
from landscope.zoo import digits

SAMPLES = 50_000
DRAWN = ls.Calibrated(2000, anchors=36)
GRID = ls.Grid(51)


def main() -> None:
    rows = []
    for name in sys.argv[1:] or ("digits_resnet20", "digits_resnet56"):
        rows.append(measure(Case(name, digits.load_trained(name), *enlarged(SAMPLES))))
        print("  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
        write("large", rows)


def measure(case: Case) -> dict[str, Any]:
    objective = case.objective
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    with peak_memory() as peak:
        began = time.perf_counter()
        land = ls.scan(objective, plane, ls.Adaptive(), samples=DRAWN)
        seconds = time.perf_counter() - began
    print(f"{case.name}: {seconds:.1f} s; {land.data.attrs['notes']}", flush=True)
    loader, axis = case.loader(), GRID.axes(plane.dims)[0]
    cells = np.random.default_rng(0).choice(2601, 300, replace=False)
    at = [(float(axis[k % 51]), float(axis[k // 51])) for k in cells]
    began = time.perf_counter()
    plain = plain_losses(case, plane, at[:20], loader)
    naive = (time.perf_counter() - began) / 20 * 2601
    truth = exact(objective, plane, at)
    np.testing.assert_allclose(truth[:20], plain, rtol=1e-5)
    error = np.abs(np.log(land.data["loss"].values.ravel()[cells]) - np.log(truth))
    bars = land.data["loss_error"].values.ravel()[cells]
    points = int(land.data["evaluated"].sum())
    return {
        "network": case.name,
        "samples": SAMPLES,
        "full passes": f"{DRAWN.anchors + (points - DRAWN.anchors) * DRAWN.size / SAMPLES:.3g}",
        "points": points,
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


def exact(objective: ls.Objective, plane: ls.Plane, at: list[tuple[float, float]]) -> np.ndarray:
    found = np.zeros(len(at))
    job = Job(objective, plane, points=2601, probes=choose_probes(GRID.axes(plane.dims)))
    with Local().open(job) as pool:
        for results in pool.run(enumerate(at)):
            for result in results:
                found[result.point] = result.values["loss"]
    return found


if __name__ == "__main__":
    main()
