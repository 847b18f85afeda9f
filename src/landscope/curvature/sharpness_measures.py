"""Sharpness: the numbers that people call by that name, at one point and in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from landscope import params as params_
from landscope.curvature.eigensolver import eigenpairs
from landscope.curvature.hessian import Hessian
from landscope.curvature.trace_estimation import trace as trace_
from landscope.errors import ParamsError
from landscope.objective.objective import Objective
from landscope.params import Params, like, norm
from landscope.slices import directions as directions_

_FIRST, _LAST = 2.0**-7, 2.0**5  # steps along a direction between which a wall is looked for
_BISECTIONS = 7  # a width is known to 1%


@final
@dataclass(frozen=True, eq=False)
class Sharpness:
    """How sharp a minimum is, by several measures.

    Args:
        loss: at the point.
        largest: eigenvalue of the Hessian.
        largest_residual: |Hv - largest v|.
        trace: of the Hessian.
        trace_stderr: its standard error.
        epsilon: the highest rise of the loss found within Euclidean distance ``radius``; infinity
            where it overflows there.
        adaptive: the same within ``adaptive_radius``, where each filter is measured by its norm,
            so that rescaling a filter does not change it.
        widths: how far one can go along random filter-normalized directions until the loss has
            risen by ``rise``, shape [directions, 2 signs]; infinity where it does not.
        radius: see epsilon.
        adaptive_radius: see adaptive.
        rise: see widths.
    """

    loss: float
    largest: float
    largest_residual: float
    trace: float
    trace_stderr: float
    epsilon: float
    adaptive: float
    widths: np.ndarray
    radius: float
    adaptive_radius: float
    rise: float

    @property
    def width(self) -> float:
        """Return the median of the widths, in filter norms."""
        return float(np.median(self.widths))


def sharpness(
    objective: Objective,
    params: Mapping[str, Tensor] | None = None,
    *,
    radius: float = 0.05,
    adaptive_radius: float = 0.5,
    rise: float = 1.0,
    steps: int = 8,
    count: int = 8,
    seed: int = 0,
) -> Sharpness:
    """Return how sharp the loss is at a point.

    Args:
        objective: of the loss.
        params: the point; the center if None.
        radius: of the ball of ``epsilon`` (0.05 is the usual one of SAM).
        adaptive_radius: of ``adaptive`` (0.5 is the usual one of ASAM).
        rise: of the loss, at which a basin ends.
        steps: of ascent within each ball; the rises are lower bounds.
        count: random directions for the widths.
        seed: of all that is random.

    Raises:
        ParamsError: when a radius or the rise is not above 0.

    Cost: about 40 products, 2 x ``steps`` gradients, 30 x ``count`` evaluations.

    Source: Foret et al. 2021 (SAM, arXiv 2010.01412); Kwon et al. 2021 (ASAM, arXiv 2102.11600,
    filter-wise); Keskar et al. 2017 (arXiv 1609.04836); Li et al. 2018 for the scale of widths.
    """
    if not (radius > 0 and adaptive_radius > 0 and rise > 0):
        raise ParamsError(
            f"radius={radius}, adaptive_radius={adaptive_radius}, rise={rise}; expected numbers"
            " above 0."
        )
    point = objective.center if params is None else like(objective.center, params)
    hessian = Hessian(objective, point)
    top = eigenpairs(hessian, 1, "largest", seed=seed)
    first = top.vectors[0]
    total = trace_(hessian, seed=seed)
    loss = objective.loss(point)
    even = like(point, {n: t.new_ones(()).expand_as(t) for n, t in point.items()})
    return Sharpness(
        loss,
        float(top.values[0]),
        float(top.residuals[0]),
        total.estimate,
        total.stderr,
        _climbed(objective, point, even, radius, first=first, steps=steps) - loss,
        _climbed(objective, point, _sizes(point), adaptive_radius, first=first, steps=steps) - loss,
        _widths(objective, point, loss + rise, count, seed),
        radius,
        adaptive_radius,
        rise,
    )


def _climbed(
    objective: Objective, point: Params, sizes: Params, radius: float, *, first: Params, steps: int
) -> float:
    """Return the highest loss found within |delta / sizes| <= radius.

    Each step goes to where the linear loss is highest: delta = radius s^2 g / |s g|. On a
    quadratic this is the power method, which ends at the sharpest direction.
    """
    best = objective.loss(point)
    for sign in (1.0, -1.0):  # both ways along the sharpest direction
        best = max(best, _loss(objective, point, _to_radius(first, sizes, sign * radius)))
    step = _to_radius(first, sizes, radius)
    for _ in range(steps):
        slope = objective.gradient(_moved(point, step))
        uphill = like(point, {n: t * sizes[n] ** 2 for n, t in slope.items()})
        if not (norm(uphill) > 0 and math.isfinite(norm(uphill))):
            break
        step = _to_radius(uphill, sizes, radius)
        best = max(best, _loss(objective, point, step))
    return best


def _to_radius(delta: Params, sizes: Params, radius: float) -> Params:
    """Return delta x c with |delta c / sizes| = radius; where a size is 0 nothing moves."""
    held = {n: t * (sizes[n] > 0) for n, t in delta.items()}
    length = norm({n: t / sizes[n].clamp(min=1e-30) for n, t in held.items()})
    return like(delta, {n: t * (radius / length if length else 0.0) for n, t in held.items()})


def _loss(objective: Objective, point: Params, step: Params) -> float:
    found = objective.loss(_moved(point, step))
    return math.inf if math.isnan(found) else found  # beyond all bounds, then


def _moved(point: Params, step: Params) -> Params:
    return like(point, {n: t + step[n] for n, t in point.items()})


def _sizes(point: Params) -> Params:
    """Return for each weight the norm of its filter, for each entry of a vector its own size."""
    found = {}
    for name, tensor in point.items():
        layout = point.layout(name)
        if layout.vector:
            found[name] = tensor.abs()
        else:
            rows = layout.rows(tensor)
            wide = rows.norm(dim=1, keepdim=True).expand_as(rows)
            found[name] = layout.from_rows(wide, tensor.shape)
    return like(point, found)


def _widths(objective: Objective, point: Params, level: float, count: int, seed: int) -> np.ndarray:
    """Return how far each way along random directions the loss stays below a level."""
    found = directions_.random(params_.clone(point), count, orthogonal=False, seed=seed)
    return np.array([[_width(objective, point, d, s, level) for s in (1.0, -1.0)] for d in found])


def _width(
    objective: Objective, point: Params, direction: Params, sign: float, level: float
) -> float:
    def is_inside(step: float) -> bool:
        scaled = like(point, {n: t * (sign * step) for n, t in direction.items()})
        return objective.loss(_moved(point, scaled)) < level

    inside, outside = 0.0, _FIRST
    while is_inside(outside):
        inside, outside = outside, 2 * outside
        if outside > _LAST:
            return math.inf
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_inside(middle) else (inside, middle)
    return (inside + outside) / 2
