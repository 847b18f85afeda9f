"""Trace and spectral density of a Hessian, by random vectors.

The largest eigenvalues, few and far out in networks, carry nearly all of the variance of such
estimates, so they are taken out first and counted exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from landscope.curvature.eigensolver import not_finite
from landscope.curvature.hessian import Hessian, report_products
from landscope.curvature.lanczos import Krylov, random_vector
from landscope.errors import ParamsError

_LEAST = 16  # random vectors before a standard error is believed
_ROUND = 4  # vectors between two looks at it: looking at each would stop at lucky moments
_GRID = (2001, 200_001)  # places of a density, at least and at most


@final
@dataclass(frozen=True)
class Trace:
    """An estimated trace.

    Args:
        estimate: of the sum of all eigenvalues.
        stderr: its standard error.
        converged: whether the standard error is within the tolerance.
        products: that it took.
    """

    estimate: float
    stderr: float
    converged: bool
    products: int


@final
@dataclass(frozen=True, eq=False)
class Spectrum:
    """An estimated spectral density.

    Args:
        nodes: eigenvalues, and quadrature nodes where there are too many; rising, shape [m].
        weights: share of all eigenvalues that each node stands for, shape [m]; they sum to 1.
        outliers: eigenvalues that were found singly, rising.
        grid: where the density is told, shape [g].
        density: a share of the eigenvalues per unit of curvature, shape [g]: each node is a normal
            distribution of standard deviation ``width``.
        width: see density.
        size: how many eigenvalues there are, p.
        products: that it took.
        origin: which random vector each node is of, shape [m]; -1 for one that was found singly.
    """

    nodes: np.ndarray
    weights: np.ndarray
    outliers: np.ndarray
    grid: np.ndarray
    density: np.ndarray
    width: float
    size: int
    products: int
    origin: np.ndarray

    def moment(self, power: int) -> float:
        """Return the mean of eigenvalue ** power; ``moment(1)`` is the trace over p."""
        return float((self.weights * self.nodes**power).sum())

    def moment_stderr(self, power: int) -> float:
        """Return the standard error of a moment over the random vectors; NaN for a single one."""
        drawn = np.unique(self.origin[self.origin >= 0])
        parts = self.weights * self.nodes**power * len(drawn)
        means = [float(parts[self.origin == k].sum()) for k in drawn]
        if len(means) < 2:
            return float("nan") if means else 0.0
        return float(np.std(means, ddof=1)) / math.sqrt(len(means))


@report_products("trace")
def trace(
    hessian: Hessian,
    *,
    tolerance: float = 0.05,
    sketch: int = 8,
    seed: int = 0,
    most: int = 2000,
) -> Trace:
    """Return an estimate of the trace and its standard error.

    The trace within the range of H applied to ``sketch`` random vectors is counted exactly, the
    rest is averaged over random signs z: tr H = tr Q'HQ + E z'(1 - QQ')H(1 - QQ')z.

    Args:
        hessian: the operator.
        tolerance: of the standard error, as a share of the estimate; it stops there.
        sketch: columns of Q.
        seed: of all random vectors.
        most: products at most; ``converged`` is False when they did not suffice.

    Raises:
        ParamsError: when tolerance or sketch are out of range.
        NumericsError: when a product is not finite.

    Cost: 2 sketch products and one a sample, at least 16 of these; exact for p <= sketch.

    Source: Hutch++, Meyer, Musco, Musco, Woodruff 2021 (arXiv 2010.09649), with samples until the
    error bar is small; Hutchinson 1990.
    """
    if not tolerance > 0 or sketch < 0:
        raise ParamsError(
            f"tolerance={tolerance}, sketch={sketch}; expected a tolerance above 0 and 0 or more"
            " columns."
        )
    size, before = hessian.shape[0], hessian.count
    generator = torch.Generator().manual_seed(seed)
    range_ = hessian.like.new_zeros(size, 0)
    fixed = 0.0
    if sketch:
        image = _finite(hessian @ _signs(size, min(sketch, size), generator, hessian))
        range_ = torch.linalg.qr(image)[0]
        fixed = float((range_.double() * _finite(hessian @ range_).double()).sum())
    if range_.shape[1] == size:
        return Trace(fixed, 0.0, True, hessian.count - before)
    samples: list[float] = []
    while True:
        for _ in range(_ROUND if len(samples) >= _LEAST else _LEAST):
            z = _signs(size, 1, generator, hessian)
            z = z - range_ @ (range_.T @ z)
            samples.append(float((z.double() * _finite(hessian @ z).double()).sum()))
        estimate = fixed + float(np.mean(samples))
        stderr = float(np.std(samples, ddof=1)) / math.sqrt(len(samples))
        stderr += torch.finfo(hessian.dtype).eps * abs(estimate)
        converged = stderr <= tolerance * abs(estimate)
        if converged or hessian.count - before >= most:
            return Trace(estimate, stderr, converged, hessian.count - before)


@report_products("spectrum")
def spectrum(
    hessian: Hessian,
    *,
    vectors: int = 8,
    steps: int = 60,
    outliers: int = 20,
    width: float | None = None,
    seed: int = 0,
) -> Spectrum:
    """Return the density of the eigenvalues.

    Args:
        hessian: the operator.
        vectors: random vectors over which the quadrature is averaged.
        steps: of Lanczos' process for each.
        outliers: eigenvalues at the ends that are looked for singly, at most, and taken out.
        width: standard deviation of each node in the density; a two-hundredth of the range if not
            given.
        seed: of all random vectors.

    Raises:
        ParamsError: when there are less than 1 vector or 2 steps, or the width is not above 0.
        NumericsError: when a product is not finite.

    Cost: ``steps (vectors + 1)`` products, and memory for ``steps + outliers`` vectors.

    Source: stochastic Lanczos quadrature (Golub, Welsch 1969; Lin, Saad, Yang 2016, arXiv
    1308.5467; Ghorbani, Krishnan, Xiao 2019, arXiv 1901.10159).
    """
    if vectors < 1 or steps < 2 or outliers < 0 or not (width is None or width > 0):
        raise ParamsError(
            f"vectors={vectors}, steps={steps}, outliers={outliers}, width={width}; expected at"
            " least 1 vector, 2 steps and 0 outliers, and a width above 0."
        )
    size, before = hessian.shape[0], hessian.count
    values, rows = _outer(hessian, steps, outliers, seed)
    left = size - len(values)
    nodes, weights = [values], [np.full(len(values), 1.0 / size)]
    for k in range(vectors if left else 0):
        vector = _outside(random_vector(size, hessian.like, seed + 1 + k), rows)
        space = Krylov(
            lambda v: _outside(hessian @ v, rows), vector, most=min(steps, left), seed=seed
        )
        _grow(space)
        ritz, _, coefficients = space.ritz()
        nodes.append(ritz.numpy())
        weights.append((coefficients[0] ** 2).numpy() * left / size / vectors)
    origin = np.repeat(np.arange(len(nodes)) - 1, [len(n) for n in nodes])
    found = np.concatenate(nodes), np.concatenate(weights), origin
    return _spectrum(*found, values, width=width, size=size, products=hessian.count - before)


def _outer(hessian: Hessian, steps: int, most: int, seed: int) -> tuple[np.ndarray, Tensor]:
    """Return eigenvalues at the ends that ``steps`` products settle, and their vectors, rows."""
    size = hessian.shape[0]
    if not most:
        return np.zeros(0), hessian.like.new_zeros(0, size)
    space = Krylov(
        lambda v: hessian @ v, random_vector(size, hessian.like, seed), most=min(steps, size)
    )
    _grow(space)
    values, residuals, coefficients = space.ritz()
    settled = residuals <= 1e-3 * values.abs()
    order = values.abs().argsort(descending=True)
    found = [k for k in order.tolist() if settled[k]][:most]
    rows = torch.linalg.qr(space.vectors(coefficients[:, found]).T)[0].T
    return values[found].numpy(), rows


def _grow(space: Krylov) -> None:
    """Let a space have all the vectors that it has room for, unless it ends before."""
    try:
        while not space.full:
            space.grow()
            if space.off == 0.0:
                return
    except FloatingPointError as error:
        raise not_finite() from error


def _outside(vector: Tensor, rows: Tensor) -> Tensor:
    """Return a vector without its part in the span of orthonormal rows."""
    for _ in range(2):
        vector = vector - rows.T @ (rows @ vector)
    return vector


def _spectrum(
    nodes: np.ndarray,
    weights: np.ndarray,
    origin: np.ndarray,
    outliers: np.ndarray,
    *,
    width: float | None,
    size: int,
    products: int,
) -> Spectrum:
    order = np.argsort(nodes)
    nodes, weights, origin = nodes[order], weights[order] / weights.sum(), origin[order]
    span, scale = float(np.ptp(nodes)), float(np.abs(nodes).max())
    if span <= 1e-9 * scale:  # one eigenvalue, and its rounding
        span = max(scale, 1.0)
    wide = span / 200 if width is None else width
    count = int(min(max(4 * span / wide, _GRID[0]), _GRID[1]))  # four places a width
    grid = np.linspace(nodes[0] - 4 * wide, nodes[-1] + 4 * wide, count)
    density = np.zeros(count)
    for node, weight in zip(nodes, weights, strict=True):
        density += weight * np.exp(-0.5 * ((grid - node) / wide) ** 2)
    density /= wide * math.sqrt(2 * math.pi)
    return Spectrum(nodes, weights, np.sort(outliers), grid, density, wide, size, products, origin)


def _signs(size: int, count: int, generator: torch.Generator, hessian: Hessian) -> Tensor:
    """Return random signs, shape [p, count]."""
    drawn = torch.randint(2, (size, count), generator=generator, dtype=torch.int8)
    return (2 * drawn - 1).to(hessian.device, hessian.dtype)


def _finite(tensor: Tensor) -> Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise not_finite()
    return tensor
