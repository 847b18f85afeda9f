"""Files of the 2018 scripts: read exactly, computed again, written in the same layout.

Witnesses: files that the scripts themselves wrote (tests/data/reference), read here with h5py and
nothing else; for made-up files the values are known because they are written here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import landscope as ls
from landscope.errors import FormatError
from landscope.formats import checkpoint, reference_h5
from landscope.params import Params
from landscope.zoo.cifar_networks import build_tiny

FOLDER = Path(__file__).parents[1] / "data" / "reference"
A = FOLDER / "tiny_a"
LINE_DIRECTION = A / "model_10.t7_weights_xignore=biasbn_xnorm=filter.h5"
DIRECTIONS = A / "model_10.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
RECTANGLE = A / f"{DIRECTIONS.name}_[-1.0,1.0,7]x[-1.5,0.5,5].h5"
SQUARE = A / f"{DIRECTIONS.name}_[-1.0,1.0,5]x[-1.0,1.0,5].h5"
PROJECTION = A / f"{DIRECTIONS.name}_proj_lstsq.h5"
STATES_DIRECTION = A / "model_10.t7_states_xnorm=filter_idx=1.h5"
STATES = A / f"{STATES_DIRECTION.name}_[-1.6,1.6,9].h5"
PCA = A / "PCA_weights_save_epoch=1" / "directions.h5"
PCA_PROJECTION = A / "PCA_weights_save_epoch=1" / "directions.h5_proj_cos.h5"


@pytest.fixture(scope="module")
def objective() -> ls.Objective:
    """The network of the reference files over their data, prepared as the scripts did."""
    stored = np.load(FOLDER / "data.npz")
    mean = torch.tensor([125.3, 123.0, 113.9]).div(255)[:, None, None]
    spread = torch.tensor([63.0, 62.1, 66.7]).div(255)[:, None, None]
    images = torch.tensor(stored["train_images"]).permute(0, 3, 1, 2).float() / 255
    labels = torch.tensor(stored["train_labels"]).long()
    return ls.Objective(
        _model(A / "model_10.t7"),
        nn.CrossEntropyLoss(),
        ((images - mean) / spread, labels),
        metrics={"accuracy": ls.losses.accuracy},
        batch_size=128,
    )


def _model(path: Path) -> nn.Module:
    model = build_tiny()
    checkpoint.load(model, path)
    return model.eval()


def _raw(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file if isinstance(file[name], h5py.Dataset)}


def _members(path: Path, group: str) -> list[np.ndarray]:
    with h5py.File(path) as file:
        return [np.asarray(file[group][str(k)]) for k in range(len(file[group]))]


def _layout(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of every dataset, in file order."""
    found: list[tuple[str, tuple[int, ...], str]] = []

    def note(name: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset):
            found.append((name, thing.shape, thing.dtype.str + str(thing.dtype.metadata)))

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def _write(path: Path, **columns: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = values
    return path


def _bits(a: ls.Landscape, b: ls.Landscape) -> bool:
    return a.data.identical(b.data)


# --- surfaces of the scripts, computed again ----------------------------------------------------


@pytest.mark.parametrize(
    ("path", "grid"),
    [
        (RECTANGLE, ls.Grid((7, 5), ((-1.0, 1.0), (-1.5, 0.5)))),
        (SQUARE, ls.Grid(5, (-1.0, 1.0))),
    ],
)
def test_a_surface_of_the_scripts_is_found_again(
    objective: ls.Objective, path: Path, grid: ls.Grid
) -> None:
    dx, dy = reference_h5.read_directions(DIRECTIONS, objective.center)
    land = ls.scan(objective, ls.Plane(objective.center, dx, dy), grid)
    raw = _raw(path)
    rows, columns = len(raw["ycoordinates"]), len(raw["xcoordinates"])
    expected = raw["train_loss"].reshape(rows, columns)
    np.testing.assert_allclose(land.data["loss"], expected, rtol=1e-5)
    np.testing.assert_array_equal(land.data["accuracy"], raw["train_acc"].reshape(rows, columns))
    np.testing.assert_allclose(land.data["x"], raw["xcoordinates"], atol=1e-12)
    np.testing.assert_allclose(land.data["y"], raw["ycoordinates"], atol=1e-12)


def test_the_line_over_states_is_found_again_with_its_two_holes(objective: ls.Objective) -> None:
    (direction,) = reference_h5.read_directions(STATES_DIRECTION, objective.states)
    land = ls.scan(objective, ls.Line(objective.states, direction), ls.Grid(9, (-1.6, 1.6)))
    raw = _raw(STATES)
    np.testing.assert_array_equal(np.isnan(land.data["loss"]), np.isnan(raw["train_loss"]))
    assert int(np.isnan(raw["train_loss"]).sum()) == 2
    np.testing.assert_allclose(land.data["loss"], raw["train_loss"], rtol=1e-5)
    np.testing.assert_array_equal(land.data["accuracy"], raw["train_acc"])


# --- reading ------------------------------------------------------------------------------------


def test_flat_index_k_of_a_surface_belongs_to_x_k_mod_nx_and_y_k_div_nx() -> None:
    land, raw = reference_h5.read_surface(RECTANGLE), _raw(RECTANGLE)
    assert raw["train_loss"].shape == (7, 5)
    assert land.data["loss"].dims == ("y", "x")
    for k, value in enumerate(raw["train_loss"].ravel()):
        here = land.data["loss"].isel(x=k % 7, y=k // 7)
        assert float(here) == value
        assert float(here["x"]) == raw["xcoordinates"][k % 7]
        assert float(here["y"]) == raw["ycoordinates"][k // 7]


def test_a_surface_is_read_with_names_units_and_source() -> None:
    land = reference_h5.read_surface(SQUARE)
    assert set(land.data) == {"loss", "accuracy", "hessian_min", "hessian_max", "convexity"}
    assert land.quantity == "loss"
    assert land.data["accuracy"].attrs["units"] == "%"
    assert "sum over the batches" in land.data["hessian_max"].attrs["long_name"]
    assert land.data.attrs["dir_file"] == f"models/tiny_a/{DIRECTIONS.name}"
    assert land.data.attrs["file"] == SQUARE.name
    np.testing.assert_array_equal(land.data["hessian_min"], _raw(SQUARE)["min_eig"].reshape(5, 5))


def test_test_values_are_read_beside_training_values(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "s.h5", xcoordinates=[0.0, 1.0], train_loss=[1.0, 2.0], train_acc=[50.0, 25.0],
        test_loss=[3.0, 4.0], test_acc=[12.5, 6.25],
    )  # fmt: skip
    land = reference_h5.read_surface(path)
    assert {str(n): v.values.tolist() for n, v in land.data.items()} == {
        "train_loss": [1.0, 2.0], "train_accuracy": [50.0, 25.0],
        "test_loss": [3.0, 4.0], "test_accuracy": [12.5, 6.25],
    }  # fmt: skip
    assert land.quantity == "train_loss"


def test_cells_that_were_not_filled_are_holes_and_true_values_are_kept(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "part.h5", xcoordinates=[0.0, 1.0, 2.0, 3.0],
        train_loss=[0.5, -1.0, -1.0, np.nan], train_acc=[10.0, 20.0, -1.0, 30.0],
        min_eig=[-1.0, 1.0, 1.0, 1.0], max_eig=[2.0, -1.0, 5.0, -1.0],
    )  # fmt: skip
    data = reference_h5.read_surface(path).data
    np.testing.assert_array_equal(data["loss"], [0.5, -1.0, np.nan, np.nan])
    np.testing.assert_array_equal(data["accuracy"], [10.0, 20.0, np.nan, 30.0])
    np.testing.assert_array_equal(data["hessian_min"], [-1.0, np.nan, 1.0, np.nan])
    np.testing.assert_array_equal(data["hessian_max"], [2.0, np.nan, 5.0, np.nan])


@pytest.mark.parametrize(
    ("path", "over", "count"),
    [(LINE_DIRECTION, "center", 1), (DIRECTIONS, "center", 2), (PCA, "center", 2)],
)
def test_directions_over_weights_are_read_in_parameter_order(
    objective: ls.Objective, path: Path, over: str, count: int
) -> None:
    found = reference_h5.read_directions(path, getattr(objective, over))
    names = [name for name, _ in objective.model.named_parameters()]
    assert len(found) == count
    for direction, group in zip(found, ("xdirection", "ydirection"), strict=False):
        assert list(direction) == names
        for tensor, member in zip(direction.values(), _members(path, group), strict=True):
            np.testing.assert_array_equal(tensor.numpy(), member)


def test_directions_over_states_leave_the_integer_counters_out(objective: ls.Objective) -> None:
    (found,) = reference_h5.read_directions(STATES_DIRECTION, objective.states)
    names = list(objective.model.state_dict())
    members = dict(zip(names, _members(STATES_DIRECTION, "xdirection"), strict=True))
    assert set(found) == {n for n in names if not n.endswith("num_batches_tracked")}
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor.numpy(), members[name])


def test_projections_are_read() -> None:
    for path in (PROJECTION, PCA_PROJECTION):
        found, raw = reference_h5.read_projection(path), _raw(path)
        np.testing.assert_array_equal(found.x, raw["proj_xcoord"])
        assert found.y is not None
        np.testing.assert_array_equal(found.y, raw["proj_ycoord"])
        assert found.x.shape == (11,)


def test_a_projection_along_one_direction_has_no_y(tmp_path: Path) -> None:
    found = reference_h5.read_projection(_write(tmp_path / "p.h5", proj_xcoord=[1.0, 2.0]))
    assert found.x.tolist() == [1.0, 2.0]
    assert found.y is None


def test_a_plane_projects_the_checkpoints_as_the_scripts_did(objective: ls.Objective) -> None:
    dx, dy = reference_h5.read_directions(DIRECTIONS, objective.center)
    plane = ls.Plane(objective.center, dx, dy)
    raw = _raw(PROJECTION)
    for epoch in range(11):
        weights = dict(_model(A / f"model_{epoch}.t7").named_parameters())
        (x, y), residual = plane.project({n: weights[n].detach() for n in objective.center})
        assert x == pytest.approx(raw["proj_xcoord"][epoch], rel=1e-4, abs=1e-4)
        assert y == pytest.approx(raw["proj_ycoord"][epoch], rel=1e-4, abs=1e-4)
        assert residual >= 0.0
    assert residual == pytest.approx(0.0, abs=1e-6)


# --- writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [RECTANGLE, SQUARE, STATES])
def test_a_surface_that_is_read_and_written_is_the_same_file(path: Path, tmp_path: Path) -> None:
    copy = reference_h5.write_surface(reference_h5.read_surface(path), tmp_path / path.name)
    assert _layout(copy) == _layout(path)
    before, after = _raw(path), _raw(copy)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    assert _bits(reference_h5.read_surface(copy), reference_h5.read_surface(path))


@pytest.mark.parametrize("path", [LINE_DIRECTION, DIRECTIONS])
def test_directions_that_are_read_and_written_are_the_same_file(
    objective: ls.Objective, path: Path, tmp_path: Path
) -> None:
    found = reference_h5.read_directions(path, objective.center)
    copy = reference_h5.write_directions(found, tmp_path / "deep" / "copy.h5")
    assert _layout(copy) == _layout(path)
    _assert_same(reference_h5.read_directions(copy, objective.center), found)


def test_directions_over_states_are_written_with_their_counters(
    objective: ls.Objective, tmp_path: Path
) -> None:
    found = reference_h5.read_directions(STATES_DIRECTION, objective.states)
    states = objective.model.state_dict()
    copy = reference_h5.write_directions(found, tmp_path / "copy.h5", states=states)
    assert _layout(copy) == _layout(STATES_DIRECTION)
    _assert_same(reference_h5.read_directions(copy, objective.states), found)


def _assert_same(found: list[Params], expected: list[Params]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert list(a) == list(b)
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_direction_alone_need_not_stand_in_a_list(
    objective: ls.Objective, tmp_path: Path
) -> None:
    (found,) = reference_h5.read_directions(LINE_DIRECTION, objective.center)
    copy = reference_h5.write_directions(found, tmp_path / "one.h5")  # type: ignore[arg-type]
    _assert_same(reference_h5.read_directions(copy, objective.center), [found])


def test_shares_are_written_in_percent_and_holes_stay_holes(tmp_path: Path) -> None:
    import xarray as xr

    values = np.array([[0.25, np.nan, 1.0], [0.0, 0.5, 0.75]])
    losses = np.array([[1.0, np.nan, -1.0], [np.inf, 2.0, 3.0]])
    land = ls.Landscape(
        xr.Dataset(
            {"loss": (("y", "x"), losses), "accuracy": (("y", "x"), values)},
            {"x": [0.0, 1.0, 2.0], "y": [5.0, 6.0]},
        )
    )
    path = reference_h5.write_surface(land, tmp_path / "s.h5", dir_file="d.h5")
    raw = _raw(path)
    assert raw["train_loss"].shape == (3, 2)
    np.testing.assert_array_equal(raw["train_loss"].ravel(), losses.ravel())
    np.testing.assert_array_equal(raw["train_acc"].ravel(), 100 * values.ravel())
    assert raw["dir_file"] == b"d.h5"
    again = reference_h5.read_surface(path)
    np.testing.assert_array_equal(again.data["loss"], losses)


def test_training_and_test_values_of_a_scan_are_written(
    objective: ls.Objective, tmp_path: Path
) -> None:
    import xarray as xr

    columns = {n: (("x",), [1.0, 2.0]) for n in ("train_loss", "test_loss", "test_accuracy")}
    land = ls.Landscape(xr.Dataset(columns, {"x": [0.0, 1.0]}))
    raw = _raw(reference_h5.write_surface(land, tmp_path / "s.h5"))
    assert set(raw) == {"dir_file", "xcoordinates", "train_loss", "test_loss", "test_acc"}


# --- what does not fit --------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"gone\.h5 does not exist"):
        reference_h5.read_surface(tmp_path / "gone.h5")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(FormatError, match=r"text\.h5 is not an HDF5 file"):
        reference_h5.read_surface(tmp_path / "text.h5")


def test_each_reader_says_what_a_file_of_another_reader_holds(objective: ls.Objective) -> None:
    with pytest.raises(FormatError, match=r"not a surface: it holds xdirection.*read_directions"):
        reference_h5.read_surface(DIRECTIONS)
    with pytest.raises(FormatError, match=r"no xdirection.*it holds dir_file"):
        reference_h5.read_directions(SQUARE, objective.center)
    with pytest.raises(FormatError, match=r"no proj_xcoord: it holds xdirection"):
        reference_h5.read_projection(DIRECTIONS)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"train_loss": [1.0]}, "train_loss has 1 values; expected 2"),
        ({"train_acc": [1.0, 2.0, 3.0]}, "train_acc has 3 values; expected 2"),
        ({}, "there is no loss; expected 2 values of a loss"),
    ],
)
def test_a_surface_whose_numbers_do_not_fit_is_refused(
    columns: dict[str, Any], text: str, tmp_path: Path
) -> None:
    path = _write(tmp_path / "s.h5", xcoordinates=[0.0, 1.0], **columns)
    with pytest.raises(FormatError, match=text):
        reference_h5.read_surface(path)


def test_directions_of_another_network_or_kind_are_refused(objective: ls.Objective) -> None:
    other = ls.Objective(
        nn.Linear(3, 2), nn.CrossEntropyLoss(), (torch.ones(2, 3), torch.zeros(2).long())
    )
    with pytest.raises(FormatError, match=r"'weight' of shape \(2, 3\)"):
        reference_h5.read_directions(DIRECTIONS, other.center)
    with pytest.raises(FormatError, match=r"objective\.states"):
        reference_h5.read_directions(STATES_DIRECTION, objective.center)
    with pytest.raises(FormatError, match=r"pass objective\.center for a file"):
        reference_h5.read_directions(DIRECTIONS, objective.states)
    fewer = {n: t for n, t in objective.center.items() if not n.startswith("fc")}
    with pytest.raises(FormatError, match=r"has 2 tensors more than the 7 parameters"):
        reference_h5.read_directions(DIRECTIONS, fewer)


def test_none_and_three_directions_are_refused(objective: ls.Objective, tmp_path: Path) -> None:
    for count in (0, 3):
        with pytest.raises(FormatError, match=f"{count} directions are given; .* holds 1 or 2"):
            reference_h5.write_directions([objective.center] * count, tmp_path / "d.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_volume_and_a_surface_without_a_loss_are_refused(tmp_path: Path) -> None:
    import xarray as xr

    axes = {"x": [0.0], "y": [0.0], "z": [0.0]}
    volume = ls.Landscape(xr.Dataset({"loss": (("z", "y", "x"), [[[1.0]]])}, axes))
    with pytest.raises(FormatError, match="3-dimensional"):
        reference_h5.write_surface(volume, tmp_path / "v.h5")
    bare = ls.Landscape(xr.Dataset({"accuracy": (("x",), [1.0])}, {"x": [0.0]}))
    with pytest.raises(FormatError, match="a surface file needs a loss"):
        reference_h5.write_surface(bare, tmp_path / "a.h5")


def test_a_place_that_cannot_be_written_is_named(objective: ls.Objective, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "s.h5"
    with pytest.raises(FormatError, match=r"s\.h5 cannot be written"):
        reference_h5.write_surface(reference_h5.read_surface(SQUARE), place)
    with pytest.raises(FormatError, match=r"s\.h5 cannot be written"):
        reference_h5.write_directions([objective.center], place)
