"""Derivatives of tensors by tensors as linear maps, in reverse mode only.

Reverse over reverse is exact through every layer of torch; the other ways are not (see
:mod:`landscope.curvature.linear_operator`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import grad

Map = Callable[[Tensor], Tensor]
"""A linear map from a vector, shape [p], to a vector, shape [p]."""

Curve = Callable[[Sequence[Tensor]], list[Tensor]]
"""A linear map between tensors of given shapes."""


def hessian_map(value: Tensor | float, leaves: Sequence[Tensor]) -> Map:
    """Return v -> H v, where H = d2 value / d leaves2 is the Hessian of a scalar."""
    if not isinstance(value, Tensor) or not value.requires_grad:  # it does not depend on them
        return torch.zeros_like
    gradient = check_differentiable(grad(value, leaves, create_graph=True, allow_unused=True))
    return lambda v: flatten(pull_back(gradient, leaves, split(v, leaves)), leaves)


def hessian_maps(evaluate: Callable[[Sequence[Tensor]], Tensor], at: Sequence[Tensor]) -> Curve:
    """Return t -> H t for the Hessian H of a function of some tensors."""
    leaves = [t.clone().requires_grad_() for t in at]
    value = evaluate(leaves)
    if not value.requires_grad:  # it does not depend on them
        return lambda tangents: [torch.zeros_like(t) for t in tangents]
    gradient = check_differentiable(grad(value, leaves, create_graph=True, allow_unused=True))
    return lambda tangents: pull_back(gradient, leaves, tangents)


def difference_maps(evaluate: Callable[[Sequence[Tensor]], Tensor], at: Sequence[Tensor]) -> Curve:
    """Return t -> H t by central differences of the gradient, in float64 where that is possible."""

    def read(tangents: Sequence[Tensor], step: float, dtype: torch.dtype) -> list[Tensor]:
        pairs = zip(at, tangents, strict=True)
        leaves = [(t.to(dtype) + step * u.to(dtype)).requires_grad_() for t, u in pairs]
        value = evaluate(leaves)
        parts = grad(value, leaves, allow_unused=True) if value.requires_grad else [None] * len(at)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(leaves, parts, strict=True)]

    def multiply(tangents: Sequence[Tensor]) -> list[Tensor]:
        length = max([0.0, *(float(t.norm()) for t in tangents)])
        if not length > 0:
            return [torch.zeros_like(t) for t in tangents]
        size = max([1.0, *(float(t.norm()) for t in at)])
        step = size / length * float(torch.finfo(dtype).eps ** (1 / 3))
        pairs = zip(read(tangents, step, dtype), read(tangents, -step, dtype), at, strict=True)
        return [((a - b) / (2 * step)).to(t) for a, b, t in pairs]

    dtype = torch.float64
    try:
        read([torch.zeros_like(t) for t in at], 0.0, dtype)
    except RuntimeError:  # the loss holds tensors of its own in another dtype
        dtype = at[0].dtype
    return multiply


def jacobian_maps(
    outputs: Sequence[Tensor], leaves: Sequence[Tensor]
) -> tuple[Callable[[Tensor], list[Tensor]], Callable[[Sequence[Tensor]], Tensor]]:
    """Return v -> J v and u -> J^T u, where J = d outputs / d leaves.

    J^T u is linear in u, so its derivative by u, applied to v, is J v (two reverse passes).
    """
    dummies = [torch.zeros_like(t, requires_grad=True) for t in outputs]
    pulled = grad(outputs, leaves, dummies, create_graph=True, allow_unused=True)
    check_differentiable(pulled)

    def push(v: Tensor) -> list[Tensor]:
        return pull_back(pulled, dummies, split(v, leaves))

    def pull(u: Sequence[Tensor]) -> Tensor:
        return flatten(grad(outputs, leaves, list(u), retain_graph=True, allow_unused=True), leaves)

    return push, pull


def check_differentiable(derivatives: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """Return derivatives as they are, if they can be differentiated again.

    A function that is marked ``once_differentiable`` raises in ``backward()``, but
    ``grad(..., inputs)`` goes around it without an error, as if its derivative were zero.

    Raises:
        RuntimeError: When such a function is in their graph.
    """
    nodes: list[Any] = [t.grad_fn for t in derivatives if t is not None]
    visited = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("a function in the graph is marked once_differentiable")
        nodes += [following for following, _ in node.next_functions]
    return derivatives


def pull_back(
    outputs: Sequence[Tensor | None], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor]:
    """Return J^T u for J = d outputs / d inputs and cotangents u; zeros without a graph."""
    pairs = [
        (t, u)
        for t, u in zip(outputs, cotangents, strict=True)
        if t is not None and t.requires_grad
    ]
    if not pairs:
        return [torch.zeros_like(t) for t in inputs]
    tensors, weights = zip(*pairs, strict=True)
    gradients = grad(tensors, inputs, weights, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, gradients, strict=True)]


def split(vector: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Return a vector, shape [p], as tensors with the shapes of the leaves."""
    parts = vector.split([t.numel() for t in leaves])
    return [part.reshape(t.shape) for part, t in zip(parts, leaves, strict=True)]


def flatten(parts: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> Tensor:
    """Return the parts as one vector, shape [p]; zeros in place of a part that is None."""
    pairs = zip(parts, leaves, strict=True)
    return torch.cat([(torch.zeros_like(t) if g is None else g).reshape(-1) for g, t in pairs])
