"""The accuracy of estimated costs, and of scans with a time budget.

Estimates: the median over five runs of (estimated seconds / true seconds) of a full grid. Budgets:
the wall-clock time of ``budget="60s"``, and the mean errors of its surface and of a 15 x 15 grid
(with cubic interpolation), both compared with the full 51 x 51 grid.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from scipy.interpolate import RectBivariateSpline

import landscope as ls
from benchmarks.common import Case, load_case, load_resnet20_32, write_results


def main() -> None:
    rows = []
    cases = [load_case("digits_mlp"), load_case("digits_resnet20"), load_resnet20_32()]
    for case, resolution in zip(cases, (51, 25, 9), strict=True):
        row = {"network": case.name, **measure_estimates(case, ls.Grid(resolution))}
        rows.append(row)
        print(row, flush=True)
    write_results("estimates", rows)
    rows = []
    for name in ("digits_mlp", "digits_resnet20", "digits_resnet56"):
        rows.append({"network": name, **measure_budget(load_case(name))})
        print(rows[-1], flush=True)
        write_results("budgets", rows)


def measure_estimates(case: Case, grid: ls.Grid) -> dict[str, Any]:
    objective = case.objective
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    ls.scan(objective, plane, grid)  # so that the plan is measured
    ratios, seconds = [], []
    for _ in range(5):
        estimated = ls.estimate(objective, plane, grid).seconds
        began = time.perf_counter()
        ls.scan(objective, plane, grid)
        seconds.append(time.perf_counter() - began)
        ratios.append(estimated / seconds[-1])
    return {
        "grid": str(grid.resolution),
        "true seconds": f"{statistics.median(seconds):.3g}",
        "estimated / true": f"{statistics.median(ratios):.3f}",
        "range": f"{min(ratios):.3f} to {max(ratios):.3f}",
    }


def measure_budget(case: Case) -> dict[str, Any]:
    objective = case.objective
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    began = time.perf_counter()
    land = ls.scan(objective, plane, budget="60s")
    seconds = time.perf_counter() - began
    full = ls.scan(objective, plane, ls.Grid(51))
    truth = np.log(full.data["loss"].values)
    coarse = ls.scan(objective, plane, ls.Grid(15))
    return {
        "seconds": f"{seconds:.1f}",
        "mean error": f"{np.abs(_interpolate(land, full) - truth).mean():.2g}",
        "mean error of 15 x 15": f"{np.abs(_interpolate(coarse, full) - truth).mean():.2g}",
        "chose": land.data.attrs["notes"],
    }


def _interpolate(land: ls.Landscape, full: ls.Landscape) -> np.ndarray:
    """Return ln(loss) on the axes of the full grid, by cubic splines."""
    (y, x), (fine_y, fine_x) = land.axes, full.axes
    values = np.log(land.data["loss"].values)
    fine_values: np.ndarray = RectBivariateSpline(y, x, values)(fine_y, fine_x)
    return fine_values


if __name__ == "__main__":
    main()
