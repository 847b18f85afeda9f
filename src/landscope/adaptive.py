"""Adaptive sampling: evaluate a slice where it cannot be predicted, predict it elsewhere.

A surface is predicted by radial-basis interpolation, and how far the prediction may be off is
learned from the points themselves: each evaluated point is predicted from all the others
(leave-one-out), and in each round a few points are drawn blindly and predicted before they are
evaluated. Where the estimated error is largest the next points are asked for.

Sources: polyharmonic splines (Duchon 1977; Wendland, *Scattered Data Approximation*, 2005, chapters
8 and 11 for the power function); leave-one-out residuals in closed form (Dubrule 1983; Rippa 1999);
choosing points greedily by the power function (De Marchi, Schaback, Wendland 2005) scaled by local
residuals; an extra coordinate that stretches space (variably scaled kernels, Bozzini, Lenarduzzi,
Rossini, Schaback 2015); ask apart from run (the package *adaptive*, Nijholt et al. 2019).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, final

import numpy as np

from landscope.errors import SamplerError
from landscope.sampling import Grid

# Points an axis of the first design, for one, two and three axes: few enough that a smooth surface
# stays cheap.
_FIRST = (9, 6, 5)
# Radial stretches to choose from: how much faster a surface changes away from the center than
# around it. Losses are near to homogeneous along rays, so that most need 0.5 to 1.5.
_STRETCHES = (0.0, 0.5, 1.0, 1.5)
# Cubic splines bear kinks, quintic ones gain on smooth surfaces. Points are dense where a surface
# is rough, so that residuals speak for the cubic more than the cells do: it must win clearly.
_HANDICAP = {3: 1.2, 5: 1.0}
_COMMITTEE = 3  # runners-up whose disagreement with the best counts as doubt
_DOUBT = 2.0  # its weight; 0.5 to 4 did equally well on digits networks
_NEIGHBORS = 8  # residuals that tell the roughness of a place; 5 to 16 did equally well
_COVER = 0.95  # share of the points that an error bar is to cover
_COVER_TOLD = 0.97  # the same in the result: a scan ends at a moment when its bars look small
# The bar of 99% of the cells at which to stop, over the tolerance: a bar covers more than the
# typical error, so that this leaves 99% of the errors within the tolerance (digits networks).
_STOP = 1.2
_CHECKS = 32  # blind checks that weigh as much as all leave-one-out residuals together
_SELECT = 500  # points by which spline and stretch are chosen
_CANDIDATES = 8192  # cells looked at in a round; of larger grids as many are drawn in each round
_LIMIT = 1500  # points of a spline: beyond, its cubic cost would outweigh what it saves
_SMALL = 4096  # grids up to this size are evaluated whole when too rough; larger ones stop short
_ROWS = 4096  # cells predicted at a time: bounds the memory

Known = Mapping[int, Mapping[str, float]]


@final
@dataclass(frozen=True)
class Adaptive:
    """Points where they are needed: about a tenth of a grid, the other cells are predicted.

    It starts with a coarse grid and asks, round by round, for the points where the estimated error
    is largest, and for a few drawn blindly that check the estimate. It ends when the estimated
    error (a 95% bar) is at most the tolerance in nearly all cells; see ``fill`` for the result. The
    same values always lead to the same points, in whichever order they arrive.

    Args:
        tolerance: wanted error of ln(loss) for scale "log", of the loss as a share of the range of
            the evaluated values for scale "linear". 99% of the cells are meant to be within it, the
            others within twice of it.
        resolution: points an axis of the full grid, as for ``Grid``; never more are evaluated.
        span: (first, last) coordinate, as for ``Grid``; "auto" lets ``ls.scan`` find it.
        scale: "log" or "linear": what is predicted, and what the tolerance refers to. A loss that
            is zero or negative somewhere has no logarithm: then "log" does what "linear" does.
        batch: points asked for at once, so that workers are kept busy; fewer on small grids.

    Raises:
        SamplerError: for a tolerance that is not above 0, a batch below 1, an unknown scale, and
            what ``Grid`` refuses.

    Cost: for a 51 x 51 plane some 0.05 s a round, 1 s in all. Surfaces that would need more than
    half of the grid (three quarters up to 1,024 points) are too rough to be cheap: grids of up to
    4,096 points are then evaluated whole; larger ones stop at half of the grid or 1,500 points. A
    note says so.

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
            SamplerError: when resolution or span name another number of axes, or span is "auto".
        """
        if isinstance(self.span, str):
            raise SamplerError(
                f'span="{self.span}" has no axes yet: ls.scan finds it by a few evaluations. Pass'
                " the sampler to ls.scan, or give span=(first, last)."
            )
        return Grid(self.resolution, self.span).axes(dims)

    def ask(self, shape: Sequence[int], known: Known) -> list[int]:
        """Return the flat indices wanted next, x running fastest; empty when it is enough.

        Args:
            shape: points an axis, x first: one, two or three axes.
            known: the values of each evaluated point; its ``loss`` (else ``train_loss``, else the
                first by the alphabet) decides. Points that were not asked for do not.
        """
        return self._replay(shape, known).missing

    def fill(self, shape: Sequence[int], known: Known) -> Filled:
        """Return every quantity in every cell, with the estimated error.

        Args:
            shape: points an axis, x first.
            known: the values of each evaluated point, all of which are used.
        """
        problem = self._problem(shape)
        return _filled(problem, known, self._replay(shape, known))

    def _replay(self, shape: Sequence[int], known: Known) -> _Replay:
        name = _main(known)
        losses = {k: float(v.get(name, math.nan)) for k, v in known.items()}
        return _replay(self._problem(shape), losses)

    def _problem(self, shape: Sequence[int]) -> _Problem:
        if not 1 <= len(shape) <= 3:
            raise SamplerError(
                f"shape={tuple(shape)} has {len(shape)} axes; Adaptive knows lines, planes and"
                " volumes: use Grid."
            )
        center = tuple(0.0 for _ in shape)
        if not isinstance(self.span, str):
            ends = [(a[0], a[-1]) for a in self.axes("xyz"[: len(shape)])]
            center = tuple(_zero(float(a), float(b)) for a, b in ends)
        counts = tuple(int(n) for n in shape)
        return _Problem(counts, center, float(self.tolerance), self.scale == "log", int(self.batch))


@dataclass(frozen=True, eq=False)
class Filled:
    """Every quantity in every cell of a grid of which some were evaluated.

    Args:
        columns: name to values [cells], x running fastest: evaluated cells as they came out,
            others predicted; NaN where no prediction can be made (next to values that are not
            finite). Quantities called a loss are predicted in their logarithm where all values are
            positive; those that lie between 0 and 1 stay within the evaluated values.
        evaluated: [cells], whether a cell was evaluated.
        error: [cells], estimated absolute error of the loss, meant to cover 95%: of ln(loss) for
            scale "log", of the loss in its own units for "linear". 0 where evaluated, NaN where
            nothing is predicted.
        scale: "log" or "linear".
        notes: sentences for people.
    """

    columns: dict[str, np.ndarray]
    evaluated: np.ndarray
    error: np.ndarray
    scale: str
    notes: tuple[str, ...]


def _check_above_zero(tolerance: object) -> None:
    number = isinstance(tolerance, int | float | np.number) and not isinstance(tolerance, bool)
    if not number or not math.isfinite(cast(float, tolerance)) or cast(float, tolerance) <= 0:
        raise SamplerError(f"tolerance={tolerance!r}; expected a finite number above 0.")


def _zero(first: float, last: float) -> float:
    """Return where 0 stands on an axis that is made to run from -1 to 1."""
    return 0.0 if first == last else -1.0 + 2.0 * (0.0 - first) / (last - first)


@dataclass(frozen=True)
class _Problem:
    """What does not change from round to round; hashable, for the memo."""

    shape: tuple[int, ...]
    center: tuple[float, ...]  # where the coordinates are 0; each axis runs from -1 to 1
    tolerance: float
    log: bool
    batch: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def limit(self) -> int:
        """Return how many points are too many to be cheap; small grids are allowed more."""
        return min(3 * self.count // 4 if self.count <= 1024 else self.count // 2, _LIMIT)

    def round_size(self, points: int) -> int:
        """Return the points of a round: fewer on small grids, more when there are many already."""
        return max(min(self.batch, max(4, self.count // 12)), points // 16)


@functools.lru_cache(maxsize=8)
def _places(shape: tuple[int, ...]) -> np.ndarray:
    """Return [cells, axes] with each axis from -1 to 1; axes of one point are left out."""
    lines = [np.linspace(-1.0, 1.0, n) for n in shape]
    grids = np.meshgrid(*lines[::-1], indexing="ij")[::-1]
    kept = [g.ravel() for g, n in zip(grids, shape, strict=True) if n > 1]
    return np.stack(kept, axis=1) if kept else np.zeros((1, 0))


@functools.lru_cache(maxsize=8)
def _blind(count: int) -> np.ndarray:
    """Return all cells in a random order, always the same: checks are drawn along it."""
    return np.random.default_rng(0).permutation(count)


def _first(problem: _Problem) -> list[int]:
    """Return the first design: a coarse grid, denser to its ends, and the center.

    Interpolation is worst at the ends of an axis; Chebyshev points are the cure (Trefethen 2013);
    halfway to them is kept of the even spacing, for the middle matters most.
    """
    axes = len([n for n in problem.shape if n > 1])
    wanted = _FIRST[max(axes - 1, 0)]
    along = [
        _spaced(n, wanted, zero) for n, zero in zip(problem.shape, problem.center, strict=True)
    ]
    if 2 * math.prod(len(a) for a in along) >= problem.count:
        return list(range(problem.count))
    flat = np.zeros(1, dtype=np.int64)
    for positions, stride in reversed(list(zip(along, _strides(problem.shape), strict=True))):
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


# --- rounds -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What follows from the values of all rounds so far."""

    wanted: tuple[int, ...]  # the next round; empty when it is enough
    checks: tuple[tuple[int, float, float], ...] = ()  # (cell, prediction, its bar before scaling)
    log: bool = True
    spread: float = 1.0  # what predictions were divided by
    rough: bool = False


@dataclass
class _Replay:
    """The rounds so far, as far as their values are known."""

    missing: list[int] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)  # error of each check over its bar
    misses: list[float] = field(default_factory=list)  # error of each check
    rough: bool = False


def _replay(problem: _Problem, losses: Mapping[int, float]) -> _Replay:
    """Go through the rounds until one is not wholly known: thus no state is needed."""
    found = _Replay()
    points: list[int] = []
    plan = _Plan(tuple(_first(problem)))
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
    problem: _Problem, points: tuple[int, ...], values: bytes, ratios: tuple[float, ...]
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
    told = _Told(problem, at, losses)
    edge = _edge(problem, at, ~np.isfinite(losses), unknown)
    if told.surface is None:
        return _Plan(rest[: problem.round_size(len(points))])
    return _next(problem, told, unknown, edge, ratios)


def _next(
    problem: _Problem, told: _Told, unknown: np.ndarray, edge: np.ndarray, ratios: tuple[float, ...]
) -> _Plan:
    cells = _candidates(unknown, len(told.at))
    cells = cells[~told.beyond(cells)]
    surface = told.surface
    assert surface is not None
    size = problem.round_size(len(told.at))
    checks = max(1, size // 8)
    bars = surface.bars(cells)
    factor = _factor(surface, ratios)
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


def _factor(surface: _Surface, ratios: Sequence[float], cover: float = _COVER) -> float:
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


def _edge(problem: _Problem, at: np.ndarray, holes: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Return the unknown cells along the edge of holes, by the nearest evaluated point.

    Asking for them until none is left traces the edge of a hole down to the grid, and leaves out
    what lies deep inside of it.
    """
    if not holes.any():
        return np.zeros(0, dtype=np.int64)
    hole = holes[_nearest(problem, at, np.arange(problem.count))].reshape(problem.shape[::-1])
    edge = np.zeros_like(hole)
    for axis in range(hole.ndim):
        one, other = np.moveaxis(hole, axis, 0)[:-1], np.moveaxis(hole, axis, 0)[1:]
        differ = one != other
        np.moveaxis(edge, axis, 0)[:-1] |= differ
        np.moveaxis(edge, axis, 0)[1:] |= differ
    return np.flatnonzero(edge.ravel() & unknown)


def _nearest(problem: _Problem, at: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return which of some points is nearest to each cell, counted in steps of the grid."""
    from scipy.spatial import cKDTree

    steps = np.stack(np.unravel_index(np.arange(problem.count), problem.shape[::-1]), axis=1)
    return cast(np.ndarray, cKDTree(steps[at].astype(float)).query(steps[cells].astype(float))[1])


# --- prediction ---------------------------------------------------------------------------------


class _Told:
    """What some values tell of a surface; ``surface`` is None when it is too little."""

    def __init__(
        self, problem: _Problem, at: np.ndarray, losses: np.ndarray, *, predict: bool = True
    ) -> None:
        self.problem, self.at = problem, at
        self.holes = ~np.isfinite(losses)
        finite = losses[~self.holes]
        self.log = problem.log and bool((finite > 0).all())
        self.spread = 1.0
        if not self.log and len(finite):
            self.spread = float(finite.max() - finite.min()) or 1.0
        self.targets = np.log(finite) if self.log else finite / self.spread
        self.surface = _surface(problem, at[~self.holes], self.targets) if predict else None

    def beyond(self, cells: np.ndarray) -> np.ndarray:
        """Return whether the nearest evaluated point of each cell is a hole."""
        if not self.holes.any():
            return np.zeros(len(cells), dtype=bool)
        return np.asarray(self.holes[_nearest(self.problem, self.at, cells)])


class _Spline:
    """A polyharmonic spline through some cells, with its leave-one-out residuals.

    With A = [[K, P], [P', 0]] of kernel and polynomial, s = [k, p] A^-1 [y, 0]; the residual of a
    point left out is c_i / (A^-1)_ii, and 1 / (A^-1)_ii is its power function squared (Rippa 1999).
    """

    def __init__(self, problem: _Problem, at: np.ndarray, stretch: float, power: int) -> None:
        self.at, self.stretch, self.power = at, stretch, power
        self.space, self.trend = _space(problem, stretch)
        nodes, trend = self.space[at], self.trend[at]
        n, m = trend.shape
        if n <= m or np.linalg.matrix_rank(trend) < m:
            raise np.linalg.LinAlgError
        matrix = np.zeros((n + m, n + m))
        matrix[:n, :n] = self._kernel(nodes, nodes)
        matrix[:n, n:], matrix[n:, :n] = trend, trend.T
        self.inverse = np.linalg.inv(matrix)
        self.powers = 1.0 / np.abs(np.diag(self.inverse)[:n])  # squared

    def through(self, targets: np.ndarray) -> np.ndarray:
        """Return the weights [points + trend, ...] that pass through targets [points, ...]."""
        weights = self.inverse[:, : len(self.at)] @ targets
        off = np.abs(self.rows(self.at) @ weights - targets).max()
        if not off <= 1e-3 * np.ptp(targets) + 1e-9 * np.abs(targets).max() + 1e-300:
            raise np.linalg.LinAlgError  # too close to singular to be believed
        return cast(np.ndarray, weights)

    def residuals(self, weights: np.ndarray) -> np.ndarray:
        n = len(self.at)
        return cast(np.ndarray, weights[:n] / np.diag(self.inverse)[:n])

    def rows(self, cells: np.ndarray) -> np.ndarray:
        return np.hstack([self.kernel(cells, self.at), self.trend[cells]])

    def kernel(self, cells: np.ndarray, others: np.ndarray) -> np.ndarray:
        return self._kernel(self.space[cells], self.space[others])

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2.0 * a @ b.T
        np.maximum(squared, 0.0, out=squared)
        if self.power == 3:
            return cast(np.ndarray, squared * np.sqrt(squared))
        return cast(np.ndarray, -squared * squared * np.sqrt(squared))


@functools.lru_cache(maxsize=16)
def _cone(problem: _Problem) -> np.ndarray:
    """Return the distance of each cell from the center."""
    zero = [c for c, n in zip(problem.center, problem.shape, strict=True) if n > 1]
    return cast(np.ndarray, np.sqrt(((_places(problem.shape) - zero) ** 2).sum(1)))


def _space(problem: _Problem, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates [cells, axes + 1] and trend [cells, ...] of a radial stretch."""
    places = _places(problem.shape)
    space = np.column_stack([places, stretch * _cone(problem)]) if stretch else places
    return space, np.column_stack([np.ones(len(space)), space])


class _Surface:
    """A predicted surface: the best spline, and how far it may be off."""

    def __init__(
        self, best: _Spline, others: list[_Spline], power: _Spline, targets: np.ndarray
    ) -> None:
        self.best, self.others, self.power = best, others, power
        self.weights = best.through(targets)
        self.other_weights = [s.through(targets) for s in others]
        self.power_weights = power.through(targets)
        self.standard = power.residuals(self.power_weights) ** 2 / power.powers
        self.ratios = self._own_ratios()

    def predict(self, cells: np.ndarray) -> np.ndarray:
        return _chunked(cells, lambda part: self.best.rows(part) @ self.weights)

    def bars(self, cells: np.ndarray) -> np.ndarray:
        """Return the estimated error before it is scaled to cover 95%."""
        return _chunked(cells, self._bars)

    def forecast(self, cell: int) -> tuple[float, float]:
        cells = np.array([cell])
        return float(self.predict(cells)[0]), float(self.bars(cells)[0])

    def _bars(self, cells: np.ndarray) -> np.ndarray:
        rows = self.power.rows(cells)
        squared = np.abs(((rows @ self.power.inverse) * rows).sum(1))
        doubt = np.zeros(len(cells))
        if self.others:
            mean = self.best.rows(cells) @ self.weights
            pairs = zip(self.others, self.other_weights, strict=True)
            doubt = np.mean([(s.rows(cells) @ w - mean) ** 2 for s, w in pairs], axis=0)
        tiny = 0.05 * np.median(self.power.powers)  # doubt fades where points are close
        rough = self._roughness(cells) + _DOUBT * doubt / (squared + tiny + 1e-300)
        return cast(np.ndarray, np.sqrt(rough * squared))

    def _roughness(self, cells: np.ndarray) -> np.ndarray:
        distances, who = self._neighbors(cells, min(_NEIGHBORS, len(self.standard)))
        return self._averaged(distances, who)

    def _own_ratios(self) -> np.ndarray:
        """Return residual over bar for each point, its own residual left out of the bar."""
        n = len(self.standard)
        distances, who = self._neighbors(self.best.at, min(_NEIGHBORS + 1, n))
        rough = self._averaged(distances[:, 1:], who[:, 1:])
        bars = np.sqrt(rough * self.power.powers)
        residuals = np.abs(self.best.residuals(self.weights))
        return cast(np.ndarray, residuals / np.maximum(bars, 1e-300))

    def _averaged(self, distances: np.ndarray, who: np.ndarray) -> np.ndarray:
        """Return the mean square of standard residuals near by, one share of it the overall."""
        near = 1.0 / (distances**2 + 0.04**2)
        share = near.mean(axis=1)
        total = (self.standard[who] * near).sum(axis=1) + self.standard.mean() * share
        return cast(np.ndarray, total / (near.sum(axis=1) + share))

    def _neighbors(self, cells: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        from scipy.spatial import cKDTree

        axes = self.best.space.shape[1] - (1 if self.best.stretch else 0)
        places = self.best.space[:, :axes]
        found = cKDTree(places[self.best.at]).query(places[cells], k=list(range(1, count + 1)))
        return found[0], found[1]

    def greedy(
        self, cells: np.ndarray, bars: np.ndarray, count: int, taken: Sequence[int]
    ) -> list[int]:
        """Return the cells of the largest error, each chosen as if those before were known.

        A chosen cell lowers the power function of all others by its column of the covariance.
        """
        rows = self.power.rows(cells)
        solved = rows @ self.power.inverse
        start = np.abs((solved * rows).sum(1))
        left, rough = start.copy(), bars**2 / np.maximum(start, 1e-300)
        free = ~np.isin(cells, taken)
        chosen: list[int] = []
        columns: list[tuple[np.ndarray, float]] = []
        for _ in range(min(count, int(free.sum()))):
            k = int(np.argmax(np.where(free, rough * left, -1.0)))
            column = self.power.kernel(cells, cells[k : k + 1])[:, 0] - solved @ rows[k]
            for other, pivot in columns:
                column = column - other * (other[k] / pivot)
            pivot = float(column[k])
            free[k] = False
            chosen.append(int(cells[k]))
            if pivot:
                columns.append((column, pivot))
                left = np.maximum(left - np.abs(column * column / pivot), 0.0)
        return chosen


def _chunked(cells: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    parts = [function(cells[k : k + _ROWS]) for k in range(0, len(cells), _ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _surface(problem: _Problem, at: np.ndarray, targets: np.ndarray) -> _Surface | None:
    """Return the surface through some points; None when they are too few for any."""
    ranks = _ranks(problem, at[:_SELECT].tobytes(), targets[:_SELECT].tobytes())
    try:
        ranked = [_Spline(problem, at, *r) for r in ranks[: 1 + _COMMITTEE]]
        if not ranked:
            return None
        best, cubic = ranked[0], (ranks[0][0], 3)
        same = [s for s in ranked if (s.stretch, s.power) == cubic]
        power = same[0] if same else _Spline(problem, at, *cubic)
        return _Surface(best, ranked[1:], power, targets)
    except np.linalg.LinAlgError:
        return None


@functools.lru_cache(maxsize=64)
def _ranks(problem: _Problem, at: bytes, targets: bytes) -> tuple[tuple[float, int], ...]:
    """Return (stretch, power), best first, by how well points are predicted from the others."""
    points, values = np.frombuffer(at, dtype=np.int64), np.frombuffer(targets)
    scored: list[tuple[float, int, tuple[float, int]]] = []
    for stretch, (power, handicap) in itertools.product(_STRETCHES, _HANDICAP.items()):
        try:
            spline = _Spline(problem, points, stretch, power)
            residuals = spline.residuals(spline.through(values))
        except np.linalg.LinAlgError:
            continue
        score = float(f"{np.abs(residuals).mean() * handicap:.6g}")  # rounded: ties stay ties
        scored.append((score, len(scored), (stretch, power)))
    return tuple(choice for _, _, choice in sorted(scored))


# --- the whole grid -----------------------------------------------------------------------------


def _main(known: Known) -> str:
    """Return the quantity that decides."""
    names = list(dict.fromkeys(name for values in known.values() for name in values))
    return next((n for n in ("loss", "train_loss") if n in names), min(names, default="loss"))


def _filled(problem: _Problem, known: Known, replay: _Replay) -> Filled:
    main = _main(known)
    evaluated = np.zeros(problem.count, dtype=bool)
    evaluated[list(known)] = True
    columns = {
        n: _column(problem, known, n) for n in sorted({n for v in known.values() for n in v})
    }
    error = np.where(evaluated, 0.0, np.nan)
    scale, notes = ("log" if problem.log else "linear"), []
    rest = np.flatnonzero(~evaluated)
    if main in columns:
        told = _told(problem, columns[main], evaluated, rest)
        scale = "log" if told.log else "linear"
        if told.surface is not None and len(rest):
            sound = rest[~told.beyond(rest)]
            factor = _factor(told.surface, replay.ratios, _COVER_TOLD)
            rounding = 1e-9 * float(np.abs(told.targets).max())
            error[sound] = factor * told.surface.bars(sound) + rounding
            error[sound] *= told.spread
            for name, values in columns.items():
                _predict(problem, told, name, values, sound)
        notes = _notes(problem, evaluated, told, error / told.spread, replay)
    return Filled(columns, evaluated, error, scale, tuple(notes))


def _column(problem: _Problem, known: Known, name: str) -> np.ndarray:
    column = np.full(problem.count, np.nan)
    for cell, values in known.items():
        column[cell] = values.get(name, np.nan)
    return column


def _told(problem: _Problem, losses: np.ndarray, evaluated: np.ndarray, rest: np.ndarray) -> _Told:
    """Return what the evaluated points tell: those next to unknown cells, when they are many."""
    from scipy.spatial import cKDTree

    at = np.flatnonzero(evaluated)
    if len(at) > _LIMIT and len(rest):
        places = _places(problem.shape)
        far = cKDTree(places[rest]).query(places[at])[0]
        at = np.sort(at[np.argsort(far, kind="stable")[:_LIMIT]])
    return _Told(problem, at, losses[at], predict=len(rest) > 0)


def _predict(
    problem: _Problem, told: _Told, name: str, values: np.ndarray, cells: np.ndarray
) -> None:
    """Write predictions of a quantity into its column, by the spline that suits the loss."""
    surface = told.surface
    if surface is not None and not np.isfinite(values[surface.best.at]).all():
        # This one has holes where the loss has none: it gets a surface of its own.
        told = _Told(_linear(problem), told.at, values[told.at])
        cells, surface = cells[~told.beyond(cells)], told.surface
    if surface is None:
        return
    own = values[surface.best.at]
    # Shares and curvatures have steps of their own: the cubic spline overshoots less.
    spline = surface.best if "loss" in name else surface.power
    logarithmic = problem.log and "loss" in name and bool((own > 0).all())
    weights = spline.through(np.log(own) if logarithmic else own)
    predicted = _chunked(cells, lambda part: spline.rows(part) @ weights)
    if logarithmic:
        predicted = np.exp(np.minimum(predicted, 709.0))  # what float64 can hold
    elif own.min() >= 0 and own.max() <= 1:  # shares, such as an accuracy
        predicted = np.clip(predicted, own.min(), own.max())
    values[cells] = predicted


def _linear(problem: _Problem) -> _Problem:
    return _Problem(problem.shape, problem.center, problem.tolerance, False, problem.batch)


def _notes(
    problem: _Problem, evaluated: np.ndarray, told: _Told, error: np.ndarray, replay: _Replay
) -> list[str]:
    count, done = problem.count, int(evaluated.sum())
    what = "ln(loss)" if told.log else "the loss (as a share of its range)"
    notes = [f"{done} of {count} points were evaluated"]
    bars = error[~evaluated & np.isfinite(error)]
    if len(bars):
        notes[0] += (
            f", the others predicted: the estimated error of {what} is at most"
            f" {np.quantile(bars, 0.99):.2g} in 99% of them, {bars.max():.2g} in all"
        )
    if replay.misses and len(bars):
        factor = _factor(told.surface, replay.ratios, _COVER_TOLD) if told.surface else 1.0
        within = sum(r <= factor for r in replay.ratios)
        notes.append(
            f"of {len(replay.misses)} points kept aside and predicted before they were evaluated,"
            f" {within} lay within the estimated error"
        )
    if replay.missing and len(bars):
        notes.append("the scan was stopped before the tolerance was reached")
    if replay.rough:
        notes.append(
            f"the surface is too rough to be cheap: more than {problem.limit} points were needed"
            f" for a tolerance of {problem.tolerance:g}"
        )
    if problem.log and not told.log:
        notes.append("some losses are zero or negative: the scale is linear, not logarithmic")
    lost = int((~evaluated & np.isnan(error)).sum())
    if lost:
        notes.append(f"{lost} cells lie among values that are not finite and are left empty")
    return notes
