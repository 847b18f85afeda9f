"""Gradients inside a loss or a model: PINNs, score matching, forces, gradient penalties.

Evaluations are made without gradients, which is faster. Where a loss, a metric or a model
differentiates by itself, this fails, and gradients are enabled: found out by trying, on the first
batch. The terms are detached in any case, so that no graph is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from landscope.errors import LandscopeError
from landscope.objective.gradients import avoid_missing_kernels
from landscope.objective.loss_terms import Terms
from landscope.objective.memory import is_out_of_memory
from landscope.objective.nested_batches import map_tensors

Result = TypeVar("Result")


@final
class InnerGradients:
    """Computes with gradients enabled where a model or a loss needs them, and only there.

    Args:
        model: The model.
        needed: Whether gradients are needed; None if this is not known yet.
    """

    def __init__(self, model: nn.Module, needed: bool | None = None) -> None:
        self.model, self.needed = model, needed

    def run(self, compute: Callable[[], Result], detach: Callable[[Result], Result]) -> Result:
        """Return what a function computes: with a graph only if the caller wants one.

        Args:
            compute: The function, which runs the model or the loss.
            detach: A function that returns a result without its graph.

        Raises:
            Exception: What the function raises.
        """
        if torch.is_grad_enabled():
            with _set_aside_gradients(self.model):
                return compute()
        if self.needed is None:
            return self._try(compute, detach)
        return self._differentiate(compute, detach) if self.needed else compute()

    def _try(self, compute: Callable[[], Result], detach: Callable[[Result], Result]) -> Result:
        """Compute without gradients; with them, if this fails."""
        random_state = torch.get_rng_state()
        try:
            result = compute()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            torch.set_rng_state(random_state)
            result = self._try_again(compute, detach, error)
        else:
            self.needed = False
        return result

    def _try_again(
        self, compute: Callable[[], Result], detach: Callable[[Result], Result], first: Exception
    ) -> Result:
        try:
            result = self._differentiate(compute, detach)
        except Exception as second:
            is_about_gradients = "grad" in str(first) and not isinstance(first, LandscopeError)
            raise (second if is_about_gradients else first) from None
        self.needed = True
        return result

    def _differentiate(
        self, compute: Callable[[], Result], detach: Callable[[Result], Result]
    ) -> Result:
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            avoid_missing_kernels(self.model),
            _set_aside_gradients(self.model),
        ):
            return detach(compute())


def detach_terms(terms: list[Terms]) -> list[Terms]:
    """Return terms without their graph."""
    return [t.detach() for t in terms]


def detach_outputs(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return outputs and targets, the outputs without their graph if there is one."""
    if not torch.is_grad_enabled():
        return pair
    outputs, targets = pair
    return map_tensors(Tensor.detach, outputs), targets


@contextlib.contextmanager
def _set_aside_gradients(model: nn.Module) -> Iterator[None]:
    """Let a function that calls ``backward()`` start without gradients, and leave them alone."""
    gradients = [(p, p.grad) for p in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
