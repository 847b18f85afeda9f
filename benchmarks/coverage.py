"""Coverage of 95% error bars: how often they hold the value that they are for.

    python -m benchmarks.coverage [part of a family's name ...] [--seeds 16]

Surfaces: families of surfaces that are known in every cell, each with many seeds. A scan of
``ls.Adaptive`` is simulated with their values (or made, for networks); the table shows the share of
the cells that were not evaluated whose error is within its bar, the points that were evaluated, and
the ratio of bars to errors (2.9 for normal errors of known width). A noisy surface is its own
truth: a bar is for what an evaluation of the cell returns.

Estimates: 95% intervals of averages over random draws; "points" are the draws. For ``loss_stderr``
"noted" is the share of the data sets whose result says that the interval does not hold.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import landscope as ls
from benchmarks.common import write_results
from landscope.engines.local import Local
from landscope.engines.plan import Plan

Array = np.ndarray
Formula = Callable[[np.random.Generator, Array, Array], Array]

PLANE, LINE, VOLUME = (31, 31), (101,), (9, 9, 9)


def smooth(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A random bowl with a few long waves; the loss spans one to two decades."""
    a, b, tilt = rng.uniform(0.5, 3, 3)
    waves = sum(
        rng.uniform(0.02, 0.15) * np.sin(x * rng.uniform(-4, 4) + y * rng.uniform(-4, 4) + k)
        for k in range(4)
    )
    return np.asarray(0.4 + a * x**2 + b * y**2 + 0.3 * tilt * x * y + waves)


def kinked(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A sum of rectified planes, as a network of one hidden layer with the absolute error."""
    steepness, angles = rng.uniform(0.2, 2, 8), rng.uniform(0, 2 * np.pi, 8)
    folds = zip(steepness, angles, rng.uniform(-0.7, 0.7, 8), strict=True)
    return np.asarray(
        0.2 + sum(s * np.maximum(x * np.cos(a) + y * np.sin(a) - c, 0) for s, a, c in folds)
    )


def cliff(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A steep wall, ten times as high as the floor, along a curve."""
    angle, where, width = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.6), rng.uniform(0.01, 0.05)
    along = x * np.cos(angle) + y * np.sin(angle) + 0.2 * np.sin(3 * (y - x))
    return np.asarray(0.3 + 0.3 * (x**2 + y**2) + 3 / (1 + np.exp((where - along) / width)))


def two_basins(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """The lower one of two bowls."""
    a, b = rng.uniform(1, 6, 2)
    left = 0.1 + a * ((x + 0.5) ** 2 + (y - rng.uniform(-0.4, 0.4)) ** 2)
    right = rng.uniform(0.1, 0.3) + b * ((x - 0.5) ** 2 + (y - rng.uniform(-0.4, 0.4)) ** 2)
    return np.asarray(np.minimum(left, right))


def anisotropic(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A bowl with curvatures in a ratio of 200 to 2000."""
    angle, ratio = rng.uniform(0, np.pi), 10 ** rng.uniform(2.3, 3.3)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray(0.2 + 0.02 * ratio * u**2 + 0.02 * v**2 + 0.05 * np.cos(3 * v))


def ravine(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A narrow curved ravine (Rosenbrock's function) in a slope."""
    bend, depth = rng.uniform(0.3, 1.2), rng.uniform(10, 60)
    return np.asarray(0.1 + depth * (y - bend * x**2 + 0.3) ** 2 + (x - rng.uniform(-1, 1)) ** 2)


def plateau_with_holes(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A basin in a plateau, with a region of NaN and one of infinity."""
    values = 2.3 * (1 - 0.95 * np.exp(-rng.uniform(2, 8) * (x**2 + y**2)))
    side = rng.choice([-1.0, 1.0])
    values[np.hypot(x - 0.7 * side, y - 0.5) < rng.uniform(0.15, 0.35)] = np.nan
    values[x * side < rng.uniform(-0.95, -0.75)] = np.inf
    return np.asarray(values)


def with_noise(formula: Formula, level: float) -> Formula:
    def noisy(rng: np.random.Generator, x: Array, y: Array) -> Array:
        values = formula(rng, x, y)
        return values * (1 + level * rng.standard_normal(values.shape))

    return noisy


def transformed(formula: Formula, change: Callable[[Array], Array]) -> Formula:
    return lambda rng, x, y: change(formula(rng, x, y))


FORMULAS: dict[str, Formula] = {
    "smooth": smooth,
    "noise of 0.1%": with_noise(smooth, 0.001),
    "noise of 0.5%": with_noise(smooth, 0.005),
    "noise of 1%": with_noise(smooth, 0.01),
    "noise of 1.5%": with_noise(smooth, 0.015),
    "noise of 3%": with_noise(smooth, 0.03),
    "kinked": kinked,
    "cliff": cliff,
    "two basins": two_basins,
    "negative": transformed(smooth, lambda values: -10 + values),
    "crossing zero": transformed(smooth, lambda values: values - 1.0),
    "huge (1e30)": transformed(smooth, lambda values: 1e30 * values),
    "tiny (1e-12)": transformed(smooth, lambda values: 1e-12 * values),
    "anisotropic": anisotropic,
    "narrow ravine": ravine,
    "plateau, NaN and infinity": plateau_with_holes,
}


def line_of(formula: Formula) -> Callable[[int], Array]:
    def make(seed: int) -> Array:
        rng, t = np.random.default_rng(seed), np.linspace(-1, 1, LINE[0])
        return formula(rng, t, 0.3 * np.sin(2 * t))

    return make


def plane_of(formula: Formula) -> Callable[[int], Array]:
    def make(seed: int) -> Array:
        y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in PLANE), indexing="ij")
        return formula(np.random.default_rng(seed), x, y).ravel()

    return make


def volume_of(formula: Formula) -> Callable[[int], Array]:
    def make(seed: int) -> Array:
        z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in VOLUME), indexing="ij")
        rng = np.random.default_rng(seed)
        return (formula(rng, x, y) + rng.uniform(0.5, 2) * z**2 + 0.2 * np.sin(2 * x * z)).ravel()

    return make


def train_network(seed: int) -> tuple[ls.Objective, ls.Plane]:
    """Return a trained network of two hidden layers with rectifiers, and a random plane."""
    torch.manual_seed(seed)
    inputs = torch.randn(2000, 8)
    targets = (inputs[:, :4] * inputs[:, 4:] + 0.3 * torch.randn(2000, 4)).argmax(1)
    layers = [nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return make_plane(model, (inputs, targets), seed)


def make_plane(model: nn.Module, data: Any, seed: int) -> tuple[ls.Objective, ls.Plane]:
    objective = ls.Objective(model, nn.CrossEntropyLoss(), data)
    return objective, ls.Plane(objective.center, *ls.directions.random(objective.center, seed=seed))


def scan_grid(objective: ls.Objective, plane: ls.Plane) -> Array:
    engine = Local(plan=Plan(rows=2000))
    values: Array = ls.scan(objective, plane, ls.Grid(PLANE), engine=engine).data["loss"].values
    return values.ravel()


def network(seed: int) -> Array:
    return scan_grid(*train_network(seed))


def network_in_bfloat16(seed: int) -> Array:
    objective, _ = train_network(seed)
    model, (inputs, targets) = objective.model.bfloat16(), next(iter(objective.problem.batches[""]))
    return scan_grid(*make_plane(model, (inputs.bfloat16(), targets), seed))


SURFACES: dict[str, tuple[tuple[int, ...], Callable[[int], Array]]] = {
    **{name: (PLANE, plane_of(formula)) for name, formula in FORMULAS.items()},
    "line, smooth": (LINE, line_of(smooth)),
    "line, noise of 1%": (LINE, line_of(with_noise(smooth, 0.01))),
    "volume, smooth": (VOLUME, volume_of(smooth)),
    "volume, noise of 1%": (VOLUME, volume_of(with_noise(smooth, 0.01))),
    "network": (PLANE, network),
    "network in bfloat16": (PLANE, network_in_bfloat16),
}


def measure_surface(name: str, seed: int) -> dict[str, float]:
    """Return the coverage of one adaptive scan, its points, and typical bars and errors."""
    shape, make = SURFACES[name]
    values, sampler = make(seed), ls.Adaptive(resolution=shape)
    known: dict[int, dict[str, float]] = {}
    while wanted := sampler.ask(shape, known):
        known |= {k: {"loss": float(values[k])} for k in wanted}
    filled = sampler.fill(shape, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        pair = (filled.columns["loss"], values)
        error = np.abs(np.subtract(*(map(np.log, pair) if filled.scale == "log" else pair)))
        unit = 1.0 if filled.scale == "log" else float(np.ptp(values[np.isfinite(values)]))
    return summarize(error / unit, filled.error / unit, ~filled.evaluated, shape)


def measure_both(name: str, seed: int) -> dict[str, float]:
    """Return the same of a network's plane with drawn samples, ``ls.Adaptive`` or ``ls.Grid``."""
    objective, plane = train_network(seed)
    exact = scan_grid(objective, plane)
    sampler = ls.Adaptive(resolution=PLANE) if "adaptive" in name else ls.Grid(PLANE)
    samples = ls.Calibrated(400, anchors=25, seed=seed)
    land = ls.scan(objective, plane, sampler, samples=samples, engine=Local(plan=Plan(rows=2000)))
    error = np.abs(np.log(land.data["loss"].values.ravel() / exact))
    rest = np.ones(exact.size, dtype=bool)
    rest[samples.places(PLANE)] = False
    evaluated = land.data.get("evaluated", np.ones(PLANE))
    row = summarize(error, land.data["loss_error"].values.ravel(), rest, PLANE)
    return row | {"points": float(np.sum(evaluated))}


def summarize(error: Array, bars: Array, rest: Array, shape: tuple[int, ...]) -> dict[str, float]:
    told = rest & np.isfinite(bars)
    points = float(np.prod(shape) - rest.sum())
    if not told.any():
        return {"points": points}
    within = error <= bars
    return {
        "points": points,
        "coverage": float(within[told].mean()),
        "bar / error": float(np.median(bars[told]) / max(np.nanmedian(error[told]), 1e-300)),
        "99% of errors": float(np.quantile(error[told & np.isfinite(error)], 0.99)),
        "99% of bars": float(np.quantile(bars[told], 0.99)),
    }


class Rotated:
    """A symmetric matrix with given eigenvalues, as an operator that counts."""

    def __init__(self, values: Array, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(normal)[0]
        self.matrix = basis @ torch.diag(torch.tensor(values)) @ basis.T
        self.shape, self.products = tuple(self.matrix.shape), 0
        self.dtype, self.device = self.matrix.dtype, self.matrix.device

    def __matmul__(self, v: torch.Tensor) -> torch.Tensor:
        self.products += 1 if v.ndim == 1 else v.shape[1]
        product: torch.Tensor = self.matrix @ v
        return product


SPECTRA = {
    "one eigenvalue dominates": np.append(np.linspace(0.5, 1.5, 59), 100.0),
    "decaying": 1 / np.arange(1.0, 61) ** 1.5,
    "alike": np.linspace(0.5, 1.5, 60),
}


def measure_average(name: str, seed: int) -> dict[str, float]:
    """Return the coverage of ``neighborhood_average`` on quadratics, over many noises."""
    values = SPECTRA[name.partition(", ")[2]]
    roots = Rotated(np.sqrt(values), seed).matrix
    model = nn.Linear(60, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    data = 60**0.5 * roots, torch.zeros(60, 1, dtype=torch.float64)
    objective = ls.Objective(model, nn.MSELoss(), data, precision="float64", device="cpu")
    exact, held = float(values.sum()) * 0.1**2, []
    for number in range(25):
        quantity = ls.neighborhood_average(0.1, 32, metric="euclidean", seed=1000 * seed + number)
        result = quantity(objective, objective.center)
        off = abs(result["averaged_loss"] - exact)
        held.append(off <= 1.96 * result["averaged_loss_stderr"])
    return {"points": 32.0, "coverage": float(np.mean(held))}


def measure_moments(name: str, seed: int) -> dict[str, float]:
    values = SPECTRA[name.partition(", ")[2]]
    matrix: Any = Rotated(values, seed)
    held = []
    for number in range(25):
        spectrum = ls.curvature.spectrum(
            matrix, num_vectors=6, num_steps=8, max_outliers=0, seed=100 * number + 10_000 * seed
        )
        for power in (1, 2):
            lower, upper = spectrum.moment_interval(power)
            held.append(lower <= (values**power).mean() <= upper)
    return {"points": 6.0, "coverage": float(np.mean(held))}


def measure_trace(name: str, seed: int) -> dict[str, float]:
    values = SPECTRA[name.partition(", ")[2]]
    matrix: Any = Rotated(values, seed)
    held, vectors = [], []
    for number in range(25):
        trace = ls.curvature.trace(matrix, relative_stderr_tol=0.2, seed=100 * seed + number)
        lower, upper = trace.interval
        held.append(lower <= values.sum() <= upper)
        vectors.append(trace.vectors)
    return {"points": float(np.mean(vectors)), "coverage": float(np.mean(held))}


def measure_loss_stderr(name: str, seed: int) -> dict[str, float]:
    """Return the coverage over data sets of 1,000 rows with log-normal losses."""
    spread = float(name.rpartition(" ")[2])
    rng, held, noted = np.random.default_rng(seed), [], []
    for _ in range(25):
        losses = torch.tensor(rng.lognormal(0, spread, (1000, 1)))
        model = nn.Linear(1, 1, bias=False).double()
        nn.init.ones_(model.weight)
        objective = ls.Objective(
            model, lambda outputs, _: outputs[:, 0], (losses, losses), precision="float64",
            device="cpu",
        )  # fmt: skip
        stderr = ls.loss_stderr(objective, objective.center)["loss_stderr"]
        held.append(abs(objective.loss() - np.exp(spread**2 / 2)) <= 1.96 * stderr)
        noted.append(any("few rows" in note for note in objective.notes))
    return {"points": 1000.0, "coverage": float(np.mean(held)), "noted": float(np.mean(noted))}


FAMILIES: dict[str, Callable[[str, int], dict[str, float]]] = {
    **dict.fromkeys(SURFACES, measure_surface),
    "network, drawn samples, grid": measure_both,
    "network, drawn samples, adaptive": measure_both,
    **{f"average, {spectrum}": measure_average for spectrum in SPECTRA},
    **{f"moments, {spectrum}": measure_moments for spectrum in SPECTRA},
    **{f"trace, {spectrum}": measure_trace for spectrum in SPECTRA},
    **{f"loss_stderr, spread of ln(loss) {s}": measure_loss_stderr for s in (0.5, 1, 1.5, 2)},
}


def measure(task: tuple[str, int]) -> dict[str, float]:
    torch.set_num_threads(1)
    return FAMILIES[task[0]](*task)


def summarize_family(name: str, outcomes: list[dict[str, float]]) -> dict[str, Any]:
    column = partial(_column, outcomes)
    row = {
        "family": name,
        "seeds": len(outcomes),
        "points": f"{np.mean(column('points')):.0f}",
        "complete": sum("coverage" not in o for o in outcomes),  # evaluated in every cell
    }
    figures: dict[str, tuple[str, Callable[[Array], Any], str]] = {
        "coverage": ("coverage", np.mean, ".3f"),
        "lowest of a seed": ("coverage", np.min, ".3f"),
        "bar / error": ("bar / error", np.median, ".1f"),
        "99% of errors": ("99% of errors", np.max, ".3f"),
        "99% of bars": ("99% of bars", np.median, ".3f"),
        "noted": ("noted", np.mean, ".2f"),
    }
    for label, (key, summary, form) in figures.items():
        row[label] = format(float(summary(column(key))), form) if len(column(key)) else ""
    return row


def _column(outcomes: list[dict[str, float]], key: str) -> Array:
    return np.array([o[key] for o in outcomes if key in o])


def measure_families(names: list[str], seeds: int) -> Iterator[dict[str, Any]]:
    with ProcessPoolExecutor(2) as pool:
        tasks = [[(name, seed) for seed in range(seeds)] for name in names]
        futures = [[pool.submit(measure, task) for task in some] for some in tasks]
        for name, some in zip(names, futures, strict=True):
            yield summarize_family(name, [future.result() for future in some])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of the names of families")
    parser.add_argument("--seeds", type=int, default=16)
    given = parser.parse_args()
    names = [n for n in FAMILIES if not given.names or any(part in n for part in given.names)]
    rows = []
    for row in measure_families(names, given.seeds):
        rows.append(row)
        print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    if names == list(FAMILIES):
        write_results("coverage", rows)


if __name__ == "__main__":
    main()
