"""A worker of this process: it evaluates points with a borrowed model of its own."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor

from landscope.engines.chains import WarmStartEvaluator
from landscope.engines.in_place import InPlaceMover
from landscope.engines.job import Job, Point, Result
from landscope.engines.plan import Plan
from landscope.engines.vectorized import VectorizedEvaluator
from landscope.errors import ObjectiveError
from landscope.objective.evaluation import Session
from landscope.objective.memory import is_out_of_memory
from landscope.objective.objective import Objective
from landscope.objective.quantities import Chained, Quantity
from landscope.params import Params
from landscope.slices.curves import ReusableSlice


@final
class Worker:
    """Evaluates points with one model.

    Args:
        objective: The objective.
        session: The borrowed model and its data.
        job: The job: slice, quantities and axes.
        plan: The plan.
        mover: The object that moves the weights in place; None evaluates copies.
    """

    def __init__(
        self,
        objective: Objective,
        session: Session,
        job: Job,
        plan: Plan,
        mover: InPlaceMover | None = None,
    ) -> None:
        self.objective, self.session, self.mover = objective, session, mover
        self.slice, self.quantities, self.plan = job.slice, job.quantities, plan
        self.params: Params | None = None  # memory for the parameters of a point
        self.warm_starts = {
            k: WarmStartEvaluator(q, job.slice, job.axes)
            for k, q in enumerate(job.quantities)
            if isinstance(q, Chained) and job.axes
        }
        self.vectorized: VectorizedEvaluator | None = None
        if plan.points > 1 and isinstance(self.slice, ReusableSlice) and not self.quantities:
            vectorized = VectorizedEvaluator(session, self.slice, plan.points)
            self.vectorized = None if session.borrowed.written else vectorized

    def take_points(self, points: Iterator[Point]) -> list[Point]:
        """Take the points of the next pass from an iterator: several if it is vectorized."""
        return list(itertools.islice(points, self.vectorized.points if self.vectorized else 1))

    def evaluate_group(self, points: Sequence[Point], *, per_sample: bool) -> list[Result]:
        """Return the results at points that were taken together."""
        if self.vectorized is None or per_sample:
            return [self.evaluate(point, per_sample=per_sample) for point in points]
        began = time.perf_counter()
        try:
            values = self.vectorized.values([coordinates for _, coordinates in points])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self.vectorized = None  # from now on one point per pass
            return self.evaluate_group(points, per_sample=per_sample)
        seconds = (time.perf_counter() - began) / len(points)
        return [Result(k, v, seconds) for (k, _), v in zip(points, values, strict=True)]

    def evaluate(self, point: Point, *, per_sample: bool) -> Result:
        """Return the result at a point; the batches are halved while memory runs out."""
        while True:
            try:
                return self._evaluate(point, per_sample=per_sample)
            except RuntimeError as error:
                if not is_out_of_memory(error) or not self._halve_batches():
                    raise

    def _evaluate(self, point: Point, *, per_sample: bool) -> Result:
        began = time.perf_counter()
        index, coordinates = point
        samples: list[Tensor] | None = [] if per_sample else None
        params = self._move_to(coordinates)
        values = self.session.evaluate(params, samples)
        for k, quantity in enumerate(self.quantities):
            if k in self.warm_starts:
                values |= self.warm_starts[k].values(self.objective, index)
            else:
                values |= _measure(quantity, self.objective, params)
        losses = torch.cat(samples, dim=1).cpu() if samples else None
        return Result(index, values, time.perf_counter() - began, losses)

    def _move_to(self, coordinates: tuple[float, ...]) -> Params:
        """Return the parameters at a point; their memory is used again unless someone keeps it."""
        if self.mover is not None:
            return self.mover.move_to(coordinates)
        if not isinstance(self.slice, ReusableSlice) or self.quantities:
            return self.slice.at(coordinates)
        self.params = self.slice.at(coordinates, self.params)
        self.session.borrowed.scratch = self.params
        return self.params

    def _halve_batches(self) -> bool:
        """Halve the batch size; return False if it cannot get smaller."""
        rows = self.session.halve_batches()
        if rows is None:
            return False
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.plan = dataclasses.replace(self.plan, rows=rows)
        return True


def _measure(quantity: Quantity, objective: Objective, params: Params) -> dict[str, float]:
    values = quantity(objective, params)
    if not isinstance(values, dict):
        raise ObjectiveError(
            f"quantity {getattr(quantity, '__name__', quantity)!r} returned a"
            f" {type(values).__name__}; expected a dict of names and numbers."
        )
    try:
        return {str(name): float(value) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise ObjectiveError(
            f"quantity {getattr(quantity, '__name__', quantity)!r} returned a value that is not a"
            f" number ({error}): expected a dict of names and numbers."
        ) from error
