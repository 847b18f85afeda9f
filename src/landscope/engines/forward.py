"""Forward passes as a plan has them: of the model itself, fused, compiled, or recorded on a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from landscope.engines.fused import Fused
from landscope.engines.tuning import Plan
from landscope.objective.evaluation import Forward
from landscope.objective.nested import iter_tensors, map_tensors


def forward_pass(plan: Plan) -> Callable[[torch.nn.Module], Forward] | None:
    """Return what makes the forward pass of a plan from a model; None for the model's own."""
    if plan.forward == "plain" and plan.layout == "contiguous":
        return None
    return functools.partial(Pass, plan=plan)


@final
class Pass:
    """A forward pass by a plan, in the place of the model's own."""

    def __init__(self, model: torch.nn.Module, plan: Plan) -> None:
        self.format = (
            torch.channels_last if plan.layout == "channels_last" else torch.contiguous_format
        )
        self.fused = Fused(model) if plan.forward == "fused" else None
        self.forward: Any = self.fused or model
        if plan.forward == "compiled":
            self.forward = torch.compile(model)
        if plan.forward == "graphed":
            self.forward = _Graphed(model)

    def refresh(self) -> None:
        """Take the parameters that the model has now."""
        if self.fused is not None:
            self.fused.refresh()

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return what the model returns."""
        if self.format is torch.channels_last:
            inputs, named = map_tensors(self._placed, inputs), map_tensors(self._placed, named)
        return self.forward(*inputs, **named)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.contiguous(memory_format=self.format) if tensor.ndim == 4 else tensor


@final
class _Graphed:
    """A forward pass on a GPU that is recorded once and played again: no step is launched singly.

    It reads the parameters where they lay when it was recorded, so points must be written in place.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.records: dict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        leaves = list(iter_tensors((inputs, named)))
        key = tuple((t.shape, t.dtype, t.stride()) for t in leaves)
        if key not in self.records:
            self.records[key] = self._record(inputs, named)
        graph, held, outputs = self.records[key]
        torch._foreach_copy_(held, leaves)
        graph.replay()
        return outputs

    def _record(self, inputs: Any, named: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        inputs, named = map_tensors(torch.clone, inputs), map_tensors(torch.clone, named)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # kernels are chosen before they are recorded
            for _ in range(3):
                self.model(*inputs, **named)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.model(*inputs, **named)
        return graph, list(iter_tensors((inputs, named))), outputs
