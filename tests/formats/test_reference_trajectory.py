"""Trajectories of the 2018 scripts, found again: components, explained variance, projections.

The witness are the files that the scripts themselves wrote (tests/data/reference), read with h5py.
Their PCA is scikit-learn's on float32 rows; ours is a Gram matrix in float64.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import landscope as ls
from landscope.analysis.path_projection import plane, project
from landscope.errors import FormatError
from landscope.formats import reference_h5
from landscope.params import Params
from landscope.training.principal_components import PCA, pca
from landscope.training.trajectory import Trajectory
from tests import walks

A = Path(__file__).parents[1] / "data" / "reference" / "tiny_a"
DIRECTIONS = A / "model_10.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
PROJECTION = A / f"{DIRECTIONS.name}_proj_lstsq.h5"
PRINCIPAL = A / "PCA_weights_save_epoch=1" / "directions.h5"
PRINCIPAL_PROJECTION = A / "PCA_weights_save_epoch=1" / "directions.h5_proj_cos.h5"


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """A copy: the Gram matrix is kept beside checkpoints, and not among the reference files."""
    folder = tmp_path_factory.mktemp("tiny_a")
    for file in A.glob("model_*.t7"):
        shutil.copy(file, folder)
    return Trajectory.open(folder)


@pytest.fixture(scope="module")
def found(trajectory: Trajectory) -> PCA:
    return pca(trajectory)


def _raw(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {n: file[n][()] for n in file if isinstance(file[n], h5py.Dataset)}


def _component(group: str) -> np.ndarray:
    with h5py.File(PRINCIPAL) as file:
        members: Any = file[group]
        return np.concatenate([members[str(k)][()].ravel() for k in range(len(members))])


def test_the_explained_variance_is_found_again(found: PCA) -> None:
    raw = _raw(PRINCIPAL)
    for name in ("explained_variance_ratio", "explained_variance", "singular_values"):
        np.testing.assert_allclose(getattr(found, name), raw[f"{name}_"], rtol=1e-5)
    np.testing.assert_allclose(
        found.explained_variance_ratio, raw["explained_variance_ratio_"], rtol=0, atol=1e-5
    )


def test_the_components_are_found_again_up_to_their_signs(found: PCA) -> None:
    for group, direction in zip(("xdirection", "ydirection"), found.directions, strict=True):
        expected, flat = _component(group), walks.flat(direction)
        np.testing.assert_allclose(flat * np.sign(flat @ expected), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["cos", "lstsq"])
def test_the_projection_on_the_components_is_found_again(
    trajectory: Trajectory, found: PCA, method: Any
) -> None:
    raw = _raw(PRINCIPAL_PROJECTION)
    data = project(trajectory, plane(found), method=method).data
    for dim, direction in zip("xy", found.directions, strict=True):
        expected = raw[f"proj_{dim}coord"]
        sign = np.sign(walks.flat(direction) @ _component(f"{dim}direction"))
        np.testing.assert_allclose(sign * data[dim], expected, rtol=0, atol=1e-4)


def test_cosines_along_the_directions_in_the_file_are_found_again(trajectory: Trajectory) -> None:
    center = trajectory[-1].params()
    where = ls.Plane(center, *reference_h5.read_directions(PRINCIPAL, center))
    data = project(trajectory, where, method="cos").data
    raw = _raw(PRINCIPAL_PROJECTION)
    for dim in "xy":
        np.testing.assert_allclose(data[dim], raw[f"proj_{dim}coord"], rtol=1e-5, atol=1e-6)


def test_least_squares_on_random_directions_are_found_again(trajectory: Trajectory) -> None:
    center = trajectory[-1].params()
    where = ls.Plane(center, *reference_h5.read_directions(DIRECTIONS, center))
    data, raw = project(trajectory, where).data, _raw(PROJECTION)
    for dim in "xy":
        np.testing.assert_allclose(data[dim], raw[f"proj_{dim}coord"], rtol=1e-4, atol=1e-7)
    cosines = project(trajectory, where, method="cos").data
    assert float(cosines["x"][0] / data["x"][0]) > 5  # the known fault of 2018: a length


# --- written in the same layout -----------------------------------------------------------------


def _layout(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    seen: list[tuple[str, tuple[int, ...], str]] = []

    def note(name: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset):
            seen.append((name, thing.shape, thing.dtype.str))

    with h5py.File(path) as file:
        file.visititems(note)
    return seen


def test_components_are_written_as_the_scripts_wrote_them(
    found: PCA, trajectory: Trajectory, tmp_path: Path
) -> None:
    path = reference_h5.write_directions(found.directions, tmp_path / "pca.h5", explained=found)
    assert _layout(path) == _layout(PRINCIPAL)
    explained = reference_h5.read_explained(path)
    np.testing.assert_allclose(explained.explained_variance, found.explained_variance, rtol=1e-7)
    again = reference_h5.read_directions(path, trajectory[-1].params())
    for one, other in zip(again, found.directions, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_what_components_hold_is_read_and_written_the_same(
    trajectory: Trajectory, tmp_path: Path
) -> None:
    explained = reference_h5.read_explained(PRINCIPAL)
    raw = _raw(PRINCIPAL)
    np.testing.assert_array_equal(
        explained.explained_variance_ratio, raw["explained_variance_ratio_"]
    )
    directions = reference_h5.read_directions(PRINCIPAL, trajectory[-1].params())
    path = reference_h5.write_directions(directions, tmp_path / "pca.h5", explained=explained)
    for name, values in raw.items():
        np.testing.assert_array_equal(_raw(path)[name], values)


def test_directions_that_are_no_components_say_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no explained_variance_ratio_"):
        reference_h5.read_explained(DIRECTIONS)
    one = Params({"w": torch.ones(2)})
    path = reference_h5.write_directions([one], tmp_path / "plain.h5")
    with pytest.raises(FormatError, match="not principal components"):
        reference_h5.read_explained(path)


def test_projections_are_written_as_the_scripts_wrote_them(tmp_path: Path) -> None:
    known = reference_h5.read_projection(PRINCIPAL_PROJECTION)
    path = reference_h5.write_projection(known.x, known.y, tmp_path / "proj.h5")
    assert _layout(path) == _layout(PRINCIPAL_PROJECTION)
    for name, values in _raw(PRINCIPAL_PROJECTION).items():
        np.testing.assert_array_equal(_raw(path)[name], values)
    alone = reference_h5.write_projection([1.0, 2.0], None, tmp_path / "line.h5")
    assert set(_raw(alone)) == {"proj_xcoord"}


def test_coordinates_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for x, y in (([1.0], [1.0, 2.0]), (np.ones((2, 2)), None)):
        with pytest.raises(FormatError, match="one number per checkpoint"):
            reference_h5.write_projection(x, y, tmp_path / "proj.h5")
