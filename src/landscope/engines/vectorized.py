"""Several points in one pass, for small networks whose operations leave most of a GPU idle.

The parameters of the points are stacked, and ``torch.func.vmap`` runs the model over the stack:
each operation of the network is executed once for all points.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from landscope.objective.evaluation import Session
from landscope.params import like
from landscope.slices.curves import ReusableSlice


@final
class VectorizedEvaluator:
    """Evaluates several points of a slice in one pass with vmap.

    Args:
        session: The borrowed model and its data, as in the plain pass.
        slice_: The slice.
        points: The largest number of points in a pass; each has a copy of the moving parameters.

    Raises:
        RuntimeError: From torch, on evaluation, if vmap cannot run the model or the loss (random
            numbers, decisions that depend on values), and for metrics of all rows together; such a
            plan is not chosen.
    """

    def __init__(self, session: Session, slice_: ReusableSlice, points: int) -> None:
        self.session, self.slice, self.points = session, slice_, points
        self.sums = _Sums(session)
        origin = slice_.at([0.0] * len(slice_.dims))
        borrowed = session.borrowed
        dtypes = {n: borrowed.dtype if t.is_floating_point() else None for n, t in origin.items()}
        self.stack = {
            n: t.to(borrowed.device, dtypes[n]).repeat(points, *[1] * t.ndim)
            for n, t in origin.items()
        }
        self.views = [like(origin, {n: t[k] for n, t in self.stack.items()}) for k in range(points)]
        session.evaluate(origin)  # the plain pass checks the first batch
        if session.metric_pass.joint:
            raise RuntimeError("a metric of all rows together is computed point by point")

    def values(self, coordinates: Sequence[Sequence[float]]) -> list[dict[str, float]]:
        """Return loss and metrics at some points.

        Args:
            coordinates: The coordinates of the points; at most ``points`` of them.
        """
        session, count = self.session, len(coordinates)
        for place, view in zip(coordinates, self.views, strict=False):
            self.slice.at(place, view)
        params = {f"model.{n}": t[:count] for n, t in self.stack.items()}
        values: list[dict[str, float]] = [{} for _ in coordinates]
        with torch.no_grad():
            for prefix in session.batches:
                batches = session.iter_batches(prefix)
                sums = torch.stack([self._sum_batch(params, b) for b in batches]).sum(dim=0)
                for point_values, point_sums in zip(values, sums, strict=True):
                    point_values.update(session.average(prefix, point_sums))
            for point_values, view in zip(values, self.views, strict=False):
                session.add_penalty(point_values, view)
        return values

    def _sum_batch(self, params: dict[str, Tensor], batch: Any) -> Tensor:
        """Return sums of values and of weights, shape (points, 2 x quantities)."""

        def sum_at_point(params_: dict[str, Tensor]) -> Tensor:
            sums: Tensor = torch.func.functional_call(self.sums, params_, (batch,))
            return sums

        with warnings.catch_warnings():  # the speed is measured, so torch need not warn
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            sums: Tensor = torch.func.vmap(sum_at_point)(params)
        return sums


class _Sums(nn.Module):
    """Model, loss and metrics as one module: from a batch to sums of values and of weights."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.model = session.borrowed.model
        self._session = session

    def forward(self, batch: Any) -> Tensor:
        return self._session.sum_terms(batch)
