"""Rounds: which points of a grid to evaluate next, from the values of those before.

A coarse grid comes first. Each later round asks for the points where the estimated error is
largest, and for a few drawn blindly, which are predicted before they are evaluated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from landscope.sampling import splines
from landscope.sampling.splines import Lattice, Surface, Told

# Points an axis of the first design, for one, two and three axes: few enough that a smooth surface
# stays cheap.
_FIRST = (9, 6, 5)
_COVER = 0.95  # share of the points that an error bar is to cover
# The bar of 99% of the cells at which to stop, over the tolerance: a bar covers more than the
# typical error, so that this leaves 99% of the errors within the tolerance (digits networks).
_STOP = 1.2
_CHECKS = 32  # blind checks that weigh as much as all leave-one-out residuals together
_CANDIDATES = 8192  # cells looked at in a round; of larger grids as many are drawn in each round
_SMALL = 4096  # grids up to this size are evaluated whole when too rough; larger ones stop short


@dataclass(frozen=True)
class Problem:
    """What does not change from round to round; hashable, for the memo.

    Args:
        lattice: the cells.
        tolerance: wanted error: of the logarithm, or as a share of the range of the values.
        log: whether the logarithm is predicted, where all values have one.
        batch: points of a round, about.
    """

    lattice: Lattice
    tolerance: float
    log: bool
    batch: int

    @property
    def count(self) -> int:
        """How many cells there are."""
        return self.lattice.count

    @property
    def limit(self) -> int:
        """Return how many points are too many to be cheap; small grids are allowed more."""
        return min(3 * self.count // 4 if self.count <= 1024 else self.count // 2, splines.LIMIT)

    def round_size(self, points: int) -> int:
        """Return the points of a round: fewer on small grids, more when there are many already."""
        return max(min(self.batch, max(4, self.count // 12)), points // 16)


@dataclass
class Replay:
    """The rounds so far, as far as their values are known."""

    missing: list[int] = field(default_factory=list)  # points to evaluate; empty when it is enough
    ratios: list[float] = field(default_factory=list)  # error of each check over its bar
    misses: list[float] = field(default_factory=list)  # error of each check
    rough: bool = False


def replay(problem: Problem, losses: Mapping[int, float]) -> Replay:
    """Go through the rounds until one is not wholly known: thus no state is needed."""
    found = Replay()
    points: list[int] = []
    plan = _Plan(tuple(_first(problem.lattice)))
    while plan.wanted:
        found.missing = [k for k in plan.wanted if k not in losses]
        if found.missing:
            break
        points += plan.wanted
        for ratio, miss in _checked(plan, losses):
            found.ratios.append(ratio)
            found.misses.append(miss)
        values = np.array([losses[k] for k in points])
        plan = _plan(problem, tuple(points), values.tobytes(), tuple(found.ratios))
        found.rough = found.rough or plan.rough
    return found


@dataclass(frozen=True)
class _Plan:
    """What follows from the values of all rounds so far."""

    wanted: tuple[int, ...]  # the next round; empty when it is enough
    checks: tuple[tuple[int, float, float], ...] = ()  # (cell, prediction, its bar before scaling)
    log: bool = True
    spread: float = 1.0  # what predictions were divided by
    rough: bool = False


def _first(lattice: Lattice) -> list[int]:
    """Return the first design: a coarse grid, denser to its ends, and the center.

    Interpolation is worst at the ends of an axis; Chebyshev points are the cure (Trefethen 2013);
    halfway to them is kept of the even spacing, for the middle matters most.
    """
    shape, center = lattice.shape, lattice.center
    axes = len([n for n in shape if n > 1])
    wanted = _FIRST[max(axes - 1, 0)]
    along = [_spaced(n, wanted, zero) for n, zero in zip(shape, center, strict=True)]
    if 2 * math.prod(len(a) for a in along) >= lattice.count:
        return list(range(lattice.count))
    flat = np.zeros(1, dtype=np.int64)
    for positions, stride in reversed(list(zip(along, _strides(shape), strict=True))):
        flat = (flat[:, None] + stride * positions[None, :]).ravel()
    return [int(k) for k in flat]


def _spaced(count: int, wanted: int, zero: float) -> np.ndarray:
    even = np.linspace(0.0, 1.0, wanted)
    where = 0.5 * even + 0.5 * (1.0 - np.cos(np.pi * even)) / 2.0
    positions = np.round(where * (count - 1)).astype(np.int64)
    if -1.0 < zero < 1.0:  # the nearest of the inner ones moves to the center
        center = round((zero + 1.0) / 2.0 * (count - 1))
        inner = 1 + int(np.argmin(np.abs(positions[1:-1] - center)))
        positions[inner] = center
    return np.unique(positions)


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[:k]) for k in range(len(shape))]


def _checked(plan: _Plan, losses: Mapping[int, float]) -> Iterator[tuple[float, float]]:
    """Yield how far the checks of a round came out from what was predicted before."""
    for cell, prediction, bar in plan.checks:
        loss = losses[cell]
        if not math.isfinite(loss) or (plan.log and loss <= 0):
            continue
        value = math.log(loss) if plan.log else loss / plan.spread
        miss = abs(value - prediction)
        yield (miss / bar if bar > 0 else 0.0), miss


@functools.lru_cache(maxsize=512)
def _plan(
    problem: Problem, points: tuple[int, ...], values: bytes, ratios: tuple[float, ...]
) -> _Plan:
    """Return the next round; remembered, since every question replays the rounds before."""
    unknown = np.ones(problem.count, dtype=bool)
    unknown[list(points)] = False
    if not unknown.any():
        return _Plan(())
    losses = np.frombuffer(values)
    at = np.array(points)
    rest = tuple(int(k) for k in np.flatnonzero(unknown))
    if len(points) >= problem.limit:
        rough = bool(np.isfinite(losses).any())
        return _Plan(rest if problem.count <= _SMALL else (), rough=rough)
    told = Told(problem.lattice, at, losses, log=problem.log)
    edge = _edge(problem.lattice, at, ~np.isfinite(losses), unknown)
    if told.surface is None:
        return _Plan(rest[: problem.round_size(len(points))])
    return _next(problem, told, unknown, edge, ratios)


def _next(
    problem: Problem, told: Told, unknown: np.ndarray, edge: np.ndarray, ratios: tuple[float, ...]
) -> _Plan:
    cells = _candidates(unknown, len(told.at))
    cells = cells[~told.beyond(cells)]
    surface = told.surface
    assert surface is not None
    size = problem.round_size(len(told.at))
    checks = max(1, size // 8)
    bars = surface.bars(cells)
    factor = bar_factor(surface, ratios)
    enough = len(ratios) >= 2 * checks or len(told.at) >= problem.limit // 2
    if enough and not len(edge) and _within(problem.tolerance, factor * bars):
        return _Plan(())
    chosen = [int(k) for k in edge[: size - checks]]
    chosen += surface.greedy(cells, bars, size - checks - len(chosen), chosen)
    free = unknown.copy()
    free[chosen] = False
    order = _blind(problem.count)
    blind = [int(k) for k in order[free[order]][:checks]]
    sound = [k for k in blind if not told.beyond(np.array([k]))[0]]
    forecast = [(k, *surface.forecast(k)) for k in sound]
    return _Plan((*chosen, *blind), tuple(forecast), told.log, told.spread)


def _within(tolerance: float, bars: np.ndarray) -> bool:
    """Whether the estimated error is small enough to stop."""
    if not len(bars):
        return True
    return bool(np.quantile(bars, 0.99) <= _STOP * tolerance and bars.max() <= 2 * tolerance)


def _candidates(unknown: np.ndarray, seed: int) -> np.ndarray:
    cells = np.flatnonzero(unknown)
    if len(cells) <= _CANDIDATES:
        return cells
    return np.sort(np.random.default_rng(seed).choice(cells, _CANDIDATES, replace=False))


def bar_factor(surface: Surface, ratios: Sequence[float], cover: float = _COVER) -> float:
    """Return what bars are multiplied by, so that they cover a share of what is known.

    That is the points, each predicted from the others, and the latest blind checks, which weigh
    the more the more there are.
    """
    latest = np.asarray(ratios[-_CHECKS:])
    every = np.concatenate([surface.ratios, latest])
    share = [
        np.full(len(surface.ratios), 1.0 / len(surface.ratios)),
        np.full(len(latest), 1.0 / _CHECKS),
    ]
    order = np.argsort(every, kind="stable")
    reached = np.cumsum(np.concatenate(share)[order])
    return float(every[order][np.searchsorted(reached, cover * reached[-1])])


def _edge(lattice: Lattice, at: np.ndarray, holes: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Return the unknown cells along the edge of holes, by the nearest evaluated point.

    Asking for them until none is left traces the edge of a hole down to the grid, and leaves out
    what lies deep inside of it.
    """
    if not holes.any():
        return np.zeros(0, dtype=np.int64)
    hole = holes[lattice.nearest(at, np.arange(lattice.count))].reshape(lattice.shape[::-1])
    edge = np.zeros_like(hole)
    for axis in range(hole.ndim):
        one, other = np.moveaxis(hole, axis, 0)[:-1], np.moveaxis(hole, axis, 0)[1:]
        differ = one != other
        np.moveaxis(edge, axis, 0)[:-1] |= differ
        np.moveaxis(edge, axis, 0)[1:] |= differ
    return np.flatnonzero(edge.ravel() & unknown)


@functools.lru_cache(maxsize=8)
def _blind(count: int) -> np.ndarray:
    """Return all cells in a random order, always the same: checks are drawn along it."""
    return np.random.default_rng(0).permutation(count)
