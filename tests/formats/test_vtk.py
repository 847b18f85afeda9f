"""Files for ParaView against the surface that the 2018 scripts wrote.

Witnesses: the files are parsed with xml.etree, base64 and struct, and heights, quads and means are
computed again by plain loops over i and j. Both kinds of file were also read back with the vtk
package (9.0.3 and 9.7.2): holes, infinity of both signs, NaN, the smallest and largest numbers, and
texts; its reader wants one component a number in "connectivity", which is tested.
"""

from __future__ import annotations

import base64
import math
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr

from landscope.errors import FormatError
from landscope.formats import vtk
from landscope.landscape import Landscape

X = np.array([-2.0, -1.1, 0.3, 0.7, 1.0 / 3.0 + 1])
Y = np.array([-1.0, 0.1, 2.5])
NX, NY = len(X), len(Y)


def plane(loss: np.ndarray, *, x: np.ndarray = X, y: np.ndarray = Y, **more: Any) -> Landscape:
    data = {"loss": (("y", "x"), loss), **{name: (("y", "x"), v) for name, v in more.items()}}
    return Landscape(xr.Dataset(data, coords={"y": y, "x": x}))


def losses() -> np.ndarray:
    return np.random.default_rng(0).exponential(3.0, (NY, NX))


def root(path: Path) -> ElementTree.Element:
    return ElementTree.parse(path).getroot()


def array(path: Path, group: str, name: str) -> np.ndarray:
    element = root(path).find(f".//{group}/DataArray[@Name='{name}']")
    assert element is not None
    assert element.get("format") == "binary"
    stored = base64.b64decode(element.text or "")
    kind = {"Float64": "d", "Int64": "q", "UInt8": "B"}[element.get("type", "")]
    (size,) = struct.unpack("<Q", stored[:8])
    assert size == len(stored) - 8
    numbers = np.array(struct.unpack(f"<{size // struct.calcsize(kind)}{kind}", stored[8:]))
    components = int(element.get("NumberOfComponents", "1"))
    return numbers.reshape(-1, components) if components > 1 else numbers


def surface(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points, zvalue, quads and averages of a .vtp."""
    quads = array(path, "Polys", "connectivity").reshape(-1, 4)
    offsets = array(path, "Polys", "offsets")
    assert offsets.tolist() == [4 * (k + 1) for k in range(len(quads))]
    means = array(path, "CellData", "averaged zvalue")
    return array(path, "Points", "Points"), array(path, "PointData", "zvalue"), quads, means


def expected_quads(height: np.ndarray) -> tuple[list[list[int]], list[float]]:
    """Quads without holes and their means, one cell after the other."""
    quads, means = [], []
    ny, nx = height.shape
    for j in range(ny - 1):
        for i in range(nx - 1):
            corners = [height[j, i], height[j, i + 1], height[j + 1, i + 1], height[j + 1, i]]
            if all(math.isfinite(z) for z in corners):
                quads.append([j * nx + i, j * nx + i + 1, (j + 1) * nx + i + 1, (j + 1) * nx + i])
                means.append(sum(corners) / 4)
    return quads, means


def test_a_rectangular_plane_becomes_the_surface_of_the_2018_scripts(tmp_path: Path) -> None:
    z = losses()
    path = vtk.write(plane(z), tmp_path / "new" / "a.vtp")
    assert path == tmp_path / "new" / "a.vtp"
    points, zvalue, quads, means = surface(path)
    assert points.tolist() == [[X[i], Y[j], z[j, i]] for j in range(NY) for i in range(NX)]
    assert zvalue.tolist() == z.ravel().tolist()  # every digit
    expected, averages = expected_quads(z)
    assert quads.tolist() == expected
    np.testing.assert_allclose(means, averages, rtol=1e-15)


def test_the_header_counts_what_the_file_holds(tmp_path: Path) -> None:
    path = vtk.write(plane(losses()), tmp_path / "a.vtp")
    first = path.read_text().splitlines()[0]
    assert first == (
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">'
    )
    piece = root(path).find("PolyData/Piece")
    assert piece is not None
    assert piece.attrib == {
        "NumberOfPoints": "15",
        "NumberOfVerts": "0",
        "NumberOfLines": "0",
        "NumberOfStrips": "0",
        "NumberOfPolys": "8",
    }
    for name in ("connectivity", "offsets"):
        element = piece.find(f"Polys/DataArray[@Name='{name}']")
        assert element is not None
        assert (element.get("type"), element.get("NumberOfComponents")) == ("Int64", "1")


@pytest.mark.parametrize("suffix", [".vtp", ".vts"])
def test_values_are_clipped_first_and_then_put_on_the_log_scale(
    tmp_path: Path, suffix: str
) -> None:
    z = losses()
    z[0, 0] = 0.0
    path = vtk.write(plane(z), tmp_path / f"a{suffix}", clip=2.0, scale="log")
    expected = [math.log((2.0 if value > 2.0 else value) + 0.1) for value in z.ravel()]
    np.testing.assert_allclose(array(path, "PointData", "zvalue"), expected, rtol=1e-15)
    np.testing.assert_allclose(array(path, "Points", "Points")[:, 2], expected, rtol=1e-15)
    if suffix == ".vtp":
        corners = np.array(expected)[surface(path)[2].astype(int)]
        np.testing.assert_allclose(surface(path)[3], corners.sum(axis=1) / 4, rtol=1e-14)


def test_another_quantity_can_give_the_height(tmp_path: Path) -> None:
    accuracy = np.arange(NY * NX).reshape(NY, NX)
    land = plane(losses(), accuracy=accuracy)
    path = vtk.write(land, tmp_path / "a.vtp", quantity="accuracy")
    assert surface(path)[0][:, 2].tolist() == accuracy.ravel().tolist()


def test_values_that_are_not_finite_are_holes(tmp_path: Path) -> None:
    z = losses()
    z[0, 1], z[2, 4], z[2, 0] = np.nan, np.inf, -np.inf
    before = z.copy()
    land = plane(z)
    path = vtk.write(land, tmp_path / "a.vtp", clip=5.0)
    points, zvalue, quads, means = surface(path)
    height = np.where(np.isfinite(z), np.minimum(z, 5.0), np.nan)
    np.testing.assert_array_equal(zvalue, height.ravel())
    np.testing.assert_array_equal(
        points[:, 2], np.nan_to_num(height, nan=np.nanmin(height)).ravel()
    )
    expected, averages = expected_quads(height)
    assert len(quads) == 4
    assert quads.tolist() == expected
    np.testing.assert_allclose(means, averages, rtol=1e-15)
    np.testing.assert_array_equal(land.data["loss"], before)


def test_the_log_of_what_is_too_low_is_a_hole(tmp_path: Path) -> None:
    z = losses()
    z[0, 0], z[0, 1], z[2, 4] = -0.1, -3.0, -0.0999
    _, zvalue, quads, _ = surface(vtk.write(plane(z), tmp_path / "a.vtp", scale="log"))
    assert np.isnan(zvalue).nonzero()[0].tolist() == [0, 1]
    assert zvalue[-1] == pytest.approx(math.log(0.0001), rel=1e-9)
    assert len(quads) == 6


def test_a_surface_of_holes_alone_has_no_quads(tmp_path: Path) -> None:
    z = np.full((NY, NX), np.nan)
    z[::2, ::2] = 1.0
    _, _, quads, means = surface(vtk.write(plane(z), tmp_path / "a.vtp"))
    assert quads.shape == (0, 4)
    assert means.shape == (0,)


def test_a_refined_surface_is_exact_for_a_cubic_and_goes_through_the_values(tmp_path: Path) -> None:
    x, y = np.linspace(-1, 2, 7), np.linspace(0, 3, 5)

    def height(a: Any, b: Any) -> Any:
        return a**3 - 2 * a * b**2 + b**3 + 1

    land = plane(height(x, y[:, None]), x=x, y=y)
    path = vtk.write(land, tmp_path / "a.vtp", resolution=13)
    points, _, quads, _ = surface(path)
    assert (len(points), len(quads)) == (169, 144)
    fine_x, fine_y = np.linspace(-1, 2, 13), np.linspace(0, 3, 13)
    expected = [[a, b, height(a, b)] for b in fine_y for a in fine_x]
    np.testing.assert_allclose(points, expected, atol=1e-12)
    clipped = surface(vtk.write(land, tmp_path / "b.vtp", resolution=13, clip=0.5))[0]
    np.testing.assert_allclose(clipped[:, 2], np.minimum(points[:, 2], 0.5), atol=1e-12)
    falling = plane(height(x[::-1], y[:, None]), x=x[::-1], y=y)
    again = surface(vtk.write(falling, tmp_path / "c.vtp", resolution=13))[0]
    np.testing.assert_allclose(again, points, atol=1e-12)


def test_a_structured_grid_of_a_plane_holds_all_quantities_as_they_are(tmp_path: Path) -> None:
    z, accuracy = losses(), np.arange(NY * NX).reshape(NY, NX)
    z[1, 1] = np.inf
    land = plane(z, accuracy=accuracy)
    land.data["note"] = ("x", np.ones(NX))
    path = vtk.write(land, tmp_path / "a.vts", clip=3.0)
    grid = root(path).find("StructuredGrid")
    assert grid is not None
    assert grid.get("WholeExtent") == "0 4 0 2 0 0"
    names = [each.get("Name") for each in grid.findall("Piece/PointData/DataArray")]
    assert names == ["loss", "accuracy", "zvalue"]
    np.testing.assert_array_equal(array(path, "PointData", "loss"), z.ravel())
    np.testing.assert_array_equal(array(path, "PointData", "accuracy"), accuracy.ravel())
    height = np.where(np.isinf(z), np.nan, np.minimum(z, 3.0))
    np.testing.assert_array_equal(array(path, "PointData", "zvalue"), height.ravel())
    height[1, 1] = np.nanmin(height)
    expected = [[X[i], Y[j], height[j, i]] for j in range(NY) for i in range(NX)]
    assert array(path, "Points", "Points").tolist() == expected
    assert array(path, "CellData", "vtkGhostType").tolist() == [32, 32, 0, 0] * 2


def test_every_bit_of_a_value_is_kept_and_infinity_has_its_sign(tmp_path: Path) -> None:
    z = losses()
    z.flat[:6] = [np.inf, -np.inf, np.nan, 5e-324, -0.0, 1.7976931348623157e308]
    path = vtk.write(plane(z, loss_error=-z), tmp_path / "a.vts")
    for name, values in (("loss", z), ("loss_error", -z)):
        stored = array(path, "PointData", name)
        np.testing.assert_array_equal(np.signbit(stored[3:]), np.signbit(values.ravel()[3:]))
        np.testing.assert_array_equal(stored, values.ravel())


@pytest.mark.parametrize("suffix", [".vtp", ".vts"])
def test_the_attributes_are_texts_in_the_field_data(tmp_path: Path, suffix: str) -> None:
    land = plane(losses())
    attributes = {"target": "größe.py:make", "directions": '{"x": {"seed": 3}}', "notes": ""}
    path = vtk.write(Landscape(land.data.assign_attrs(attributes)), tmp_path / f"a{suffix}")
    texts = {}
    for element in root(path).findall("*/FieldData/DataArray"):
        assert (element.get("type"), element.get("NumberOfTuples")) == ("String", "1")
        stored = base64.b64decode(element.text or "")[8:]
        assert stored.endswith(b"\0")
        texts[element.get("Name")] = stored[:-1].decode()
    assert texts == attributes


def test_a_structured_grid_without_holes_hides_nothing(tmp_path: Path) -> None:
    path = vtk.write(plane(losses()), tmp_path / "a.vts")
    assert root(path).findall(".//CellData/DataArray") == []


def test_a_volume_becomes_a_structured_grid_at_its_coordinates(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(2, NY, NX))
    values[1, 2, 3] = np.nan
    z = np.array([0.5, 7.0])
    data = xr.Dataset({"loss": (("z", "y", "x"), values)}, coords={"z": z, "y": Y, "x": X})
    path = vtk.write(Landscape(data), tmp_path / "a.vts")
    grid = root(path).find("StructuredGrid")
    assert grid is not None
    assert grid.get("WholeExtent") == "0 4 0 2 0 1"
    np.testing.assert_array_equal(array(path, "PointData", "loss"), values.ravel())
    expected = [[a, b, c] for c in z for b in Y for a in X]
    assert array(path, "Points", "Points").tolist() == expected


def test_a_name_with_signs_of_xml_comes_back(tmp_path: Path) -> None:
    land = plane(losses(), **{'a<b>&"é"': losses()})
    path = vtk.write(land, tmp_path / "a.vts")
    names = [each.get("Name") for each in root(path).findall(".//PointData/DataArray")]
    assert names == ["loss", 'a<b>&"é"', "zvalue"]


def line() -> Landscape:
    return Landscape(xr.Dataset({"loss": ("x", [1.0, 2.0])}, coords={"x": [0.0, 1.0]}))


def volume() -> Landscape:
    axes = {axis: [0.0, 1.0, 2.0, 3.0] for axis in ("z", "y", "x")}
    return Landscape(xr.Dataset({"loss": (("z", "y", "x"), np.ones((4, 4, 4)))}, coords=axes))


HOLE = np.where(np.eye(4) > 0, np.nan, 1.0)
FOUR = np.arange(4.0)


@pytest.mark.parametrize(
    ("land", "name", "options", "sentence"),
    [
        (plane(losses()), "a.stl", {}, r"ends in '\.stl'; .* \.vtp or \.vts: choose"),
        (plane(losses()), "a.vtp", {"scale": "sqrt"}, "scale='sqrt' is unknown: .* linear, log"),
        (
            plane(losses()),
            "a.vtp",
            {"quantity": "f1"},
            "quantity='f1' is not .*: choose one of loss",
        ),
        (plane(losses()), "a.vtp", {"clip": math.nan}, "clip=nan is not a height"),
        (plane(losses()), "a.vtp", {"resolution": 9}, r"grid of 3 x 5: cubic splines need 4"),
        (plane(losses() * np.nan), "a.vtp", {}, "no value of 'loss' is a finite number"),
        (plane(-losses() - 1), "a.vts", {"scale": "log"}, "a finite number on the log scale"),
        (plane(losses()[:1], y=Y[:1]), "a.vtp", {}, "grid of 1 x 5 points has no cells"),
        (plane(HOLE, x=FOUR, y=FOUR), "a.vtp", {"resolution": 9}, "loss has values that are not"),
        (plane(HOLE * 0 + 1, x=FOUR, y=FOUR), "a.vtp", {"resolution": 1}, "at least 2"),
        (line(), "a.vtp", {}, r"a line has no surface for ParaView: export it as \.csv"),
        (line(), "a.vts", {}, r"a line has no surface for ParaView: export it as \.csv"),
        (volume(), "a.vtp", {}, r"holds a surface, not a volume: choose the ending \.vts"),
        (volume(), "a.vts", {"resolution": 9}, "resolution=9 refines planes only"),
    ],
)
def test_what_cannot_be_written_is_a_sentence_and_leaves_no_file(
    tmp_path: Path, land: Landscape, name: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(FormatError, match=sentence):
        vtk.write(land, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FormatError, match=r"cannot be written .*: choose a folder"):
        vtk.write(plane(losses()), tmp_path / "file" / "a.vtp")
