"""The forward passes of plans: plain, fused, compiled, or recorded as a CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from landscope.engines.fused import Fused
from landscope.engines.plan import Plan
from landscope.objective.forward_pass import Forward
from landscope.objective.nested_batches import iter_tensors, map_tensors


def make_forward(plan: Plan) -> Callable[[torch.nn.Module], Forward] | None:
    """Return a function from a model to the forward pass of a plan; None for the model's own."""
    if plan.forward == "plain" and plan.layout == "contiguous":
        return None
    return functools.partial(ForwardPass, plan=plan)


@final
class ForwardPass:
    """The forward pass of a plan, which replaces the model's own.

    Args:
        model: The model.
        plan: The plan; of its fields, forward and layout are used.
    """

    def __init__(self, model: torch.nn.Module, plan: Plan) -> None:
        self.format = (
            torch.channels_last if plan.layout == "channels_last" else torch.contiguous_format
        )
        self.fused = Fused(model) if plan.forward == "fused" else None
        self.forward: Any = self.fused or model
        if plan.forward == "compiled":
            self.forward = torch.compile(model)
        if plan.forward == "graphed":
            self.forward = _CudaGraphs(model)

    def refresh(self) -> None:
        """Read the parameters that the model has now."""
        if self.fused is not None:
            self.fused.refresh()

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return the outputs of the model."""
        if self.format is torch.channels_last:
            inputs, named = map_tensors(self._convert, inputs), map_tensors(self._convert, named)
        return self.forward(*inputs, **named)

    def _convert(self, tensor: Tensor) -> Tensor:
        return tensor.contiguous(memory_format=self.format) if tensor.ndim == 4 else tensor


@final
class _CudaGraphs:
    """A forward pass on a GPU as CUDA graphs: recorded once for each shape, then replayed.

    A graph reads the parameters at the addresses that they had when it was recorded, so the
    parameters of a point must be written in place.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.graphs: dict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        leaves = list(iter_tensors((inputs, named)))
        key = tuple((t.shape, t.dtype, t.stride()) for t in leaves)
        if key not in self.graphs:
            self.graphs[key] = self._record(inputs, named)
        graph, static_inputs, outputs = self.graphs[key]
        torch._foreach_copy_(static_inputs, leaves)
        graph.replay()
        return outputs

    def _record(self, inputs: Any, named: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        inputs, named = map_tensors(torch.clone, inputs), map_tensors(torch.clone, named)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # warm up: kernels are chosen before they are recorded
            for _ in range(3):
                self.model(*inputs, **named)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.model(*inputs, **named)
        return graph, list(iter_tensors((inputs, named))), outputs
