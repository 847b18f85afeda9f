"""From a Landscape to raw arrays and texts: values, coordinates, names, labels.

Rows and columns are sorted by their coordinates; values are never changed.
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


def list_values(values: T | Sequence[T], noun: str) -> list[T]:
    """Return one value, or several, as a list.

    Args:
        values: One value, or a sequence of them.
        noun: The kind of value, for the error message.

    Raises:
        DrawError: When the sequence is empty.
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
        DrawError: When there is none, or one of them is not a landscape.
    """
    listed = list_values(lands, "landscape")
    for land in listed:
        check_landscape(land)
    return listed


def check_landscape(land: object) -> None:
    """Refuse anything but a landscape.

    Raises:
        DrawError: When ``land`` is not a landscape.
    """
    if not isinstance(land, Landscape):
        raise DrawError(
            f"land is a {type(land).__name__}; expected a Landscape, as returned by ls.scan and"
            " ls.load."
        )


def name_landscapes(lands: Sequence[Landscape], labels: Sequence[str] | None) -> list[str]:
    """Return a name for each landscape: its label, else its title, else its number.

    Raises:
        DrawError: When the number of labels differs from the number of landscapes.
    """
    if labels is None:
        return [read_title(land) or f"landscape {k}" for k, land in enumerate(lands, 1)]
    return check_labels(labels, len(lands), "landscape(s)")


def check_labels(labels: Sequence[str], count: int, noun: str) -> list[str]:
    """Return the labels of a user as a list of ``count`` texts.

    Raises:
        DrawError: When there are more or fewer.
    """
    if isinstance(labels, str) or len(labels) != count:
        raise DrawError(
            f"labels={labels!r} does not name {count} {noun}: give a list with one text for each."
        )
    return [str(label) for label in labels]


def choose_quantities(land: Landscape) -> list[str]:
    """Return the quantities of a line that are drawn by default: losses and percentages."""
    names = [name for name in list_quantities(land) if not name.endswith("_stderr")]
    chosen = [name for name in names if name.endswith("loss") or is_percent(land, name)]
    return chosen or [land.quantity]


def list_quantities(land: Landscape) -> list[str]:
    """Return the names of the variables that cover the whole landscape."""
    return [str(name) for name, field in land.data.items() if set(field.dims) == set(land.dims)]


def format_label(land: Landscape, name: str) -> str:
    """Return the label of a quantity or an axis: its long name and its unit."""
    text, unit = read_long_name(land, name), read_unit(land, name)
    return f"{text} ({unit})" if unit else text


def read_long_name(land: Landscape, name: str) -> str:
    """Return the long name of a quantity or an axis."""
    attrs = land.data[name].attrs if name in land.data.variables else {}
    return str(attrs.get("long_name", "") or name.replace("_", " "))


def read_unit(land: Landscape, name: str) -> str:
    """Return the unit of a quantity or an axis; empty where there is none or it is unknown."""
    attrs = land.data[name].attrs if name in land.data.variables else {}
    unit = str(attrs.get("units", ""))
    return "" if unit == "1" else unit


def read_title(land: Landscape) -> str:
    """Return the title of the landscape, or an empty text."""
    return str(land.data.attrs.get("title", ""))


def read_plane(land: Landscape, name: str) -> FloatArray:
    """Return the raw values of a quantity over a plane, [ny, nx].

    Raises:
        DrawError: When the landscape is not a plane, or has no such quantity.
    """
    if land.dims != ("y", "x"):
        remedy = {
            ("x",): "draw a line with ls.draw.line",
            ("z", "y", "x"): "choose one plane of the volume, for example"
            " Landscape(land.data.isel(z=0))",
        }[land.dims]
        raise DrawError(f"The landscape has the dims {land.dims}, not ('y', 'x'): {remedy}.")
    return _sort_values(land, name)


def read_line(land: Landscape, name: str) -> FloatArray:
    """Return the raw values of a quantity along a line, [nx].

    Raises:
        DrawError: When the landscape is not a line, or has no such quantity.
    """
    if land.dims != ("x",):
        raise DrawError(
            f"The landscape has the dims {land.dims}, not ('x',): draw a plane with ls.draw.contour"
            " or ls.draw.surface, or choose one row, for example Landscape(land.data.isel(y=0))."
        )
    return _sort_values(land, name)


def read_axis(land: Landscape, name: str) -> FloatArray:
    """Return the coordinates along an axis in rising order, [points].

    Raises:
        DrawError: When two are equal, or one is not finite.
    """
    axis = np.sort(land.axes[land.dims.index(name)])
    if not np.isfinite(axis).all() or (np.diff(axis) == 0).any():
        raise DrawError(
            f"The coordinates {name} are not finite or not distinct: give every point of the axis"
            " a number of its own."
        )
    return axis


def is_percent(land: Landscape, name: str) -> bool:
    """Tell whether the unit of a quantity is %."""
    return name in land.data and land.data[name].attrs.get("units") == "%"


def _sort_values(land: Landscape, name: str) -> FloatArray:
    if name not in list_quantities(land):
        raise DrawError(
            f"quantity={name!r} is not in the landscape; it has"
            f" {', '.join(map(repr, list_quantities(land)))}: choose one of these."
        )
    field = land.data[name].transpose(*land.dims)
    orders = np.ix_(*(np.argsort(axis, kind="stable") for axis in land.axes))
    return np.asarray(field.values, dtype=np.float64)[orders]
