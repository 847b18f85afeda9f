"""The density of a matrix's eigenvalues, by stochastic Lanczos quadrature.

For a random unit vector v, the Ritz values theta_j of the Krylov space that starts with v, and the
first entries y_j of their coefficients,

    v^T f(A) v = sum_j y_j2 f(theta_j),      (1/p) tr f(A) = E v^T f(A) v,

exactly for polynomials f up to degree 2m - 1 after m steps (Gauss quadrature). The few eigenvalues
far out carry nearly all of the variance, so they are computed first and count exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from landscope.curvature.lanczos import KrylovSpace, random_vector
from landscope.curvature.linear_operator import CurvatureOperator
from landscope.curvature.product_bars import report_products
from landscope.curvature.ritz import not_finite, repeat_where_rounded
from landscope.errors import ParamsError

_GRID = (2001, 200_001)  # the least and the largest number of points of a density
_ROUNDED = 0.1  # of the width of a node, from which rounding shows in the density
_CONVERGED = 1e-3  # the residual of an outlier, relative to its size


@final
@dataclass(frozen=True, eq=False)
class Spectrum:
    """An estimate of a spectral density.

    Args:
        nodes: The outliers and the nodes of the quadrature, in rising order, shape [m].
        weights: The share of all eigenvalues at each node, shape [m]; they sum to 1.
        outliers: The eigenvalues that were computed one by one, in rising order.
        grid: The points of the density, shape [g].
        density: The share of the eigenvalues per unit of curvature, shape [g]: each node is a
            normal distribution of standard deviation ``width``.
        width: The standard deviation of each node in the density.
        size: The number of eigenvalues, p.
        products: The number of products.
        origin: The number of the random vector of each node, shape [m]; -1 for an outlier.
        symmetry: |u^T A v - v^T A u| for random u and v, relative to what it is for a matrix that
            is not symmetric at all.
        rounding: The estimated error of a product with a unit vector: a node that is nearer to zero
            may have either sign.
        route: How products were computed; "... in float64" where those of float32 did not do.
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
    symmetry: float = float("nan")
    rounding: float = float("nan")
    route: str = ""

    def __repr__(self) -> str:
        return (
            f"<Spectrum of {self.size:,} eigenvalues from {self.nodes[0]:.3g} to"
            f" {self.nodes[-1]:.3g}, {len(self.outliers)} of them computed singly;"
            f" smoothing width {self.width:.2g}; {self.products} products>"
        )

    def moment(self, power: int) -> float:
        """Return the mean of eigenvalue ** power; ``moment(1)`` is the trace over p."""
        return float((self.weights * self.nodes**power).sum())

    def moment_stderr(self, power: int) -> float:
        """Return the standard error of a moment over the random vectors; NaN for a single one.

        It is itself known from few vectors only: see :meth:`moment_interval`.
        """
        numbers = np.unique(self.origin[self.origin >= 0])
        parts = self.weights * self.nodes**power * len(numbers)
        means = [float(parts[self.origin == k].sum()) for k in numbers]
        if len(means) < 2:
            return float("nan") if means else 0.0
        return float(np.std(means, ddof=1)) / math.sqrt(len(means))

    def moment_interval(self, power: int) -> tuple[float, float]:
        """Return the ends of a 95% interval of a moment.

        For a vector v that is uniform on the sphere in p dimensions,

            Var v'Bv = 2 / (p + 2) (tr B^2 / p - (tr B / p)^2),      B = A^power,

        whose traces are moments that the quadrature estimates from all vectors together. The
        interval is Student's with this variance, for as many vectors. (Their sample variance is
        small when their mean is, by chance: 1.96 of ``moment_stderr`` on both sides hold in 75% for
        6 vectors and one dominant eigenvalue, this interval in 95%.)

        Returns:
            (lower, upper), both the moment itself where all eigenvalues were computed one by one.
        """
        from scipy.stats import t

        value, random = self.moment(power), self.origin >= 0
        if not random.any():
            return value, value
        share, count = float(self.weights[random].sum()), len(np.unique(self.origin[random]))
        weights, scale = self.weights[random] / share, float(np.abs(self.nodes[random]).max())
        powers = (self.nodes[random] / (scale or 1.0)) ** power
        variance = float((weights * powers**2).sum() - (weights * powers).sum() ** 2)
        stderr = math.sqrt(2 * max(variance, 0.0) / (share * self.size + 2) / count)
        width = float(t.ppf(0.975, max(count - 1, 1))) * stderr * share * scale**power
        return value - width, value + width


@report_products("spectrum")
def spectrum(
    operator: CurvatureOperator,
    *,
    num_vectors: int = 8,
    num_steps: int = 60,
    max_outliers: int = 20,
    width: float | None = None,
    seed: int = 0,
) -> Spectrum:
    """Return the density of the eigenvalues.

    Args:
        operator: The matrix.
        num_vectors: The number of random vectors over which the quadrature is averaged.
        num_steps: The number of Lanczos steps for each vector.
        max_outliers: The largest number of eigenvalues at the ends that are computed one by one.
        width: The standard deviation of each node in the density; a two-hundredth of the range if
            None.
        seed: The seed of all random vectors.

    Raises:
        ParamsError: When there is less than 1 vector or 2 steps, or the width is not above 0.
        NumericsError: When a product is not finite.

    Cost: ``num_steps (num_vectors + 1)`` products, and memory for ``num_steps + max_outliers``
    vectors.

    Source: stochastic Lanczos quadrature (Golub, Welsch 1969; Lin, Saad, Yang 2016, arXiv
    1308.5467; Ghorbani, Krishnan, Xiao 2019, arXiv 1901.10159).
    """
    if num_vectors < 1 or num_steps < 2 or max_outliers < 0 or not (width is None or width > 0):
        raise ParamsError(
            f"num_vectors={num_vectors}, num_steps={num_steps}, max_outliers={max_outliers},"
            f" width={width}; expected at least 1 vector, 2 steps and 0 outliers, and a width"
            " above 0."
        )
    before = operator.products

    def compute(matrix: CurvatureOperator) -> Spectrum:
        result = _compute(matrix, num_vectors, num_steps, max_outliers, width=width, seed=seed)
        return replace(result, rounding=_estimate_rounding(matrix, seed))

    result, route = repeat_where_rounded(
        operator, compute, lambda s: s.rounding > _ROUNDED * s.width
    )
    return replace(
        result,
        products=operator.products - before,
        symmetry=getattr(operator, "symmetry", math.nan),
        route=route,
    )


def _estimate_rounding(operator: CurvatureOperator, seed: int) -> float:
    """Return the largest error by rounding of products with some random unit vectors."""
    is_ours = isinstance(operator, CurvatureOperator)  # of the user's own, only products exist
    if not is_ours:
        return 0.0
    vectors = [
        random_vector(operator.shape[0], seed + k, dtype=operator.dtype, device=operator.device)
        for k in range(2)
    ]
    columns = torch.stack([v / v.norm() for v in vectors], dim=1)
    return float(operator.estimate_errors(columns).norm(dim=0).max())


def _compute(
    operator: CurvatureOperator,
    num_vectors: int,
    num_steps: int,
    max_outliers: int,
    *,
    width: float | None,
    seed: int,
) -> Spectrum:
    """Return the spectrum as products in one precision give it."""
    size, before = operator.shape[0], operator.products
    outliers, rows = _find_outliers(operator, num_steps, max_outliers, seed)
    bulk = size - len(outliers)  # eigenvalues that the quadrature is for
    nodes, weights = [outliers], [np.full(len(outliers), 1.0 / size)]
    for k in range(num_vectors if bulk else 0):
        values, shares = _quadrature(operator, rows, min(num_steps, bulk), seed=seed, number=k)
        nodes.append(values)
        weights.append(shares * bulk / size / num_vectors)
    origin = np.repeat(np.arange(len(nodes)) - 1, [len(n) for n in nodes])
    return _smooth(
        np.concatenate(nodes), np.concatenate(weights), origin, outliers,
        width=width, size=size, products=operator.products - before,
    )  # fmt: skip


def _find_outliers(
    operator: CurvatureOperator, num_steps: int, max_outliers: int, seed: int
) -> tuple[np.ndarray, Tensor]:
    """Return the outer eigenvalues that converge in so many steps, and their vectors as rows."""
    size = operator.shape[0]
    if not max_outliers:
        return np.zeros(0), torch.zeros(0, size, dtype=operator.dtype, device=operator.device)
    start = random_vector(size, seed, dtype=operator.dtype, device=operator.device)
    space = KrylovSpace(lambda v: operator @ v, start, max_vectors=min(num_steps, size))
    _fill(space)
    values, residuals, coefficients = space.ritz_pairs()
    converged = residuals <= _CONVERGED * values.abs()
    order = values.abs().argsort(descending=True)
    indices = [k for k in order.tolist() if converged[k]][:max_outliers]
    rows = torch.linalg.qr(space.combine(coefficients[:, indices]).T)[0].T
    return values[indices].numpy(), rows


def _quadrature(
    operator: CurvatureOperator, rows: Tensor, num_steps: int, *, seed: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the Gauss quadrature for one random vector without outliers."""
    size = operator.shape[0]
    vector = random_vector(size, seed + 1 + number, dtype=operator.dtype, device=operator.device)
    space = KrylovSpace(
        lambda v: _project_out(operator @ v, rows), _project_out(vector, rows),
        max_vectors=num_steps, seed=seed,
    )  # fmt: skip
    _fill(space)
    values, _, coefficients = space.ritz_pairs()
    return values.numpy(), (coefficients[0] ** 2).numpy()


def _fill(space: KrylovSpace) -> None:
    """Extend a space until it is full or invariant."""
    try:
        while not space.is_full:
            space.extend()
            if space.beta == 0.0:
                return
    except FloatingPointError as error:
        raise not_finite() from error


def _project_out(vector: Tensor, rows: Tensor) -> Tensor:
    """Return a vector without its part in the span of orthonormal rows."""
    for _ in range(2):
        vector = vector - rows.T @ (rows @ vector)
    return vector


def _smooth(
    nodes: np.ndarray,
    weights: np.ndarray,
    origin: np.ndarray,
    outliers: np.ndarray,
    *,
    width: float | None,
    size: int,
    products: int,
) -> Spectrum:
    """Return the spectrum whose density is a sum of normal distributions, one at each node."""
    order = np.argsort(nodes)
    nodes, weights, origin = nodes[order], weights[order] / weights.sum(), origin[order]
    span, scale = float(np.ptp(nodes)), float(np.abs(nodes).max())
    if span <= 1e-9 * scale:  # a single eigenvalue, and its rounding
        span = max(scale, 1.0)
    sigma = span / 200 if width is None else width
    count = int(min(max(4 * span / sigma, _GRID[0]), _GRID[1]))  # four points a width
    grid = np.linspace(nodes[0] - 4 * sigma, nodes[-1] + 4 * sigma, count)
    density = np.zeros(count)
    for node, weight in zip(nodes, weights, strict=True):
        density += weight * np.exp(-0.5 * ((grid - node) / sigma) ** 2)
    density /= sigma * math.sqrt(2 * math.pi)
    return Spectrum(nodes, weights, np.sort(outliers), grid, density, sigma, size, products, origin)
