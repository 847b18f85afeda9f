"""Training paths as values: their files, and the ends of a picture that shows them.

Numbers are put in by hand, so the expected ones are plain arithmetic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from landscope.analysis.path_projection import plane, project
from landscope.analysis.training_path import TrainingPath, spans
from landscope.errors import FormatError, SliceError
from landscope.training.principal_components import pca
from landscope.training.trajectory import Trajectory
from tests import walks

# --- files --------------------------------------------------------------------------------------


def test_a_path_that_is_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    trajectory = Trajectory.open(walks.write(tmp_path / "sgd", walks.rows(4)))
    path = project(trajectory, plane(pca(trajectory)))
    file = path.save(tmp_path / "deeper" / "path.nc")
    again = TrainingPath.load(file)
    assert again.data.identical(path.data)
    assert again.name == "sgd"


def test_files_that_hold_no_path_get_a_sentence(tmp_path: Path) -> None:
    trajectory = Trajectory.open(walks.write(tmp_path / "sgd", walks.rows(4)))
    path = project(trajectory, plane(pca(trajectory)))
    with pytest.raises(FormatError, match=r"saved as a \.nc file"):
        path.save(tmp_path / "path.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="cannot be written"):
        path.save(tmp_path / "file" / "path.nc")
    with pytest.raises(FormatError, match="does not exist"):
        TrainingPath.load(tmp_path / "path.nc")
    (tmp_path / "path.nc").write_text("no")
    with pytest.raises(FormatError, match="cannot be read as a training path"):
        TrainingPath.load(tmp_path / "path.nc")
    with pytest.raises(FormatError, match="there is no x"):
        TrainingPath(path.data.drop_vars("x"))
    with pytest.raises(FormatError, match="x is over"):
        TrainingPath(path.data.rename(checkpoint="time"))


# --- spans --------------------------------------------------------------------------------------


def _path(x: list[float], y: list[float]) -> TrainingPath:
    import xarray as xr

    return TrainingPath(xr.Dataset({"x": ("checkpoint", x), "y": ("checkpoint", y)}))


def test_spans_hold_all_paths_with_a_margin() -> None:
    first, second = _path([0.0, 8.0], [0.0, 1.0]), _path([-2.0, float("nan")], [5.0, 6.0])
    assert spans([first, second], margin=0.1) == [(-3.0, 9.0), (-1.0, 7.0)]
    assert spans(first) == spans([first])


def test_no_axis_is_a_thin_strip() -> None:
    (left, right), (low, high) = spans([_path([0.0, 10.0], [0.0, 0.1])], margin=0.2)
    assert (left, right) == (-2.0, 12.0)
    assert 8.5 < high - low < 10.0
    assert low + high == pytest.approx(0.1, abs=0.2)


def test_a_path_of_one_place_has_a_picture() -> None:
    (left, right), _ = spans([_path([3.0], [4.0])])
    assert left < 3.0 < right


def test_paths_without_a_place_have_no_spans() -> None:
    for given in ([], [_path([float("nan")], [1.0])]):
        with pytest.raises(SliceError, match="expected paths with finite coordinates"):
            spans(given)
    for margin in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SliceError, match=f"margin={margin}"):
            spans([_path([1.0], [1.0])], margin=margin)


def test_a_trajectory_is_no_pca(tmp_path: Path) -> None:
    odd: Any = Trajectory(tmp_path, "run", (), ())
    with pytest.raises(SliceError, match=r"pca is a Trajectory; expected what ls\.directions\.pca"):
        plane(odd)
