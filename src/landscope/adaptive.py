"""Adaptive sampling: evaluate a slice where it cannot be predicted, predict it elsewhere.

A surface is predicted by splines, which estimate how far they may be off; in each round a few
points are drawn blindly and predicted before they are evaluated, which checks the estimate. Where
the estimated error is largest the next points are asked for.

Source: ask apart from run (the package *adaptive*, Nijholt et al. 2019); ``splines`` names others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, final

import numpy as np

from landscope import splines
from landscope.errors import SamplerError
from landscope.sampling import Grid
from landscope.splines import Lattice, Surface, Told

# Points an axis of the first design, for one, two and three axes: few enough that a smooth surface
# stays cheap.
_FIRST = (9, 6, 5)
_COVER = 0.95  # share of the points that an error bar is to cover
_COVER_TOLD = 0.97  # the same in the result: a scan ends at a moment when its bars look small
# The bar of 99% of the cells at which to stop, over the tolerance: a bar covers more than the
# typical error, so that this leaves 99% of the errors within the tolerance (digits networks).
_STOP = 1.2
_CHECKS = 32  # blind checks that weigh as much as all leave-one-out residuals together
_CANDIDATES = 8192  # cells looked at in a round; of larger grids as many are drawn in each round
_SMALL = 4096  # grids up to this size are evaluated whole when too rough; larger ones stop short

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
        lattice = Lattice(tuple(int(n) for n in shape), center)
        return _Problem(lattice, float(self.tolerance), self.scale == "log", int(self.batch))


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

    lattice: Lattice
    tolerance: float
    log: bool
    batch: int

    @property
    def count(self) -> int:
        return self.lattice.count

    @property
    def limit(self) -> int:
        """Return how many points are too many to be cheap; small grids are allowed more."""
        return min(3 * self.count // 4 if self.count <= 1024 else self.count // 2, splines.LIMIT)

    def round_size(self, points: int) -> int:
        """Return the points of a round: fewer on small grids, more when there are many already."""
        return max(min(self.batch, max(4, self.count // 12)), points // 16)


@functools.lru_cache(maxsize=8)
def _blind(count: int) -> np.ndarray:
    """Return all cells in a random order, always the same: checks are drawn along it."""
    return np.random.default_rng(0).permutation(count)


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
    told = Told(problem.lattice, at, losses, log=problem.log)
    edge = _edge(problem.lattice, at, ~np.isfinite(losses), unknown)
    if told.surface is None:
        return _Plan(rest[: problem.round_size(len(points))])
    return _next(problem, told, unknown, edge, ratios)


def _next(
    problem: _Problem, told: Told, unknown: np.ndarray, edge: np.ndarray, ratios: tuple[float, ...]
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


def _factor(surface: Surface, ratios: Sequence[float], cover: float = _COVER) -> float:
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


def _told(problem: _Problem, losses: np.ndarray, evaluated: np.ndarray, rest: np.ndarray) -> Told:
    """Return what the evaluated points tell: those next to unknown cells, when they are many."""
    from scipy.spatial import cKDTree

    at = np.flatnonzero(evaluated)
    if len(at) > splines.LIMIT and len(rest):
        places = problem.lattice.places
        far = cKDTree(places[rest]).query(places[at])[0]
        at = np.sort(at[np.argsort(far, kind="stable")[: splines.LIMIT]])
    return Told(problem.lattice, at, losses[at], log=problem.log, predict=len(rest) > 0)


def _predict(
    problem: _Problem, told: Told, name: str, values: np.ndarray, cells: np.ndarray
) -> None:
    """Write predictions of a quantity into its column, by the spline that suits the loss."""
    surface = told.surface
    if surface is not None and not np.isfinite(values[surface.best.at]).all():
        # This one has holes where the loss has none: it gets a surface of its own.
        told = Told(problem.lattice, told.at, values[told.at], log=False)
        cells, surface = cells[~told.beyond(cells)], told.surface
    if surface is None:
        return
    own = values[surface.best.at]
    # Shares and curvatures have steps of their own: the cubic spline overshoots less.
    spline = surface.best if "loss" in name else surface.power
    logarithmic = problem.log and "loss" in name and bool((own > 0).all())
    weights = spline.through(np.log(own) if logarithmic else own)
    predicted = spline.predict(cells, weights)
    if logarithmic:
        predicted = np.exp(np.minimum(predicted, 709.0))  # what float64 can hold
    elif own.min() >= 0 and own.max() <= 1:  # shares, such as an accuracy
        predicted = np.clip(predicted, own.min(), own.max())
    values[cells] = predicted


def _notes(
    problem: _Problem, evaluated: np.ndarray, told: Told, error: np.ndarray, replay: _Replay
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
