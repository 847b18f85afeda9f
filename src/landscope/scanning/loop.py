"""The one loop, :func:`scan`: slices of any dimension, samplers and engines of any kind.

The module is not called ``scan``: a module of that name would take the place of the function
``landscope.scan`` as soon as anyone imported it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np

from landscope.engines import chains
from landscope.engines.executor import as_engine
from landscope.engines.job import (
    Engine,
    Job,
    Point,
    Result,
    WorkerPool,
    check_engine,
    choose_probes,
)
from landscope.errors import ObjectiveError, SliceError
from landscope.landscape import Landscape
from landscope.objective.determinism import check_determinism
from landscope.objective.objective import Objective, check_objective
from landscope.objective.quantities import Chained, Quantity
from landscope.progress import Clock, Report, open_report
from landscope.sampling.calibrated import Calibrated, check_samples
from landscope.sampling.data_subset import Subset, loads
from landscope.sampling.grid import Sampler, as_sampler
from landscope.scanning import budget as budgets
from landscope.scanning.dataset import build_landscape
from landscope.scanning.journal import DESCRIPTION, Journal
from landscope.scanning.question import Question
from landscope.scanning.slice_notes import describe_slice
from landscope.slices.curves import check_axes, default_span
from landscope.slices.direction_checks import check_order
from landscope.slices.slices import Slice, check_slice

_ROUNDS_POINTS = 250  # a plan is chosen for at least this many points of a sampler with rounds


def scan(
    objective: Objective,
    slice: Slice,  # noqa: A002 - the usual word in this field
    sampler: Sampler | int | None = None,
    *,
    samples: Calibrated | None = None,
    engine: Engine | None = None,
    journal: Journal | str | os.PathLike[str] | None = None,
    budget: float | str | None = None,
    progress: Report | bool | None = None,
    quantities: Sequence[Quantity] = (),
) -> Landscape:
    """Return the landscape of an objective over a slice.

    Args:
        objective: The objective that is evaluated.
        slice: A Line, a Plane, a Volume, a Curve, or anything with the members of Slice.
        sampler: The points that are evaluated. A whole number is a ``Grid`` of that many points
            along each axis on [-1, 1], or from end to end of a Curve; by default 51.
            ``Adaptive()`` evaluates about a tenth of them and predicts the others.
        samples: ``Calibrated()`` evaluates all samples at a few points only, and a few hundred
            samples at the others. By default all samples are evaluated at every point.
        engine: The engine that evaluates points; by default this machine.
        journal: A file (or a Journal) that keeps every value as soon as it is computed. If the
            file exists already, the scan resumes, after a check that it is a journal of this scan.
        budget: The time for the whole scan, in seconds or as a text such as "5m": it chooses
            resolution, sampler and samples (the span is the sampler's) and notes the choice.
        progress: A function that is called with a Progress after each group of points that are
            evaluated together, or True for a bar.
        quantities: Functions (objective, params) -> {name: number}, whose values are stored too.

    Returns:
        The landscape. Cells that a grid did not evaluate are NaN. Two variables say how good
        values are, if not all of them are exact:

        - ``evaluated``: 1 where the model was evaluated, 0 where an adaptive sampler predicts the
          value from other points.
        - ``loss_error``: half the width of a 95% interval (no standard error) around the value of
          an evaluation of all samples at that point. Evaluated on all samples: 0. Evaluated on
          drawn samples: from the replicates of the draw. Predicted: from the errors of predictions
          that were checked, plus the half-width of the nearest point with drawn samples. NaN
          where there is no value.

        Its unit is one for the whole landscape: that of ln(loss), which has none, or, where some
        loss is 0 or negative (or for ``Adaptive(scale="linear")``), that of the loss. Its
        attributes ``units`` and ``interval_of`` ("ln(loss)" or "loss") say which; the methods
        ``half_widths()`` and ``interval()`` of the landscape give both in units of the loss.

    Raises:
        DeterminismError: When two evaluations of the center differ.
        JournalError: When the journal is of another scan, or cannot be written.
        SamplerError, SliceError, ObjectiveError, EngineError: When the arguments do not fit.

    Cost: one pass over the data per point, and two to check the center when anything is left to
    evaluate; two over at most 2,048 samples in the end, to see whether the model is trained; the
    first time about two seconds, or 4% of a longer scan, to choose how to make the passes. Values
    of a grid equal those of a plain loop to 1e-5 relative. See ``ls.estimate``.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> dx, dy = ls.directions.random(objective.center)
        >>> land = ls.scan(objective, ls.Plane(objective.center, dx, dy), 5)
        >>> land.data["loss"].shape
        (5, 5)
    """
    deadline = None if budget is None else time.perf_counter() + budgets.parse_budget(budget)
    engine = as_engine(engine)
    _check(objective, slice, samples, engine)
    _check_quantities(quantities)
    with contextlib.ExitStack() as stack:
        if not isinstance(journal, Journal):
            journal = stack.enter_context(Journal(journal))
        sampler = as_sampler(sampler, default_span(slice))
        question = Question(objective, slice, sampler, samples, quantities).with_span(journal)
        check_axes(slice, question.axes)
        if deadline is not None:
            question = question.within(deadline, journal, engine)
        journal.begin(question.fingerprints)
        report = stack.enter_context(open_report(progress))
        return _Scan(question, journal, engine, report, deadline).run()


@final
class _Scan:
    """One call of ``scan``: the values that are known, and the engine that computes the rest."""

    def __init__(
        self,
        question: Question,
        journal: Journal,
        engine: Engine,
        report: Report,
        deadline: float | None,
    ) -> None:
        self.question, self.journal, self.engine = question, journal, engine
        self.report = report
        self.axes, self.shape = question.axes, question.shape
        self.values = journal.values()
        if deadline is not None and question.wants_every_point:
            deadline += (budgets.GRACE - 1) * (deadline - time.perf_counter())
        self.cells, is_estimate = int(np.prod(self.shape)), not question.wants_every_point
        total = question.sampler.expected_points(self.shape) if is_estimate else self.cells
        self.clock = Clock(len(self.values), total, deadline, is_estimate=is_estimate)

    def run(self) -> Landscape:
        """Evaluate what is missing, and return the landscape."""
        self._save_description()
        self.report(self.clock.progress(len(self.values), {}))
        objective, sampler = self.question.objective, self.question.sampler
        subset = self._draw_samples() if self.question.samples is not None else None
        if subset is not None and len(subset.rows) < objective.problem.rows:
            weights = np.vstack([subset.weights, subset.replicates])
            objective = Objective.of(
                objective.problem.select_samples(subset.rows.tolist(), weights)
            )
        wanted = sampler.ask(self.shape, self.values)
        if wanted:
            if subset is None:
                self._check_determinism()
            with self._open_pool(objective, "plan", len(wanted)) as pool:
                while wanted and not self.clock.over:
                    self._evaluate(pool, wanted)
                    wanted = sampler.ask(self.shape, self.values)
            question = self.question
            self.journal.add_notes(
                describe_slice(question.objective, question.slice, self.shape, self.values)
            )
            if not self.question.wants_every_point:
                self.report(self.clock.finish(len(self.values)))
            self._save_description()  # with the notes of the first pass over the data
        return self._landscape(subset)

    def _check_determinism(self) -> None:
        self.journal.add_notes(check_determinism(self.question.objective.problem))

    @contextlib.contextmanager
    def _open_pool(self, objective: Objective, setting: str, points: int) -> Iterator[WorkerPool]:
        """Yield a worker pool; the journal remembers its plan under the name of a setting."""
        plan_before = self.journal.settings().get(setting, "")
        if not self.question.wants_every_point:  # later rounds will ask for more
            points = max(points, min(_ROUNDS_POINTS, self.cells))
        job = Job(
            objective,
            self.question.slice,
            self.question.quantities,
            points=points,
            probes=choose_probes(self.axes),
            axes=self.axes,
            plan=plan_before,
        )
        with self.engine.open(job) as pool:
            plan = pool.plan
            if plan != plan_before:
                self.journal.save_setting(setting, plan)
            yield pool
            plan_after = pool.plan
        if plan_after != plan:
            self.journal.save_setting(setting, plan_after)
            self.journal.add_notes(["memory did not suffice: batches were halved during the scan"])

    def _evaluate(
        self, pool: WorkerPool, wanted: Sequence[int], *, per_sample: bool = False
    ) -> None:
        """Evaluate points; each value is in the journal before its progress is reported."""
        if any(isinstance(quantity, Chained) for quantity in self.question.quantities):
            wanted = chains.sort_by_chain(wanted, self.shape)
        points = _Points(wanted, lambda k: chains.locate(k, self.axes), self.clock)
        with contextlib.closing(pool.run(points, per_sample=per_sample)) as groups:
            for results in groups:
                self.journal.write(results)
                if self.question.quantities:  # such as loss_stderr, which may not hold
                    self.journal.add_notes(self.question.objective.problem.notes)
                if per_sample:  # after the values: an anchor without samples is evaluated again
                    self._save_samples(results)
                for result in results:
                    # SQLite has no -0.0: what is returned now is what a resumed scan returns.
                    self.values[result.point] = {n: v + 0.0 for n, v in result.values.items()}
                progress = self.clock.progress(len(self.values), results[-1].values)
                self.report(replace(progress, so_far=self._landscape_so_far))

    def _draw_samples(self) -> Subset:
        """Return the samples to evaluate, after evaluating all of them at the anchors."""
        samples = self.question.samples
        assert samples is not None
        settings = self.journal.settings()
        if "subset" in settings:
            return loads(settings["subset"])
        anchors = samples.places(self.shape)
        missing = [k for k in anchors if f"samples {k}" not in settings]
        if missing:
            self._check_determinism()
            with self._open_pool(self.question.objective, "plan of anchors", len(anchors)) as pool:
                self._evaluate(pool, missing, per_sample=True)
        settings = self.journal.settings()
        pairs = [np.frombuffer(settings[f"samples {k}"]).reshape(2, -1) for k in anchors]
        subset = samples.subset(np.stack([values for values, _ in pairs]), pairs[0][1])
        self.journal.save_setting("subset", subset.dumps())
        self.journal.delete_settings([f"samples {k}" for k in anchors])
        return subset

    def _save_samples(self, results: Sequence[Result]) -> None:
        for result in results:
            data = np.asarray(result.per_sample).tobytes()
            self.journal.save_setting(f"samples {result.point}", data)

    def _landscape_so_far(self) -> Landscape:
        text = self.journal.settings().get("subset")
        return self._landscape(None if text is None else loads(text))

    def _landscape(self, subset: Subset | None) -> Landscape:
        description = self.question.describe()
        notes = [*self.journal.notes, *description.notes]
        if self.question.wants_every_point and len(self.values) < self.cells:
            notes.append(f"time ran out after {len(self.values):,} of {self.cells:,} points")
        return build_landscape(
            description, self.values, sampler=self.question.sampler, subset=subset,
            notes=notes, seconds=self.journal.seconds,
        )  # fmt: skip

    def _save_description(self) -> None:
        self.journal.save_setting(DESCRIPTION, self.question.describe().dumps())


@final
class _Points:
    """An iterator over points that ends when the time is up and knows about how many are left."""

    def __init__(
        self, wanted: Sequence[int], at: Callable[[int], tuple[float, ...]], clock: Clock
    ) -> None:
        self.indices, self.at, self.clock, self.count = iter(wanted), at, clock, len(wanted)

    def __iter__(self) -> _Points:
        return self

    def __next__(self) -> Point:
        if self.clock.over:
            raise StopIteration
        index = next(self.indices)
        self.count -= 1
        return index, self.at(index)

    def __length_hint__(self) -> int:
        return self.count


def _check(objective: Any, slice_: Slice, samples: Calibrated | None, engine: Any) -> None:
    """Raise an error for arguments that do not fit together."""
    check_objective(objective)
    check_engine(engine)
    check_slice(slice_)
    check_samples(samples)
    check_order(objective.center, slice_.parts)
    names = objective.model.state_dict(keep_vars=True)
    moved = {name for part in slice_.parts.values() for name in part}
    if moved and not moved & set(names):
        raise SliceError("the slice moves no parameter of the objective's model.")
    if samples is not None:
        objective.problem.check_single_dataset()
        objective.problem.check_independent_rows("samples=")


def _check_quantities(quantities: Any) -> None:
    listed = isinstance(quantities, Sequence) and not isinstance(quantities, str)
    if not listed or not all(callable(quantity) for quantity in quantities):
        raise ObjectiveError(
            f"quantities={quantities!r}; expected a tuple of functions (objective, params) -> dict,"
            " such as (ls.neighborhood_average(0.1),); metrics of outputs and targets belong to"
            " ls.Objective(metrics={...})."
        )
