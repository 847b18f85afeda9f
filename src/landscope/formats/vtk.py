"""Files for ParaView: surfaces (.vtp) as the 2018 scripts write them, and structured grids (.vts).

They are files in VTK's XML format, and writing them needs no VTK. Numbers are stored as base64, bit
for bit: as text, VTK would read "-inf" as +inf. A height that is not a finite number is a hole: no
value is invented for it. The attributes of the landscape, which say how it was made, are texts in
the field data.

Source: Li et al., 2018, arXiv 1712.09913 (its ``h52vtp``); the VTK user's guide, "VTK XML file
formats".
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from xml.etree import ElementTree

import numpy as np

from landscope.errors import FormatError
from landscope.files import explain_write_errors, write_atomically
from landscope.landscape import Landscape, check_landscape

__all__ = ["Scale", "write"]

Scale = Literal["linear", "log"]

_SUFFIXES = (".vtp", ".vts")
_LOG_OFFSET = 0.1  # ln(z + 0.1), as in the 2018 scripts
_TYPES = {"Float64": "f8", "Int64": "i8", "UInt8": "u1"}  # of VTK -> of numpy
_HIDDEN_CELL = 32  # vtkDataSetAttributes.HIDDENCELL: ParaView does not show the cell


def write(
    land: Landscape,
    path: str | os.PathLike[str],
    *,
    quantity: str | None = None,
    scale: Scale = "linear",
    clip: float | None = None,
    resolution: int | None = None,
) -> Path:
    """Write a landscape for ParaView and return the path.

    A height h is min(z, clip), and on the log scale ln(min(z, clip) + 0.1). Heights that are not
    finite become holes: they are nan in "zvalue", their points lie at the lowest finite height,
    and the cells around them are omitted (.vtp) or hidden (.vts). An infinite loss is a hole, with
    or without a clip.

    * .vtp, for planes: the surface (x, y, h) in quads, with the point data "zvalue" (h) and the
      cell data "averaged zvalue" (the mean of the four corners).
    * .vts, for planes and volumes: the grid with all quantities, unchanged (infinity keeps its
      sign), and "zvalue". The points of a plane are (x, y, h), those of a volume (x, y, z).

    Args:
        land: A plane, or a volume for .vts.
        path: The file, which ends in .vtp or .vts; its folders are created.
        quantity: The variable that gives the heights; by default the loss.
        scale: The scale of the heights, "linear" or "log".
        clip: The largest value; larger values are replaced by it. None for no limit.
        resolution: The number of points along each axis to which a plane is refined, by cubic
            splines, before anything else; at least 2. It is for pictures only: values between the
            points of the scan are interpolated.

    Returns:
        The path of the file, which is written completely or not at all.

    Raises:
        FormatError: When the suffix, the quantity or the scale is unknown, the landscape has no
            surface, or a plane with holes is to be refined.
    """
    check_landscape(land)
    path = Path(path)
    quantity = land.quantity if quantity is None else quantity
    _check_arguments(land, path, quantity, scale=scale, clip=clip)
    grid = _read_grid(land)
    if resolution is not None:
        grid = _refine(grid, resolution)
    heights = _scale_heights(grid.values[quantity], scale, clip)
    if not np.isfinite(heights).any():
        raise FormatError(
            f"no value of {quantity!r} is a finite number on the {scale} scale: there is nothing to"
            " draw. Choose another quantity or scale."
        )
    build = _build_surface if path.suffix == ".vtp" else _build_structured_grid
    root = build(grid, heights)
    _add_attributes(root[0], land)
    ElementTree.indent(root)
    with explain_write_errors(path), write_atomically(path) as part:
        ElementTree.ElementTree(root).write(part, encoding="utf-8")
    return path


@dataclass(frozen=True, eq=False)
class _GridValues:
    """Quantities over a plane or a volume, as plain arrays."""

    axes: tuple[np.ndarray, ...]  # coordinates, slowest axis first: (y, x) or (z, y, x)
    values: Mapping[str, np.ndarray]  # each of the shape of the axes, float64


def _check_arguments(
    land: Landscape, path: Path, quantity: str, *, scale: str, clip: float | None
) -> None:
    if path.suffix not in _SUFFIXES:
        raise FormatError(
            f"path={str(path)!r} ends in {path.suffix!r}; files for ParaView end in"
            f" {' or '.join(_SUFFIXES)}: choose one of these endings."
        )
    if scale not in get_args(Scale):
        raise FormatError(
            f"scale={scale!r} is unknown: choose one of {', '.join(get_args(Scale))}."
        )
    if clip is not None and not np.isfinite(clip):
        raise FormatError(f"clip={clip} is not a height: give a finite number, or None.")
    if len(land.dims) == 1:
        raise FormatError("a line has no surface for ParaView: export it as .csv instead.")
    if len(land.dims) == 3 and path.suffix == ".vtp":
        raise FormatError("a .vtp file holds a surface, not a volume: choose the ending .vts.")
    choices = list(_list_quantities(land))
    if quantity not in choices:
        raise FormatError(
            f"quantity={quantity!r} is not in this landscape: choose one of {', '.join(choices)}."
        )
    if min(map(len, land.axes)) < 2:
        raise FormatError(
            f"a grid of {' x '.join(str(len(axis)) for axis in land.axes)} points has no cells:"
            " scan at least 2 points along each axis, or export .csv."
        )


def _list_quantities(land: Landscape) -> Iterable[str]:
    for name, variable in land.data.items():
        if set(variable.dims) == set(land.dims) and variable.dtype.kind in "fiub":
            yield str(name)


def _read_grid(land: Landscape) -> _GridValues:
    values = {
        name: land.data[name].transpose(*land.dims).to_numpy().astype(np.float64)
        for name in _list_quantities(land)
    }
    return _GridValues(land.axes, values)


def _refine(grid: _GridValues, resolution: int) -> _GridValues:
    """Return the plane on resolution x resolution points, by cubic splines through its values."""
    from scipy.interpolate import RectBivariateSpline

    if len(grid.axes) != 2:
        raise FormatError(f"resolution={resolution} refines planes only: leave it out.")
    if resolution < 2 or min(map(len, grid.axes)) < 4:
        raise FormatError(
            f"resolution={resolution} on a grid of {' x '.join(str(len(a)) for a in grid.axes)}:"
            " cubic splines need 4 points along each axis, and a resolution of at least 2."
        )
    holes = [name for name, values in grid.values.items() if not np.isfinite(values).all()]
    if holes:
        raise FormatError(
            f"{', '.join(holes)} has values that are not finite, and splines would invent what is"
            " there: leave resolution out."
        )
    order = [np.argsort(axis) for axis in grid.axes]
    sorted_axes = [axis[index] for axis, index in zip(grid.axes, order, strict=True)]
    fine = tuple(np.linspace(axis[0], axis[-1], resolution) for axis in sorted_axes)
    values = {
        name: RectBivariateSpline(*sorted_axes, column[np.ix_(*order)], s=0)(*fine)
        for name, column in grid.values.items()
    }
    return _GridValues(fine, values)


def _scale_heights(values: np.ndarray, scale: str, clip: float | None) -> np.ndarray:
    """Return the values clipped and scaled; nan where there is no finite height."""
    heights = np.where(np.isfinite(values), values, np.nan)
    if clip is not None:
        heights = np.minimum(heights, clip)
    if scale == "log":
        shifted = heights + _LOG_OFFSET
        heights = np.log(shifted, out=np.full_like(shifted, np.nan), where=shifted > 0)
    return heights


def _build_surface(grid: _GridValues, heights: np.ndarray) -> ElementTree.Element:
    count = len(grid.axes[-1])
    corner = np.arange(heights.size).reshape(heights.shape)[:-1, :-1].ravel()
    quads = corner[:, None] + np.array([0, 1, count + 1, count])
    means = heights.ravel()[quads].mean(axis=1)
    quads, means = quads[np.isfinite(means)], means[np.isfinite(means)]

    root, piece = _create_root(
        "PolyData",
        {},
        NumberOfPoints=heights.size,
        NumberOfVerts=0,
        NumberOfLines=0,
        NumberOfStrips=0,
        NumberOfPolys=len(quads),
    )
    _add_array(_add_element(piece, "PointData", Scalars="zvalue"), "zvalue", heights)
    _add_array(_add_element(piece, "CellData"), "averaged zvalue", means)
    _add_array(_add_element(piece, "Points"), "Points", _points(grid, heights), components=3)
    polys = _add_element(piece, "Polys")
    _add_array(polys, "connectivity", quads, kind="Int64")
    _add_array(polys, "offsets", 4 * np.arange(1, len(quads) + 1), kind="Int64")
    return root


def _build_structured_grid(grid: _GridValues, heights: np.ndarray) -> ElementTree.Element:
    sizes = [*heights.shape[::-1], 1][:3]
    extent = " ".join(f"0 {size - 1}" for size in sizes)
    root, piece = _create_root("StructuredGrid", {"WholeExtent": extent}, Extent=extent)
    data = _add_element(piece, "PointData", Scalars="zvalue")
    for name, values in grid.values.items():
        _add_array(data, name, values)
    _add_array(data, "zvalue", heights)
    cells = _add_element(piece, "CellData")
    holes = np.isnan(heights)
    if holes.any() and heights.ndim == 2:
        around = holes[:-1, :-1] | holes[:-1, 1:] | holes[1:, :-1] | holes[1:, 1:]
        _add_array(cells, "vtkGhostType", _HIDDEN_CELL * around, kind="UInt8")
    _add_array(_add_element(piece, "Points"), "Points", _points(grid, heights), components=3)
    return root


def _points(grid: _GridValues, heights: np.ndarray) -> np.ndarray:
    """Return the points [n, 3] as (x, y, z), x fastest."""
    coordinates = list(reversed(np.meshgrid(*grid.axes, indexing="ij")))
    if heights.ndim == 2:
        coordinates.append(np.where(np.isnan(heights), np.nanmin(heights), heights))
    return np.stack([axis.ravel() for axis in coordinates], axis=1)


def _create_root(
    kind: str, attributes: dict[str, str], **counts: int | str
) -> tuple[ElementTree.Element, ElementTree.Element]:
    root = ElementTree.Element(
        "VTKFile", type=kind, version="1.0", byte_order="LittleEndian", header_type="UInt64"
    )
    piece = _add_element(_add_element(root, kind, **attributes), "Piece", **counts)
    return root, piece


def _add_element(
    parent: ElementTree.Element, tag: str, **attributes: int | str
) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, {k: str(v) for k, v in attributes.items()})


def _add_array(
    parent: ElementTree.Element,
    name: str,
    values: np.ndarray,
    *,
    components: int = 1,
    kind: str = "Float64",
) -> None:
    """Add an array as base64: its size in bytes, in 64 bits, and its bytes."""
    element = _add_element(
        parent, "DataArray", type=kind, Name=name, NumberOfComponents=components, format="binary"
    )
    element.text = _encode(values.astype(f"<{_TYPES[kind]}"))


def _add_attributes(grid: ElementTree.Element, land: Landscape) -> None:
    """Add the attributes of a landscape as field data: texts in UTF-8, with a zero at the end."""
    fields = ElementTree.Element("FieldData")
    for name, value in land.data.attrs.items():
        array = {"type": "String", "Name": str(name), "NumberOfTuples": "1", "format": "binary"}
        text = np.frombuffer(f"{value}\0".encode(), np.uint8)
        ElementTree.SubElement(fields, "DataArray", array).text = _encode(text)
    if len(fields):
        grid.insert(0, fields)


def _encode(values: np.ndarray) -> str:
    size = np.array(values.nbytes, "<u8")
    return base64.b64encode(size.tobytes() + values.tobytes()).decode()


def __dir__() -> list[str]:
    return __all__
