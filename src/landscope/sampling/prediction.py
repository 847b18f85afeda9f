"""Filling: every quantity in every cell of a grid, from the cells that were evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from landscope.sampling import splines
from landscope.sampling.refinement import Problem, Replay, bar_factor
from landscope.sampling.splines import Told

# Share of the points that an error bar is to cover, more than while a scan goes on: it ends at a
# moment when its bars look small.
_COVER = 0.97

Known = Mapping[int, Mapping[str, float]]


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


def filled(problem: Problem, known: Known, replay: Replay) -> Filled:
    """Return every quantity in every cell, with the estimated error.

    Args:
        problem: the cells, and what is wanted.
        known: the values of each evaluated point, all of which are used.
        replay: the rounds so far; their checks tell how far predictions were off.
    """
    main = deciding(known)
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
            factor = bar_factor(told.surface, replay.ratios, _COVER)
            rounding = 1e-9 * float(np.abs(told.targets).max())
            error[sound] = factor * told.surface.bars(sound) + rounding
            error[sound] *= told.spread
            for name, values in columns.items():
                _predict(problem, told, name, values, sound)
        notes = _notes(problem, evaluated, told, error / told.spread, replay)
    return Filled(columns, evaluated, error, scale, tuple(notes))


def deciding(known: Known) -> str:
    """Return the quantity that decides where to evaluate: the loss, where there is one."""
    names = list(dict.fromkeys(name for values in known.values() for name in values))
    return next((n for n in ("loss", "train_loss") if n in names), min(names, default="loss"))


def _column(problem: Problem, known: Known, name: str) -> np.ndarray:
    column = np.full(problem.count, np.nan)
    for cell, values in known.items():
        column[cell] = values.get(name, np.nan)
    return column


def _told(problem: Problem, losses: np.ndarray, evaluated: np.ndarray, rest: np.ndarray) -> Told:
    """Return what the evaluated points tell: those next to unknown cells, when they are many."""
    from scipy.spatial import cKDTree

    at = np.flatnonzero(evaluated)
    if len(at) > splines.LIMIT and len(rest):
        places = problem.lattice.places
        far = cKDTree(places[rest]).query(places[at])[0]
        at = np.sort(at[np.argsort(far, kind="stable")[: splines.LIMIT]])
    return Told(problem.lattice, at, losses[at], log=problem.log, predict=len(rest) > 0)


def _predict(
    problem: Problem, told: Told, name: str, values: np.ndarray, cells: np.ndarray
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
    problem: Problem, evaluated: np.ndarray, told: Told, error: np.ndarray, replay: Replay
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
        factor = bar_factor(told.surface, replay.ratios, _COVER) if told.surface else 1.0
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
