"""Question: what a scan is asked for, and the texts by which a journal recognizes it."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from landscope import fingerprint
from landscope.engines.job import Engine, Job
from landscope.objective.objective import Objective
from landscope.objective.quantities import Quantity
from landscope.params import wrap
from landscope.sampling.calibrated import Calibrated
from landscope.sampling.grid import Sampler
from landscope.scanning.auto_span import find_span
from landscope.scanning.budget import Choice, choose_sampling
from landscope.scanning.description import (
    Description,
    describe_origin,
    list_quantities,
    list_units,
)
from landscope.scanning.journal import Journal
from landscope.slices.seeded_directions import Seeded
from landscope.slices.slices import Direction, Slice

_FIRST_POINTS = 1000  # assumed while points are timed for a budget, before a resolution is chosen


@final
@dataclass(frozen=True)
class Question:
    """The arguments of a scan that decide its result.

    Args:
        objective: The objective that is evaluated.
        slice: The slice on which it is evaluated.
        sampler: The points of the slice.
        samples: How samples of the data are drawn; None evaluates all of them at every point.
        quantities: Functions (objective, params) -> {name: value}, whose values are stored too.
    """

    objective: Objective
    slice: Slice
    sampler: Sampler
    samples: Calibrated | None
    quantities: Sequence[Quantity]

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        """The coordinates along each axis, x first."""
        return self.sampler.axes(self.slice.dims)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """The number of points along each axis, x first."""
        return tuple(len(axis) for axis in self.axes)

    @functools.cached_property
    def wants_every_point(self) -> bool:
        """Whether the sampler asks for all points at once, so that a part of them is no result."""
        return len(self.sampler.ask(self.shape, {})) == math.prod(self.shape)

    def with_span(self, journal: Journal) -> Question:
        """Return the question with a span: a given one, the journal's, or one that is found now."""

        def find() -> list[tuple[float, float]]:
            text = journal.settings().get("span")
            span = json.loads(text) if text else find_span(self.objective, self.slice)
            journal.save_setting("span", json.dumps(span))
            # JSON has no tuples, and the sampler's repr is part of the fingerprints.
            return [(float(first), float(last)) for first, last in span]

        return replace(self, sampler=self.sampler.with_span(find))

    def within(self, deadline: float, journal: Journal, engine: Engine) -> Question:
        """Return the question with sampler and samples chosen so that the scan ends in time.

        Args:
            deadline: The time at which the scan must end, on the clock of ``time.perf_counter()``.
            journal: The journal that remembers the choice.
            engine: The engine whose speed is measured.
        """
        text = journal.settings().get("choice")
        if text is None:
            job = Job(self.objective, self.slice, self.quantities, points=_FIRST_POINTS)
            seconds_left = deadline - time.perf_counter()
            choice, plan = choose_sampling(job, engine, self.sampler, seconds_left)
            journal.save_setting("plan of anchors" if choice.size else "plan", plan)
            journal.save_setting("choice", choice.dumps())
            journal.add_notes([choice.note])
        else:
            choice = Choice.loads(text)
        sampler = choice.make_sampler(self.sampler, self.slice.dims)
        return replace(self, sampler=sampler, samples=choice.make_samples() or self.samples)

    def describe(self) -> Description:
        """Return what the landscape says besides its numbers."""
        problem, samples = self.objective.problem, self.samples
        parts, dims = self.slice.parts, self.slice.dims
        origins = {role: _read_origin(part) for role, part in parts.items() if role in dims}
        points = {
            "slice": type(self.slice).__name__,
            **({"directions": json.dumps(origins)} if origins else {}),
            "sampler": fingerprint.plain(self.sampler),
            **({} if samples is None else {"samples": fingerprint.plain(samples)}),
        }
        return Description(
            dims=tuple(dims), axes=tuple(axis.tolist() for axis in self.axes),
            labels=tuple(self.slice.labels), quantities=list_quantities(problem),
            units=list_units(problem),
            attributes={**describe_origin(problem, self.fingerprints), **points},
            rows=problem.rows if samples is not None else 0,
            anchors=0 if samples is None else len(samples.places(self.shape)),
            notes=problem.data_notes,
        )  # fmt: skip

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """What identifies this scan, by aspect, so that scans are never mixed in a journal."""
        parts = {role: _identity(part) for role, part in self.slice.parts.items()}
        axes = zip(self.slice.dims, self.axes, strict=True)
        grid = {dim: [float(axis[0]), float(axis[-1]), len(axis)] for dim, axis in axes}
        texts = {
            **self.objective.problem.fingerprints(),
            "slice": f"{type(self.slice).__name__} {json.dumps(parts)}",
            "grid": json.dumps(grid),
            "quantities": json.dumps([fingerprint.of_function(q) for q in self.quantities]),
        }
        if not self.wants_every_point:  # otherwise the grid says everything
            texts["sampler"] = fingerprint.plain(self.sampler)
        if self.samples is not None:
            texts["terms"] = repr(self.samples)  # its name in journals of version 0.1
        return texts


def _read_origin(part: Direction) -> dict[str, Any]:
    return {"kind": "seeded", **part.recipe} if isinstance(part, Seeded) else wrap(part).origin


def _identity(part: Direction) -> str:
    return part.identity if isinstance(part, Seeded) else fingerprint.of_tensors(part)
