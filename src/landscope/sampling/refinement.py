"""Adaptive refinement: the points of a grid to evaluate next, from the values of the ones before.

The first round is a coarse grid. Each later round asks for the points where the estimated error is
largest, and for a few random ones, which are predicted before they are evaluated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from landscope.sampling import splines
from landscope.sampling.splines import Lattice
from landscope.sampling.surfaces import Observations, Surface

# Points along each axis of the first round, for one, two and three axes: few enough that a smooth
# surface stays cheap.
_FIRST = (9, 6, 5)
_COVER = (0.95, 0.95)  # shares of points that error bars must cover, see bar_factor
# A scan stops when the bars of 99% of the cells are below this multiple of the tolerance: a bar is
# larger than the typical error, so 99% of the errors are then within the tolerance (measured on
# digits networks).
_STOP = 1.2
_BEYOND = 0.01  # share of the cells whose error may be larger than the tolerance
_CHECKS = 32  # random checks that weigh as much as all leave-one-out residuals together
# Points beside others that show how noisy values are; fewer where they show next to none.
_TWINS, _FEW_TWINS = 24, 4
_QUIET = 0.05  # of the tolerance: a noise (standard deviation) that needs no closer look
_CANDIDATES = 8192  # cells that are considered in a round; larger grids are subsampled
_SMALL = 4096  # cells: smaller grids are evaluated completely when too rough, larger ones stop


@dataclass(frozen=True)
class RefinementGoal:
    """The cells and the wanted accuracy: what does not change from round to round.

    It is hashable, because :func:`_find_next_round` is cached.

    Args:
        lattice: The cells.
        tolerance: The wanted error: of the logarithm, or as a share of the range of the values.
        log: Whether the logarithm is predicted, if all values have one.
        batch: About how many points a round has.
    """

    lattice: Lattice
    tolerance: float
    log: bool
    batch: int

    @property
    def count(self) -> int:
        """The number of cells."""
        return self.lattice.count

    @property
    def limit(self) -> int:
        """The number of points that is too many to be cheap; a larger share of small grids."""
        return min(3 * self.count // 4 if self.count <= 1024 else self.count // 2, splines.LIMIT)

    def round_size(self, points: int) -> int:
        """Return the number of points of a round: fewer on small grids, more after many points."""
        return max(min(self.batch, max(4, self.count // 12)), points // 16)


@dataclass
class Replay:
    """The outcome of the rounds so far."""

    missing: list[int] = field(default_factory=list)  # points to evaluate; empty at the end
    ratios: list[float] = field(default_factory=list)  # error / error bar of each check
    errors: list[float] = field(default_factory=list)  # error of each check
    rough: bool = False  # whether the surface needs too many points to be cheap


def replay_rounds(goal: RefinementGoal, losses: Mapping[int, float]) -> Replay:
    """Repeat the rounds until one has points that are not evaluated; so no state is kept."""
    outcome = Replay()
    points: list[int] = []
    round_ = _Round(tuple(_design_first_round(goal.lattice)))
    while round_.wanted:
        outcome.missing = [k for k in round_.wanted if k not in losses]
        if outcome.missing:
            break
        points += round_.wanted
        for ratio, error in _check_predictions(round_, losses):
            outcome.ratios.append(ratio)
            outcome.errors.append(error)
        values = np.array([losses[k] for k in points])
        round_ = _find_next_round(goal, tuple(points), values.tobytes(), tuple(outcome.ratios))
        outcome.rough = outcome.rough or round_.rough
    return outcome


@dataclass(frozen=True)
class _Round:
    """One round of points, with the predictions of those that are checks."""

    wanted: tuple[int, ...]  # the points of the round; none at the end
    checks: tuple[tuple[int, float, float], ...] = ()  # (cell, prediction, bar before scaling)
    log: bool = True
    divisor: float = 1.0  # of the predicted values
    rough: bool = False


def _design_first_round(lattice: Lattice) -> list[int]:
    """Return the first round: a coarse grid with the center, denser toward the ends of the axes.

    Interpolation is worst at the ends of an axis; Chebyshev points avoid that (Trefethen 2013). The
    positions are halfway between those and evenly spaced ones, because the middle matters most.
    """
    shape, center = lattice.shape, lattice.center
    axes = len([n for n in shape if n > 1])
    wanted = _FIRST[max(axes - 1, 0)]
    along = [_space_positions(n, wanted, zero) for n, zero in zip(shape, center, strict=True)]
    if 2 * math.prod(len(a) for a in along) >= lattice.count:
        return list(range(lattice.count))
    flat = np.zeros(1, dtype=np.int64)
    for positions, stride in reversed(list(zip(along, _strides(shape), strict=True))):
        flat = (flat[:, None] + stride * positions[None, :]).ravel()
    return [int(k) for k in flat]


def _space_positions(count: int, wanted: int, zero: float) -> np.ndarray:
    """Return the positions of about ``wanted`` of ``count`` points along an axis."""
    even = np.linspace(0.0, 1.0, wanted)
    where = 0.5 * even + 0.5 * (1.0 - np.cos(np.pi * even)) / 2.0
    positions = np.round(where * (count - 1)).astype(np.int64)
    if -1.0 < zero < 1.0:  # the nearest inner point moves to the center
        center = round((zero + 1.0) / 2.0 * (count - 1))
        inner = 1 + int(np.argmin(np.abs(positions[1:-1] - center)))
        positions[inner] = center
    return np.unique(positions)


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[:k]) for k in range(len(shape))]


def _check_predictions(
    round_: _Round, losses: Mapping[int, float]
) -> Iterator[tuple[float, float]]:
    """Yield (error / bar, error) of the predictions of a round."""
    for cell, prediction, bar in round_.checks:
        loss = losses[cell]
        if not math.isfinite(loss) or (round_.log and loss <= 0):
            continue
        value = math.log(loss) if round_.log else loss / round_.divisor
        error = abs(value - prediction)
        yield (error / bar if bar > 0 else 0.0), error


@functools.lru_cache(maxsize=512)
def _find_next_round(
    goal: RefinementGoal, points: tuple[int, ...], values: bytes, ratios: tuple[float, ...]
) -> _Round:
    """Return the next round; cached, because every call replays the rounds before."""
    unknown = np.ones(goal.count, dtype=bool)
    unknown[list(points)] = False
    if not unknown.any():
        return _Round(())
    losses = np.frombuffer(values)
    at = np.array(points)
    rest = tuple(int(k) for k in np.flatnonzero(unknown))
    if len(points) >= goal.limit:
        rough = bool(np.isfinite(losses).any())
        return _Round(rest if goal.count <= _SMALL else (), rough=rough)
    observations = Observations(goal.lattice, at, losses, log=goal.log)
    edge = _find_hole_edges(goal.lattice, at, ~np.isfinite(losses), unknown)
    if observations.surface is None:
        return _Round(rest[: goal.round_size(len(points))])
    return _choose_points(goal, observations, unknown, edge, ratios)


def _choose_points(
    goal: RefinementGoal,
    observations: Observations,
    unknown: np.ndarray,
    edge: np.ndarray,
    ratios: tuple[float, ...],
) -> _Round:
    cells = _choose_candidates(unknown, len(observations.at))
    cells = cells[~observations.are_near_holes(cells)]
    surface = observations.surface
    assert surface is not None
    size = goal.round_size(len(observations.at))
    checks = max(1, size // 8)
    bars = surface.bars(cells)
    factor = bar_factor(surface, ratios)
    quiet = surface.noise <= _QUIET * goal.tolerance
    twins = int(surface.residuals.twins.sum())
    tried = twins >= (_FEW_TWINS if quiet else _TWINS)
    enough = len(ratios) >= 2 * checks and tried
    enough = enough or len(observations.at) >= goal.limit // 2
    if enough and not len(edge) and _is_accurate(goal.tolerance, factor * bars):
        return _Round(())
    order, free = _random_order(goal.count), unknown.copy()
    chosen = [int(k) for k in edge[: size - checks]]
    chosen += surface.greedy(cells, bars, size - checks - len(chosen), chosen)
    free[chosen] = False
    drawn = [int(k) for k in order[free[order]][:checks]]
    free[drawn] = False
    if not tried and len(ratios) >= checks and not len(edge):  # after the first of these rounds
        count = min(_TWINS - twins, max(2, 3 * size // 8))
        chosen += _choose_twins(goal.lattice, observations, order[free[order]], count)
    predictable = [k for k in drawn if not observations.are_near_holes(np.array([k]))[0]]
    forecast = [(k, *surface.forecast(k)) for k in predictable]
    return _Round((*chosen, *drawn), tuple(forecast), observations.log, observations.divisor)


def _choose_twins(
    lattice: Lattice, observations: Observations, cells: np.ndarray, count: int
) -> list[int]:
    """Return cells beside evaluated points, which show whether values are noisy.

    Without noise these cells are predicted far better than others.

    Args:
        lattice: The cells.
        observations: The evaluated points.
        cells: The candidates, in the order in which they are tried.
        count: The largest number of cells.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(lattice.steps[observations.at[~observations.holes]])
    beside = tree.query(lattice.steps[cells])[0] == 1.0
    return [int(k) for k in cells[beside][:count]]


def _is_accurate(tolerance: float, bars: np.ndarray) -> bool:
    """Return whether the estimated error is small enough to stop.

    The second condition matters where values are noisy, so that all bars are alike: errors are
    normal then, with a standard deviation of half a bar.
    """
    from scipy.special import ndtr

    if not len(bars):
        return True
    if np.quantile(bars, 0.99) > _STOP * tolerance or bars.max() > 2 * tolerance:
        return False
    beyond = ndtr(-1.96 * tolerance / np.maximum(bars, 1e-300))
    return bool(2 * beyond.mean() <= _BEYOND)


def _choose_candidates(unknown: np.ndarray, seed: int) -> np.ndarray:
    cells = np.flatnonzero(unknown)
    if len(cells) <= _CANDIDATES:
        return cells
    return np.sort(np.random.default_rng(seed).choice(cells, _CANDIDATES, replace=False))


def bar_factor(
    surface: Surface, ratios: Sequence[float], cover: tuple[float, float] = _COVER
) -> float:
    """Return the factor by which error bars must be multiplied to cover shares of known errors.

    The known errors are the leave-one-out errors of the points and those of the latest random
    checks; the more checks there are, the more they count together. Then there are the errors of
    points that are left out with their row or column, see ``Surface.slab_ratios``.

    Args:
        surface: The predicted surface.
        ratios: error / error bar of each random check.
        cover: The share to cover of points and checks, and the share of points left out in slabs.
    """
    latest = np.asarray(ratios[-_CHECKS:])
    pooled = np.concatenate([surface.ratios, latest])
    masses = [
        surface.residuals.shares / surface.residuals.shares.sum(),
        np.full(len(latest), 1.0 / _CHECKS),
    ]
    order = np.argsort(pooled, kind="stable")
    reached = np.cumsum(np.concatenate(masses)[order])
    factor = float(pooled[order][np.searchsorted(reached, cover[0] * reached[-1])])
    slabs = surface.slab_ratios
    return max(factor, float(np.quantile(slabs, cover[1]))) if len(slabs) else factor


def _find_hole_edges(
    lattice: Lattice, at: np.ndarray, holes: np.ndarray, unknown: np.ndarray
) -> np.ndarray:
    """Return the unknown cells along the edges of holes, found by the nearest evaluated point.

    Evaluating them until none is left locates the edge of a hole to a cell, without evaluating the
    cells deep inside of it.
    """
    if not holes.any():
        return np.zeros(0, dtype=np.int64)
    hole = holes[lattice.nearest(at, np.arange(lattice.count))].reshape(lattice.shape[::-1])
    edge = np.zeros_like(hole)
    for axis in range(hole.ndim):
        differ = np.moveaxis(hole, axis, 0)[:-1] != np.moveaxis(hole, axis, 0)[1:]
        np.moveaxis(edge, axis, 0)[:-1] |= differ
        np.moveaxis(edge, axis, 0)[1:] |= differ
    return np.flatnonzero(edge.ravel() & unknown)


@functools.lru_cache(maxsize=8)
def _random_order(count: int) -> np.ndarray:
    """Return all cells in a random order, always the same one, in which checks are drawn."""
    return np.random.default_rng(0).permutation(count)
