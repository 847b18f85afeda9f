"""scan(): the one loop. Slices of any dimension, samplers and engines of any kind.

The module is not called ``scan``: a module of that name would take the place of the function
``landscope.scan`` as soon as anyone imported it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np

from landscope import fingerprint
from landscope.engines import chains
from landscope.engines.job import Engine, Job, Point, Result, Team, probes
from landscope.engines.local import Local
from landscope.errors import ObjectiveError, SliceError
from landscope.landscape import Landscape
from landscope.objective import quantities
from landscope.objective.determinism import check_determinism
from landscope.objective.objective import Objective
from landscope.objective.quantities import Quantity
from landscope.progress import Clock, Report, open_report
from landscope.sampling.calibrated import Calibrated, Subset, loads
from landscope.sampling.grid import Sampler, as_sampler
from landscope.scanning import auto_span, dataset
from landscope.scanning import budget as budgets_
from landscope.scanning.journal import Journal
from landscope.slices.curves import check_axes, default_span
from landscope.slices.seeded_directions import Seeded
from landscope.slices.slices import Direction, Slice

if TYPE_CHECKING:
    pass


def scan(
    objective: Objective,
    slice: Slice,  # noqa: A002 - the field's word
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
        objective: what to evaluate.
        slice: where: a Line, a Plane, a Volume, a Curve, or anything with the four members of
            Slice.
        sampler: at which points: a whole number is a ``Grid`` of so many along each axis on
            [-1, 1], or from end to end of a Curve; 51 if not given. ``Adaptive()`` takes about a
            tenth of them.
        samples: ``Calibrated()`` evaluates all samples at a few points only, and some hundred
            samples elsewhere.
        engine: who evaluates; this machine if not given.
        journal: a file that keeps every value as it is found. When it is there already the scan
            goes on where it stopped, after checking that it answers the same question.
        budget: seconds, or a text such as "5m", in which the whole scan is to be done: it chooses
            resolution, sampling and samples (the span is the sampler's) and notes what it chose.
        progress: called after each point with a Progress; True shows a bar.
        quantities: functions (objective, params) -> {name: number}: further columns.

    Returns:
        The landscape; cells of points that a grid did not ask for are NaN, those that an adaptive
        sampler did not ask for are predicted: ``evaluated`` tells which, ``loss_error`` how well.

    Raises:
        DeterminismError: when the center does not give the same values twice.
        JournalError: when the journal answers another question, or cannot be written.
        SamplerError, SliceError, ObjectiveError: when the parts do not fit.

    Cost: a pass over the data a point, two for the check of the center when anything is left to
    do; the first time about two seconds, or 4%, for choosing how to make the passes. Values of a
    grid equal those of a plain loop to 1e-5 relative. See ``ls.estimate``.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> dx, dy = ls.directions.random(objective.center)
        >>> land = ls.scan(objective, ls.Plane(objective.center, dx, dy), ls.Grid(5))
        >>> land.data["loss"].shape
        (5, 5)
    """
    deadline = None if budget is None else time.perf_counter() + budgets_.seconds(budget)
    engine = Local() if engine is None else engine
    _check(objective, slice, samples)
    own = journal if isinstance(journal, Journal) else Journal(journal)
    with contextlib.nullcontext(own) if isinstance(journal, Journal) else own:
        sampler = as_sampler(sampler, default_span(slice))
        asked = _Asked(objective, slice, sampler, samples, quantities).with_span(own)
        check_axes(slice, asked.axes)
        if deadline is not None:
            asked = asked.within(deadline, own, engine)
        own.begin(asked.question)
        with open_report(progress) as report:
            return _Scan(asked, own, engine, report, deadline).run()


@dataclass(frozen=True)
class _Asked:
    """What a scan is asked for."""

    objective: Objective
    slice: Slice
    sampler: Sampler
    samples: Calibrated | None
    quantities: Sequence[Quantity]

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        return self.sampler.axes(self.slice.dims)

    def with_span(self, journal: Journal) -> _Asked:
        """Find the span, where it is to be found; a journal remembers it."""

        def find() -> list[tuple[float, float]]:
            text = journal.kept().get("span")
            span = json.loads(text) if text else auto_span.found(self.objective, self.slice)
            journal.keep("span", json.dumps(span))
            return [(float(first), float(last)) for first, last in span]

        return replace(self, sampler=self.sampler.with_span(find))

    def within(self, deadline: float, journal: Journal, engine: Engine) -> _Asked:
        """Choose sampler and samples so that the scan ends in time; a journal remembers them."""
        text = journal.kept().get("choice")
        if text is None:
            job = Job(self.objective, self.slice, self.quantities, points=1000)
            left = deadline - time.perf_counter()
            choice, plan = budgets_.choose(job, engine, self.sampler, left)
            journal.keep("plan of anchors" if choice.size else "plan", plan)
            journal.keep("choice", choice.dumps())
            journal.remark([choice.note])
        else:
            choice = budgets_.Choice.loads(text)
        sampler = choice.sampler(self.sampler, self.slice.dims)
        return replace(self, sampler=sampler, samples=choice.samples() or self.samples)

    @functools.cached_property
    def wants_every_point(self) -> bool:
        """Whether the sampler asks for all points at once, so that a part is no whole result."""
        shape = tuple(len(axis) for axis in self.axes)
        return len(self.sampler.ask(shape, {})) == math.prod(shape)

    @functools.cached_property
    def question(self) -> dict[str, str]:
        """What identifies this scan: a journal of another one is never mixed in."""
        parts = {role: _identity(part) for role, part in self.slice.parts.items()}
        dims, axes = self.slice.dims, self.axes
        ends = {d: [float(a[0]), float(a[-1]), len(a)] for d, a in zip(dims, axes, strict=True)}
        asked = {
            **self.objective.problem.fingerprints(),
            "slice": f"{type(self.slice).__name__} {json.dumps(parts)}",
            "grid": json.dumps(ends),
            "quantities": json.dumps([fingerprint.of_function(q) for q in self.quantities]),
        }
        if not self.wants_every_point:  # else the axes say it all
            asked["sampler"] = fingerprint.plain(self.sampler)
        if self.samples is not None:
            asked["terms"] = repr(self.samples)  # the name that it has in older journals
        return asked


@final
class _Scan:
    """One session of a scan: what is known, and who finds out more."""

    def __init__(
        self,
        asked: _Asked,
        journal: Journal,
        engine: Engine,
        report: Report,
        deadline: float | None,
    ) -> None:
        self.asked, self.journal, self.engine, self.report = asked, journal, engine, report
        self.axes = asked.axes
        self.shape = tuple(len(axis) for axis in self.axes)
        self.known = journal.known()
        if deadline is not None and asked.wants_every_point:
            deadline += (budgets_.GRACE - 1) * (deadline - time.perf_counter())
        self.clock = Clock(len(self.known), int(np.prod(self.shape)), deadline)

    def run(self) -> Landscape:
        """Evaluate what is lacking, and return the landscape."""
        self.report(self.clock.progress(len(self.known), {}))
        objective, sampler = self.asked.objective, self.asked.sampler
        subset = self._subset() if self.asked.samples is not None else None
        if subset is not None and len(subset.rows) < objective.problem.rows:
            weights = np.vstack([subset.weights, subset.replicates])
            objective = Objective.of(objective.problem.sampled(subset.rows.tolist(), weights))
        wanted = sampler.ask(self.shape, self.known)
        if wanted:
            if subset is None:
                self._probe()
            with self._team(objective, "plan", len(wanted)) as team:
                while wanted and not self.clock.over:
                    self._evaluate(team, wanted)
                    wanted = sampler.ask(self.shape, self.known)
        return self._landscape(subset)

    def _probe(self) -> None:
        self.journal.remark(check_determinism(self.asked.objective.problem))

    @contextlib.contextmanager
    def _team(self, objective: Objective, name: str, points: int) -> Iterator[Team]:
        """Open a team whose plan the journal remembers under a name."""
        before = self.journal.kept().get(name, "")
        if not self.asked.wants_every_point:  # more will be asked for, in later rounds
            points = max(points, min(250, self.clock.total))
        job = Job(
            objective, self.asked.slice, self.asked.quantities, points, probes(self.axes),
            self.axes, before,
        )  # fmt: skip
        with self.engine.open(job) as team:
            plan = team.plan
            if plan != before:
                self.journal.keep(name, plan)
            yield team
            after = team.plan
        if after != plan:
            self.journal.keep(name, after)
            self.journal.remark(["memory did not suffice: batches were halved on the way"])

    def _evaluate(self, team: Team, wanted: Sequence[int], *, terms: bool = False) -> None:
        if any(isinstance(quantity, quantities.Chained) for quantity in self.asked.quantities):
            wanted = chains.ordered(wanted, self.shape)
        points = _Points(wanted, lambda k: chains.coordinates(k, self.axes), self.clock)
        running = team.run(points, terms=terms)
        with contextlib.closing(running) as groups:
            for results in groups:
                self.journal.write(results)
                if terms:  # after the values: an anchor without samples is evaluated again
                    self._keep_samples(results)
                for result in results:
                    # SQLite has no -0.0: what is returned now is what a resumed scan returns.
                    self.known[result.point] = {n: v + 0.0 for n, v in result.values.items()}
                now = self.clock.progress(len(self.known), results[-1].values)
                self.report(replace(now, so_far=self._so_far))

    def _subset(self) -> Subset:
        """Return the samples to evaluate, after evaluating all of them at the anchors."""
        samples = self.asked.samples
        assert samples is not None
        kept = self.journal.kept()
        if "subset" in kept:
            return loads(kept["subset"])
        places = samples.places(self.shape)
        lacking = [k for k in places if f"samples {k}" not in kept]
        if lacking:
            self._probe()
            with self._team(self.asked.objective, "plan of anchors", len(places)) as team:
                self._evaluate(team, lacking, terms=True)
        kept = self.journal.kept()
        pairs = [np.frombuffer(kept[f"samples {k}"]).reshape(2, -1) for k in places]
        subset = samples.subset(np.stack([values for values, _ in pairs]), pairs[0][1])
        self.journal.keep("subset", subset.dumps())
        self.journal.drop([f"samples {k}" for k in places])
        return subset

    def _keep_samples(self, results: Sequence[Result]) -> None:
        for result in results:
            self.journal.keep(f"samples {result.point}", np.asarray(result.terms).tobytes())

    def _so_far(self) -> Landscape:
        text = self.journal.kept().get("subset")
        return self._landscape(None if text is None else loads(text))

    def _landscape(self, subset: Subset | None) -> Landscape:
        asked = self.asked
        known = dict(sorted(self.known.items()))
        bare = {
            k: {n: v for n, v in values.items() if not dataset.is_replicate(n)}
            for k, values in known.items()
        }
        filled = asked.sampler.fill(self.shape, bare) if known else None
        spread = None if subset is None else _spread(subset, known, self.shape)
        question = asked.question
        data = dataset.dataset(
            asked.objective.problem,
            asked.slice,
            self.axes,
            known,
            question,
            filled=filled,
            spread=spread,
        )
        notes = [*self.journal.remarks, *asked.objective.problem.data_notes]
        notes += [*(filled.notes if filled else ()), *(subset.notes if subset else ())]
        data.attrs["cost"] = self._cost(subset)
        if filled is None and len(known) < self.clock.total:
            notes.append(f"the time was up after {len(known):,} of {self.clock.total:,} points")
        data.attrs["notes"] = "; ".join(notes)
        return Landscape(data, self.journal.seconds)

    def _cost(self, subset: Subset | None) -> str:
        """Return what was evaluated, in words that are the same for the same question."""
        points, passes = len(self.known), float(len(self.known))
        if subset is not None and self.asked.samples is not None:
            anchors = len(self.asked.samples.places(self.shape))
            rows = self.asked.objective.problem.rows
            passes = anchors + (points - anchors) * len(subset.rows) / rows
        return f"{points:,} of {self.clock.total:,} points, {passes:,.4g} passes over the data"


def _identity(part: Direction) -> str:
    return part.identity if isinstance(part, Seeded) else fingerprint.of_tensors(part)


@final
class _Points:
    """Points, one by one, until the time is up; it can say about how many there will be."""

    def __init__(
        self, wanted: Sequence[int], at: Callable[[int], tuple[float, ...]], clock: Clock
    ) -> None:
        self.left, self.at, self.clock, self.count = iter(wanted), at, clock, len(wanted)

    def __iter__(self) -> _Points:
        return self

    def __next__(self) -> Point:
        if self.clock.over:
            raise StopIteration
        index = next(self.left)
        self.count -= 1
        return index, self.at(index)

    def __length_hint__(self) -> int:
        return self.count


def _spread(subset: Subset, known: dataset.Known, shape: Sequence[int]) -> np.ndarray:
    """Return half the width of a 95% interval of ln(loss) at each cell, flat.

    A cell that was not evaluated has that of the nearest one that was.
    """
    from scipy.spatial import cKDTree

    points = list(known)
    names = sorted({n for v in known.values() for n in v if n.startswith("loss~")}, key=len)
    names.sort(key=lambda name: int(name.partition("~")[2]))
    spread = np.zeros(len(points))
    drawn = [k for k, point in enumerate(points) if names and names[0] in known[point]]
    if drawn:
        estimates = np.array([known[points[k]]["loss"] for k in drawn])
        others = np.array([[known[points[k]][n] for n in names] for k in drawn])
        spread[drawn] = subset.interval(estimates, others)
    places = np.stack(np.unravel_index(np.arange(int(np.prod(shape))), shape[::-1]), axis=1)
    nearest = cKDTree(places[points]).query(places)[1]
    found: np.ndarray = spread[nearest]
    return found


def _check(objective: Any, slice_: Slice, samples: Calibrated | None) -> None:
    if not isinstance(objective, Objective):
        raise ObjectiveError(
            f"objective is a {type(objective).__name__}; expected an ls.Objective(model, loss,"
            " data)."
        )
    alive = objective.model.state_dict(keep_vars=True)
    moved = {name for part in slice_.parts.values() for name in part}
    if moved and not moved & set(alive):
        raise SliceError("the slice moves no parameter of the objective's model.")
    if samples is not None:
        objective.problem.check_single_dataset()
