"""Eigenvalues and eigenvectors of a curvature matrix, each with its residual.

One Krylov space serves both ends of the spectrum; see :mod:`landscope.curvature.ritz` for how it
stops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from landscope import params as params_
from landscope.curvature.linear_operator import CurvatureOperator
from landscope.curvature.product_bars import check_operator
from landscope.curvature.ritz import RitzPairs, Target, find_ritz_pairs
from landscope.errors import DirectionError, ParamsError
from landscope.params import Params, like

Which = Literal["extremes", "largest", "smallest", "magnitude"]

FLOOR = 1e-3  # of the largest |eigenvalue|: a smaller one is as accurate as a value of this size
# A residual is small enough at this share of the tolerance. With 1 an eigenvalue further out was
# still hidden in up to 11% of 266 runs, with 0.3 in none of those but in one of others; it costs a
# tenth more products.
_SAFE = 0.1


@final
@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Some eigenvalues of a matrix A, with their eigenvectors.

    Args:
        value: The eigenvalues, shape [k], float64: for "extremes" the largest, the smallest, the
            second largest, ...; else the outermost first.
        stderr: Their standard errors, shape [k], when the matrix is of drawn samples; else zeros.
        residual: The residual norms |Av - value v| with the rounding of Av, shape [k].
        vectors: The eigenvectors, of Euclidean norm 1.
        converged: Whether all residuals are within the tolerance.
        products: The number of products, of which some may be in float64.
        symmetry: |u^T A v - v^T A u| for vectors that were seen, relative to the largest |value|.
        rounding: The largest estimated error of a product with a unit vector.
        route: How products were computed; "... in float64" where those of float32 did not do.
    """

    value: Tensor
    stderr: Tensor
    residual: Tensor
    vectors: tuple[Params, ...]
    converged: bool
    products: int
    symmetry: float = float("nan")
    rounding: float = float("nan")
    route: str = ""

    def __repr__(self) -> str:
        values = ", ".join(f"{v:.3g} (+- {_error(r, s):.1g})" for v, r, s in _rows(self))
        return f"<Eigenpairs: {values}; {_describe_end(self)}>"


@final
@dataclass(frozen=True, eq=False)
class Extremes:
    """The two ends of a spectrum.

    Args:
        value: The smallest and the largest eigenvalue, shape [2], float64.
        stderr: Their standard errors, shape [2], when the matrix is of drawn samples; else zeros;
            NaN where they were left out.
        residual: The residual norms |Av - value v| with the rounding of Av, shape [2]: how far the
            values may be off.
        vectors: The two eigenvectors, of Euclidean norm 1.
        converged: Whether both values are within the tolerance.
        products: The number of products, of which some may be in float64.
        symmetry: |u^T A v - v^T A u| for vectors that were seen, relative to the largest |value|.
        rounding: The largest estimated error of a product with a unit vector.
        route: How products were computed; "... in float64" where those of float32 did not do.
    """

    value: Tensor
    stderr: Tensor
    residual: Tensor
    vectors: tuple[Params, ...]
    converged: bool
    products: int
    symmetry: float = float("nan")
    rounding: float = float("nan")
    route: str = ""

    def __repr__(self) -> str:
        low, high = (f"{v:.3g} (+- {_error(r, s):.1g})" for v, r, s in _rows(self))
        return f"<Extremes: {low} to {high}; {_describe_end(self)}>"

    @property
    def smallest(self) -> float:
        """The smallest eigenvalue."""
        return float(self.value[0])

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return float(self.value[1])

    @property
    def is_saddle_like(self) -> bool | None:
        """Whether there is negative curvature; None where that cannot be said.

        True where the smallest eigenvalue is negative beyond its residual. False where it is not,
        and is known to a thousandth of the largest. None in between: it is zero within a residual
        that is large, such as the rounding of a tiny loss in float32.
        """
        error = float(self.residual[0])
        if self.smallest < -error:
            return True
        is_known = self.smallest > error or error <= FLOOR * float(self.value.abs().max())
        return False if is_known else None

    @property
    def convexity(self) -> float:
        """|smallest / largest|, the ratio that Figure 7 of arXiv 1712.09913 shows."""
        return abs(self.smallest / self.largest) if self.largest else float("nan")


def _rows(pairs: Eigenpairs | Extremes) -> list[list[float]]:
    """Return [value, residual, stderr] of each pair."""
    return torch.stack([pairs.value, pairs.residual, pairs.stderr]).T.tolist()


def _error(residual: float, stderr: float) -> float:
    """Return the error that is said with a value: the larger one; NaN is left out."""
    return max(residual, stderr if math.isfinite(stderr) else 0.0)


def _describe_end(pairs: Eigenpairs | Extremes) -> str:
    return f"{'converged' if pairs.converged else 'NOT converged'} after {pairs.products} products"


def eigenpairs(
    operator: CurvatureOperator,
    count: int = 2,
    which: Which = "extremes",
    *,
    residual_tol: float = 1e-3,
    max_products: int = 2000,
    seed: int = 0,
) -> Eigenpairs:
    """Return eigenvalues and eigenvectors at one end of the spectrum, or at both.

    Args:
        operator: The matrix, with at least ``count`` parameters.
        count: The number of pairs.
        which: "extremes": half of them from each end, the largest first; "largest"; "smallest"
            (the most negative); "magnitude".
        residual_tol: The tolerance of each residual, relative to its |value|, or to a hundredth of
            the largest |eigenvalue| where that is more.
        max_products: The largest number of products; if it is reached, ``converged`` is False.
        seed: The seed of the first vector.

    Raises:
        ParamsError: When ``which`` is unknown or the count is out of range.
        NumericsError: When a product is not finite.

    Rounding is estimated by products of up to 32 rows; where it matters, products are repeated in
    float64.

    Cost: some 10 to 100 products, and memory for as many vectors (at most 2 GiB, or 24 vectors
    where that is more; then it restarts from the best of them); another product for each pair when
    the matrix is of drawn samples. Of an eigenvalue that occurs several times one vector is found.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> pairs = ls.curvature.eigenpairs(ls.curvature.Hessian(objective), 1, "largest")
        >>> pairs.converged
        True
    """
    _check(operator, count, which)

    def choose(values: Tensor) -> list[int]:
        return _choose_indices(values, count, which)

    def limit(values: Tensor, indices: Sequence[int]) -> Tensor:
        scale = float(values.abs().max())
        return residual_tol * values[list(indices)].abs().clamp(min=0.01 * scale)

    before = operator.products
    target = Target(choose, limit, count=count, max_products=max_products)
    ritz = find_ritz_pairs(operator, target, start=None, seed=seed)
    return Eigenpairs(
        value=ritz.values,
        stderr=_estimate_stderr(operator, ritz),
        residual=ritz.residuals,
        vectors=_to_params(operator, ritz),
        converged=ritz.converged,
        products=operator.products - before,
        symmetry=ritz.symmetry,
        rounding=ritz.rounding,
        route=ritz.route,
    )


def extremes(
    operator: CurvatureOperator,
    *,
    eigenvalue_tol: float = 1e-3,
    max_products: int = 2000,
    start: Mapping[str, Tensor] | Tensor | None = None,
    seed: int = 0,
    with_stderr: bool = True,
) -> Extremes:
    """Return the smallest and the largest eigenvalue, from one Krylov space.

    Args:
        operator: The matrix.
        eigenvalue_tol: The tolerance of each eigenvalue, relative to its size, or to a thousandth
            of the largest |eigenvalue| where that is more (an eigenvalue that small is zero for all
            purposes).
        max_products: The largest number of products; if it is reached, ``converged`` is False.
        start: The first vector, such as the sum of the eigenvectors of a neighboring point; a
            random one if None.
        seed: The seed of the random one.
        with_stderr: Whether to estimate standard errors when the matrix is of drawn samples, with
            two more products.

    Raises:
        NumericsError: When a product is not finite.

    Rounding is estimated by products of up to 32 rows. Where a value is less accurate than the
    tolerance for it, or negative by less than ten times its error, the products of the two vectors
    are repeated in float64; where that does not suffice, the search is.

    Cost: 8 to 40 products for digits networks at a tolerance of 1%, the more the flatter the point;
    twice as many where the search is repeated, which tiny losses in float32 need.
    """

    def choose(values: Tensor) -> list[int]:
        return [0, len(values) - 1]

    def limit(values: Tensor, indices: Sequence[int]) -> Tensor:
        scale = float(values.abs().max())
        return _SAFE * eigenvalue_tol * values[list(indices)].abs().clamp(min=FLOOR * scale)

    check_operator(operator)
    before = operator.products
    target = Target(choose, limit, count=2, max_products=max_products, slack=1 / _SAFE)
    first = None if start is None else operator.flatten(start)
    ritz = find_ritz_pairs(operator, target, start=first, seed=seed)
    unknown = torch.full((2,), torch.nan, dtype=torch.float64)
    return Extremes(
        value=ritz.values,
        stderr=_estimate_stderr(operator, ritz) if with_stderr else unknown,
        residual=ritz.residuals,
        vectors=_to_params(operator, ritz),
        converged=ritz.converged,
        products=operator.products - before,
        symmetry=ritz.symmetry,
        rounding=ritz.rounding,
        route=ritz.route,
    )


def _choose_indices(values: Tensor, count: int, which: str) -> list[int]:
    """Return the indices of Ritz values in rising order, in the order of the result."""
    rising = list(range(len(values)))
    if which == "largest":
        return rising[::-1][:count]
    if which == "smallest":
        return rising[:count]
    if which == "magnitude":
        order: list[int] = values.abs().argsort(descending=True, stable=True).tolist()
        return order[:count]
    pairs = zip(rising[::-1], rising, strict=True)
    return list(dict.fromkeys(k for pair in pairs for k in pair))[:count]


def _to_params(operator: CurvatureOperator, ritz: RitzPairs) -> tuple[Params, ...]:
    return tuple(params_.unflatten(row, operator.template) for row in ritz.vectors)


def _estimate_stderr(operator: CurvatureOperator, ritz: RitzPairs) -> Tensor:
    """Return standard errors of eigenvalues by first-order perturbation, v^T dA v."""
    if operator.samples is None:
        return torch.zeros(len(ritz.values), dtype=torch.float64)
    errors = [operator.along(row).stderr for row in ritz.vectors]
    return torch.tensor(errors, dtype=torch.float64)


def _check(operator: CurvatureOperator, count: int, which: str) -> None:
    check_operator(operator)
    if which not in get_args(Which):
        raise ParamsError(f"which={which!r}; expected one of {', '.join(get_args(Which))}.")
    if not (isinstance(count, int) and 1 <= count <= operator.shape[0]):
        raise ParamsError(
            f"count={count}; expected 1 to {operator.shape[0]}, the number of parameters."
        )


def eigenvectors(
    operator: CurvatureOperator,
    count: int = 2,
    which: Which = "extremes",
    *,
    residual_tol: float = 1e-3,
    seed: int = 0,
) -> list[Params]:
    """Return eigenvectors as directions: by default the sharpest way up, and the steepest down.

    They have Euclidean norm 1 and are not rescaled filter by filter, so that the second derivative
    of the loss along each is its eigenvalue. Parameters that the matrix leaves out do not move.

    Args:
        operator: The matrix, such as ``ls.curvature.Hessian``.
        count: The number of directions.
        which: "extremes" (largest, smallest, second largest, ...), "largest", "smallest" or
            "magnitude".
        residual_tol: The tolerance of the residuals; see ``ls.curvature.eigenpairs``.
        seed: The seed of the first vector of the Krylov space.

    Raises:
        DirectionError: When they do not converge.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> dx, dy = ls.directions.eigenvectors(ls.curvature.Hessian(objective))
        >>> plane = ls.Plane(objective.center, dx, dy, labels=("sharpest", "flattest"))
    """
    pairs = eigenpairs(operator, count, which, residual_tol=residual_tol, seed=seed)
    if not pairs.converged:
        raise DirectionError(
            f"of {count} eigenvectors ({which}) not all converged to residual_tol={residual_tol:g}"
            f" in {pairs.products} products (residuals"
            f" {', '.join(f'{r:.2g}' for r in pairs.residual.tolist())}): allow a larger"
            " tolerance, or take vectors of ls.curvature.eigenpairs as they are."
        )
    center = operator.objective.center
    zeros = {n: torch.zeros_like(t) for n, t in center.items()}
    return [
        like(center, {**zeros, **vector}).record_origin(kind="eigenvector", eigenvalue=value)
        for vector, value in zip(pairs.vectors, pairs.value.tolist(), strict=True)
    ]
