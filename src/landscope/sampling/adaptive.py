"""Adaptive sampling: evaluate a slice where it cannot be predicted, predict it elsewhere.

A surface is predicted by splines, which estimate their error. In each round a few random points
are predicted before they are evaluated, which checks the estimate; the others are the points where
the estimated error is largest.

This module holds what a scan calls; ``splines`` and ``surfaces`` predict, ``residuals`` say how
well, ``refinement`` chooses points and ``prediction`` makes the result. Source: that a sampler asks
for points and something else evaluates them follows the package *adaptive* (Nijholt et al. 2019);
the other modules name their own sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, final

import numpy as np

from landscope.errors import SamplerError
from landscope.sampling import refinement
from landscope.sampling.grid import Grid, Span
from landscope.sampling.prediction import Prediction, Values, deciding_quantity, fill_cells
from landscope.sampling.refinement import RefinementGoal, Replay
from landscope.sampling.splines import Lattice


@final
@dataclass(frozen=True)
class Adaptive:
    """Points where they are needed: about a tenth of a grid; the other cells are predicted.

    The first round is a coarse grid. Each later round asks for the points where the estimated error
    is largest, for a few random ones that check the estimate, and for a few beside others, which
    show how noisy values are (noise is a part of the error, and is smoothed in predictions). The
    scan ends when the estimated error (a 95% bar) is at most the tolerance in nearly all cells; see
    ``fill`` for the result. The same values always lead to the same points, in any order of
    arrival.

    Args:
        tolerance: The wanted error: of ln(loss) for scale "log"; of the loss, as a share of the
            range of the evaluated values, for scale "linear". The aim is that 99% of the
            cells are within it, the others within twice the tolerance.
        resolution: The number of points along each axis of the full grid, as for ``Grid``.
        span: The (first, last) coordinate, as for ``Grid``; "auto" lets ``ls.scan`` find it.
        scale: "log" or "linear": what is predicted and what the tolerance refers to. A loss that
            is zero or negative somewhere has no logarithm: then "log" does the same as "linear".
        batch: The number of points of a round, so that workers stay busy; fewer on small grids,
            more after many points.

    Raises:
        SamplerError: For a tolerance that is not above 0, a batch below 1, an unknown scale, and
            for everything that ``Grid`` refuses.

    Accuracy: ``benchmarks/coverage.py`` measures it on 22 families of surfaces, smooth, noisy,
    kinked and steep: 95% bars held in 93% of the cells or more of each. On smooth surfaces they are
    several times as large as the errors.

    Cost: for a 51 x 51 plane about 0.1 s per round, 1 s in total. Surfaces that would need more
    than half of the grid (three quarters on grids of up to 1,024 points) are too rough to be cheap:
    grids of up to 4,096 points are then evaluated completely, larger ones stop at half of the grid,
    or at 1,500 points. A note says so.

    Example:
        >>> sampler = Adaptive(resolution=(11, 9))
        >>> len(sampler.ask((11, 9), {})), len(sampler.ask((3, 3), {}))
        (36, 9)
    """

    tolerance: float = 0.03
    resolution: int | Sequence[int] = 51
    span: Sequence[float] | Sequence[Sequence[float]] | str = (-1.0, 1.0)
    scale: Literal["log", "linear"] = "log"
    batch: int = 16

    def __post_init__(self) -> None:
        _check_above_zero(self.tolerance)
        if self.scale not in ("log", "linear"):
            raise SamplerError(f'scale={self.scale!r}; expected "log" or "linear".')
        whole = isinstance(self.batch, int | np.integer) and not isinstance(self.batch, bool)
        if not whole or self.batch < 1:
            raise SamplerError(f"batch={self.batch!r}; expected a whole number of 1 or more.")
        if isinstance(self.span, str) and self.span != "auto":
            raise SamplerError(f'span={self.span!r}; expected (first, last), or "auto".')
        Grid(self.resolution, (-1.0, 1.0) if isinstance(self.span, str) else self.span)

    def axes(self, dims: Sequence[str]) -> tuple[np.ndarray, ...]:
        """Return the coordinates along each axis, those of ``Grid``.

        Raises:
            SamplerError: When resolution or span are given for another number of axes, or the span
                is "auto".
        """
        if isinstance(self.span, str):
            raise SamplerError(
                f'span="{self.span}" has no axes yet: ls.scan finds it by a few evaluations. Pass'
                " the sampler to ls.scan, or give span=(first, last)."
            )
        return Grid(self.resolution, self.span).axes(dims)

    def ask(self, shape: Sequence[int], known: Values) -> list[int]:
        """Return the flat indices to evaluate next, x running fastest; none at the end.

        Args:
            shape: The number of points along each axis, x first: one, two or three axes.
            known: The values of each evaluated point. The ``loss`` decides (else ``train_loss``,
                else the first quantity by name); points that were not asked for do not matter.
        """
        return self._replay(shape, known).missing

    def fill(self, shape: Sequence[int], known: Values) -> Prediction:
        """Return every quantity in every cell, with the estimated error.

        Args:
            shape: The number of points along each axis, x first.
            known: The values of each evaluated point, all of which are used.
        """
        goal = self._goal(shape)
        return fill_cells(goal, known, self._replay(shape, known))

    def with_span(self, find: Callable[[], Sequence[Span]]) -> Adaptive:
        """Return the sampler itself, or if its span is "auto", one on the span of ``find()``."""
        return replace(self, span=find()) if isinstance(self.span, str) else self

    def expected_points(self, shape: Sequence[int]) -> int:
        """Return about a tenth of the points, at least 60; a rough surface will need more."""
        cells = math.prod(shape)
        return min(cells, max(60, round(0.1 * cells)))

    def _replay(self, shape: Sequence[int], known: Values) -> Replay:
        name = deciding_quantity(known)
        losses = {k: float(v.get(name, math.nan)) for k, v in known.items()}
        return refinement.replay_rounds(self._goal(shape), losses)

    def _goal(self, shape: Sequence[int]) -> RefinementGoal:
        if not 1 <= len(shape) <= 3:
            raise SamplerError(
                f"shape={tuple(shape)} has {len(shape)} axes; Adaptive works on lines, planes"
                " and volumes: use Grid."
            )
        center = tuple(0.0 for _ in shape)
        if not isinstance(self.span, str):
            ends = [(a[0], a[-1]) for a in self.axes("xyz"[: len(shape)])]
            center = tuple(_zero(float(a), float(b)) for a, b in ends)
        lattice = Lattice(tuple(int(n) for n in shape), center)
        return RefinementGoal(lattice, float(self.tolerance), self.scale == "log", int(self.batch))


def _check_above_zero(tolerance: object) -> None:
    number = isinstance(tolerance, int | float | np.number) and not isinstance(tolerance, bool)
    if not number or not math.isfinite(cast(float, tolerance)) or cast(float, tolerance) <= 0:
        raise SamplerError(f"tolerance={tolerance!r}; expected a finite number above 0.")


def _zero(first: float, last: float) -> float:
    """Return the position of coordinate 0 on an axis that is scaled to [-1, 1]."""
    return 0.0 if first == last else -1.0 + 2.0 * (0.0 - first) / (last - first)
