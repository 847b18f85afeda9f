"""Principal components: a streamed Gram matrix against a full decomposition.

Witnesses: NumPy's singular value decomposition of the stacked matrix in float64, which is never
multiplied with itself, and scikit-learn's PCA; for several runs the least-squares plane, found by
NumPy; memory is told by the operating system, in a fresh process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as Sklearn  # noqa: N811 - the witness, by its library's name

from landscope import tensorfile
from landscope.errors import DirectionError, FormatError, ParamsError
from landscope.slices.normalization import Ignore
from landscope.training import gram_cache, matrix_products, trajectory
from landscope.training.checkpoint_matrix import ColumnReader
from landscope.training.principal_components import PCA, pca
from landscope.training.trajectory import Trajectory
from tests import walks

NAMES = list(walks.SHAPES)
Rows = list[walks.Row]


def _walk(tmp_path: Path, rows: Rows, name: str = "run") -> Trajectory:
    return Trajectory.open(walks.write(tmp_path / name, rows))


def _svd(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centered = matrix - matrix.mean(axis=0)
    _, values, vectors = np.linalg.svd(centered, full_matrices=False)
    return values, vectors


def _assert_is_svd(found: PCA, matrix: np.ndarray, *, within: float = 1e-8) -> None:
    values, vectors = _svd(matrix)
    count, degrees = len(found.directions), len(matrix) - 1
    np.testing.assert_allclose(found.singular_values, values[:count], rtol=within)
    np.testing.assert_allclose(found.explained_variance, values[:count] ** 2 / degrees, rtol=within)
    ratio = values[:count] ** 2 / (values**2).sum()
    np.testing.assert_allclose(found.explained_variance_ratio, ratio, rtol=within)
    assert found.total_variance == pytest.approx((values**2).sum() / degrees, rel=within)
    for direction, vector in zip(found.directions, vectors, strict=False):
        flat = walks.flat(direction, NAMES)
        np.testing.assert_allclose(flat * np.sign(flat @ vector), vector, rtol=0, atol=within)


# --- equal to a full decomposition --------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_components_are_those_of_a_full_decomposition(tmp_path: Path, count: int) -> None:
    rows = walks.rows(12)
    found = pca(_walk(tmp_path, rows), count)
    _assert_is_svd(found, walks.matrix(rows))
    products = [[walks.flat(a) @ walks.flat(b) for a in found.directions] for b in found.directions]
    np.testing.assert_allclose(products, np.eye(count), atol=1e-14)


def test_variances_are_those_of_scikit_learn(tmp_path: Path) -> None:
    rows = walks.rows(12)
    found, expected = pca(_walk(tmp_path, rows), 3), Sklearn(3, svd_solver="full")
    expected.fit(walks.matrix(rows))
    for name in ("explained_variance_ratio", "explained_variance", "singular_values"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, f"{name}_"), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_short_numbers_lose_nothing_but_the_rounding_of_the_result(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    rows = walks.rows(12, dtype=dtype)
    found = pca(_walk(tmp_path, rows), 2)
    values, vectors = _svd(walks.matrix(rows))
    np.testing.assert_allclose(found.singular_values, values[:2], rtol=1e-10)
    for direction, vector in zip(found.directions, vectors, strict=False):
        assert {tensor.dtype for tensor in direction.values()} == {torch.float32}
        flat = walks.flat(direction)
        np.testing.assert_allclose(flat * np.sign(flat @ vector), vector, atol=1e-7)
    assert {tensor.dtype for tensor in found.center.values()} == {torch.float32}
    np.testing.assert_array_equal(walks.flat(found.center), walks.flat(rows[-1]))


def test_a_faint_component_beside_a_strong_one_has_its_digits(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    basis = np.linalg.qr(draws.standard_normal((103, 4)))[0].T
    places = np.linalg.qr(draws.standard_normal((20, 4)))[0]
    matrix = (places * [1.0, 1e-2, 1e-3, 1e-4]) @ basis
    sizes = np.cumsum([int(np.prod(shape)) for shape in walks.SHAPES.values()])[:-1]
    rows = [
        {
            name: torch.from_numpy(part.copy()).reshape(shape)
            for (name, shape), part in zip(walks.SHAPES.items(), np.split(row, sizes), strict=True)
        }
        for row in matrix
    ]
    _assert_is_svd(pca(_walk(tmp_path, rows), 3), matrix)  # 1e-6 of the first variance


def test_large_weights_that_move_a_little_lose_no_digits(tmp_path: Path) -> None:
    rows = [{n: 1e4 + tensor for n, tensor in row.items()} for row in walks.rows(12)]
    _assert_is_svd(pca(_walk(tmp_path, rows), 3), walks.matrix(rows))


@pytest.mark.parametrize("least", [1, 3, 50])
def test_the_width_of_the_blocks_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr(matrix_products, "_MIN_WIDTH", least)
    monkeypatch.setattr(matrix_products, "_GRAM_SHARE", 0.0)
    monkeypatch.setattr(matrix_products, "_MIN_BUFFER", 0)
    monkeypatch.setattr(matrix_products, "_SUM_SHARE", 0.0)
    rows = walks.rows(12)
    _assert_is_svd(pca(_walk(tmp_path, rows), 2), walks.matrix(rows))


def test_two_calls_give_the_same_bits(tmp_path: Path) -> None:
    rows = walks.rows(12, dtype=torch.float32)
    first, second = (pca(_walk(tmp_path, rows, name)) for name in ("a", "b"))
    for one, other in zip(first.directions, second.directions, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in NAMES)


def test_a_folder_of_old_files_gives_the_same(tmp_path: Path) -> None:
    rows = walks.rows(12)
    for k, row in enumerate(rows):
        torch.save({"epoch": k, "state_dict": row}, tmp_path / f"model_{k}.t7")
    _assert_is_svd(pca(Trajectory.open(tmp_path), 2), walks.matrix(rows))


# --- center, signs, labels ----------------------------------------------------------------------


def test_the_center_is_the_last_checkpoint_and_paths_run_to_the_right_and_up(
    tmp_path: Path,
) -> None:
    for seed in range(4):
        rows = walks.rows(12, seed=seed)
        found = pca(_walk(tmp_path, rows, f"run{seed}"))
        np.testing.assert_array_equal(walks.flat(found.center), walks.flat(rows[-1]))
        offset = walks.matrix(rows) - walks.flat(rows[-1])
        x, y = (offset @ walks.flat(direction) for direction in found.directions)
        assert x[0] < 0
        assert y[np.abs(y).argmax()] > 0


def test_labels_tell_the_explained_variance(tmp_path: Path) -> None:
    rows = walks.rows(12)
    found = pca(_walk(tmp_path, rows, "adam"))
    shares = _svd(walks.matrix(rows))[0] ** 2
    shares = 100 * shares / shares.sum()
    assert found.labels == (
        f"PC 1 ({shares[0]:.1f}% of the variation)",
        f"PC 2 ({shares[1]:.1f}% of the variation)",
    )
    assert (found.names, found.checkpoints, found.ignore) == (("adam",), 12, None)


def test_vectors_are_left_out_when_asked(tmp_path: Path) -> None:
    rows = walks.rows(12)
    found = pca(_walk(tmp_path, rows), 2, ignore="biasbn")
    values, vectors = _svd(walks.matrix(rows, ["b.weight", "a.weight"]))
    np.testing.assert_allclose(found.singular_values, values[:2], rtol=1e-10)
    ratio = values[:2] ** 2 / (values**2).sum()
    np.testing.assert_allclose(found.explained_variance_ratio, ratio, rtol=1e-10)
    for direction, vector in zip(found.directions, vectors, strict=False):
        flat = walks.flat(direction, ["b.weight", "a.weight"])
        np.testing.assert_allclose(flat * np.sign(flat @ vector), vector, atol=1e-10)
        assert not walks.flat(direction, walks.VECTORS).any()
    np.testing.assert_array_equal(walks.flat(found.center), walks.flat(rows[-1]))


# --- several runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore", [None, "biasbn"])
def test_several_runs_share_the_plane_that_is_nearest_to_all(
    tmp_path: Path, ignore: Ignore | None
) -> None:
    both = walks.rows(9, seed=1), walks.rows(6, seed=2)
    runs = [_walk(tmp_path, rows, name) for rows, name in zip(both, "ab", strict=True)]
    found = pca(runs, 2, ignore=ignore)
    matrix = walks.matrix([*both[0], *both[1]])
    np.testing.assert_allclose(walks.flat(found.center), matrix.mean(axis=0), rtol=0, atol=1e-14)
    assert (found.names, found.checkpoints) == (("a", "b"), 15)
    if ignore is None:
        _assert_is_svd(found, matrix)
        basis = np.stack([walks.flat(d) for d in found.directions])
        off = matrix - walks.flat(found.center)
        off = off - off @ basis.T @ basis
        assert (off**2).sum() == pytest.approx((_svd(matrix)[0][2:] ** 2).sum(), rel=1e-10)
    else:
        moving = walks.matrix([*both[0], *both[1]], ["b.weight", "a.weight"])
        np.testing.assert_allclose(found.singular_values, _svd(moving)[0][:2], rtol=1e-10)


def test_several_paths_run_to_the_right_together(tmp_path: Path) -> None:
    for seed in range(6):
        both = [walks.rows(8, seed=seed), walks.rows(8, seed=seed + 50)]
        runs = [_walk(tmp_path, rows, f"{seed}-{k}") for k, rows in enumerate(both)]
        right = walks.flat(pca(runs).directions[0])
        moved = sum(walks.flat(rows[-1]) - walks.flat(rows[0]) for rows in both)
        assert moved @ right > 0


# --- incremental --------------------------------------------------------------------------------


def _count_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows of products were made: the first axis of each product of blocks."""
    made: list[int] = []
    multiply = np.matmul

    def counting(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        made.append(len(a))
        return multiply(a, b, out=out)

    monkeypatch.setattr(np, "matmul", counting)
    return made


def test_after_more_training_only_new_rows_are_multiplied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _count_blocks(monkeypatch)
    rows = walks.rows(14)
    pca(_walk(tmp_path, rows[:9]))
    assert set(made) == {9}
    made.clear()
    walks.write(tmp_path / "run", rows[9:], first=9)
    grown = pca(Trajectory.open(tmp_path / "run"), 3)
    assert set(made) == {5}
    _assert_is_svd(grown, walks.matrix(rows))
    made.clear()
    again = pca(Trajectory.open(tmp_path / "run"), 3)
    assert made == []
    _assert_is_svd(again, walks.matrix(rows))


def test_checkpoints_that_changed_or_went_are_not_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = walks.rows(10)
    pca(_walk(tmp_path, rows))
    made = _count_blocks(monkeypatch)
    rows[4] = {name: tensor + 1.0 for name, tensor in rows[4].items()}
    walks.write(tmp_path / "run", rows[4:5], first=4)
    (tmp_path / "run" / "000000006.safetensors").unlink()
    left = rows[:6] + rows[7:]
    _assert_is_svd(pca(Trajectory.open(tmp_path / "run")), walks.matrix(left))
    assert set(made) == {1}
    (tmp_path / "run" / "000000000.safetensors").unlink()  # all others were told from it
    _assert_is_svd(pca(Trajectory.open(tmp_path / "run")), walks.matrix(left[1:]))
    assert set(made) == {1, 8}


def test_what_is_ignored_and_which_runs_are_beside_have_a_cache_of_their_own(
    tmp_path: Path,
) -> None:
    first, second = walks.rows(8, seed=1), walks.rows(8, seed=2)
    a, b = _walk(tmp_path, first, "a"), _walk(tmp_path, second, "b")
    for _ in range(2):
        _assert_is_svd(pca(a), walks.matrix(first))
        _assert_is_svd(pca([a, b]), walks.matrix(first + second))
        values = _svd(walks.matrix(first, ["b.weight", "a.weight"]))[0]
        found = pca(a, ignore="biasbn").singular_values
        np.testing.assert_allclose(found, values[:2], rtol=1e-10)
    assert len(list((tmp_path / "a").glob(".gram-*.npz"))) == 3


def test_a_damaged_cache_and_a_folder_that_cannot_be_written_are_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = walks.rows(8)
    walk = _walk(tmp_path, rows)
    pca(walk)
    (cache,) = walk.folder.glob(".gram-*")
    for damaged in (b"", b"PK\x03\x04 no", cache.read_bytes()[:200]):
        cache.write_bytes(damaged)
        _assert_is_svd(pca(walk), walks.matrix(rows))
    cache.unlink()

    def refused(path: Path) -> object:
        raise PermissionError(path)

    monkeypatch.setattr(gram_cache, "write_atomically", refused)
    _assert_is_svd(pca(walk), walks.matrix(rows))
    assert not list(walk.folder.glob(".gram-*"))


# --- wrong questions ----------------------------------------------------------------------------


def test_wrong_counts_and_words_get_a_sentence(tmp_path: Path) -> None:
    walk = _walk(tmp_path, walks.rows(3))
    with pytest.raises(DirectionError, match="count=3 components need 4 checkpoints"):
        pca(walk, 3)
    with pytest.raises(DirectionError, match="count=0"):
        pca(walk, 0)
    with pytest.raises(DirectionError, match="there are 0"):
        pca([])
    with pytest.raises(DirectionError, match="ignore='bias'"):
        pca(walk, ignore="bias")  # type: ignore[arg-type]  # that is what is wrong
    for folder in (tmp_path, str(tmp_path), [tmp_path]):
        with pytest.raises(DirectionError, match=r"expected ls\.Trajectory\.open"):
            pca(folder)  # type: ignore[arg-type]  # that is what is wrong


def test_paths_that_are_points_or_lines_get_a_sentence(tmp_path: Path) -> None:
    row = walks.rows(1)[0]
    with pytest.raises(DirectionError, match="the 5 checkpoints are equal"):
        pca(_walk(tmp_path, [row] * 5, "point"))
    line = [{name: tensor + float(k) for name, tensor in row.items()} for k in range(5)]
    with pytest.raises(DirectionError, match="vary along 1 directions only: ask for count=1"):
        pca(_walk(tmp_path, line, "line"))
    assert pca(_walk(tmp_path, line, "line"), 1).explained_variance_ratio == pytest.approx([1.0])


@pytest.mark.parametrize("index", [0, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_that_is_not_finite_is_named(tmp_path: Path, index: int, value: float) -> None:
    rows = walks.rows(5)
    rows[index]["a.weight"][0, 0] = value
    walk = _walk(tmp_path, rows)
    with pytest.raises(DirectionError, match=f"00000000{index}.safetensors holds weights that"):
        pca(walk)
    assert not list(walk.folder.glob(".gram-*"))


def test_a_network_of_vectors_has_no_directions_without_them(tmp_path: Path) -> None:
    rows = walks.rows(4, shapes={"a.bias": (4,)})
    with pytest.raises(DirectionError, match="leaves no weights"):
        pca(_walk(tmp_path, rows), ignore="biasbn")


def test_runs_of_two_networks_and_files_that_went_get_a_sentence(tmp_path: Path) -> None:
    a, b = _walk(tmp_path, walks.rows(3), "a"), walks.rows(3, shapes={"a.weight": (2, 2)})
    with pytest.raises(ParamsError, match="of one network"):
        pca([a, _walk(tmp_path, b, "b")])
    a[1].path.unlink()
    with pytest.raises(FormatError, match="is gone"):
        pca(a)


# --- memory -------------------------------------------------------------------------------------

_PROGRAM = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from landscope.training.matrix_products import single_threaded_blas
from landscope.training.principal_components import pca
from landscope.training.trajectory import Trajectory

def told(what):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])

pca(Trajectory.open(sys.argv[1]))  # libraries, and their buffers
block = np.ones((50, 2000))
with single_threaded_blas(), ThreadPoolExecutor(2) as pool:
    list(pool.map(lambda _: block @ block.T, range(4)))
del block
walk = Trajectory.open(sys.argv[2])
before = told("VmRSS")
found = pca(walk)
print(told("VmHWM") - before, len(found.directions))
"""


def test_memory_stays_below_four_checkpoints_whatever_their_number(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    walks.write(small, walks.rows(50, shapes={"w": (20, 20)}, dtype=torch.float32))
    tensor = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0))  # 4 MB
    rows = walks.rows(50, shapes={"w": (5,)}, dtype=torch.float32)
    for k, row in enumerate(rows):
        tensor[:, :5] += row["w"]
        tensor[k] += 0.01
        walks.write(large, [{"w": tensor}], first=k, vectors=())
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, small, large],
        capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    grown, count = json.loads("[" + done.stdout.replace(" ", ",") + "]")
    assert count == 2
    assert grown * 1024 < 4 * tensor.nbytes, f"{grown * 1024 / tensor.nbytes:.2f} checkpoints"


def test_no_checkpoint_is_loaded_whole_but_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = walks.rows(6)
    walk = _walk(tmp_path, rows)
    widths: list[int] = []
    read_block = ColumnReader.read

    def watched(self: ColumnReader, index: int, first: int, last: int, out: np.ndarray) -> None:
        widths.append(last - first)
        read_block(self, index, first, last, out)

    monkeypatch.setattr(ColumnReader, "read", watched)
    monkeypatch.setattr(matrix_products, "_MIN_WIDTH", 1)
    monkeypatch.setattr(matrix_products, "_MIN_BUFFER", 0)
    loads: list[Path] = []
    read = tensorfile.read_tensors

    def noted(path: Path, entries: dict[str, tensorfile.Entry]) -> dict[str, torch.Tensor]:
        loads.append(path)
        return read(path, entries)

    monkeypatch.setattr(trajectory, "read_tensors", noted)
    pca(walk)
    assert loads == [walk[-1].path]
    assert max(widths) <= 1.5 * 103 / 2 / 7  # the share of a checkpoint, of a thread, of a row
