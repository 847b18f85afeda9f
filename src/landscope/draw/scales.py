"""What is decided about a picture: its scale, the ends of its colors, its levels, its clip.

A choice of the user is taken when it can be, and refused with a sentence when it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from landscope.draw.levels import FloatArray, round_numbers
from landscope.errors import DrawError

SCALES = ("log", "linear")
# Above this ratio of largest to smallest value the floor of a bowl looks flat on a linear scale.
LOG_RATIO = 20.0
_LARGEST = 1e250  # matplotlib's stand-in for infinity in filled contours


def paintable(values: FloatArray, scale: str) -> FloatArray:
    """Return a copy of ``values`` with NaN in all places that have no height on this scale."""
    good = np.isfinite(values) & ((values > 0) | (scale != "log"))
    return np.where(good, values, np.nan)


def resolve_scale(
    fields: Sequence[FloatArray], scale: str | None, *, name: str, percent: bool = False
) -> str:
    """Return "log" or "linear": the one asked for if it can be, else the one that shows more.

    Raises:
        DrawError: when the scale is unknown, nothing is finite, nothing is positive on a log
            scale, or a value is too large for any picture.
    """
    if scale not in (None, *SCALES):
        raise DrawError(
            f"scale={scale!r} is not known; expected 'log' or 'linear', or None to let the values"
            " decide."
        )
    finite = np.concatenate([field[np.isfinite(field)] for field in fields])
    if not finite.size:
        raise DrawError(nothing_of(name))
    if scale == "log" and finite.max() <= 0:
        raise DrawError(
            f"scale='log' was asked for, but {name!r} has no positive value (its largest is"
            f" {finite.max():g}): use scale='linear'."
        )
    if np.abs(finite).max() > _LARGEST:
        raise DrawError(
            f"{name!r} reaches from {finite.min():g} to {finite.max():g}, and a picture ends at"
            f" {_LARGEST:g}: replace what lies beyond by infinity, which is drawn as a hole."
        )
    wide = finite.min() > 0 and finite.max() / LOG_RATIO > finite.min()
    return scale or ("log" if wide and not percent else "linear")


def limits_of(
    shown: Sequence[FloatArray],
    scale: str,
    *,
    limits: tuple[float, float] | None = None,
    clip: float | None = None,
) -> tuple[float, float]:
    """Return the ends of the color scale: those asked for, else those of all that is shown.

    Raises:
        DrawError: when limits or clip cannot be used.
    """
    if limits is not None:
        low, high = map(float, limits)
        if not (math.isfinite(low) and math.isfinite(high) and low < high) or (
            scale == "log" and low <= 0
        ):
            raise DrawError(
                f"limits={limits!r} cannot be the ends of a {scale} color scale; expected two"
                f" finite{' positive' if scale == 'log' else ''} numbers, the smaller one first."
            )
        return low, high
    finite = [field[np.isfinite(field)] for field in shown]
    every = np.concatenate(finite) if finite else np.empty(0)
    if not every.size:
        return (1.0, 10.0) if scale == "log" else (0.0, 1.0)
    low, high = float(every.min()), float(every.max())
    if clip is not None and clip <= low < high:
        raise DrawError(
            f"clip={clip} lies below the lowest value {low:g}, so all would be flat: give a larger"
            " clip, or None."
        )
    high = high if clip is None else min(high, float(clip))
    return (low, high) if low < high else _around(high, scale)


def _around(value: float, scale: str) -> tuple[float, float]:
    """Return limits about a landscape that has one height only."""
    half = abs(value) / 2 or 0.5
    return (value / 2, value * 2) if scale == "log" else (value - half, value + half)


def levels_of(
    limits: tuple[float, float], scale: str, levels: int | Sequence[float] | None
) -> FloatArray:
    """Return the contour levels: those asked for, else about as many round numbers, [levels].

    Raises:
        DrawError: when levels are none.
    """
    if levels is None or isinstance(levels, int | np.integer):
        if levels is not None and levels < 1:
            raise DrawError(f"levels={levels} is too few: ask for 1 level or more.")
        return round_numbers(*limits, scale=scale, count=int(levels or 20))
    chosen = np.unique(np.asarray(levels, dtype=np.float64))
    if not chosen.size or not np.isfinite(chosen).all():
        raise DrawError(
            f"levels={levels!r} are no contour levels: give finite numbers, or how many you want."
        )
    return chosen


def check_clip(clip: float | None, scale: str) -> None:
    """Refuse a clip that is no height.

    Raises:
        DrawError: when it is not finite, or not positive on a log scale.
    """
    if clip is not None and (not math.isfinite(clip) or (scale == "log" and clip <= 0)):
        raise DrawError(
            f"clip={clip} cannot limit a {scale} height: give a finite"
            f"{' positive' if scale == 'log' else ''} number, or None."
        )


def nothing_of(name: str) -> str:
    """Return the sentence about a quantity that has no finite value."""
    return f"{name!r} has no finite value, so nothing of it can be drawn: look at land.data."


def holds_zero(axis: FloatArray) -> bool:
    """Tell whether 0 lies within an axis whose values rise."""
    return bool(axis[0] <= 0 <= axis[-1])


def hole_note_of(values: Sequence[FloatArray], shown: Sequence[FloatArray]) -> str:
    """Return what the holes of a picture are, in words; empty when there are none."""
    lost = sum(int((~np.isfinite(v)).sum()) for v in values)
    low = sum(int(np.isnan(s).sum()) for s in shown) - lost
    notes = [(lost, "not finite"), (low, "≤ 0 (no place on a log scale)")]
    return ", ".join(f"{count} {what}" for count, what in notes if count)
