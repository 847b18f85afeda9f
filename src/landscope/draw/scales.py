"""Choices for a picture: its scale, the ends of its color scale, its levels and its clip.

A choice of the user is followed where it is possible, and refused with an explanation elsewhere.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps

from landscope.draw.levels import FloatArray, choose_round_numbers
from landscope.errors import DrawError

COLORMAP = "viridis"  # perceptually uniform; readable in print and by color-blind people
SCALES = ("log", "linear")
# Above this ratio of largest to smallest value the bottom of a bowl looks flat on a linear scale.
LOG_RATIO = 20.0
_LARGEST = 1e250  # matplotlib's stand-in for infinity in filled contours


def hide_unpaintable(values: FloatArray, scale: str) -> FloatArray:
    """Return a copy of ``values`` with NaN for every value that the scale cannot show."""
    good = np.isfinite(values) & ((values > 0) | (scale != "log"))
    return np.where(good, values, np.nan)


def resolve_scale(
    fields: Sequence[FloatArray], scale: str | None, *, name: str, percent: bool = False
) -> str:
    """Return "log" or "linear": the scale that was given, or the one that shows more.

    Args:
        fields: The values of all landscapes in the picture.
        scale: "log", "linear", or None to choose: log when all finite values are positive and the
            largest is more than 20 times the smallest.
        name: The quantity, for error messages.
        percent: Whether the values are percentages; their default is linear.

    Raises:
        DrawError: When the scale is unknown, no value is finite, no value is positive on a log
            scale, or a value is too large for a picture.
    """
    check_scale(scale)
    finite = np.concatenate([field[np.isfinite(field)] for field in fields])
    if not finite.size:
        raise DrawError(explain_no_values(name))
    if scale == "log" and finite.max() <= 0:
        raise DrawError(
            f"scale='log' was given, but {name!r} has no positive value (its largest is"
            f" {finite.max():g}): use scale='linear'."
        )
    if np.abs(finite).max() > _LARGEST:
        raise DrawError(
            f"{name!r} ranges from {finite.min():g} to {finite.max():g}, but a picture ends at"
            f" {_LARGEST:g}: replace the values beyond it by infinity, which is drawn as a hole."
        )
    wide = finite.min() > 0 and finite.max() / LOG_RATIO > finite.min()
    return scale or ("log" if wide and not percent else "linear")


def check_scale(scale: str | None) -> None:
    """Refuse an unknown scale.

    Raises:
        DrawError: When the scale is not "log", "linear" or None.
    """
    if scale not in (None, *SCALES):
        raise DrawError(
            f"scale={scale!r} is not known; expected 'log' or 'linear', or None to let the values"
            " decide."
        )


def resolve_limits(
    shown: Sequence[FloatArray],
    scale: str,
    *,
    limits: tuple[float, float] | None = None,
    clip: float | None = None,
) -> tuple[float, float]:
    """Return the ends of the color scale: those that were given, or those of all values shown.

    Raises:
        DrawError: When limits or clip cannot be used.
    """
    if limits is not None:
        return _check_limits(limits, scale)
    finite = [field[np.isfinite(field)] for field in shown]
    every = np.concatenate(finite) if finite else np.empty(0)
    if not every.size:
        return (1.0, 10.0) if scale == "log" else (0.0, 1.0)
    low, high = float(every.min()), float(every.max())
    if clip is not None and clip <= low < high:
        raise DrawError(
            f"clip={clip} lies below the lowest value {low:g}, so the whole picture would be flat:"
            " give a larger clip, or None."
        )
    high = high if clip is None else min(high, float(clip))
    return (low, high) if low < high else _surround(high, scale)


def _check_limits(limits: tuple[float, float], scale: str) -> tuple[float, float]:
    low, high = map(float, limits)
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (
        scale == "log" and low <= 0
    ):
        raise DrawError(
            f"limits={limits!r} cannot be the ends of a {scale} color scale; expected two"
            f" finite{' positive' if scale == 'log' else ''} numbers, the smaller one first."
        )
    return low, high


def _surround(value: float, scale: str) -> tuple[float, float]:
    """Return limits around the only height of a flat landscape."""
    half = abs(value) / 2 or 0.5
    return (value / 2, value * 2) if scale == "log" else (value - half, value + half)


def resolve_levels(
    limits: tuple[float, float], scale: str, levels: int | Sequence[float] | None
) -> FloatArray:
    """Return the contour levels: those that were given, or about as many round numbers, [levels].

    Raises:
        DrawError: When there is no level, or a level is not finite.
    """
    if levels is None or isinstance(levels, int | np.integer):
        if levels is not None and levels < 1:
            raise DrawError(f"levels={levels} is too few: ask for 1 level or more.")
        return choose_round_numbers(*limits, scale=scale, count=int(levels or 20))
    try:
        chosen = np.unique(np.asarray(levels, dtype=np.float64))
    except (TypeError, ValueError):
        chosen = np.empty(0)
    if not chosen.size or not np.isfinite(chosen).all():
        raise DrawError(
            f"levels={levels!r} are not contour levels: give finite numbers, or the number of"
            " levels."
        )
    return chosen


def read_numbers(values: object, count: int) -> list[float]:
    """Return ``count`` finite numbers as a list; an empty list if the values are anything else."""
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str):
        return []
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        return []
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else []


def resolve_colormap(cmap: str | None) -> str:
    """Return the name of the color map: the one that was given, or viridis.

    Raises:
        DrawError: When matplotlib has no color map of this name.
    """
    name = COLORMAP if cmap is None else cmap
    if not isinstance(name, str) or name not in colormaps:
        near = difflib.get_close_matches(str(name), [*colormaps], n=1)
        hint = f"did you mean {near[0]!r}? Others are" if near else "give a name such as"
        raise DrawError(
            f"cmap={name!r} is not a color map of matplotlib: {hint} 'viridis', 'cividis', 'magma'."
        )
    return name


def check_clip(clip: float | None, scale: str) -> None:
    """Refuse a clip that is not a height on the scale.

    Raises:
        DrawError: When it is not finite, or not positive on a log scale.
    """
    if clip is not None and (not math.isfinite(clip) or (scale == "log" and clip <= 0)):
        raise DrawError(
            f"clip={clip} cannot limit a {scale} height: give a finite"
            f"{' positive' if scale == 'log' else ''} number, or None."
        )


def explain_no_values(name: str) -> str:
    """Return the error message for a quantity without a finite value."""
    return f"{name!r} has no finite value, so it cannot be drawn: look at land.data."


def contains_zero(axis: FloatArray) -> bool:
    """Tell whether 0 lies within an axis of rising coordinates."""
    return bool(axis[0] <= 0 <= axis[-1])


def describe_holes(values: Sequence[FloatArray], shown: Sequence[FloatArray]) -> str:
    """Return how many holes of each kind a picture has; empty when there are none."""
    num_nonfinite = sum(int((~np.isfinite(v)).sum()) for v in values)
    num_nonpositive = sum(int(np.isnan(s).sum()) for s in shown) - num_nonfinite
    kinds = [(num_nonfinite, "not finite"), (num_nonpositive, "≤ 0 (no place on a log scale)")]
    return ", ".join(f"{count} {kind}" for count, kind in kinds if count)
