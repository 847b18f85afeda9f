"""Several quantities of one landscape on one scale, such as an averaged loss beside the raw one."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure

from landscope.draw.lines import common, line
from landscope.draw.panels import side_by_side_figure
from landscope.draw.values import label_of, names_of, text_of, texts_of, title_of, unit_of
from landscope.errors import DrawError
from landscope.landscape import Landscape


def quantities_figure(
    land: Landscape,
    quantities: Sequence[str],
    *,
    scale: str | None = None,
    labels: Sequence[str] | None = None,
    kind: str = "filled",
) -> Figure:
    """Return a figure with several quantities of one landscape, all on one scale.

    Those of a plane stand side by side with one color bar. Those of a line lie over each other, and
    where ``<name>_stderr`` is known too, with a band of 1.96 of these to both sides (95%).

    Args:
        land: a plane or a line.
        quantities: names of variables, such as ("loss", "averaged_loss"); of a plane all of one
            unit.
        scale: "log" or "linear". Default: log when all finite values are positive, are no
            percentages, and the largest is more than 20 times the smallest.
        labels: a text for each. Default: their long names, with units.
        kind: "filled", "contour", "heatmap" or "surface", of a plane.

    Returns:
        The figure.

    Raises:
        DrawError: when a name is not in the landscape, when units differ on a plane, or when the
            landscape cannot be drawn so; the text says what to do.

    Example:
        >>> figure = ls.draw.quantities_figure(land, ("loss", "averaged_loss"))  # doctest: +SKIP
    """
    names = quantities
    _check(land, names)
    land = _labeled(land, names, labels)
    if land.dims == ("x",):
        figure = line(land, quantity=list(names), scale=scale).get_figure(root=True)
        assert figure is not None
        return figure
    shared = common([label_of(land, name) for name in names])
    titles = [text_of(land, name) for name in names]
    alike = [_alone(land, name, shared) for name in names]
    figure = side_by_side_figure(alike, kind=kind, scale=scale, labels=titles)
    if title_of(land):
        figure.suptitle(title_of(land))
    return figure


def _labeled(land: Landscape, names: Sequence[str], labels: Sequence[str] | None) -> Landscape:
    """Return the landscape with the labels given, and with the one unit where none is known."""
    texts = [text_of(land, name) for name in names]
    if labels is not None:
        texts = texts_of(labels, len(names), "quantities")
    data = land.data.copy()
    unit = "".join({unit_of(land, name) for name in names} - {"%"})
    for name, text in zip(names, texts, strict=True):
        own = unit_of(land, name) or unit
        data[name] = data[name].assign_attrs(long_name=text, units=own)
    return Landscape(data)


def _alone(land: Landscape, name: str, label: str) -> Landscape:
    """Return a landscape of one quantity, under a name and a label that all of them share."""
    field = land.data[name].rename("value")
    unit = unit_of(land, name)
    text = label.removesuffix(f" ({unit})")
    return Landscape(xr.Dataset({"value": field.assign_attrs(long_name=text, units=unit)}))


def _check(land: Landscape, names: Sequence[str]) -> None:
    if isinstance(names, str) or not names:
        raise DrawError(
            f"quantities={names!r} does not name several: give them in a list, such as"
            " ('loss', 'averaged_loss')."
        )
    missing = [name for name in names if name not in names_of(land)]
    if missing:
        raise DrawError(
            f"quantity={missing[0]!r} is not in the landscape; it has"
            f" {', '.join(map(repr, names_of(land)))}: choose of these."
        )
    units = {unit_of(land, name) for name in names}
    if len(units - {"", "%"}) > 1 or (len(units) > 1 and "%" in units and land.dims != ("x",)):
        raise DrawError(
            f"{', '.join(map(repr, names))} are in different units"
            f" ({', '.join(sorted(unit or 'none' for unit in units))}), which one scale does not"
            " hold: draw them one by one."
        )
