"""Definitions of the curvature matrices: how each acts on a vector, for one batch.

With the terms l_i of the loss, weights w_i, outputs f and parameters w:

    Hessian        H = d2L/dw2          L = sum_i l_i
    Gauss-Newton   G = J^T H_out J      J = df/dw, H_out = d2L/df2
    Fisher         F = sum_i g_i g_i^T / w_i,  g_i = dl_i/dw

These are sums over the batch; :mod:`landscope.curvature.products` turns them into means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd import grad

from landscope.curvature.derivatives import (
    Curve,
    Map,
    difference_maps,
    flatten,
    hessian_map,
    hessian_maps,
    jacobian_maps,
)
from landscope.objective import native_kernels, nested_batches
from landscope.objective.evaluation import Session
from landscope.objective.gradients import differentiate
from landscope.objective.loss_terms import Loss

Leaves = Sequence[Tensor]


@final
@dataclass(frozen=True)
class MatrixDefinition:
    """A curvature matrix of the sum over a batch, in two forms.

    The exact form differentiates twice. The other is made of first derivatives only: the matrix is
    A df/dw for a function f of the parameters, so A is applied to a finite difference of f.

    Args:
        differentiate: Returns the total weight of the terms, and the map v -> matrix v.
        read: Returns f at the point where the model is.
        apply: Returns A t, shape [p], for a tangent t of f.
        mix: The exact form but for the loss as a function of the outputs, which is differentiated
            once; None where there is no such form.
    """

    differentiate: Callable[[Session, Leaves, Any], tuple[float, Map]]
    read: Callable[[Session, Leaves, Any], list[Tensor]]
    apply: Callable[[Session, Leaves, Any, list[Tensor]], Tensor]
    mix: Callable[[Session, Leaves, Any], tuple[float, Map]] | None = None


def _differentiate_loss(session: Session, leaves: Leaves, batch: Any) -> tuple[float, Map]:
    terms = session.batch_terms(batch)
    return float(terms.weights.sum()), hessian_map(terms.values.sum(), leaves)


def _read_gradient(session: Session, leaves: Leaves, batch: Any) -> list[Tensor]:
    with native_kernels.NATIVE:
        total = session.batch_terms(batch).values.sum()
    return [flatten(differentiate(total, leaves), leaves).double()]


def _keep_tangent(_: Session, __: Leaves, ___: Any, tangents: list[Tensor]) -> Tensor:
    return tangents[0]


HESSIAN = MatrixDefinition(_differentiate_loss, _read_gradient, _keep_tangent)


def _differentiate_outputs(session: Session, leaves: Leaves, batch: Any) -> tuple[float, Map]:
    return _multiply_outputs(session, leaves, batch, hessian_maps)


def _mix_outputs(session: Session, leaves: Leaves, batch: Any) -> tuple[float, Map]:
    return _multiply_outputs(session, leaves, batch, difference_maps)


def _multiply_outputs(
    session: Session, leaves: Leaves, batch: Any, differentiate: Callable[..., Curve]
) -> tuple[float, Map]:
    outputs, targets = session.outputs(batch)
    differentiable = [t for t in nested_batches.iter_tensors(outputs) if t.requires_grad]
    weight, curve = _output_hessian(session, outputs, targets, differentiate)
    if not differentiable:
        return weight, torch.zeros_like
    push, pull = jacobian_maps(differentiable, leaves)
    return weight, lambda v: pull(curve(push(v)))


def _output_hessian(
    session: Session, outputs: Any, targets: Any, differentiate: Callable[..., Curve]
) -> tuple[float, Curve]:
    """Return the weight of the terms and the map t -> H_out t of tangents of the outputs."""
    loss = session.loss
    assert isinstance(loss, Loss)
    tensors = [t.detach() for t in nested_batches.iter_tensors(outputs) if t.requires_grad]

    def evaluate(moved: Sequence[Tensor]) -> Tensor:
        replaced, dtype = iter(moved), moved[0].dtype if moved else None

        def replace(tensor: Tensor) -> Tensor:
            return next(replaced) if tensor.requires_grad else tensor

        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        aims = nested_batches.map_tensors(cast, targets)
        return loss(nested_batches.map_tensors(replace, outputs), aims).values.sum()

    return float(loss(outputs, targets).weights.sum()), differentiate(evaluate, tensors)


@torch.no_grad()
def _read_outputs(session: Session, _: Leaves, batch: Any) -> list[Tensor]:
    return [
        t for t in nested_batches.iter_tensors(session.outputs(batch)[0]) if t.is_floating_point()
    ]


def _apply_to_outputs(
    session: Session, leaves: Leaves, batch: Any, tangents: list[Tensor]
) -> Tensor:
    """Return J^T H_out t."""
    outputs, targets = session.outputs(batch)
    floating = [t for t in nested_batches.iter_tensors(outputs) if t.is_floating_point()]
    pairs = list(zip(floating, tangents, strict=True))
    pairs = [(t, u) for t, u in pairs if t.requires_grad]
    if not pairs:
        return flatten([None] * len(leaves), leaves)
    tensors, moved = zip(*pairs, strict=True)
    cotangents = _output_hessian(session, outputs, targets, difference_maps)[1](moved)
    return flatten(grad(tensors, leaves, cotangents, allow_unused=True), leaves)


GAUSS_NEWTON = MatrixDefinition(
    _differentiate_outputs, _read_outputs, _apply_to_outputs, _mix_outputs
)


def _differentiate_terms(session: Session, leaves: Leaves, batch: Any) -> tuple[float, Map]:
    terms = session.single_terms(batch)
    weights = terms.weights.detach()
    if not terms.values.requires_grad:
        return float(weights.sum()), torch.zeros_like
    push, pull = jacobian_maps([terms.values], leaves)
    inverse = _invert(weights)
    return float(weights.sum()), lambda v: pull([push(v)[0] * inverse])


@torch.no_grad()
def _read_terms(session: Session, _: Leaves, batch: Any) -> list[Tensor]:
    return [session.single_terms(batch).values]


def _apply_to_terms(session: Session, leaves: Leaves, batch: Any, tangents: list[Tensor]) -> Tensor:
    """Return sum_i g_i t_i / w_i."""
    terms = session.single_terms(batch)
    cotangents = [tangents[0] * _invert(terms.weights.detach())]
    if not terms.values.requires_grad:
        return flatten([None] * len(leaves), leaves)
    return flatten(grad([terms.values], leaves, cotangents, allow_unused=True), leaves)


def _invert(weights: Tensor) -> Tensor:
    """Return 1 / weights; 0 for terms that do not count."""
    return torch.where(weights != 0, 1.0 / weights, 0.0)


FISHER = MatrixDefinition(_differentiate_terms, _read_terms, _apply_to_terms)
