"""The same problem in float64, in which products of float32 are repeated where rounding matters."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from landscope import params as params_
from landscope.objective.memory import free_memory
from landscope.objective.nested_batches import map_tensors
from landscope.objective.problem import Problem
from landscope.params import Params

_SHARE = 0.25  # of the free memory, for the parameters and a few vectors in float64
_VECTORS = 8  # of the size of the parameters


def to_double(problem: Problem) -> Problem | None:
    """Return a problem in float64, at the same parameters.

    Returns:
        The problem, with its data as they are; None where it is in float64 already, where its model
        stays in place, and where memory does not suffice.
    """
    size = sum(t.numel() for t in problem.center.values())
    if problem.dtype == torch.float64 or problem.in_place:
        return None
    if 8 * _VECTORS * size > _SHARE * free_memory(problem.device):
        return None
    return dataclasses.replace(
        problem.clone(),
        dtype=torch.float64,
        precision="float64",
        center=double_params(problem.center),
    )


def double_data(problem: Problem) -> Problem | None:
    """Return the problem with its data in float64; None where memory does not suffice."""
    size = 2 * sum(b.nbytes for b in problem.batches.values())
    if size > _SHARE * free_memory(problem.device):
        return None
    batches = {n: b.to(problem.device, torch.float64) for n, b in problem.batches.items()}
    return dataclasses.replace(problem, batches=batches)


def double_batch(batch: Any) -> Any:
    """Return a batch in float64; integers stay as they are."""
    return map_tensors(lambda t: t.double() if t.is_floating_point() else t, batch)


def double_params(params: Params) -> Params:
    """Return parameters, and buffers among them, in float64; integers stay as they are."""
    return params_.like(
        params, {n: t.double() if t.is_floating_point() else t for n, t in params.items()}
    )
