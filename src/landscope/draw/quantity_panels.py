"""Several quantities of one landscape on one scale, such as the raw and the averaged loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from landscope.draw.lines import join_labels, line
from landscope.draw.panels import side_by_side_figure
from landscope.draw.surfaces import VIEW
from landscope.draw.values import (
    check_labels,
    format_label,
    list_quantities,
    read_long_name,
    read_title,
    read_unit,
)
from landscope.errors import DrawError
from landscope.landscape import Landscape


def quantities_figure(
    land: Landscape,
    quantities: Sequence[str],
    *,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    kind: str = "filled",
    levels: int | Sequence[float] | None = None,
    cmap: str | None = None,
    view: tuple[float, float] = VIEW,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Return a figure with several quantities of one landscape, all on one scale.

    The quantities of a plane are side by side, with one color bar. Those of a line are drawn over
    each other; where ``<name>_stderr`` is known, with a band of 1.96 standard errors on both sides
    (95%).

    Args:
        land: A plane or a line.
        quantities: The names of variables, such as ("loss", "averaged_loss"). Those of a plane
            have the same unit.
        scale: "log" or "linear". Default: log when all finite values are positive, are not
            percentages, and the largest is more than 20 times the smallest.
        labels: A name for each quantity. Default: their long names, with units.
        title: The title; "" for none. Default: that of the landscape.
        kind: "filled", "contour", "heatmap" or "surface", for a plane.
        levels: The number of levels (about), or the levels themselves. Default: about 20 round
            numbers.
        cmap: The name of a color map of matplotlib. Default: viridis.
        view: Elevation and azimuth of surfaces, in degrees. Default: (32, -58).
        size: Width and height of the figure in inches. Default: that which suits the panels.

    Returns:
        The figure.

    Raises:
        DrawError: When a name is not in the landscape, when units differ on a plane, or when the
            landscape cannot be drawn this way; the text explains what to do.

    Example:
        >>> figure = ls.draw.quantities_figure(land, ("loss", "averaged_loss"))  # doctest: +SKIP
    """
    _check_quantities(land, quantities)
    land = _set_labels(land, quantities, labels)
    if land.dims == ("x",):
        axes = line(land, quantity=list(quantities), scale=scale, title=title, size=size)
        figure = axes.get_figure(root=True)
        assert figure is not None
        return figure
    label = join_labels([format_label(land, name) for name in quantities])
    parts = [_extract_quantity(land, name, label) for name in quantities]
    titles = [read_long_name(land, name) for name in quantities]
    choices: dict[str, Any] = {"levels": levels, "cmap": cmap, "view": view, "size": size}
    return side_by_side_figure(
        parts, scale=scale, labels=titles, title=read_title(land) if title is None else title,
        kind=kind, **choices,
    )  # fmt: skip


def _set_labels(land: Landscape, names: Sequence[str], labels: Sequence[str] | None) -> Landscape:
    """Return the landscape with these labels, and with the common unit where a unit is unknown."""
    texts = [read_long_name(land, name) for name in names]
    if labels is not None:
        texts = check_labels(labels, len(names), "quantities")
    data = land.data.copy()
    common_unit = "".join({read_unit(land, name) for name in names} - {"%"})
    for name, text in zip(names, texts, strict=True):
        unit = read_unit(land, name) or common_unit
        data[name] = data[name].assign_attrs(long_name=text, units=unit)
    return Landscape(data)


def _extract_quantity(land: Landscape, name: str, label: str) -> Landscape:
    """Return a landscape of one quantity, under a name and a label that all quantities share."""
    field = land.data[name].rename("value")
    unit = read_unit(land, name)
    text = label.removesuffix(f" ({unit})")
    return Landscape(xr.Dataset({"value": field.assign_attrs(long_name=text, units=unit)}))


def _check_quantities(land: Landscape, names: Sequence[str]) -> None:
    if isinstance(names, str) or not names:
        raise DrawError(
            f"quantities={names!r} does not name several: give them in a list, such as"
            " ('loss', 'averaged_loss')."
        )
    missing = [name for name in names if name not in list_quantities(land)]
    if missing:
        raise DrawError(
            f"quantity={missing[0]!r} is not in the landscape; it has"
            f" {', '.join(map(repr, list_quantities(land)))}: choose from these."
        )
    units = {read_unit(land, name) for name in names}
    if len(units - {"", "%"}) > 1 or (len(units) > 1 and "%" in units and land.dims != ("x",)):
        raise DrawError(
            f"{', '.join(map(repr, names))} have different units"
            f" ({', '.join(sorted(unit or 'none' for unit in units))}), which cannot share one"
            " scale: draw them one by one."
        )
