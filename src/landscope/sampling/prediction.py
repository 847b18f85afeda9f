"""Prediction of every quantity in every cell of a grid from the cells that were evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from landscope.sampling import splines
from landscope.sampling.refinement import RefinementGoal, Replay, bar_factor
from landscope.sampling.surfaces import Observations

# Shares of points that error bars must cover, see ``bar_factor``: more than during a scan, because
# a scan ends when its bars happen to be small.
_COVER = (0.98, 0.96)


Values = Mapping[int, Mapping[str, float]]
"""Flat index of a point -> quantity -> value."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Every quantity in every cell of a grid of which some were evaluated.

    Args:
        columns: Name -> values, shape (cells,), x running fastest. Evaluated cells hold their
            values; the others are predicted, or NaN where no prediction can be made (next to
            values that are not finite). Losses are predicted in their logarithm if all values are
            positive; quantities between 0 and 1 stay within the evaluated values.
        evaluated: Whether a cell was evaluated, shape (cells,).
        error: The estimated absolute error of the loss, shape (cells,), meant to cover 95%: of
            ln(loss) for scale "log", of the loss for "linear". 0 in evaluated cells, NaN where
            nothing is predicted.
        scale: "log" or "linear".
        notes: Sentences for the user.
    """

    columns: dict[str, np.ndarray]
    evaluated: np.ndarray
    error: np.ndarray
    scale: str
    notes: tuple[str, ...]


def fill_cells(goal: RefinementGoal, known: Values, replay: Replay) -> Prediction:
    """Return every quantity in every cell, with the estimated error.

    Args:
        goal: The cells and the wanted accuracy.
        known: The values of each evaluated point, all of which are used.
        replay: The rounds so far, whose checks say how accurate predictions were.
    """
    main = deciding_quantity(known)
    evaluated = np.zeros(goal.count, dtype=bool)
    evaluated[list(known)] = True
    columns = {n: _column(goal, known, n) for n in sorted({n for v in known.values() for n in v})}
    error = np.where(evaluated, 0.0, np.nan)
    scale, notes = ("log" if goal.log else "linear"), []
    rest = np.flatnonzero(~evaluated)
    if main in columns:
        observations = _observe(goal, columns[main], evaluated, rest)
        scale = "log" if observations.log else "linear"
        if observations.surface is not None and len(rest):
            predictable = rest[~observations.are_near_holes(rest)]
            factor = bar_factor(observations.surface, replay.ratios, _COVER)
            rounding = 1e-9 * float(np.abs(observations.targets).max())
            error[predictable] = observations.surface.intervals(predictable, factor) + rounding
            error[predictable] *= observations.divisor
            for name, values in columns.items():
                _predict(goal, observations, name, values, predictable)
        notes = _notes(goal, evaluated, observations, error / observations.divisor, replay)
    return Prediction(columns, evaluated, error, scale, tuple(notes))


def deciding_quantity(known: Values) -> str:
    """Return the quantity that decides where to evaluate: the loss if there is one."""
    names = list(dict.fromkeys(name for values in known.values() for name in values))
    return next((n for n in ("loss", "train_loss") if n in names), min(names, default="loss"))


def _column(goal: RefinementGoal, known: Values, name: str) -> np.ndarray:
    column = np.full(goal.count, np.nan)
    for cell, values in known.items():
        column[cell] = values.get(name, np.nan)
    return column


def _observe(
    goal: RefinementGoal, losses: np.ndarray, evaluated: np.ndarray, rest: np.ndarray
) -> Observations:
    """Return the evaluated points; if they are too many, those nearest to the other cells."""
    from scipy.spatial import cKDTree

    at = np.flatnonzero(evaluated)
    if len(at) > splines.LIMIT and len(rest):
        coordinates = goal.lattice.coordinates
        distances = cKDTree(coordinates[rest]).query(coordinates[at])[0]
        at = np.sort(at[np.argsort(distances, kind="stable")[: splines.LIMIT]])
    return Observations(goal.lattice, at, losses[at], log=goal.log, predict=len(rest) > 0)


def _predict(
    goal: RefinementGoal,
    observations: Observations,
    name: str,
    values: np.ndarray,
    cells: np.ndarray,
) -> None:
    """Write predictions of a quantity into its column, with the spline chosen for the loss."""
    surface = observations.surface
    if surface is not None and not np.isfinite(values[surface.best.at]).all():
        # The quantity has holes where the loss has none: it gets a surface of its own.
        observations = Observations(
            goal.lattice, observations.at, values[observations.at], log=False
        )
        cells, surface = cells[~observations.are_near_holes(cells)], observations.surface
    if surface is None:
        return
    targets = values[surface.best.at]
    # Accuracies and curvatures jump where the loss is smooth: the cubic spline overshoots less.
    spline = surface.best if "loss" in name else surface.error_spline
    logarithmic = goal.log and "loss" in name and bool((targets > 0).all())
    weights = spline.fit(np.log(targets) if logarithmic else targets)
    predicted = spline.predict(cells, weights)
    if logarithmic:
        predicted = np.exp(np.minimum(predicted, 709.0))  # what float64 can hold
    elif targets.min() >= 0 and targets.max() <= 1:  # shares, such as an accuracy
        predicted = np.clip(predicted, targets.min(), targets.max())
    values[cells] = predicted


def _notes(
    goal: RefinementGoal,
    evaluated: np.ndarray,
    observations: Observations,
    error: np.ndarray,
    replay: Replay,
) -> list[str]:
    """Return sentences on what was evaluated and how accurate the predictions are."""
    count, done = goal.count, int(evaluated.sum())
    what = "ln(loss)" if observations.log else "the loss (as a share of its range)"
    notes = [f"{done} of {count} points were evaluated"]
    bars = error[~evaluated & np.isfinite(error)]
    if len(bars):
        notes[0] += (
            f", the others predicted: the estimated error of {what} is at most"
            f" {np.quantile(bars, 0.99):.2g} in 99% of them, {bars.max():.2g} in all"
        )
    notes += _describe_checks(observations, replay) if len(bars) else []
    if replay.missing and len(bars):
        notes.append("the scan was stopped before the tolerance was reached")
    if replay.rough:
        notes.append(
            f"the surface is too rough to be cheap: more than {goal.limit} points were needed"
            f" for a tolerance of {goal.tolerance:g}"
        )
    if goal.log and not observations.log:
        notes.append("some losses are zero or negative: the scale is linear, not logarithmic")
    empty = int((~evaluated & np.isnan(error)).sum())
    if empty:
        notes.append(f"{empty} cells lie among values that are not finite and are left empty")
    return notes


def _describe_checks(observations: Observations, replay: Replay) -> list[str]:
    """Return a sentence on the random points that check the error estimate."""
    if not replay.errors:
        return []
    surface = observations.surface
    factor = bar_factor(surface, replay.ratios, _COVER) if surface else 1.0
    within = sum(r <= factor for r in replay.ratios)
    return [
        f"of {len(replay.errors)} random points that were predicted before they were evaluated,"
        f" {within} were within the estimated error"
    ]
