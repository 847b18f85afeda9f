"""What curvature costs: the convexity map against the procedure of the 2018 scripts.

The 2018 procedure at a point: ``eigsh`` for the eigenvalue of largest magnitude (tolerance 1e-2),
then ``eigsh`` of the operator shifted by 0.51 of it, for the smallest. It is implemented here over
landscope's own products, so the two are compared by the products that they spend, and by how near
they come to eigenvalues found to 1e-6.

A product is timed against one double-backward product in plain torch (set up anew for each vector,
as the 2018 scripts do), interleaved, medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh

import landscope as ls
from benchmarks.common import Case, digits_case, write

POINTS = 9  # an axis
ROUNDS = 9


def main() -> None:
    names = sys.argv[1:] or ["digits_resnet8", "digits_resnet20"]
    rows = []
    for name in names:
        case = digits_case(name)
        rows.append({"network": name, **products(case), **seconds(case)})
        print(rows[-1], flush=True)
        write("curvature", rows)


def products(case: Case) -> dict[str, Any]:
    """Products of both procedures over a map, and how far off their values are."""
    objective = case.objective
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    grid = ls.Grid(POINTS)
    land = ls.scan(objective, plane, grid, quantities=(ls.curvature.hessian_extremes(),))
    ours = float(land.data["hessian_products"].sum())
    x, y = grid.axes(plane.dims)
    hessian = ls.curvature.Hessian(objective)
    theirs, off, off_theirs = 0, [], []
    for j in range(POINTS):
        for i in range(POINTS):
            hessian.at(plane.at((x[i], y[j])))
            before = hessian.count
            low, high = procedure_of_2018(hessian)
            theirs += hessian.count - before
            if (i + j) % 4 == 0:  # the truth costs more than both
                truth = ls.curvature.extremes(hessian, tolerance=1e-6, seed=1)
                exact = truth.smallest, truth.largest
                found = [float(land.data[f"hessian_{n}"][j, i]) for n in ("min", "max")]
                off.append([abs(a - b) / abs(b) for a, b in zip(found, exact, strict=True)])
                off_theirs.append(
                    [abs(a - b) / abs(b) for a, b in zip((low, high), exact, strict=True)]
                )
    (low, high), (low_theirs, high_theirs) = np.max(off, axis=0), np.max(off_theirs, axis=0)
    return {
        "parameters": hessian.shape[0],
        "map": f"{POINTS} x {POINTS}",
        "products": int(ours),
        "products 2018": theirs,
        "ratio": f"{ours / theirs:.3f}",
        "error min": f"{low:.2g}",
        "error max": f"{high:.2g}",
        "error min 2018": f"{low_theirs:.2g}",
        "error max 2018": f"{high_theirs:.2g}",
    }


def procedure_of_2018(hessian: ls.curvature.Hessian) -> tuple[float, float]:
    """Smallest and largest eigenvalue by two runs of eigsh."""
    size = hessian.shape[0]
    start = np.random.default_rng(0).standard_normal(size)

    def times(v: np.ndarray) -> np.ndarray:
        found: np.ndarray = (hessian @ torch.from_numpy(v.astype(np.float32))).numpy()
        return found.astype(np.float64)

    operator = LinearOperator((size, size), matvec=times, dtype=np.float64)
    largest = float(eigsh(operator, k=1, tol=1e-2, v0=start)[0][0])
    if largest <= 0:
        return largest, float("nan")
    shift = 0.51 * largest
    shifted = LinearOperator((size, size), matvec=lambda v: times(v) - shift * v, dtype=np.float64)
    return float(eigsh(shifted, k=1, tol=1e-2, v0=start)[0][0]) + shift, largest


def seconds(case: Case) -> dict[str, Any]:
    """Seconds of one product: ours (after the first), and plain double backward."""
    objective = case.objective
    hessian = ls.curvature.Hessian(objective)
    vector = torch.randn(hessian.shape[0], generator=torch.Generator().manual_seed(0))
    hessian @ vector
    ours, plain = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        hessian @ vector
        middle = time.perf_counter()
        plain_product(case, objective)
        ours.append(middle - began)
        plain.append(time.perf_counter() - middle)
    return {
        "ms a product": f"{1e3 * statistics.median(ours):.1f}",
        "ms plain": f"{1e3 * statistics.median(plain):.1f}",
        "time ratio": f"{statistics.median(ours) / statistics.median(plain):.2f}",
    }


def plain_product(case: Case, objective: ls.Objective) -> None:
    """One product by plain torch: the gradient's graph, then its derivative, batch by batch."""
    params = [p for p in case.model.parameters() if p.requires_grad]
    vectors = [torch.ones_like(p) for p in params]
    total = [torch.zeros_like(p) for p in params]
    for inputs, targets in objective.problem.batches[""]:
        loss = F.cross_entropy(case.model(inputs), targets, reduction="sum")
        slopes = torch.autograd.grad(loss, params, create_graph=True)
        torch._foreach_add_(total, torch.autograd.grad(slopes, params, vectors))


if __name__ == "__main__":
    main()
