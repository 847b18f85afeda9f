"""The search for Ritz pairs of an operator: a Krylov space is extended until they are accurate.

A Ritz value theta lies within its residual norm |Av - theta v| of an eigenvalue (Parlett, *The
Symmetric Eigenvalue Problem*, 1980, section 4.5). The sharper bound residual2 / gap is not used to
stop: the gap is unknown while the next eigenvalue is still hidden, and stopping by it left one
value in five less accurate than the tolerance.

Products are rounded, and where the loss is tiny by more than their own size. So the rounding of the
products with the Ritz vectors is estimated; where it matters, these products are repeated in
float64, and where the vectors are not accurate enough either, the search is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, final

import torch
from torch import Tensor

from landscope.curvature.lanczos import KrylovSpace, random_vector
from landscope.curvature.linear_operator import CurvatureOperator
from landscope.curvature.product_bars import report_products
from landscope.errors import NumericsError

_BASIS = (24, 400)  # the least and the largest number of vectors in a basis
_BYTES = 2**31  # of a basis, if it has more than the least number of vectors
_RESTART = (0.3, 0.15)  # shares of a full basis that are kept at the lower and the upper end
_Result = TypeVar("_Result")

_RANDOM = 0.3  # the length of the random part of a start from unit vectors
_UNSURE = 4.0  # multiples of an error that is not estimated from float64
_DOUBT = 10.0  # multiples of its error, within which a negative value may be zero
_NOISE = 64.0  # multiples of the rounding of numbers, which products cannot do without
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
        slack: The tolerance of a value, as a multiple of ``limit``.
    """

    choose: Callable[[Tensor], list[int]]
    limit: Callable[[Tensor, Sequence[int]], Tensor]
    count: int
    max_products: int
    slack: float = 1.0


@final
@dataclass(frozen=True, eq=False)
class RitzPairs:
    """Ritz pairs of an operator.

    Args:
        values: The Ritz values, shape [k], float64.
        residuals: The residual norms |Av - value v|, with the rounding of Av, shape [k].
        vectors: The Ritz vectors as rows of norm 1, shape [k, p]; the largest entry is positive.
        converged: Whether all residuals are within their bounds.
        products: The number of products.
        rounding: The largest estimated error of Av by rounding.
        symmetry: The largest |u^T A v - v^T A u| that was seen, relative to the largest |value|.
        route: How the products were computed.
    """

    values: Tensor
    residuals: Tensor
    vectors: Tensor
    converged: bool
    products: int
    rounding: float = 0.0
    symmetry: float = 0.0
    route: str = ""


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
    pairs, limit = _find(operator, target, start, seed)
    is_ours = isinstance(operator, CurvatureOperator)  # of the user's own, only products exist
    if not is_ours:
        return pairs
    errors = operator.estimate_errors(pairs.vectors.T).norm(dim=0).cpu()
    if not operator.has_reference:  # asymmetry is rounding too, some of which the estimate misses
        asymmetry = max(pairs.symmetry, operator.symmetry)
        errors = _UNSURE * errors.clamp(min=asymmetry * float(pairs.values.abs().max()))
    if _has_rounding_to_fear(pairs, errors, limit):
        better = _repeat_in_double(operator, target, pairs, seed)
        if better is not None:
            return better
    return _finish(operator, pairs, errors, limit)


def _find(
    operator: CurvatureOperator, target: Target, start: Tensor | None, seed: int
) -> tuple[RitzPairs, Tensor]:
    """Return Ritz pairs as products in one precision give them, and how accurate they must be."""
    if start is None:
        start = random_vector(operator.shape[0], seed, dtype=operator.dtype, device=operator.device)
    room = max(_count_room(operator), 2 * target.count + 2)  # a restart always leaves some
    space = KrylovSpace(lambda v: operator @ v, start, max_vectors=room, seed=seed)
    indices, converged = _search(space, target, torch.finfo(operator.dtype).eps)
    values, residuals, coefficients = space.ritz_pairs()
    scale = float(values.abs().max())
    pairs = RitzPairs(
        values[indices],
        residuals.clamp(min=torch.finfo(operator.dtype).eps * scale)[indices],
        _orient(space.combine(coefficients[:, indices])),
        converged,
        space.products,
        symmetry=space.asymmetry / scale if scale else 0.0,
    )
    return pairs, target.slack * target.limit(values, indices)


def _has_rounding_to_fear(pairs: RitzPairs, errors: Tensor, limit: Tensor) -> bool:
    """Return whether values are less accurate than they must be, or their sign is in doubt."""
    reach = _DOUBT * (pairs.residuals + errors)
    is_in_doubt = (pairs.values < 0) & (pairs.values > -reach)
    return bool(((errors > limit) | is_in_doubt).any())


def _repeat_in_double(
    operator: CurvatureOperator, target: Target, pairs: RitzPairs, seed: int
) -> RitzPairs | None:
    """Return pairs from products in float64; None where there are none.

    If the vectors are accurate, one product each will do; else the search goes on from them.
    """
    double = operator.in_double()
    if double is None:
        return None
    before, vectors = double.products, pairs.vectors.double()
    images = (double @ vectors.T).T
    values = (images * vectors).sum(dim=1)
    residuals = (images - values[:, None] * vectors).norm(dim=1).cpu()
    values = values.cpu()
    all_values = torch.cat([values, pairs.values])
    limit = target.slack * target.limit(all_values, range(len(values)))
    if pairs.converged and bool((residuals <= limit).all()):
        errors = double.estimate_errors(vectors.T).norm(dim=0).cpu()
        pairs = _finish(double, replace(pairs, values=values, residuals=residuals), errors, limit)
    else:
        size = len(vectors.T)
        noise = random_vector(size, seed, dtype=vectors.dtype, device=vectors.device)
        start = vectors.sum(dim=0) + _RANDOM * noise / noise.norm()
        pairs = find_ritz_pairs(double, target, start=start, seed=seed)
    operator.products += double.products - before
    return replace(pairs, route=f"{double.route} in float64")


def repeat_where_rounded(
    operator: CurvatureOperator,
    compute: Callable[[CurvatureOperator], _Result],
    is_rounded: Callable[[_Result], bool],
) -> tuple[_Result, str]:
    """Return a result of a matrix, in float64 where that of float32 is rounded, and its route."""
    result = compute(operator)
    is_ours = isinstance(operator, CurvatureOperator)
    double = operator.in_double() if is_ours and is_rounded(result) else None
    if double is None:
        return result, operator.route if is_ours else ""
    before = double.products
    result = compute(double)
    operator.products += double.products - before
    return result, f"{double.route} in float64"


def _finish(
    operator: CurvatureOperator, pairs: RitzPairs, errors: Tensor, limit: Tensor
) -> RitzPairs:
    """Return pairs with the rounding of their products, shape [k], in residuals and verdict."""
    floor = _NOISE * torch.finfo(operator.dtype).eps * float(pairs.values.abs().max())
    return replace(
        pairs,
        residuals=pairs.residuals + errors,
        converged=pairs.converged and bool((errors <= limit.clamp(min=floor)).all()),
        rounding=float(errors.max()),
        symmetry=max(pairs.symmetry, operator.symmetry),
        route=operator.route,
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
