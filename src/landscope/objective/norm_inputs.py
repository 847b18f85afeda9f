"""Norms that keep running statistics, and what these are of: moments of the inputs of the norm.

A batch norm records mean and unbiased variance of each channel over all other axes. An instance
norm records the averages, over instances, of each instance's mean and unbiased variance. What a
norm of another library records is found out by an experiment with a copy of it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from landscope.errors import ObjectiveError

_ROWS = 16  # of random inputs, from which the rule of a norm of another library is learned
_RTOL = 1e-3  # between statistics of a norm of another library and those computed here


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of numbers, or averages of moments, by channel.

    Args:
        count: How many numbers (or instances).
        mean: The mean, shape [c], float64.
        variance: The variance, with the divisor ``count``, shape [c], float64.
        averages: Whether mean and variance are averages over instances, so that what is between
            instances does not count.
    """

    count: float
    mean: Tensor
    variance: Tensor
    averages: bool

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both together, by the law of total variance."""
        count = self.count + other.count
        share = other.count / count
        step = other.mean - self.mean
        variance = torch.lerp(self.variance, other.variance, share)
        if not self.averages:
            variance = variance + share * (1 - share) * step.square()
        return Moments(count, self.mean + share * step, variance, self.averages)


@final
@dataclass(eq=False)
class Norm:
    """A module that keeps running statistics of its inputs.

    Args:
        name: Its name in the model.
        module: The module.
        correction: 1 for an unbiased variance, 0 for one with the divisor ``count``.
        axis: The axis of the channels.
        records: Whether it records anything; None before :meth:`learn`.
    """

    name: str
    module: nn.Module
    correction: int = 1
    axis: int = 1
    records: bool | None = None

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        """The running mean and variance."""
        return self.module.get_buffer("running_mean"), self.module.get_buffer("running_var")

    def measure(self, inputs: Tensor) -> Moments:
        """Return the moments of the inputs of one call."""
        rows = inputs.detach()
        rows = rows.float() if rows.dtype.itemsize == 2 else rows
        if isinstance(self.module, _InstanceNorm):
            instance_norm: Any = self.module
            if rows.ndim == instance_norm._get_no_batch_dim():
                rows = rows[None]
            count = rows[0, 0].numel()
            mean, variance = _measure(rows, list(range(2, rows.ndim)))
            variance = variance * (count / max(count - 1, 1))
            return Moments(len(rows), mean.mean(0), variance.mean(0), averages=True)
        return _measure_channels(rows, self.axis)

    def write(self, moments: Moments) -> None:
        """Set the running statistics."""
        variance = moments.variance
        if not moments.averages:
            variance = variance * (moments.count / max(moments.count - self.correction, 1))
        for buffer, values in zip(self.buffers, (moments.mean, variance), strict=True):
            buffer.copy_(values.reshape(buffer.shape))

    def learn(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Find out what the norm records, and return whether it records anything.

        Args:
            args: The arguments of a call.
            kwargs: Its keyword arguments.

        Raises:
            ObjectiveError: When its statistics are not means and variances of its first argument.
        """
        if self.records is None and isinstance(self.module, _BatchNorm | _InstanceNorm):
            self.records = True
        if self.records is not None:
            return self.records
        given = args[0] if args else next(iter(kwargs.values()))
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(_ROWS, *given.shape[1:], generator=generator).to(given)
        recorded = self._record(inputs)
        self.records = recorded is not None
        if recorded is None:
            return False
        mean, variance = (values.flatten().double() for values in recorded)
        for axis in (1, inputs.ndim - 1):
            if inputs.ndim < 2 or inputs.shape[axis] != mean.numel():
                continue
            moments = _measure_channels(inputs.detach(), axis)
            for correction in (1, 0):
                factor = moments.count / max(moments.count - correction, 1)
                expected = moments.mean, moments.variance * factor
                if all(map(_is_close, expected, (mean, variance))):
                    self.axis, self.correction = axis, correction
                    return True
        raise ObjectiveError(
            f"{self.name or 'the model'} ({type(self.module).__name__}) keeps running_mean and"
            " running_var, which are not the mean and variance of its inputs by channel, so that"
            " buffers='recompute' cannot recompute them: use buffers='keep'."
        )

    def _record(self, inputs: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return what a copy of the norm records in training mode; None if nothing.

        Statistics move by (1 - m) old + m new; two calls from different old ones give m.
        """
        ends = []
        for start in (0.0, 1.0):
            twin = copy.deepcopy(self.module).train()
            for hooks in (twin._forward_pre_hooks, twin._forward_hooks):
                hooks.clear()
            statistics = twin.get_buffer("running_mean"), twin.get_buffer("running_var")
            for buffer in statistics:
                buffer.fill_(start)
            twin(inputs)
            moved = twin.get_buffer("running_mean"), twin.get_buffer("running_var")
            ends.append([buffer.clone() for buffer in moved])
        momenta = [1 - float((one - zero).double().mean()) for zero, one in zip(*ends, strict=True)]
        if min(momenta) < 1e-6:
            return None
        mean, variance = (end / m for end, m in zip(ends[0], momenta, strict=True))
        return mean, variance


def find_norms(model: nn.Module) -> list[Norm]:
    """Return the modules that keep running statistics, each once."""
    return [Norm(name, m) for name, m in model.named_modules() if _has_statistics(m)]


def _has_statistics(module: nn.Module) -> bool:
    buffers = module._buffers
    return buffers.get("running_mean") is not None and buffers.get("running_var") is not None


def _measure_channels(rows: Tensor, axis: int) -> Moments:
    dims = [d for d in range(rows.ndim) if d != axis % rows.ndim]
    mean, variance = _measure(rows, dims)
    return Moments(rows.numel() / rows.shape[axis], mean, variance, averages=False)


def _measure(rows: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Return mean and variance (with the divisor n) over some axes, in float64.

    Two passes and a correction for the rounding of the mean (T. Chan, G. Golub, R. LeVeque,
    *Algorithms for computing the sample variance*, The American Statistician 37 (1983), 1.7): on a
    CPU several times as fast as ``torch.var_mean``.
    """
    mean = rows.mean(dims, keepdim=True)
    centered = rows - mean
    shift = centered.mean(dims).double()
    variance = centered.square_().mean(dims).double() - shift.square()
    return mean.reshape(shift.shape).double() + shift, variance


def _is_close(a: Tensor, b: Tensor) -> bool:
    scale = float(a.abs().max()) + 1e-12
    return bool(torch.allclose(a, b, rtol=_RTOL, atol=_RTOL * scale))
