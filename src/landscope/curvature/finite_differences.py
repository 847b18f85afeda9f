"""Products by central differences, where a function has no second derivative in torch.

For a function f of the parameters w and a unit vector v

    df/dw v = (f(w + h v) - f(w - h v)) / 2h + O(h^2).

The step h is chosen among some, as the one whose neighbor gives nearly the same product; how much
the two differ is the estimate of the error.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from landscope.curvature.definitions import MatrixDefinition
from landscope.curvature.derivatives import Map, flatten, split
from landscope.objective import native_kernels
from landscope.objective.evaluation import Session
from landscope.objective.gradients import differentiate
from landscope.params import Params

_STEPS = tuple(4.0**k for k in range(-4, 3))  # multiples of the usual step, to choose from


@final
class FiniteDifferences:
    """Products of a curvature matrix with vectors from first derivatives only.

    Args:
        session: The session whose model is moved.
        names: The names of the parameters by which to differentiate.
        definition: The definition of the matrix.

    Attributes:
        relative_error: The estimated relative error of a product: the largest so far.
    """

    def __init__(
        self, session: Session, names: Sequence[str], definition: MatrixDefinition
    ) -> None:
        self.session, self.names, self.definition = session, list(names), definition
        self.relative_error = 0.0
        self._params = Params()
        self._statistics: dict[str, Tensor] = {}
        self._step: float | None = None

    def move(self, params: Params) -> None:
        """Go to another point, at which the session already is."""
        self._params, self._step, self._statistics = params, None, {}
        if self.session.recompute:  # constants: the same on both sides of a difference
            buffers = self.session.borrowed.model.named_buffers()
            self._statistics = {n: b.detach().clone() for n, b in buffers}

    def map_batch(self, batch: Any) -> tuple[float, Map]:
        """Return the total weight of the terms of a batch, and the map v -> matrix v."""
        with torch.no_grad():
            weight = float(self.session.batch_terms(batch).weights.sum())

        def multiply(vector: Tensor) -> Tensor:
            length = float(vector.norm())
            if length == 0:
                return torch.zeros_like(vector)
            unit = vector / length
            step = self._step = self._step or self._choose_step(batch, unit)
            return self.difference(batch, unit, step) * length

        return weight, multiply

    def difference(self, batch: Any, unit: Tensor, step: float) -> Tensor:
        """Return the product of the sum over a batch with a unit vector, from a given step."""
        above, below = (self._read_beside(batch, unit, s) for s in (step, -step))
        self.session.borrowed.set_params({**self._params, **self._statistics})
        tangents = [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]
        with native_kernels.NATIVE:
            return self.definition.apply(self.session, self._leaves, batch, tangents).to(unit)

    def read_gradient(self, batch: Any) -> Tensor:
        """Return the gradient of the sum over a batch at the point, shape [p]."""
        with native_kernels.NATIVE:
            total = self.session.batch_terms(batch).values.sum()
            return flatten(differentiate(total, self._leaves), self._leaves)

    def slope(self, batch: Any, unit: Tensor, step: float) -> float:
        """Return the slope of the sum over a batch along a unit vector, from values alone."""
        values = []
        for side in (step, -step):
            self._move_beside(unit, side)
            with native_kernels.NATIVE:
                values.append(float(self.session.batch_terms(batch).values.detach().sum()))
        self.session.borrowed.set_params({**self._params, **self._statistics})
        return (values[0] - values[1]) / (2 * step)

    def _read_beside(self, batch: Any, unit: Tensor, step: float) -> list[Tensor]:
        """Return f(w + step unit)."""
        self._move_beside(unit, step)
        return self.definition.read(self.session, self._leaves, batch)

    def _move_beside(self, unit: Tensor, step: float) -> None:
        """Move the model to w + step unit."""
        center = self.session.center
        shifted: dict[str, Tensor] = {**self._params, **self._statistics}
        for name, part in zip(self.names, split(unit, self._leaves), strict=True):
            base = self._params[name] if name in self._params else center[name]
            shifted[name] = base + step * part.reshape(base.shape)
        self.session.borrowed.set_params(shifted)

    def _choose_step(self, batch: Any, unit: Tensor) -> float:
        """Return the step at which two neighboring steps differ least, and note the error."""
        point = [self._params[n].reshape(-1) for n in self.names if n in self._params]
        scale = max(float(torch.cat(point).norm()), 1.0)
        usual = float(torch.finfo(unit.dtype).eps ** (1 / 3)) * scale
        steps = [usual * s for s in _STEPS]
        products = [self.difference(batch, unit, s).double() for s in steps]
        changes = [float((a - b).norm()) for a, b in itertools.pairwise(products)]
        best = min(range(len(changes)), key=changes.__getitem__)
        error = changes[best] / max(float(products[best].norm()), 1e-300)
        self.relative_error = max(self.relative_error, error)
        return steps[best]

    @property
    def _leaves(self) -> list[Tensor]:
        return [self.session.borrowed.tensors[n] for n in self.names]
