"""Round numbers for contour levels and ticks, and numbers as they are written in a picture.

Round numbers grow geometrically on a log scale (1, 2, 5, 10, ...) and evenly on a linear one, so
that a reader can name the height of every contour line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Mantissas that divide a decade into steps of about the same factor, from coarse to fine.
_DECADES = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0),
)
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def choose_round_numbers(low: float, high: float, *, scale: str, count: int = 20) -> FloatArray:
    """Return about ``count`` round numbers from ``low`` to ``high``.

    Args:
        low: The smallest number allowed; positive on a log scale.
        high: The largest number allowed, above ``low``.
        scale: "log" for geometric steps, "linear" for even steps.
        count: The number of values wanted; between half and twice as many are returned. Default:
            20, enough to see a shape and few enough to label.

    Returns:
        The numbers in rising order, shape [numbers].

    Example:
        >>> [float(v) for v in choose_round_numbers(0.1, 100, scale="log", count=4)]
        [0.1, 1.0, 10.0, 100.0]
    """
    if scale == "log":
        return _choose_geometric_numbers(low, high, count)
    return _choose_even_numbers(low, high, count)


def format_number(value: float, digits: int = 4) -> str:
    """Return a number in a few significant digits, as short as possible.

    Args:
        value: Any number.
        digits: The largest number of significant digits. Default: 4, as many as fit at an axis.

    Returns:
        The text, with an exponent below 0.0001 and from 100000 on.

    Example:
        >>> format_number(0.1), format_number(2500.0), format_number(3e-7), format_number(1e6)
        ('0.1', '2500', '3e-7', '1e6')
    """
    if not math.isfinite(value):
        return str(value)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if value == 0 or -4 <= power < 5:
        text = f"{value:.{max(digits - 1 - power, 0)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    short = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{short}e{power}"


def format_tick(value: float, digits: int = 4) -> str:
    """Return a number as matplotlib writes it: with a true minus sign."""
    return format_number(value, digits).replace("-", "\N{MINUS SIGN}")


def count_digits(values: Sequence[float] | FloatArray) -> int:
    """Return how many significant digits make different numbers look different: at least 4.

    Example:
        >>> count_digits([2.30258, 2.30259, 2.3026])
        6
    """
    distinct = len({float(value) for value in values})
    enough = (d for d in range(4, 17) if len({format_number(v, d) for v in values}) == distinct)
    return next(enough, 17)


def _choose_even_numbers(low: float, high: float, count: int) -> FloatArray:
    rough = max(high / count - low / count, 1e-300)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(s * unit for s in _STEPS if s * unit >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = 2 - math.floor(math.log10(step))  # turns 0.30000000000000004 into 0.3
    return np.array([round(k * step, digits) for k in range(first, last + 1)], dtype=np.float64)


def _choose_geometric_numbers(low: float, high: float, count: int) -> FloatArray:
    sparse = [_list_multiples((1.0,), low, high, every) for every in (128, 64, 32, 16, 8, 4, 2)]
    candidates = sparse + [_list_multiples(mantissas, low, high, 1) for mantissas in _DECADES]
    best = min(candidates, key=lambda c: abs(math.log(max(c.size, 0.5) / count)))
    # Within about one decade even steps are rounder, and nearly geometric.
    return best if 2 * best.size >= count else _choose_even_numbers(low, high, count)


def _list_multiples(
    mantissas: tuple[float, ...], low: float, high: float, every: int
) -> FloatArray:
    """Return the numbers m * 10^k within [low, high], for k a multiple of ``every``."""
    first = math.floor(math.log10(low) / every) * every
    exponents = range(max(first, -323), min(math.ceil(math.log10(high)) + 1, 309), every)
    numbers = [float(f"{m}e{k}") for k in exponents for m in mantissas]
    return np.array([v for v in numbers if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)])
