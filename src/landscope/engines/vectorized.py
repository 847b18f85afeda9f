"""Several points in one pass: small networks leave most of a GPU idle while each step is launched.

The parameters of the points are stacked, and ``torch.func.vmap`` runs the model over the stack:
each step of the network happens once for all of them.
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
class Together:
    """Evaluates several points of a slice at once.

    Args:
        session: a borrowed model and its data, as the plain pass uses them.
        slice_: of which points are taken.
        points: at most so many at once; each has a copy of the moving parameters.

    Raises:
        RuntimeError: from torch, on evaluation, where a model or a loss cannot be run in this way
            (random numbers, decisions that depend on values): a plan does not take it then.
    """

    def __init__(self, session: Session, slice_: ReusableSlice, points: int) -> None:
        self.session, self.slice, self.points = session, slice_, points
        self.whole = _Whole(session)
        first = slice_.at([0.0] * len(slice_.dims))
        loan = session.borrowed
        kinds = {n: loan.dtype if t.is_floating_point() else None for n, t in first.items()}
        self.stack = {
            n: t.to(loan.device, kinds[n]).repeat(points, *[1] * t.ndim) for n, t in first.items()
        }
        self.views = [like(first, {n: t[k] for n, t in self.stack.items()}) for k in range(points)]
        session.evaluate(first)  # the first batch is checked by the plain pass

    def values(self, places: Sequence[Sequence[float]]) -> list[dict[str, float]]:
        """Return loss and metrics at so many places at most as there are points."""
        session, count = self.session, len(places)
        for place, view in zip(places, self.views, strict=False):
            self.slice.at(place, view)
        moved = {f"model.{n}": t[:count] for n, t in self.stack.items()}
        found: list[dict[str, float]] = [{} for _ in places]
        with torch.no_grad():
            for prefix, data in session.batches.items():
                sums = torch.stack([self._sums(moved, batch) for batch in data]).sum(dim=0)
                for values, point in zip(found, sums, strict=True):
                    values.update(session.average(prefix, point))
            for values, view in zip(found, self.views, strict=False):
                session.add_penalty(values, view)
        return found

    def _sums(self, moved: dict[str, Tensor], batch: Any) -> Tensor:
        """Return sums of values and weights, shape (points, quantities x 2)."""

        def of_one(tensors: dict[str, Tensor]) -> Tensor:
            sums: Tensor = torch.func.functional_call(self.whole, tensors, (batch,))
            return sums

        with warnings.catch_warnings():  # how quick it is has been measured
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            found: Tensor = torch.func.vmap(of_one)(moved)
        return found


class _Whole(nn.Module):
    """Model, loss and metrics as one module: from a batch to sums of values and weights."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.model = session.borrowed.model
        self._session = session

    def forward(self, batch: Any) -> Tensor:
        return self._session.sum_terms(batch)
