"""What to know about a slice before its picture is believed: an untrained center, a flat surface.

Both look like results. A random network gives a smooth picture too, and a surface that is flat
because its directions move nothing says nothing about the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from landscope.errors import LandscopeError
from landscope.objective.objective import Objective
from landscope.objective.torch_losses import Custom
from landscope.params import like
from landscope.sampling.prediction import Values
from landscope.scanning.auto_span import thin_out
from landscope.slices.direction_checks import agree, check_order, list_moving
from landscope.slices.slices import Slice

_LEARNED = 0.05  # a loss that is lower than without weights by less than this share: untrained
# A surface is flat within this share of the loss: means differ by the order of their sums.
_FLAT = {torch.float64: 1e-14}
_FLAT_OTHERWISE = 5e-7  # float32, which losses of 16-bit models are summed in too
_LISTED = 3  # names in a sentence


def describe_slice(
    objective: Objective, slice_: Slice, shape: Sequence[int], values: Values
) -> list[str]:
    """Return the notes on a slice around the model, once its points are evaluated.

    Cost: two passes over at most 2,048 samples of the data, and one gradient if the loss is flat.
    """
    center = slice_.parts.get("center")
    around_model = center is not None and agree(objective.center, center)
    return [
        *check_order(objective.center, slice_.parts),
        *(_describe_center(objective) if around_model else ()),
        *_describe_flatness(objective, slice_, shape, values),
    ]


def _describe_center(objective: Objective) -> list[str]:
    """Return a note if the loss at the model is not finite, or hardly lower than without weights.

    The model is compared with the one whose trainable parameters are all zero, which has learned
    nothing. For cross entropy, that one has a loss of ln(classes).

    This is not done in place, where there may be no memory for zeros, nor for custom losses, whose
    value may be lowest at zero weights.
    """
    if objective.problem.in_place or isinstance(objective.problem.loss, Custom):
        return []
    center = objective.center
    zeros = {n: torch.zeros_like(t) if t.is_floating_point() else t for n, t in center.items()}
    with thin_out(objective.problem).session() as session:
        loss = _loss(session.evaluate(None))
        if not math.isfinite(loss):
            return [f"the loss of the model itself is {loss:g}: its weights or its data are wrong"]
        try:
            level = _loss(session.evaluate(like(center, zeros)))
        except LandscopeError:  # a model that divides by its weights
            return []
    if not math.isfinite(level) or loss < level - _LEARNED * abs(level):
        return []
    return [
        f"the model looks untrained: its loss, {loss:.4g}, is not clearly lower than with all"
        f" trainable parameters at zero, {level:.4g}; if it was trained, load its weights"
    ]


def _describe_flatness(
    objective: Objective, slice_: Slice, shape: Sequence[int], values: Values
) -> list[str]:
    """Return a note if the loss is the same, but for rounding, along an axis or everywhere."""
    losses = np.full(int(np.prod(shape)), np.nan)
    for point, columns in values.items():
        losses[point] = _loss(columns)
    losses = losses.reshape(tuple(shape)[::-1])
    finite = np.abs(losses[np.isfinite(losses)])
    if finite.size < 2:
        return []
    rounding = _FLAT.get(objective.problem.dtype, _FLAT_OTHERWISE) * float(finite.max())
    axes = [k for k, n in enumerate(reversed(shape)) if n > 1]
    flat = [losses.ndim - 1 - k for k in axes if _spread(losses, k) <= rounding]
    if not flat:
        return []
    dims = [slice_.dims[k] for k in sorted(flat)]
    where = f"along {' and '.join(dims)}" + (", the whole slice" if len(flat) == len(axes) else "")
    spread = max(_spread(losses, losses.ndim - 1 - k) for k in flat)
    return [
        f"the loss does not change {where} (by {spread:.2g} at most, which is rounding):"
        f" {_explain(objective, slice_, dims)}"
    ]


def _loss(values: Mapping[str, float]) -> float:
    return next((v for n, v in values.items() if n in ("loss", "train_loss")), math.nan)


def _spread(losses: np.ndarray, axis: int) -> float:
    """Return the largest range of the loss along one line of points; infinity if there is none."""
    counted = np.isfinite(losses).sum(axis) >= 2
    if not counted.any():
        return math.inf
    lines = np.moveaxis(losses, axis, -1)[counted]
    lines = np.where(np.isfinite(lines), lines, np.nan)
    return float((np.nanmax(lines, 1) - np.nanmin(lines, 1)).max())


def _explain(objective: Objective, slice_: Slice, dims: Sequence[str]) -> str:
    """Return which parameters the directions move, and whether the loss depends on them."""
    parts = [slice_.parts[dim] for dim in dims if dim in slice_.parts]
    moving = {n for part in parts for n in list_moving(part)}
    still = [n for n in objective.center if n in moving and n in _without_gradient(objective)]
    fixed = [n for n in objective.center if n not in moving]
    causes = []
    if still:
        causes.append(f"they move {_list(still)}, where the gradient of the loss is zero")
    if parts and not moving:
        causes.append("the directions are zero, as normalization makes them for zero weights")
    if fixed and still:
        causes.append(f"they do not move {_list(fixed)}")
    if not causes:
        return "choose a wider span, or precision='float64', if it should"
    return (
        f"{', and '.join(causes)}; adapters that start at zero, dead units or a last layer of zeros"
        " do this: train first, or choose other directions (select=, ignore=None,"
        " normalize='dfilter')"
    )


def _without_gradient(objective: Objective) -> set[str]:
    """Return the names of the parameters that do not change the loss, to first order."""
    try:
        return {n for n, t in objective.gradient().items() if not t.count_nonzero()}
    except LandscopeError:  # a loss that has no gradient
        return set()


def _list(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
