"""Sharpness: the measures that go by that name, at one point and in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from landscope import params as params_
from landscope.curvature.eigensolver import Eigenpairs, eigenpairs
from landscope.curvature.matrices import Hessian
from landscope.curvature.trace_estimation import Trace
from landscope.curvature.trace_estimation import trace as estimate_trace
from landscope.errors import ParamsError
from landscope.objective.objective import Objective, check_objective
from landscope.params import Params, like, norm
from landscope.slices import directions as directions_

_FIRST, _LAST = 2.0**-7, 2.0**5  # the shortest and the longest step of a search for the rim
_BISECTIONS = 7  # a width is accurate to 1%


@final
@dataclass(frozen=True, eq=False)
class Sharpness:
    """How sharp a minimum is, by several measures.

    Args:
        loss: The loss at the point.
        largest: The largest eigenvalue of the Hessian, as one eigenpair.
        trace: The trace of the Hessian.
        epsilon: A lower bound of max L(w + d) - L(w) over Euclidean |d| <= ``radius``; infinity
            where the loss overflows there.
        adaptive: The same over |d / s| <= ``adaptive_radius``, where s is the norm of the filter of
            each weight, so that rescaling a filter does not change it.
        widths: The distance along random filter-normalized directions at which the loss has risen
            by ``rise``, shape [num_directions, 2 signs]; infinity where it does not.
        radius: The radius of ``epsilon``.
        adaptive_radius: The radius of ``adaptive``.
        rise: The rise of ``widths``.
    """

    loss: float
    largest: Eigenpairs
    trace: Trace
    epsilon: float
    adaptive: float
    widths: np.ndarray
    radius: float
    adaptive_radius: float
    rise: float

    def __repr__(self) -> str:
        return (
            f"<Sharpness at loss {self.loss:.3g}: largest eigenvalue"
            f" {float(self.largest.value[0]):.3g}, trace {self.trace.value:.3g} +-"
            f" {self.trace.stderr:.1g}, rise {self.epsilon:.3g} within {self.radius:.3g} and"
            f" {self.adaptive:.3g} within {self.adaptive_radius:.3g} filter norms, width"
            f" {self.width:.3g} filter norms; {'converged' if self.converged else 'NOT converged'}>"
        )

    @property
    def width(self) -> float:
        """The median of the widths, in filter norms."""
        return float(np.median(self.widths))

    @property
    def converged(self) -> bool:
        """Whether eigenvalue and trace are within their tolerances."""
        return self.largest.converged and self.trace.converged

    @property
    def symmetry(self) -> float:
        """|u^T H v - v^T H u| for vectors that were seen, relative."""
        return max(self.largest.symmetry, self.trace.symmetry)

    @property
    def rounding(self) -> float:
        """The largest estimated error of a product of the Hessian with a unit vector."""
        return self.largest.rounding

    @property
    def route(self) -> str:
        """How products of the Hessian were computed."""
        return self.largest.route

    @property
    def products(self) -> int:
        """The number of products of the Hessian."""
        return self.largest.products + self.trace.products


def sharpness(
    objective: Objective,
    params: Mapping[str, Tensor] | None = None,
    *,
    radius: float = 0.05,
    adaptive_radius: float = 0.5,
    rise: float = 1.0,
    num_steps: int = 8,
    num_directions: int = 8,
    seed: int = 0,
) -> Sharpness:
    """Return how sharp the loss is at a point.

    Args:
        objective: The objective.
        params: The point; the center if None.
        radius: The radius of the ball of ``epsilon`` (0.05 is usual in SAM).
        adaptive_radius: The radius of the ball of ``adaptive`` (0.5 is usual in ASAM).
        rise: The rise of the loss at which a basin ends.
        num_steps: The number of ascent steps within each ball; the rises are lower bounds.
        num_directions: The number of random directions for the widths.
        seed: The seed of all random numbers.

    Raises:
        ParamsError: When a radius or the rise is not above 0.

    Cost: about 40 products, 2 ``num_steps`` gradients, 30 ``num_directions`` evaluations.

    Source: Foret et al. 2021 (SAM, arXiv 2010.01412); Kwon et al. 2021 (ASAM, arXiv 2102.11600,
    filter-wise); Keskar et al. 2017 (arXiv 1609.04836); Li et al. 2018 for the scale of widths.
    """
    if not (radius > 0 and adaptive_radius > 0 and rise > 0):
        raise ParamsError(
            f"radius={radius}, adaptive_radius={adaptive_radius}, rise={rise}; expected numbers"
            " above 0."
        )
    check_objective(objective)
    point = objective.center if params is None else like(objective.center, params)
    hessian = Hessian(objective, point)
    largest = eigenpairs(hessian, 1, "largest", seed=seed)
    trace = estimate_trace(hessian, seed=seed)
    loss = objective.loss(point)
    ones = like(point, {n: t.new_ones(()).expand_as(t) for n, t in point.items()})
    first, norms = largest.vectors[0], _filter_norms(point)
    highest = _ascend(objective, point, ones, radius, first=first, num_steps=num_steps)
    adaptive = _ascend(objective, point, norms, adaptive_radius, first=first, num_steps=num_steps)
    widths = _measure_widths(objective, point, loss + rise, num_directions, seed)
    return Sharpness(
        loss, largest, trace, highest - loss, adaptive - loss, widths, radius, adaptive_radius, rise
    )


def _ascend(
    objective: Objective,
    point: Params,
    scales: Params,
    radius: float,
    *,
    first: Params,
    num_steps: int,
) -> float:
    """Return the highest loss that ascent finds within |d / s| <= radius.

    Each step goes to where the linear approximation is highest: d = radius s^2 g / |s g|. On a
    quadratic this is the power method, which converges to the sharpest direction.
    """
    highest = objective.loss(point)
    for sign in (1.0, -1.0):  # both ways along the sharpest direction
        step = _scale_to_radius(first, scales, sign * radius)
        highest = max(highest, _evaluate(objective, point, step))
    step = _scale_to_radius(first, scales, radius)
    for _ in range(num_steps):
        gradient = objective.gradient(_add(point, step))
        uphill = like(point, {n: t * scales[n] ** 2 for n, t in gradient.items()})
        if not (norm(uphill) > 0 and math.isfinite(norm(uphill))):
            break
        step = _scale_to_radius(uphill, scales, radius)
        highest = max(highest, _evaluate(objective, point, step))
    return highest


def _scale_to_radius(direction: Params, scales: Params, radius: float) -> Params:
    """Return c d with |c d / s| = radius; an entry of scale 0 does not move."""
    movable = {n: t * (scales[n] > 0) for n, t in direction.items()}
    length = norm({n: t / scales[n].clamp(min=1e-30) for n, t in movable.items()})
    factor = radius / length if length else 0.0
    return like(direction, {n: t * factor for n, t in movable.items()})


def _evaluate(objective: Objective, point: Params, step: Params) -> float:
    loss = objective.loss(_add(point, step))
    return math.inf if math.isnan(loss) else loss  # NaN: it overflows


def _add(point: Params, step: Params) -> Params:
    return like(point, {n: t + step[n] for n, t in point.items()})


def _filter_norms(point: Params) -> Params:
    """Return the norm of its filter for each weight, and its own size for each vector's entry."""
    norms = {}
    for name, tensor in point.items():
        layout = point.layout(name)
        if layout.vector:
            norms[name] = tensor.abs()
        else:
            rows = layout.rows(tensor)
            expanded = rows.norm(dim=1, keepdim=True).expand_as(rows)
            norms[name] = layout.from_rows(expanded, tensor.shape)
    return like(point, norms)


def _measure_widths(
    objective: Objective, point: Params, level: float, num_directions: int, seed: int
) -> np.ndarray:
    """Return how far along random directions, both ways, the loss stays below a level."""
    center = params_.clone(point)
    directions = directions_.random(center, num_directions, orthogonal=False, seed=seed)
    return np.array(
        [[_find_rim(objective, point, d, s, level) for s in (1.0, -1.0)] for d in directions]
    )


def _find_rim(
    objective: Objective, point: Params, direction: Params, sign: float, level: float
) -> float:
    """Return the distance at which the loss reaches a level, by doubling and bisection."""

    def is_inside(distance: float) -> bool:
        step = like(point, {n: t * (sign * distance) for n, t in direction.items()})
        return objective.loss(_add(point, step)) < level

    inside, outside = 0.0, _FIRST
    while is_inside(outside):
        inside, outside = outside, 2 * outside
        if outside > _LAST:
            return math.inf
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_inside(middle) else (inside, middle)
    return (inside + outside) / 2
