"""Derivatives of tensors by tensors as linear maps, in reverse mode alone.

Reverse over reverse is exact through every layer of torch; the other routes are not (see
:mod:`landscope.curvature.hessian`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import grad

Map = Callable[[Tensor], Tensor]
"""A linear map of vectors [p]."""


def hessian_of(value: Tensor, leaves: Sequence[Tensor]) -> Map:
    """Return v -> H v for the Hessian of a number."""
    if not value.requires_grad:
        return torch.zeros_like
    slopes = again(grad(value, leaves, create_graph=True, allow_unused=True))
    return lambda v: joined(transposed(slopes, leaves, split(v, leaves)), leaves)


def jacobian(
    outputs: Sequence[Tensor], leaves: Sequence[Tensor]
) -> tuple[Callable[[Tensor], list[Tensor]], Callable[[Sequence[Tensor]], Tensor]]:
    """Return v -> J v and u -> J' u.

    J' u is linear in u, so differentiating it by u gives J v (Pearlmutter's trick, twice).
    """
    dummies = [torch.zeros_like(t, requires_grad=True) for t in outputs]
    pulled = again(grad(outputs, leaves, dummies, create_graph=True, allow_unused=True))

    def push(v: Tensor) -> list[Tensor]:
        return transposed(pulled, dummies, split(v, leaves))

    def pull(u: Sequence[Tensor]) -> Tensor:
        return joined(grad(outputs, leaves, list(u), retain_graph=True, allow_unused=True), leaves)

    return push, pull


def again(slopes: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """Return derivatives that can be differentiated again, or say that they cannot.

    What is marked ``once_differentiable`` raises in ``backward()``, but ``grad(..., inputs)`` goes
    around it in silence, as if the derivative were zero.

    Raises:
        RuntimeError: so.
    """
    nodes: list[Any] = [t.grad_fn for t in slopes if t is not None]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("a function in it is marked once_differentiable")
        nodes += [following for following, _ in node.next_functions]
    return slopes


def transposed(
    values: Sequence[Tensor | None], inputs: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Tensor]:
    """Return the derivative of sum(values x weights) by the inputs; zeros where there is none."""
    pairs = [
        (t, w) for t, w in zip(values, weights, strict=True) if t is not None and t.requires_grad
    ]
    if not pairs:
        return [torch.zeros_like(t) for t in inputs]
    tensors, given = zip(*pairs, strict=True)
    found = grad(tensors, inputs, given, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, found, strict=True)]


def split(vector: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Return a vector [p] in the shapes of tensors."""
    parts = vector.split([t.numel() for t in leaves])
    return [part.reshape(t.shape) for part, t in zip(parts, leaves, strict=True)]


def joined(parts: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> Tensor:
    """Return parts as a vector [p]; zeros for one that is not there."""
    pairs = zip(parts, leaves, strict=True)
    found = [(torch.zeros_like(t) if g is None else g).reshape(-1) for g, t in pairs]
    return torch.cat(found)
