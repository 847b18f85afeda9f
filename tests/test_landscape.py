"""Landscapes on disk: what is loaded is identical, attributes and all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import landscope as ls
from landscope.errors import FormatError
from tests import cases


def make_landscape() -> ls.Landscape:
    objective = cases.mlp().objective(metrics={"accuracy": ls.losses.accuracy})
    return ls.scan(objective, cases.plane(objective), ls.Grid((3, 2), ((-1, 2), (-1 / 3, 0.1))))


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".csv"])
def test_a_landscape_that_was_saved_is_loaded_identical(suffix: str, tmp_path: Path) -> None:
    land = make_landscape()
    loaded = ls.load(land.save(tmp_path / "new" / f"land{suffix}"))
    assert loaded.data.identical(land.data)
    assert loaded.dims == ("y", "x")
    assert loaded.quantity == "loss"
    for name in land.data.variables:
        assert loaded.data[name].dtype == land.data[name].dtype


def test_a_table_is_read_by_pandas_without_options(tmp_path: Path) -> None:
    land = make_landscape()
    table = pd.read_csv(land.save(tmp_path / "land.csv"))
    assert list(table) == ["y", "x", "loss", "accuracy"]
    assert [str(dtype) for dtype in table.dtypes] == ["float64"] * 4
    grid = table.pivot_table(index="y", columns="x", values="loss")
    np.testing.assert_allclose(grid, land.data["loss"], rtol=1e-15)
    beside = json.loads((tmp_path / "land.csv.json").read_text())
    assert beside["attributes"] == land.data.attrs
    assert beside["variables"]["loss"] == land.data["loss"].attrs


def test_a_table_without_its_attributes_is_read_as_well(tmp_path: Path) -> None:
    land = make_landscape()
    file = land.save(tmp_path / "land.csv")
    (tmp_path / "land.csv.json").unlink()
    loaded = ls.load(file)
    assert loaded.dims == land.dims
    np.testing.assert_array_equal(loaded.data["loss"], land.data["loss"])
    assert loaded.data.attrs == {}


def test_a_table_of_version_0_1_is_read(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text(
        '# landscope {"attributes": {"model": "Linear"}, "variables": {"loss": {"units": "nat"}, '
        '"x": {"units": "1"}}, "dtypes": {"loss": "float64", "x": "float64"}, "dims": ["x"]}\n'
        "x,loss\n-1,0.10000000000000001\n1,nan\n"
    )
    land = ls.load(tmp_path / "old.csv")
    assert land.data.attrs == {"model": "Linear"}
    assert land.data["loss"].attrs == {"units": "nat"}
    np.testing.assert_array_equal(land.data["loss"], [0.1, np.nan])


def test_axes_are_the_coordinates_in_the_order_of_the_dimensions() -> None:
    land = make_landscape()
    assert [axis.tolist() for axis in land.axes] == [[-1 / 3, 0.1], [-1.0, 0.5, 2.0]]
    assert land.dims == ("y", "x")


def test_the_same_landscape_gives_the_same_netcdf_bytes(tmp_path: Path) -> None:
    first, second = (make_landscape().save(tmp_path / n).read_bytes() for n in ("a.nc", "b.nc"))
    assert first == second


def test_files_that_are_no_landscapes_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="choose one of these endings"):
        make_landscape().save(tmp_path / "land.xyz")
    with pytest.raises(FormatError, match="does not exist"):
        ls.load(tmp_path / "land.nc")
    for name in ("bad.nc", "bad.csv"):
        (tmp_path / name).write_text("nothing of the kind\n")
        with pytest.raises(FormatError, match="cannot be read as a landscape"):
            ls.load(tmp_path / name)
    data = make_landscape().data
    with pytest.raises(FormatError, match="rename or transpose"):
        ls.Landscape(data.transpose("x", "y"))
