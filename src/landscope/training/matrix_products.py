"""Products of the rows of a matrix on the disk, and weighted sums of them, in blocks of columns.

Everything is summed in float64, over two halves of the columns, each in a thread of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from landscope.params import Params
from landscope.training.checkpoint_matrix import CheckpointMatrix, ColumnReader, allocate_zeros

_THREADS = 2  # the same on every machine, so that sums are the same, bit for bit
_GRAM_SHARE, _SUM_SHARE = 1.5, 0.4  # size of the buffers of all threads, in rows of the matrix
_MIN_BUFFER = 2**23  # bytes: for the Gram matrix of small networks the buffers may be this large
_MIN_WIDTH = 16  # columns of a block at least, even if they need more memory


def gram_matrix(matrix: CheckpointMatrix, known: np.ndarray) -> np.ndarray:
    """Return the products of all rows relative to the first, shape (n, n).

        G_ij = (x_i - x_0) . (x_j - x_0)

    Args:
        matrix: The rows x_i; only the included columns count.
        known: The products of the first k rows, shape (k, k); they are not computed again.
    """
    size, old = len(matrix), len(known)
    gram = np.zeros((size, size))
    gram[:old, :old] = known
    if old == size:
        return gram
    width = _block_width(max(_GRAM_SHARE * matrix.row_bytes, _MIN_BUFFER), size + 1)

    def sum_products(reader: ColumnReader, begin: int, end: int) -> np.ndarray:
        total, part = (
            allocate_zeros((size - old) * size).reshape(size - old, size) for _ in range(2)
        )
        memory = allocate_zeros(size * width)
        for start, stop in _blocks(begin, end, width):
            block = memory[: size * (stop - start)].reshape(size, stop - start)
            for index, row in enumerate(block):
                reader.read(index, start, stop, row)
            block -= block[0].copy()
            total += np.matmul(block[old:], block.T, out=part)
        return total

    new = np.sum(_run_threads(matrix, matrix.included, width, sum_products), axis=0)
    gram[old:] = new
    gram[:old, old:] = new[:, :old].T
    return gram


def combine_rows(
    matrix: CheckpointMatrix, coefficients: np.ndarray, *, relative: bool
) -> tuple[list[Params], np.ndarray]:
    """Return weighted sums of the rows, and the products of these sums, shape (d, d).

    Args:
        matrix: The rows.
        coefficients: The coefficients of the rows in each sum, shape (d, n).
        relative: Whether the first row is subtracted from all rows; the ignored columns of the
            sums are then zero.

    Returns:
        The sums in the dtype of the rows, at least float32; and their products before rounding.
    """
    count = len(coefficients)
    sums = [_zeros(matrix) for _ in coefficients]
    flat = [{name: t.reshape(-1).numpy() for name, t in params.items()} for params in sums]
    width = _block_width(_SUM_SHARE * matrix.row_bytes, count + 4)

    def sum_rows(reader: ColumnReader, begin: int, end: int) -> np.ndarray:
        products = np.zeros((count, count))
        memory = allocate_zeros((count + 3) * width).reshape(count + 3, width)
        for start, stop in _blocks(begin, end, width):
            memory[:] = 0.0
            first, row, scaled = memory[:3, : stop - start]
            totals = memory[3:, : stop - start]
            if relative:
                reader.read(0, start, stop, first)
            for index, shares in enumerate(coefficients.T):
                reader.read(index, start, stop, row)
                row -= first
                for k, share in enumerate(shares):
                    totals[k] += np.multiply(row, share, out=scaled)
            products += totals @ totals.T
            for name, low, high, offset in matrix.tensor_parts(start, stop):
                for values, total in zip(flat, totals, strict=True):
                    values[name][offset : offset + high - low] = total[low:high]
        return products

    columns = matrix.included if relative else matrix.columns
    return sums, np.sum(_run_threads(matrix, columns, width, sum_rows), axis=0)


def transform_in_place(
    matrix: CheckpointMatrix, sums: Sequence[Params], factor: np.ndarray
) -> None:
    """Replace sums s_k by the combinations sum_l factor[k, l] s_l, factor of shape (d, d)."""
    width = _block_width(_SUM_SHARE * matrix.row_bytes, 3 * len(sums))
    for name in sums[0]:
        flat = [params[name].reshape(-1).numpy() for params in sums]
        for start in range(0, len(flat[0]), width):
            parts = [values[start : start + width] for values in flat]
            transformed = factor @ np.array(parts, np.float64)
            for part, row in zip(parts, transformed, strict=True):
                part[:] = row


def single_threaded_blas() -> contextlib.AbstractContextManager[object]:
    """Let each matrix product use only the thread that calls it, because the blocks are small."""
    from threadpoolctl import threadpool_limits

    limits: contextlib.AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


def _zeros(matrix: CheckpointMatrix) -> Params:
    """Return zeros in the shapes of a row, at least in float32."""
    dtypes = {n: torch.promote_types(d, torch.float32) for n, d in matrix.dtypes.items()}
    zeros = {n: torch.zeros(shape, dtype=dtypes[n]) for n, shape in matrix.shapes.items()}
    return Params(zeros, matrix.checkpoints[0].layouts)


def _run_threads(
    matrix: CheckpointMatrix,
    columns: int,
    width: int,
    work: Callable[[ColumnReader, int, int], np.ndarray],
) -> list[np.ndarray]:
    """Return the results of ``work`` for equal parts of the first columns, in threads."""

    def run(begin: int, end: int) -> np.ndarray:
        with matrix.reader(width) as reader, np.errstate(invalid="ignore", over="ignore"):
            return work(reader, begin, end)

    bounds = [columns * k // _THREADS for k in range(_THREADS + 1)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(run, bounds[:-1], bounds[1:]))


def _blocks(begin: int, end: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the first column of each block, and the column after its last one."""
    for start in range(begin, end, width):
        yield start, min(start + width, end)


def _block_width(memory: float, rows: int) -> int:
    """Return how many columns of ``rows`` rows fit into the memory (bytes) of all threads."""
    return max(_MIN_WIDTH, int(memory / (_THREADS * 8 * rows)))
