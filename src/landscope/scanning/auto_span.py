"""Spans: how far a picture must reach to show the basin and its walls."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from landscope.objective.evaluation import Session
from landscope.objective.objective import Objective
from landscope.objective.problem import Problem
from landscope.params import like
from landscope.slices.curves import Curve, default_span
from landscope.slices.slices import Slice

_ROWS = 2048  # of the data; the span need not be known to many digits
_FARTHEST, _NEAREST = 64.0, 1e-4
_MARGIN = 1.15  # beyond the place where the wall is reached
_STEPS = 4  # bisections, each of the logarithm


def found(objective: Objective, slice_: Slice) -> list[tuple[float, float]]:
    """Return (first, last) of each axis, so that the picture shows the basin and its walls.

    The rule: along each axis, and on each side of the center, go on until the loss is that of a
    model that knows nothing, the one whose moving parameters are all zero: its outputs do not
    depend on the inputs (for cross entropy it is near ln(classes)). There the basin ends, whatever
    the network; a little further (15%) the wall can be seen. Where that loss is less than twice the
    center's (text that can be learned in part only), twice the center's is taken; where it is not
    finite, or not above the center's, ten times. A side on which no wall is met reaches as far as
    the directions are long in filter-normalized units: to 1.

    A Curve has ends: it is shown from one to the other, which takes no evaluation.

    Args:
        objective: evaluated on 2,048 samples of the data at most, evenly spread.
        slice_: a slice with the center at coordinate 0, or a Curve.

    Cost: about 8 passes over those samples for each side of each axis.
    """
    if isinstance(slice_, Curve):
        return [default_span(slice_)]
    some = _some(objective.problem)
    with some.session() as session:
        wall = _wall(session, slice_)
        axes = range(len(slice_.dims))
        sides = [[_reach(_loss_along(session, slice_, k, sign), wall) for sign in (-1, 1)]
                 for k in axes]  # fmt: skip
    return [(-_rounded(left), _rounded(right)) for left, right in sides]


def _some(problem: Problem) -> Problem:
    """Return the problem over some of its samples, where these can be separated."""
    if problem.rows <= _ROWS or "" not in problem.batches:
        return problem
    rows = torch.linspace(0, problem.rows - 1, _ROWS).long().unique()
    some = problem.sampled(rows.tolist(), torch.ones(1, len(rows)))
    return replace(some, weights=None)  # all have the same weight


def _wall(session: Session, slice_: Slice) -> float:
    center = slice_.at((0.0,) * len(slice_.dims))
    here = _loss(session.values(center))
    nothing = like(center, {n: torch.zeros_like(t) if t.is_floating_point() else t
                            for n, t in center.items() if n in session.center})  # fmt: skip
    level = _loss(session.values({**center, **nothing}))
    if math.isfinite(level) and level > here + 1e-12:
        return max(level, 2 * here)
    return here + 9 * abs(here) if here else 1.0


def _loss(values: dict[str, float]) -> float:
    return next(v for n, v in values.items() if n in ("loss", "train_loss"))


def _loss_along(session: Session, slice_: Slice, axis: int, sign: int) -> Callable[[float], float]:
    def loss(distance: float) -> float:
        at = [0.0] * len(slice_.dims)
        at[axis] = sign * distance
        return _loss(session.values(slice_.at(at)))

    return loss


def _reach(loss: Callable[[float], float], wall: float) -> float:
    """Return the distance at which the loss first reaches the wall, to some 5%."""

    def over(distance: float) -> bool:
        value = loss(distance)
        return not math.isfinite(value) or value >= wall

    far = 0.5
    if over(far):
        while far > _NEAREST and over(far / 2):
            far /= 2
        near = far / 2
    else:
        near = far
        while near < _FARTHEST and not over(2 * near):
            near *= 2
        if near >= _FARTHEST:
            return 1.0
        far = 2 * near
    for _ in range(_STEPS):
        middle = math.sqrt(near * far)
        near, far = (near, middle) if over(middle) else (middle, far)
    return _MARGIN * far


def _rounded(value: float) -> float:
    """Return two digits of a number, for axes that can be read."""
    return float(f"{value:.2g}")
