"""The cost of curvature: the convexity map against the procedure of the 2018 scripts.

The 2018 procedure at a point is ``eigsh`` for the eigenvalue of largest magnitude (tolerance 1e-2),
followed by ``eigsh`` of the operator shifted by 0.51 of it, for the smallest eigenvalue. Here it
uses the products of landscope, so that the procedures are compared by their numbers of products
and by the errors of their eigenvalues, compared with eigenvalues of a tolerance of 1e-6.

The time of a product is compared with that of a double-backward product in plain torch (with a new
graph for each vector, as in the 2018 scripts): interleaved, medians.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh

import landscope as ls
from benchmarks.common import Case, load_case, write_results

POINTS = 9  # per axis
ROUNDS = 9


def main() -> None:
    names = sys.argv[1:] or ["digits_resnet8", "digits_resnet20"]
    rows = []
    for name in names:
        case = load_case(name)
        rows.append({"network": name, **count_products(case), **time_products(case)})
        print(rows[-1], flush=True)
        write_results("curvature", rows)


def count_products(case: Case) -> dict[str, Any]:
    """Return the products of both procedures over a map, and the errors of their eigenvalues."""
    objective = case.objective
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    grid = ls.Grid(POINTS)
    land = ls.scan(objective, plane, grid, quantities=(ls.curvature.hessian_extremes(),))
    ours = int(land.data["hessian_products"].sum())
    x, y = grid.axes(plane.dims)
    hessian = ls.curvature.Hessian(objective)
    theirs = 0
    errors: list[list[float]] = []  # of min and max: ours, then those of 2018
    for j, i in itertools.product(range(POINTS), repeat=2):
        hessian.at(plane.at((x[i], y[j])))
        before = hessian.products
        eigenvalues_of_2018 = run_procedure_of_2018(hessian)
        theirs += hessian.products - before
        if (i + j) % 4 == 0:  # the exact eigenvalues cost more than both procedures
            eigenvalues = [float(land.data[f"hessian_{n}"][j, i]) for n in ("min", "max")]
            exact = ls.curvature.extremes(hessian, eigenvalue_tol=1e-6, seed=1)
            truths = 2 * (exact.smallest, exact.largest)
            pairs = zip((*eigenvalues, *eigenvalues_of_2018), truths, strict=True)
            errors.append([abs(value - truth) / abs(truth) for value, truth in pairs])
    names = "error min", "error max", "error min 2018", "error max 2018"
    return {
        "parameters": hessian.shape[0],
        "map": f"{POINTS} x {POINTS}",
        "products": ours,
        "products 2018": theirs,
        "ratio": f"{ours / theirs:.3f}",
        **{n: f"{e:.2g}" for n, e in zip(names, np.max(errors, axis=0), strict=True)},
    }


def run_procedure_of_2018(hessian: ls.curvature.Hessian) -> tuple[float, float]:
    """Return the smallest and the largest eigenvalue, by two runs of eigsh."""
    size = hessian.shape[0]
    start = np.random.default_rng(0).standard_normal(size)

    def multiply(v: np.ndarray) -> np.ndarray:
        product: np.ndarray = (hessian @ torch.from_numpy(v.astype(np.float32))).numpy()
        return product.astype(np.float64)

    operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    largest = float(eigsh(operator, k=1, tol=1e-2, v0=start)[0][0])
    if largest <= 0:
        return largest, float("nan")
    shift = 0.51 * largest
    shifted = LinearOperator(
        (size, size), matvec=lambda v: multiply(v) - shift * v, dtype=np.float64
    )
    return float(eigsh(shifted, k=1, tol=1e-2, v0=start)[0][0]) + shift, largest


def time_products(case: Case) -> dict[str, Any]:
    """Return the times of a product after the first one, and of a plain double backward."""
    objective = case.objective
    hessian = ls.curvature.Hessian(objective)
    vector = torch.randn(hessian.shape[0], generator=torch.Generator().manual_seed(0))
    hessian @ vector
    ours, plain = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        hessian @ vector
        middle = time.perf_counter()
        compute_plain_product(case, objective)
        ours.append(middle - began)
        plain.append(time.perf_counter() - middle)
    return {
        "ms a product": f"{1e3 * statistics.median(ours):.1f}",
        "ms plain": f"{1e3 * statistics.median(plain):.1f}",
        "time ratio": f"{statistics.median(ours) / statistics.median(plain):.2f}",
    }


def compute_plain_product(case: Case, objective: ls.Objective) -> None:
    """Compute a product in plain torch, batch by batch: derive the graph of the gradient."""
    params = [p for p in case.model.parameters() if p.requires_grad]
    vectors = [torch.ones_like(p) for p in params]
    total = [torch.zeros_like(p) for p in params]
    for inputs, targets in objective.problem.batches[""]:
        loss = F.cross_entropy(case.model(inputs), targets, reduction="sum")
        gradients = torch.autograd.grad(loss, params, create_graph=True)
        torch._foreach_add_(total, torch.autograd.grad(gradients, params, vectors))


if __name__ == "__main__":
    main()
