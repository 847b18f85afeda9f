"""Landscape: the result of a scan, an xarray Dataset with units and provenance.

The dimensions are ("x",) for a line, ("y", "x") for a plane and ("z", "y", "x") for a volume.
Points that were not evaluated, and points whose loss is not a number, are NaN.
"""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from landscope.errors import FormatError
from landscope.extras import import_optional
from landscope.files import (
    explain_write_errors,
    read_netcdf,
    shorten,
    to_path,
    write_atomically,
    write_folder_atomically,
    write_netcdf,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_PICTURES = "landscope.draw.overview"
_DIMS = ("z", "y", "x")  # of a volume, slowest first; a plane and a line have the last ones
_CSV_HEADER = "# landscope "  # of version 0.1


@dataclass(frozen=True, eq=False)
class Landscape:
    """The values of a loss, and of metrics, over a slice of parameter space.

    Args:
        data: The values, one variable per quantity, whose dimensions are the last one, two or
            three of ("z", "y", "x"). The attributes of a variable are ``units`` and
            ``long_name``; the attributes of the dataset say where the values come from (as text,
            numbers, or JSON).
        seconds: The wall-clock time that the values took, over all sessions; None if unknown. It is
            not saved with the data, so that the same scan always gives the same file, bit for bit.

    Raises:
        FormatError: When the dimensions are not those of a line, a plane or a volume.
    """

    data: xr.Dataset
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not hasattr(self.data, "data_vars"):
            raise FormatError(
                f"data is a {type(self.data).__name__}; expected an xarray.Dataset with a variable"
                " for each quantity, such as xarray.Dataset({'loss': (('y', 'x'), values)})."
            )
        dims = self.dims
        if not dims or dims != _DIMS[-len(dims) :]:
            raise FormatError(
                f"data has the dimensions {dims}; a landscape has ('x',), ('y', 'x') or"
                " ('z', 'y', 'x'): rename or transpose the dataset."
            )

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the axes, slowest first."""
        return max((tuple(map(str, v.dims)) for v in self.data.values()), key=len, default=())

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        """The coordinates along each axis, float64, in the order of ``dims``."""
        return tuple(np.asarray(self.data[dim].values, dtype=np.float64) for dim in self.dims)

    @property
    def quantity(self) -> str:
        """The name of the quantity that is drawn by default: the loss, if there is one."""
        names = [str(name) for name in self.data]
        return next((n for n in ("loss", "train_loss") if n in names), names[0])

    def __repr__(self) -> str:
        kind = ("line", "plane", "volume")[len(self.dims) - 1]
        counts = " x ".join(str(axis.size) for axis in reversed(self.axes))
        axes = [f"{dim} from {_shorten(axis.min())} to {_shorten(axis.max())}"
                for dim, axis in zip(self.dims, self.axes, strict=True) if axis.size]  # fmt: skip
        others = [str(name) for name in self.data if name != self.quantity]
        also = f"; also {', '.join(others)}" if others else ""
        return (
            f"<Landscape: a {kind} of {counts} points, {', '.join(reversed(axes))};"
            f" {self.quantity} {_describe_range(self.data[self.quantity])}{also}>"
        )

    def _repr_html_(self) -> str:
        html: str = _load_pictures().build_html(self)
        return html

    def plot(self, **options: Any) -> Figure:
        """Return a figure with the picture that suits the landscape; a notebook shows it.

        A line is drawn as a curve, a plane as a surface with its contours beside it, a volume as
        planes. Other pictures are in ``ls.draw``.

        Args:
            options: Keywords of ``ls.draw.overview_figure``, such as ``quantity`` and ``scale``.

        Raises:
            DrawError: When the landscape cannot be drawn; the text explains what to do.

        Example:
            >>> land.plot().savefig("loss.png")  # doctest: +SKIP
        """
        figure: Figure = _load_pictures().overview_figure(self, **options)
        return figure

    def show(self, **options: Any) -> None:
        """Show the interactive page: below the cell of a notebook, elsewhere in the browser.

        The page is a temporary file; ``ls.draw.page(land, path)`` writes one to keep.

        Args:
            options: Keywords of ``ls.draw.page``, such as ``quantity`` and ``title``.

        Raises:
            DrawError: When the landscape cannot be drawn; the text explains what to do.
        """
        _load_pictures().show_page(self, **options)

    def interval(self, quantity: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the 95% interval of each value, in the units of the quantity.

        It holds the value that an evaluation of all data at that point has, with a probability of
        95%: a prediction, or the loss of drawn samples, is that far from it. From the variable
        ``<quantity>_error``, whose attribute ``interval_of`` says what it is the half-width e of:

            value * exp(-e) to value * exp(e)   for "ln(loss)",
            value - e to value + e              for "loss".

        Args:
            quantity: The name of a variable; the loss if None.

        Returns:
            (lower ends, upper ends), each of the shape of the variable: the value itself where it
            is exact, NaN where there is no value.
        """
        name = self.quantity if quantity is None else quantity
        values = np.asarray(self.data[name].values, dtype=np.float64)
        if f"{name}_error" not in self.data:
            return values, values
        error = self.data[f"{name}_error"]
        widths = np.asarray(error.values, dtype=np.float64)
        # files of version 0.1 have a label only
        if error.attrs.get("interval_of", error.attrs.get("long_name", "")).find("ln(") < 0:
            return values - widths, values + widths
        with np.errstate(over="ignore"):  # an end beyond float64 is infinite
            return values * np.exp(-widths), values * np.exp(widths)

    def half_widths(self, quantity: str | None = None) -> np.ndarray:
        """Return the larger distance from each value to the ends of :meth:`interval`.

        Args:
            quantity: The name of a variable; the loss if None.

        Returns:
            An absolute error bar in the units of the quantity, of the shape of the variable: 0
            where the value is exact, NaN where there is none.
        """
        lower, upper = self.interval(quantity)
        values = np.asarray(self.data[self.quantity if quantity is None else quantity].values)
        with np.errstate(invalid="ignore"):
            widths: np.ndarray = np.maximum(upper - values, values - lower)
        return widths

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the landscape to a .nc (netCDF-4), .zarr (folder) or .csv file; return its path.

        The file is either written completely or not at all. A .csv file is a plain table with the
        columns x, y, ..., loss, ...; units and attributes are in a file beside it, NAME.csv.json.

        Raises:
            FormatError: When the suffix is none of these, or the file cannot be written.
        """
        path = check_path(path)
        write, _ = _FORMATS[path.suffix]
        with explain_write_errors(path):
            write(self, path)
        return path


def _load_pictures() -> ModuleType:
    """Return the module that draws a landscape at a glance.

    It is loaded by its name, when a picture is asked for: a result of a scan does not depend on the
    room of pictures, which depends on results.
    """
    return importlib.import_module(_PICTURES)


def _describe_range(values: xr.DataArray) -> str:
    """Return the smallest and the largest finite value, with their unit."""
    numbers = np.asarray(values.values, dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return "without a finite value"
    unit = str(values.attrs.get("units", ""))
    low, high = _shorten(finite.min()), _shorten(finite.max())
    return f"{low} to {high} {'' if unit == '1' else unit}".rstrip()


def _shorten(value: float) -> str:
    """Return a number in three digits."""
    return f"{float(f'{value:.3g}'):g}"


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file to which a landscape can be saved, by its suffix.

    Raises:
        FormatError: When the suffix is none of .nc, .zarr and .csv.
    """
    path = to_path(path)
    if path.suffix not in _FORMATS:
        raise FormatError(
            f"path={str(path)!r} ends in {path.suffix!r}; a landscape is saved as"
            f" {', '.join(_FORMATS)}: choose one of these endings."
        )
    return path


def check_landscape(land: object) -> None:
    """Raise a FormatError for what is not a landscape."""
    if not isinstance(land, Landscape):
        raise FormatError(
            f"land is a {type(land).__name__}; expected the Landscape that ls.scan or ls.load"
            " returned."
        )


def load(path: str | os.PathLike[str]) -> Landscape:
    """Return the landscape in a file that :meth:`Landscape.save` wrote.

    Args:
        path: A .nc file, a .zarr folder, a .csv file, or a run folder of the command line.

    Raises:
        FormatError: When the file does not exist or holds no landscape.
    """
    path = to_path(path)
    if path.is_dir() and path.suffix != ".zarr":
        path = path / "landscape.nc"
    if path.suffix not in _FORMATS:
        raise FormatError(
            f"path={str(path)!r} is not a landscape; expected a file ending in"
            f" {', '.join(_FORMATS)}, or the folder of a run."
        )
    if not path.exists():
        raise FormatError(f"{path} does not exist: check the name, or create it with a scan.")
    _, read = _FORMATS[path.suffix]
    try:
        return Landscape(read(path))
    except (OSError, KeyError, ValueError) as error:
        raise FormatError(
            f"{path} cannot be read as a landscape ({shorten(error)}): it is damaged, or another"
            " kind of file. Copy it again, or repeat the scan that wrote it."
        ) from error


def _write_netcdf(land: Landscape, path: Path) -> None:
    write_netcdf(land.data, path)


def _write_zarr(land: Landscape, path: Path) -> None:
    import_optional("zarr", extra="zarr")
    with write_folder_atomically(path) as part:
        land.data.to_zarr(part, mode="w", consolidated=False, zarr_format=3)


def _read_zarr(path: Path) -> xr.Dataset:
    import xarray as xr

    import_optional("zarr", extra="zarr")
    with xr.open_zarr(path, consolidated=False) as data:
        loaded: xr.Dataset = data.load()
    return loaded


def _write_csv(land: Landscape, path: Path) -> None:
    """Write a table with one row per point, and beside it a file with units and attributes."""
    table = land.data.to_dataframe(dim_order=list(land.dims)).reset_index()
    notes = {
        "attributes": dict(land.data.attrs),
        "variables": {str(n): dict(v.attrs) for n, v in land.data.variables.items()},
        "dtypes": {str(n): str(v.dtype) for n, v in land.data.variables.items()},
        "dims": list(land.dims),
    }
    with write_atomically(locate_side_file(path)) as part:
        part.write_text(json.dumps(notes, indent=1, default=_to_json) + "\n", encoding="utf-8")
    with write_atomically(path) as part:
        table.to_csv(part, index=False, na_rep="nan")  # in the shortest digits that are exact


def locate_side_file(path: Path) -> Path:
    """Return the file beside a .csv file that holds its units and attributes: NAME.csv.json."""
    return path.with_name(f"{path.name}.json")


def _read_csv(path: Path) -> xr.Dataset:
    """Read a table; a file of version 0.1 has its attributes in the first line."""
    import pandas as pd

    with path.open(encoding="utf-8") as file:
        first = file.readline()
        is_old = first.startswith(_CSV_HEADER)
        if not is_old:
            file.seek(0)
        texts = pd.read_csv(file, dtype=str, keep_default_na=False, skipinitialspace=True)
    beside = locate_side_file(path)
    if is_old:
        notes = json.loads(first.removeprefix(_CSV_HEADER))
    else:
        notes = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    names = [str(name) for name in texts]
    dims = [dim for dim in _DIMS if dim in names]
    if not dims or len(dims) == len(names):
        raise ValueError(f"its columns are {', '.join(names)}; expected x, y and z, and values")
    # numpy parses a number as Python does, to the last bit; the default parser of pandas may not.
    dtypes = {name: notes.get("dtypes", {}).get(name, "float64") for name in names}
    columns = {name: texts[name].to_numpy(str).astype(dtypes[name]) for name in names}
    data: xr.Dataset = pd.DataFrame(columns).set_index(dims).to_xarray()
    for name in names:
        data[name].attrs.update(notes.get("variables", {}).get(name, {}))
    return data.assign_attrs(notes.get("attributes", {}))


def _to_json(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


_FORMATS = {  # suffix: (writer, reader)
    ".nc": (_write_netcdf, read_netcdf),
    ".zarr": (_write_zarr, _read_zarr),
    ".csv": (_write_csv, _read_csv),
}
