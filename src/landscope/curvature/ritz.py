"""The search for Ritz pairs of an operator: a Krylov space is extended until they are accurate.

A Ritz value theta lies within its residual norm |Av - theta v| of an eigenvalue (Parlett, *The
Symmetric Eigenvalue Problem*, 1980, section 4.5). The sharper bound residual2 / gap is not used to
stop: the gap is unknown while the next eigenvalue is still hidden, and stopping by it left one
value in five less accurate than the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from landscope.curvature.lanczos import KrylovSpace, random_vector
from landscope.curvature.linear_operator import CurvatureOperator, report_products
from landscope.errors import NumericsError

_BASIS = (24, 400)  # the least and the largest number of vectors in a basis
_BYTES = 2**31  # of a basis, if it has more than the least number of vectors
_RESTART = (0.3, 0.15)  # shares of a full basis that are kept at the lower and the upper end
_EPS = 4.0  # multiples of the rounding of a product, below which no residual gets


@final
@dataclass(frozen=True)
class Target:
    """Which Ritz pairs are searched for, and how accurate they must be.

    Args:
        choose: Returns the indices of the pairs from the Ritz values in rising order.
        limit: Returns the largest acceptable residuals from Ritz values and indices.
        count: The number of pairs.
        max_products: The largest number of products.
    """

    choose: Callable[[Tensor], list[int]]
    limit: Callable[[Tensor, Sequence[int]], Tensor]
    count: int
    max_products: int


@final
@dataclass(frozen=True, eq=False)
class RitzPairs:
    """Ritz pairs of an operator.

    Args:
        values: The Ritz values, shape [k], float64.
        residuals: The residual norms |Av - value v|, shape [k]; never less than rounding.
        vectors: The Ritz vectors as rows of norm 1, shape [k, p]; the largest entry is positive.
        converged: Whether all residuals are within their bounds.
        products: The number of products.
    """

    values: Tensor
    residuals: Tensor
    vectors: Tensor
    converged: bool
    products: int


@report_products("eigenvalues")
def find_ritz_pairs(
    operator: CurvatureOperator, target: Target, *, start: Tensor | None, seed: int
) -> RitzPairs:
    """Return Ritz pairs from one Krylov space.

    Args:
        operator: The operator.
        target: The pairs to search for.
        start: The first vector, shape [p]; a random one if None.
        seed: The seed of random vectors.

    Raises:
        NumericsError: When a product is not finite.
    """
    if start is None:
        start = random_vector(operator.shape[0], seed, dtype=operator.dtype, device=operator.device)
    room = max(_count_room(operator), 2 * target.count + 2)  # a restart always leaves some
    space = KrylovSpace(lambda v: operator @ v, start, max_vectors=room, seed=seed)
    indices, converged = _search(space, target, torch.finfo(operator.dtype).eps)
    values, residuals, coefficients = space.ritz_pairs()
    rounding = torch.finfo(operator.dtype).eps * float(values.abs().max())
    return RitzPairs(
        values[indices],
        residuals.clamp(min=rounding)[indices],
        _orient(space.combine(coefficients[:, indices])),
        converged,
        space.products,
    )


def _search(space: KrylovSpace, target: Target, eps: float) -> tuple[list[int], bool]:
    """Extend a space; return the indices of the target, and whether they are accurate."""
    while True:
        try:
            space.extend()
        except FloatingPointError as error:
            raise not_finite() from error
        values, residuals, _ = space.ritz_pairs()
        scale = float(values.abs().max())
        indices = target.choose(values)
        bounds = target.limit(values, indices).clamp(min=_EPS * eps * scale)
        enough = space.is_exhausted or len(values) > len(indices)
        if enough and bool((residuals.clamp(min=eps * scale)[indices] <= bounds).all()):
            return indices, True
        if space.is_exhausted or space.products >= target.max_products:
            return indices, space.is_exhausted
        if space.is_full:
            space.restart(_choose_restart(len(values), indices))


def not_finite() -> NumericsError:
    """Return the error of a product that holds NaN or infinity."""
    return NumericsError(
        "a Hessian product is not finite: the loss overflows at this point, the model divides by"
        " zero there, or the parameters hold NaN. Look at objective.loss(params) and"
        " objective.gradient(params)."
    )


def _choose_restart(size: int, indices: Sequence[int]) -> Tensor:
    """Return which Ritz vectors a full basis keeps: the target and both ends."""
    low, high = (max(int(share * size), 1) for share in _RESTART)
    return torch.tensor(sorted({*range(low), *range(size - high, size), *indices}))


def _count_room(operator: CurvatureOperator) -> int:
    """Return how many vectors a basis may have: the same on every machine, so are the values."""
    least, most = _BASIS
    size = operator.shape[0] * torch.finfo(operator.dtype).bits // 8
    return max(least, min(most, _BYTES // size))


def _orient(rows: Tensor) -> Tensor:
    """Return unit vectors whose largest entry is positive: an eigenvector has no sign."""
    rows = rows / rows.norm(dim=1, keepdim=True)
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return rows * torch.where(largest < 0, -1.0, 1.0).to(rows)
