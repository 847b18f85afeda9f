"""From a Landscape to raw arrays and texts: values, coordinates, names, labels.

Rows and columns come in rising order of their coordinates; values are never touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from landscope.draw.levels import FloatArray
from landscope.errors import DrawError
from landscope.landscape import Landscape

Landscapes = Landscape | Sequence[Landscape]
T = TypeVar("T")


def as_list(values: T | Sequence[T], noun: str) -> list[T]:
    """Return one value, or several, as a list.

    Raises:
        DrawError: when there is none.
    """
    given: Any = values
    several = isinstance(given, Collection | Iterator) and not isinstance(given, Mapping)
    listed = list(given) if several else [given]
    if not listed:
        raise DrawError(f"No {noun} was given: give one, or several in a list.")
    return listed


def list_landscapes(lands: Landscapes) -> list[Landscape]:
    """Return one landscape, or several, as a list.

    Raises:
        DrawError: when there is none, or one is no landscape.
    """
    listed = as_list(lands, "landscape")
    for land in listed:
        check_landscape(land)
    return listed


def check_landscape(land: object) -> None:
    """Refuse what is no landscape.

    Raises:
        DrawError: when it is none.
    """
    if not isinstance(land, Landscape):
        raise DrawError(
            f"land is a {type(land).__name__}; expected a Landscape, as ls.scan and ls.load return"
            " it."
        )


def named(lands: Sequence[Landscape], labels: Sequence[str] | None) -> list[str]:
    """Return a name for each landscape: its label, else its title, else its number.

    Raises:
        DrawError: when there are more or fewer labels than landscapes.
    """
    if labels is None:
        return [title_of(land) or f"landscape {k}" for k, land in enumerate(lands, 1)]
    return texts_of(labels, len(lands), "landscape(s)")


def texts_of(labels: Sequence[str], count: int, what: str) -> list[str]:
    """Return the labels that a user gave, one for each of ``count``.

    Raises:
        DrawError: when there are more or fewer.
    """
    if isinstance(labels, str) or len(labels) != count:
        raise DrawError(
            f"labels={labels!r} does not name {count} {what}: give a list with one text for each."
        )
    return [str(label) for label in labels]


def curves_of(land: Landscape) -> list[str]:
    """Return the quantities that a line is drawn with: every loss and every percentage."""
    names = [name for name in names_of(land) if not name.endswith("_stderr")]
    chosen = [name for name in names if name.endswith("loss") or is_percent(land, name)]
    return chosen or [land.quantity]


def names_of(land: Landscape) -> list[str]:
    """Return the quantities that are known over the whole of the landscape."""
    return [str(name) for name, field in land.data.items() if set(field.dims) == set(land.dims)]


def label_of(land: Landscape, name: str) -> str:
    """Return what to write beside an axis of ``name``: its long name and its unit."""
    text, unit = text_of(land, name), unit_of(land, name)
    return f"{text} ({unit})" if unit else text


def text_of(land: Landscape, name: str) -> str:
    """Return the long name of a quantity or of an axis."""
    attrs = land.data[name].attrs if name in land.data.variables else {}
    return str(attrs.get("long_name", "") or name.replace("_", " "))


def unit_of(land: Landscape, name: str) -> str:
    """Return the unit of a quantity or of an axis; empty where it has none, or is not known."""
    attrs = land.data[name].attrs if name in land.data.variables else {}
    unit = str(attrs.get("units", ""))
    return "" if unit == "1" else unit


def title_of(land: Landscape) -> str:
    """Return the title of the landscape, or an empty text."""
    return str(land.data.attrs.get("title", ""))


def plane_values(land: Landscape, name: str) -> FloatArray:
    """Return the raw values of a quantity over a plane, [ny, nx].

    Raises:
        DrawError: when the landscape is no plane, or has no such quantity.
    """
    if land.dims != ("y", "x"):
        remedy = {
            ("x",): "a line is drawn with ls.draw.line",
            ("z", "y", "x"): "choose one plane of the volume, for example"
            " Landscape(land.data.isel(z=0))",
        }[land.dims]
        raise DrawError(f"The landscape has the dims {land.dims}, not ('y', 'x'): {remedy}.")
    return _sorted(land, name)


def line_values(land: Landscape, name: str) -> FloatArray:
    """Return the raw values of a quantity along a line, [nx].

    Raises:
        DrawError: when the landscape is no line, or has no such quantity.
    """
    if land.dims != ("x",):
        raise DrawError(
            f"The landscape has the dims {land.dims}, not ('x',): draw a plane with ls.draw.contour"
            " or ls.draw.surface, or choose one row, for example Landscape(land.data.isel(y=0))."
        )
    return _sorted(land, name)


def axis_values(land: Landscape, name: str) -> FloatArray:
    """Return the coordinates along an axis in rising order, [points].

    Raises:
        DrawError: when two are the same, or one is not finite.
    """
    axis = np.sort(land.axes[land.dims.index(name)])
    if not np.isfinite(axis).all() or (np.diff(axis) == 0).any():
        raise DrawError(
            f"The coordinates {name} are not finite or not distinct: give every point of the axis"
            " its own number."
        )
    return axis


def is_percent(land: Landscape, name: str) -> bool:
    """Tell whether the unit of a quantity is %."""
    return name in land.data and land.data[name].attrs.get("units") == "%"


def _sorted(land: Landscape, name: str) -> FloatArray:
    if name not in names_of(land):
        raise DrawError(
            f"quantity={name!r} is not in the landscape; it has"
            f" {', '.join(map(repr, names_of(land)))}: choose one of these."
        )
    field = land.data[name].transpose(*land.dims)
    orders = np.ix_(*(np.argsort(axis, kind="stable") for axis in land.axes))
    return np.asarray(field.values, dtype=np.float64)[orders]
