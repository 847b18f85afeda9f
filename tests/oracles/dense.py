"""Dense second derivatives of a deep copy of a model, over all data in one batch, in float64.

They are independent of the code under test: nothing here knows of sessions, batches, terms,
borrowed tensors or products. Rows of the Hessian are plain double backward; a second witness,
central differences of the gradient, needs no second derivative of torch at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Value = Callable[[], Tensor]

_STEP = 1e-5  # its square and the rounding over it are both about 1e-10 of the gradient


def clone(model: nn.Module, params: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Return a deep copy of a model in float64, with some tensors replaced."""
    other = copy.deepcopy(model).double()
    own = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    with torch.no_grad():
        for name, value in (params or {}).items():
            own[name].copy_(value)
    return other


def leaves(model: nn.Module, names: Iterable[str] | None = None) -> list[Tensor]:
    """Return the trainable parameters, tied ones once, or those with the given names."""
    own = dict(model.named_parameters())
    chosen = [n for n, p in own.items() if p.requires_grad] if names is None else list(names)
    return [own[n] for n in chosen]


def gradient(value: Value, of: Sequence[Tensor], *, again: bool = False) -> Tensor:
    """Return the gradient of a number, shape [p]; parameters it does not depend on give zeros."""
    found = torch.autograd.grad(value(), of, create_graph=again, allow_unused=True)
    return _flat(found, of)


def hessian(value: Value, of: Sequence[Tensor]) -> Tensor:
    """Return the Hessian [p, p], a row a backward pass through the gradient."""
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of a CPU have no second derivative
        slopes = gradient(value, of, again=True)
        return _rows(slopes, of)


def differences(value: Value, of: Sequence[Tensor]) -> Tensor:
    """Return the Hessian [p, p] by central differences of the gradient along every axis."""
    columns = []
    for tensor in of:
        flat = tensor.data.view(-1)
        for k in range(len(flat)):
            here = float(flat[k])
            sides = []
            for side in (_STEP, -_STEP):
                flat[k] = here + side
                sides.append(gradient(value, of))
            flat[k] = here
            columns.append((sides[0] - sides[1]) / (2 * _STEP))
    return torch.stack(columns, dim=1)


def jacobian(outputs: Tensor, of: Sequence[Tensor]) -> Tensor:
    """Return the derivative of every entry of a tensor [m] by the parameters, shape [m, p]."""
    return _rows(outputs.reshape(-1), of)


def gauss_newton(outputs: Tensor, loss: Callable[[Tensor], Tensor], of: Sequence[Tensor]) -> Tensor:
    """Return J' H J, with the Hessian H of the loss in the outputs, shape [p, p]."""
    free = outputs.detach().clone().requires_grad_()
    slopes = torch.autograd.grad(loss(free), free, create_graph=True)[0]
    curved = _rows(slopes.reshape(-1), [free])
    pushed = jacobian(outputs, of)
    return pushed.T @ curved @ pushed


def fisher(singles: Iterable[tuple[Tensor, float]], of: Sequence[Tensor]) -> Tensor:
    """Return the mean of g g' over single losses, each with how much it counts, shape [p, p]."""
    total, mass = torch.zeros(()), 0.0
    for value, weight in singles:
        slope = _flat(torch.autograd.grad(value, of, allow_unused=True), of)
        total = total + weight * torch.outer(slope, slope)
        mass += weight
    return total / mass


def _rows(values: Tensor, of: Sequence[Tensor]) -> Tensor:
    found = []
    for value in values:
        parts: Sequence[Tensor | None] = [None] * len(of)
        if value.requires_grad:
            parts = torch.autograd.grad(value, of, retain_graph=True, allow_unused=True)
        found.append(_flat(parts, of).detach())
    return torch.stack(found)


def _flat(parts: Sequence[Tensor | None], of: Sequence[Tensor]) -> Tensor:
    pairs = zip(parts, of, strict=True)
    return torch.cat([(torch.zeros_like(t) if g is None else g).reshape(-1) for g, t in pairs])
