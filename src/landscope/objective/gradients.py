"""Gradients of a loss, and a check that torch has them where the loss depends on the parameters.

A loss under ``torch.no_grad``, behind ``.detach()`` or ``.item()``, of an argmax or of a rounded
number has no gradient in torch, or one of zeros. A loss that does not depend on a parameter at all
looks the same, so the parameters are moved to see which it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from landscope.errors import LandscopeError, ObjectiveError
from landscope.objective import native_kernels
from landscope.objective.borrowed_model import BorrowedModel
from landscope.objective.global_state import disable_backend
from landscope.objective.loss_terms import Terms
from landscope.params import Params, like

Evaluate = Callable[[Mapping[str, Tensor]], float]
"""The loss at a point that differs from the current one in the given tensors."""

Gradients = Sequence[Tensor | None]
"""The gradient with respect to each of some tensors; None where torch has none."""

_STEPS = (1e-2, 1.0)  # relative: argmax and rounding change only when parameters move far
_FLAT = ("Round", "Sign", "Sgn", "Floor", "Ceil", "Trunc")  # functions whose derivative is zero


class Evaluator(Protocol):
    """A session at a point: its model, and the terms of a batch."""

    borrowed: BorrowedModel

    def batch_terms(self, batch: Any) -> Terms:
        """Return the terms of the loss on a batch."""
        ...


def differentiate(value: Any, tensors: Sequence[Tensor]) -> Gradients:
    """Return the gradient of a number; None for each tensor on which its graph does not depend."""
    if not isinstance(value, Tensor) or not value.requires_grad:
        return [None] * len(tensors)
    return torch.autograd.grad(value, tensors, allow_unused=True)


def add_gradient(total: dict[str, Tensor], value: Any, tensors: Mapping[str, Tensor]) -> Gradients:
    """Add the gradient of a number to ``total``, in place, and return it."""
    gradients = differentiate(value, list(tensors.values()))
    for name, gradient in zip(total, gradients, strict=True):
        if gradient is not None:
            total[name] += gradient
    return gradients


def add_batch(
    session: Evaluator,
    batch: Any,
    total: dict[str, Tensor],
    tensors: Mapping[str, Tensor],
    *,
    check: bool,
) -> float:
    """Add the gradient of the sum of a batch's terms to ``total``, and return their weight.

    Where a loss has gradients inside, its own gradient is a second derivative, which fused
    attention and cuDNN lack: native kernels replace them.
    """

    def add() -> float:
        terms = session.batch_terms(batch)
        value = terms.values.sum()
        parts = add_gradient(total, value, tensors)
        if check:
            check_batch(session, batch, value, tensors, parts)
        return float(terms.weights.sum())

    try:
        return add()
    except (RuntimeError, NotImplementedError) as error:
        if "not implemented" not in str(error) or isinstance(error, LandscopeError):
            raise
    with native_kernels.NATIVE:
        return add()


def check_batch(
    session: Evaluator,
    batch: Any,
    value: Any,
    tensors: Mapping[str, Tensor],
    gradients: Gradients,
) -> None:
    """Check the gradient of the loss on a batch, at the point where the model is.

    See :func:`check_gradient`. The model is at the same point afterwards.
    """
    borrowed = session.borrowed
    point = {n: t.detach() for n, t in borrowed.tensors.items() if not t.is_meta}

    def evaluate(moved: Mapping[str, Tensor]) -> float:
        borrowed.set_params({**point, **moved})
        return float(session.batch_terms(batch).values.detach().double().sum())

    try:
        check_gradient(value, {n: point[n] for n in tensors}, gradients, evaluate)
    finally:
        borrowed.set_params(point)


def add_penalty(penalty: Callable[[Params], Any], total: dict[str, Tensor], params: Params) -> None:
    """Add the gradient of a penalty on the parameters to ``total``, and check it."""
    value = penalty(params)
    check_penalty(penalty, params, value, add_gradient(total, value, params))


def check_penalty(
    penalty: Callable[[Params], Any], params: Params, value: Any, gradients: Gradients
) -> None:
    """Check the gradient of a penalty on the parameters; see :func:`check_gradient`."""

    def evaluate(moved: Mapping[str, Tensor]) -> float:
        value = penalty(like(params, {**params, **moved}))
        return float(torch.as_tensor(value).detach())

    check_gradient(value, params, gradients, evaluate)


def check_gradient(
    value: Any, tensors: Mapping[str, Tensor], gradients: Gradients, evaluate: Evaluate
) -> None:
    """Check that a loss does not depend on tensors for which it has no gradient.

    Args:
        value: The loss, from which the gradients come.
        tensors: The parameters at the current point.
        gradients: The gradient with respect to each of them.
        evaluate: The loss at other points.

    Raises:
        ObjectiveError: When it does depend on them.

    Cost: nothing where every parameter has a gradient; else four evaluations, and a few more before
    the error.
    """
    pairs = list(zip(tensors, gradients, strict=True))
    suspects = {n: tensors[n] for n, g in pairs if g is None}
    zeros = [n for n, g in pairs if g is not None and not g.any()]
    if zeros and _has_flat_function(value):
        suspects |= {n: tensors[n] for n in zeros}
    if not suspects or not _depends(suspects, evaluate):
        return
    if len(suspects) == len(tensors):
        raise ObjectiveError(
            "the loss changes with the parameters, but torch has no gradient of it (or one of"
            " zeros): something in model or loss cuts it off, such as torch.no_grad, .detach(),"
            " .item(), numpy, argmax or rounding. Take it out, or use a loss that has a gradient."
        )
    raise ObjectiveError(
        f"the loss depends on {_find_first(suspects, evaluate)!r}, but torch has no gradient with"
        " respect to it (or one of zeros): the model uses it under torch.no_grad, behind"
        " .detach(), or in a step such as an argmax. Freeze it with requires_grad_(False), or"
        " leave it out of a curvature matrix with select=."
    )


def _has_flat_function(value: Tensor) -> bool:
    """Return whether a function whose derivative is zero everywhere is in the graph of a value."""
    nodes: list[Any] = [value.grad_fn]
    visited = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if node.name().rstrip("0123456789").removesuffix("Backward") in _FLAT:
            return True
        nodes += [following for following, _ in node.next_functions]
    return False


def _depends(tensors: Mapping[str, Tensor], evaluate: Evaluate) -> bool:
    """Return whether a loss changes when these tensors move; False for a random one."""
    value = evaluate({})
    if evaluate({}) != value:
        return False
    return any(evaluate(_move(tensors, step)) != value for step in _STEPS)


def _find_first(tensors: Mapping[str, Tensor], evaluate: Evaluate) -> str:
    """Return the name of the first tensor that changes the loss, by bisection."""
    names = list(tensors)
    while len(names) > 1:
        half = names[: len(names) // 2]
        names = half if _depends({n: tensors[n] for n in half}, evaluate) else names[len(half) :]
    return names[0]


def _move(tensors: Mapping[str, Tensor], step: float) -> dict[str, Tensor]:
    """Return tensors at a random distance of so many of their sizes."""
    generator = torch.Generator().manual_seed(0)
    moved = {}
    for name, tensor in tensors.items():
        size = float(tensor.detach().double().square().mean().sqrt()) or 1.0
        normal = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        moved[name] = tensor.detach() + (step * size * normal).to(tensor)
    return moved


@contextlib.contextmanager
def avoid_missing_kernels(model: nn.Module) -> Iterator[None]:
    """Disable cuDNN where its recurrent layers have no gradient: in evaluation mode."""
    blocked = any(isinstance(m, nn.RNNBase) and not m.training for m in model.modules())
    with disable_backend(torch.backends.cudnn) if blocked else contextlib.nullcontext():
        yield
