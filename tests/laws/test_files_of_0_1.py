"""Files that version 0.1 wrote are read for good: recorded folders, training paths, landscapes.

The files in ``tests/data/landscope_0_1`` were written by landscope 0.1.0: Adam on 24 samples was
stopped after the third of four epochs, its path was put on the plane of its principal components,
and that plane was scanned. The expected numbers are read with safetensors and h5py alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import landscope as ls
from landscope.training.loop import train
from landscope.training.optimizers import Course

DATA = Path(__file__).parents[1] / "data" / "landscope_0_1"
COURSE = Course("adam", learning_rate=0.05, batch_size=8, epochs=4, seed=3)


def _exact(*shape: int, step: int) -> Tensor:
    """Numbers that are the same on every machine."""
    return ((torch.arange(torch.Size(shape).numel()) * step) % 17).reshape(shape).float() / 8 - 1


@pytest.fixture
def objective() -> ls.Objective:
    """The objective that was trained, with the initial weights."""
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).eval()
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            parameter.copy_(_exact(*parameter.shape, step=k + 5))
    data = _exact(24, 4, step=7), torch.arange(24) % 3
    return ls.Objective(model, nn.CrossEntropyLoss(), data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the recorded folder, to write into."""
    return Path(shutil.copytree(DATA / "adam", tmp_path / "adam"))


def _variables(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        names = [name for name in file if file[name].attrs.get("units") is not None]
        return {name: np.asarray(file[name]) for name in names}


def _same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def test_checkpoints_are_read_with_what_was_recorded_of_them() -> None:
    trajectory = ls.Trajectory.open(DATA / "adam")
    assert [checkpoint.step for checkpoint in trajectory] == [0, 3, 6, 9]
    assert trajectory.drops == [2, 3]
    for checkpoint in trajectory:
        with safe_open(checkpoint.path, "pt") as file:
            about = json.loads(file.metadata()["landscope"])
        assert (checkpoint.epoch, checkpoint.learning_rate) == (
            about["epoch"], about["learning_rate"],
        )  # fmt: skip
        assert dict(checkpoint.values) == about["values"]
        written = load_file(checkpoint.path)
        _same(checkpoint.states(), written)
        _same(checkpoint.params(), {name: written[name] for name in about["parameters"]})
        assert [name for name, known in checkpoint.layouts.items() if known.vector] == about[
            "vectors"
        ]


def test_a_recorder_goes_on_in_a_folder(folder: Path, objective: ls.Objective) -> None:
    with ls.Recorder(folder) as recorder:
        assert recorder(objective.model, step=12, epoch=4.0)
    assert [checkpoint.step for checkpoint in ls.Trajectory.open(folder)] == [0, 3, 6, 9, 12]


def test_a_training_that_was_stopped_is_resumed(
    folder: Path, objective: ls.Objective, tmp_path: Path
) -> None:
    resumed = train(objective, COURSE, record=folder)
    anew = train(objective, COURSE, record=tmp_path / "anew")
    assert len(resumed.history) == 5
    for name, tensor in anew.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)
    for step in (0, 3, 6, 9):
        name = f"{step:09d}.safetensors"
        assert (folder / name).read_bytes() == (DATA / "adam" / name).read_bytes()


def test_a_training_path_is_read_and_measured_again_it_is_the_same(
    folder: Path, objective: ls.Objective
) -> None:
    path = ls.paths.TrainingPath.load(DATA / "path.nc")
    written = _variables(DATA / "path.nc")
    assert path.name == "adam"
    assert {"x", "y", "distance", "learning_rate", "loss", "projected_loss"} <= written.keys()
    assert set(path.data) == written.keys()
    trajectory = ls.Trajectory.open(folder)
    plane = ls.paths.plane(ls.directions.pca(trajectory), objective)
    again = ls.paths.project(trajectory, plane, objective)
    for name, values in written.items():
        np.testing.assert_array_equal(path.data[name], values)
        np.testing.assert_allclose(again.data[name], values, rtol=1e-4, atol=1e-6)


def test_a_path_that_is_saved_again_has_the_layout_of_the_file(tmp_path: Path) -> None:
    path = ls.paths.TrainingPath.load(DATA / "path.nc")
    with h5py.File(DATA / "path.nc") as old, h5py.File(path.save(tmp_path / "path.nc")) as new:
        assert list(old) == list(new)
        for name in old:
            assert (old[name].dtype, old[name].shape) == (new[name].dtype, new[name].shape)
            assert {*old[name].attrs} == {*new[name].attrs}
        assert {*old.attrs} - {"_NCProperties"} == {*new.attrs}  # the version of a library


def test_a_landscape_is_read_to_the_last_bit() -> None:
    land = ls.load(DATA / "landscape.nc")
    written = _variables(DATA / "landscape.nc")
    assert land.dims == ("y", "x")
    assert {str(name) for name in land.data.variables} == written.keys()
    for name, values in written.items():
        np.testing.assert_array_equal(land.data[name], values)
