"""How pictures look: the options of ``plot`` that all pictures of a run share.

The library checks the values; the sentences here speak of options. Matplotlib is imported inside
the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from landscope.errors import DrawError

_KEYWORDS = ("quantity", "scale", "title", "levels", "cmap", "view", "size")
# What is expected, in the sentences of errors.
_LEVELS = "the number of contour levels, such as 20, or the levels, such as 0.1,0.5,1"
_SIZE = "width and height in inches, each 1 to 100, such as 6x4"
_VIEW = "elevation and azimuth in degrees, such as 30,-60"
_DPI = "10 to 1200 dots per inch"


@dataclass(frozen=True)
class PictureStyle:
    """How the pictures of a run look; None stands for what suits the values.

    Args:
        quantity: The quantity of a plane.
        scale: "log" or "linear".
        title: The title of each picture.
        levels: The number of contour levels, or the levels.
        cmap: The name of a color map of matplotlib.
        view: Elevation and azimuth of a surface in degrees.
        size: Width and height in inches.
        dpi: The resolution of a .png in dots per inch.
        kind: "png", "pdf" or "svg".
    """

    quantity: str | None = None
    scale: str | None = None
    title: str | None = None
    levels: int | Sequence[float] | None = None
    cmap: str | None = None
    view: tuple[float, float] | None = None
    size: tuple[float, float] | None = None
    dpi: int | None = None
    kind: str = "png"

    def keywords_of(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Return the values that a draw function takes, without those that were not given."""
        parameters = inspect.signature(function).parameters
        values = {name: getattr(self, name) for name in _KEYWORDS if name in parameters}
        return {name: value for name, value in values.items() if value is not None}


def read_style(
    *, levels: str | None, cmap: str | None, view: str | None, size: str | None, dpi: int | None,
    **others: Any,
) -> PictureStyle:  # fmt: skip
    """Return the style that the options of ``plot`` describe.

    Args:
        levels: "20", or levels such as "0.1,0.5,1".
        cmap: The name of a color map.
        view: Elevation and azimuth, such as "30,-60".
        size: Width and height, such as "6x4".
        dpi: Dots per inch.
        others: Further fields of the style, which need no reading.

    Raises:
        DrawError: When a value cannot be used; the text names its option.
    """
    from landscope.draw.axes import choose_size
    from landscope.draw.saving import check_dpi
    from landscope.draw.scales import resolve_colormap, resolve_levels
    from landscope.draw.surfaces import check_view

    numbers = _read_levels(levels)
    angles = _read_numbers("--view", view, ",", _VIEW)
    sides = _read_numbers("--size", size, "x", _SIZE)
    _check("--levels", levels, _LEVELS, lambda: resolve_levels((1.0, 2.0), "log", numbers))
    _check("--view", view, _VIEW, lambda: check_view(angles or (30, -60)))
    _check("--size", size, _SIZE, lambda: choose_size(sides, (6.0, 4.0)))
    _check("--dpi", dpi, _DPI, lambda: check_dpi(150 if dpi is None else dpi))
    try:
        resolve_colormap(cmap)
    except DrawError as error:
        raise DrawError(f"--cmap {cmap} {str(error).partition(' ')[2]}") from None
    return PictureStyle(levels=numbers, cmap=cmap, view=angles, size=sides, dpi=dpi, **others)


def _check(option: str, text: object, expected: str, check: Callable[[], object]) -> None:
    """Run a check of the library; explain its refusal in the words of the command line."""
    try:
        check()
    except DrawError:
        raise DrawError(f"{option} {text} cannot be used: give {expected}.") from None


def _read_levels(text: str | None) -> int | list[float] | None:
    if text is None:
        return None
    try:
        return int(text) if "," not in text and "." not in text else _split(text, ",")
    except ValueError:
        raise DrawError(f"--levels {text} cannot be used: give {_LEVELS}.") from None


def _read_numbers(option: str, text: str | None, separator: str, expected: str) -> Any:
    """Return the numbers of an option as a tuple; None if it was not given."""
    if text is None:
        return None
    try:
        return tuple(_split(text, separator))
    except ValueError:
        raise DrawError(f"{option} {text} cannot be used: give {expected}.") from None


def _split(text: str, separator: str) -> list[float]:
    return [float(part) for part in text.lower().split(separator)]
