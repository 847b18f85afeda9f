"""The span of a picture: how far it must reach to show the basin and its walls."""

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

_ROWS = 2048  # samples of the data: two digits of the span suffice
_FARTHEST, _NEAREST = 64.0, 1e-4  # distances between which the wall is searched
_MARGIN = 1.15  # the picture reaches this many times as far as the wall
_BISECTIONS = 4  # on a logarithmic scale of the distance


def find_span(objective: Objective, slice_: Slice) -> list[tuple[float, float]]:
    """Return (first, last) of each axis, so that the picture shows the basin and its walls.

    The rule: along each axis, on each side of the center, the picture reaches to the point where
    the loss is that of a model that has learned nothing: the model whose moving parameters are all
    zero, so that its outputs do not depend on the inputs (for cross entropy its loss is near
    ln(classes)). There the basin of any network ends; a margin of 15% shows the wall. If that loss
    is less than twice the loss at the center (text that can be learned only in part), twice the
    loss at the center is taken; if it is not finite, or not above the loss at the center, ten
    times the loss at the center (1 where that is 0). A side without a wall reaches to 1, the length
    of filter-normalized directions.

    Args:
        objective: The objective, evaluated on at most 2,048 samples of the data, evenly spaced.
        slice_: A slice; distances are measured from its center, coordinate 0. The span of a Curve
            is always (0, 1).

    Cost: about 8 passes over those samples per side of each axis.
    """
    if isinstance(slice_, Curve):
        return [default_span(slice_)]
    with thin_out(objective.problem).session() as session:
        wall = _wall(session, slice_)
        axes = range(len(slice_.dims))
        sides = [[_reach(_loss_along(session, slice_, k, sign), wall) for sign in (-1, 1)]
                 for k in axes]  # fmt: skip
    return [(-_round(left), _round(right)) for left, right in sides]


def thin_out(problem: Problem) -> Problem:
    """Return the problem over evenly spaced samples, where samples can be separated."""
    if problem.rows <= _ROWS or "" not in problem.batches or problem.find_coupling():
        return problem
    rows = torch.linspace(0, problem.rows - 1, _ROWS).long().unique()
    sampled = problem.select_samples(rows.tolist(), torch.ones(1, len(rows)))
    return replace(sampled, weights=None)  # all have the same weight


def _wall(session: Session, slice_: Slice) -> float:
    """Return the loss at which the basin ends."""
    center = slice_.at((0.0,) * len(slice_.dims))
    lowest = _loss(session.evaluate(center))
    zeros = like(
        center,
        {
            n: torch.zeros_like(t) if t.is_floating_point() else t
            for n, t in center.items()
            if n in session.center
        },
    )
    level = _loss(session.evaluate({**center, **zeros}))
    if math.isfinite(level) and level > lowest + 1e-12:
        return max(level, 2 * lowest)
    return lowest + 9 * abs(lowest) if lowest else 1.0


def _loss(values: dict[str, float]) -> float:
    return next(v for n, v in values.items() if n in ("loss", "train_loss"))


def _loss_along(session: Session, slice_: Slice, axis: int, sign: int) -> Callable[[float], float]:
    """Return the loss as a function of the distance from the center along one side of an axis."""

    def loss(distance: float) -> float:
        at = [0.0] * len(slice_.dims)
        at[axis] = sign * distance
        return _loss(session.evaluate(slice_.at(at)))

    return loss


def _reach(loss: Callable[[float], float], wall: float) -> float:
    """Return 1.15 times the distance at which the loss first reaches the wall, to about 5%."""

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
    for _ in range(_BISECTIONS):
        middle = math.sqrt(near * far)
        near, far = (near, middle) if over(middle) else (middle, far)
    return _MARGIN * far


def _round(value: float) -> float:
    """Return a number with two significant digits, so that axes are easy to read."""
    return float(f"{value:.2g}")
