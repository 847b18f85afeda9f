"""The matrix of the weights of many checkpoints, read in blocks of columns.

The witness is a matrix that NumPy stacked from the tensors that were written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscope.errors import FormatError, ParamsError
from landscope.training import checkpoint_matrix as matrix_
from landscope.training.checkpoint_matrix import CheckpointMatrix, open_matrix
from landscope.training.trajectory import Trajectory
from tests import walks


def _read(matrix: CheckpointMatrix, width: int, *, end: int | None = None) -> np.ndarray:
    """The whole matrix, read in blocks of columns."""
    parts = []
    with matrix.reader(width) as reader:
        for first in range(0, matrix.columns if end is None else end, width):
            last = min(first + width, matrix.columns)
            block = np.full((len(matrix), last - first), np.nan)
            for index, row in enumerate(block):
                reader.read(index, first, last, row)
            parts.append(block)
    return np.concatenate(parts, axis=1)


def _order(matrix: CheckpointMatrix) -> list[str]:
    return sorted(matrix.starts, key=matrix.starts.__getitem__)


@pytest.mark.parametrize("width", [1, 7, 64, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_matrix_are_what_was_written(tmp_path: Path, width: int, dtype: torch.dtype) -> None:
    rows = walks.rows(4, dtype=dtype)
    trajectory = Trajectory.open(walks.write(tmp_path, rows))
    with open_matrix(trajectory.checkpoints) as matrix:
        expected = walks.matrix(rows, _order(matrix))
        np.testing.assert_array_equal(_read(matrix, width), expected)
        assert (matrix.included, matrix.columns) == (103, 103)
        assert matrix.row_bytes == 103 * dtype.itemsize


def test_vectors_that_are_ignored_stand_behind_the_matrix_that_move(tmp_path: Path) -> None:
    rows = walks.rows(4)
    trajectory = Trajectory.open(walks.write(tmp_path, rows))
    with open_matrix(trajectory.checkpoints, "biasbn") as matrix:
        order = _order(matrix)
        assert order[:2] == ["a.weight", "b.weight"]  # as in the file, which safetensors sorts
        assert set(order[2:]) == set(walks.VECTORS)
        assert matrix.included == 95
        np.testing.assert_array_equal(_read(matrix, 50), walks.matrix(rows, order))


def test_tensor_parts_tell_which_tensor_a_column_belongs_to(tmp_path: Path) -> None:
    rows = walks.rows(1)
    trajectory = Trajectory.open(walks.write(tmp_path, rows))
    with open_matrix(trajectory.checkpoints) as matrix:
        row = _read(matrix, 1000)[0]
        for first, last in ((0, 103), (30, 80), (5, 6)):
            seen = 0
            for name, low, high, start in matrix.tensor_parts(first, last):
                part = rows[0][name].flatten()[start : start + high - low].numpy()
                np.testing.assert_array_equal(row[first:last][low:high], part)
                seen += high - low
            assert seen == last - first


def test_files_may_differ_in_layout_and_in_dtype(tmp_path: Path) -> None:
    rows = walks.rows(3, dtype=torch.float32)
    rows[1] = {name: rows[1][name].half() for name in reversed(rows[1])}
    rows[2]["a.weight"] = rows[2]["a.weight"].double()  # stands first in the file then
    walks.write(tmp_path, rows, buffers=[{}, {"a": torch.ones(3)}, {}])
    about = Trajectory.open(tmp_path, like=rows[0])
    with open_matrix(about.checkpoints) as matrix:
        np.testing.assert_array_equal(_read(matrix, 9), walks.matrix(rows, _order(matrix)))


def test_old_files_are_loaded_once_each_and_their_copy_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    rows = walks.rows(3)
    for k, row in enumerate(rows):
        torch.save(row, tmp_path / f"model_{k}.t7")
    loads: list[Path] = []
    load = torch.load

    def counting(path: Path, **options: Any) -> Any:
        loads.append(path)
        return load(path, **options)

    monkeypatch.setattr(torch, "load", counting)
    with open_matrix(Trajectory.open(tmp_path).checkpoints, "biasbn") as matrix:
        np.testing.assert_array_equal(_read(matrix, 20), walks.matrix(rows, _order(matrix)))
        assert len(list((tmp_path / "temporary").iterdir())) == 1
    assert len(loads) == 3
    assert list((tmp_path / "temporary").iterdir()) == []


def test_no_more_than_a_hundred_files_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_, "_MAX_OPEN", 4)
    rows = walks.rows(9, shapes={"w": (3, 3)})
    trajectory = Trajectory.open(walks.write(tmp_path, rows))
    with open_matrix(trajectory.checkpoints) as matrix, matrix.reader(2) as reader:
        out = np.empty(2)
        for first in (0, 2, 4):
            for index, row in enumerate(rows):
                reader.read(index, first, first + 2, out)
                np.testing.assert_array_equal(out, walks.flat(row)[first : first + 2])
            held = {p.readlink() for p in Path("/proc/self/fd").iterdir() if p.is_symlink()}
            assert sum(path.parent == tmp_path for path in held) == 4
    held = {p.readlink() for p in Path("/proc/self/fd").iterdir() if p.is_symlink()}
    assert not any(path.parent == tmp_path for path in held)


def test_checkpoints_of_two_networks_are_told_apart(tmp_path: Path) -> None:
    rows = walks.rows(3)
    rows[2]["a.weight"] = torch.zeros(5, 7)
    shaped = Trajectory.open(walks.write(tmp_path / "shaped", rows))
    text = r"'a.weight' has the shape \(5, 7\) in .*000000002.* and \(7, 5\) in .*000000000"
    with pytest.raises(ParamsError, match=text), open_matrix(shaped.checkpoints):
        pass
    rows[2] = {"b.weight": rows[0]["b.weight"]}
    named = Trajectory.open(walks.write(tmp_path / "named", rows))
    with pytest.raises(ParamsError, match="none"), open_matrix(named.checkpoints):
        pass


def test_a_file_that_gets_shorter_while_it_is_read_is_named(tmp_path: Path) -> None:
    trajectory = Trajectory.open(walks.write(tmp_path, walks.rows(2)))
    with open_matrix(trajectory.checkpoints) as matrix, matrix.reader(103) as reader:
        file = trajectory[1].path
        file.write_bytes(file.read_bytes()[:-16])
        with pytest.raises(FormatError, match=r"000000001.*cannot be read any more"):
            reader.read(1, 0, 103, np.empty(103))
