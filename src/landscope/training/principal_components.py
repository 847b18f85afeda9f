"""Principal components of the path that training took, without ever holding it in memory.

With the checkpoints as the rows of X, centered, the eigenvectors of the Gram matrix X Xᵀ [n, n] are
the left singular vectors of X, and Xᵀ u / sigma the components. Both products are summed over
ranges of columns in float64, which are read from the files as they are needed.

Source: Li, Xu, Taylor, Studer, Goldstein, NeurIPS 2018, arXiv 1712.09913, section 7; Gallagher and
Downs, *Visualization of learning in multilayer perceptron networks using principal component
analysis*, IEEE Trans. SMC B 33 (2003); Lorch, *Visualizing deep network training trajectories with
PCA*, ICML workshop 2016.
"""

from __future__ import annotations

import contextlib
import itertools
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, final, get_args

import numpy as np
import torch

from landscope import fingerprint
from landscope.errors import DirectionError
from landscope.files import whole
from landscope.params import Params, like
from landscope.training import matrix as columns_
from landscope.training.matrix import Columns, Reader, room
from landscope.training.trajectory import Checkpoint, Trajectory

Ignore = Literal["biasbn"]

_HANDS = 2  # threads, always as many: sums are the same, bit for bit, on machines of any size
_GRAM_SHARE, _RESULT_SHARE = 1.5, 0.4  # checkpoints' worth that buffers of all threads take
_LITTLE = 2**23  # bytes that they may take in any case, for the Gram matrix of small networks
_LEAST = 16  # columns at a time, where there are more checkpoints than memory for them
_ROUNDING = 1e-14  # of a Gram matrix, relative to its trace, and for each checkpoint


@final
@dataclass(frozen=True, eq=False)
class PCA:
    """Principal components of checkpoints, as directions, and how much of the path they hold.

    Args:
        center: the last checkpoint; of several trajectories the mean of all checkpoints, through
            which the least-squares plane goes.
        directions: orthonormal, with the names of the center; by falling variance.
        explained_variance_ratio: shape (d,), shares of the total variance.
        explained_variance: shape (d,), sigma^2 / (n - 1) about the mean, as scikit-learn has it.
        singular_values: shape (d,), of the centered checkpoints.
        total_variance: of all weights that were not ignored.
        checkpoints: n, of all trajectories.
        names: of the trajectories.
        ignore: what was held still.
    """

    center: Params
    directions: list[Params]
    explained_variance_ratio: np.ndarray
    explained_variance: np.ndarray
    singular_values: np.ndarray
    total_variance: float
    checkpoints: int
    names: tuple[str, ...]
    ignore: Ignore | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What axes along the directions show: ``ls.Plane(..., labels=pca.labels)``."""
        return labels(self.explained_variance_ratio)


def labels(shares: Sequence[float] | np.ndarray) -> tuple[str, ...]:
    """Return the labels of axes along principal components, from their shares of the variation."""
    return tuple(
        f"PC {k} ({100 * float(share):.1f}% of the variation)" for k, share in enumerate(shares, 1)
    )


def pca(
    trajectory: Trajectory | Sequence[Trajectory],
    count: int = 2,
    *,
    ignore: Ignore | None = None,
) -> PCA:
    """Return the principal components of a trajectory, or of several in one basis.

    The components v_k are those of the singular value decomposition X = U S Vᵀ, where the rows of
    X are all checkpoints less their mean. Their signs are chosen so that paths run from left to
    right (all together, from their starts to their ends) along the first, and bend upwards along
    the others: there the checkpoint that is farthest from the center has a positive coordinate.

    Args:
        trajectory: one, or several of the same network.
        count: how many components.
        ignore: "biasbn" leaves biases, batch norm and all other vectors out: they are zero in the
            directions, and do not count as variation.

    Returns:
        Directions in the dtype of the checkpoints, at least float32.

    Raises:
        DirectionError: when there are fewer than count + 1 checkpoints, or they vary along fewer
            directions, or their weights are not finite; for an unknown ``ignore``, and for what is
            no trajectory.
        ParamsError: when the checkpoints do not have the same names and shapes.
        FormatError: when a file is gone or damaged.

    Cost: n^2 p / 2 multiplications and two passes over the files; memory for two checkpoints (8 MB
    for small ones), or for what is returned and half a checkpoint, beside some matrices [n, n]. The
    Gram matrix is kept in the (first) folder, so that after more training only products with the
    new checkpoints are computed. Old files (.t7) are loaded once, and need as much room again among
    temporary files. Variances are those of a full decomposition to 1e-8, where they are more than
    1e-6 of the first.

    Source: Li et al. 2018, arXiv 1712.09913, section 7.

    Example:
        >>> import tempfile, torch, landscope as ls
        >>> model, folder = torch.nn.Linear(4, 3), tempfile.mkdtemp()
        >>> with ls.Recorder(folder, every=1) as recorder:
        ...     for step in range(6):
        ...         _ = torch.nn.init.normal_(model.weight)
        ...         _ = recorder(model, step=step)
        >>> found = ls.directions.pca(ls.Trajectory.open(folder))
        >>> plane = ls.Plane(found.center, *found.directions, labels=found.labels)
    """
    runs = list(trajectory) if isinstance(trajectory, Sequence) else [trajectory]
    odd = next((run for run in runs if not isinstance(run, Trajectory)), None)
    if odd is not None:
        raise DirectionError(
            f"trajectory holds a {type(odd).__name__}; expected ls.Trajectory.open(folder), or a"
            " list of such."
        )
    checkpoints = [checkpoint for run in runs for checkpoint in run]
    _check(len(checkpoints), count, ignore)
    kept = _Kept(runs, ignore)
    rows = [checkpoints[k] for k in kept.order]
    with columns_.opened(rows, ignore) as columns, _one_thread_each():
        if not columns.moving:
            raise DirectionError(
                f"ignore={ignore!r} leaves no weights: all of {', '.join(columns.shapes)} are"
                " vectors; ask for ignore=None."
            )
        gram = _gram(columns, kept)
        last = kept.ends[0][1] if len(runs) == 1 else None
        values, vectors, total = _decomposed(gram, count)
        vectors = vectors * _signs(vectors, kept.ends, last)
        directions, growth = _directions(columns, (vectors / values).T)
        center = _mean(columns) if last is None else _center(rows[last])
    degrees = len(checkpoints) - 1
    return PCA(
        center, directions, (values * growth) ** 2 / total, (values * growth) ** 2 / degrees,
        values * growth, total / degrees, len(checkpoints), tuple(run.name for run in runs), ignore,
    )  # fmt: skip


@final
class _Kept:
    """The Gram matrix that an earlier call left in the folder of the first trajectory.

    Args:
        runs: the trajectories.
        ignore: as for :func:`pca`.
    """

    def __init__(self, runs: Sequence[Trajectory], ignore: str | None) -> None:
        first = runs[0][0]
        vectors = sorted(name for name, layout in first.layouts.items() if layout.vector)
        beside = [run.folder.resolve() for run in runs[1:]]
        key = fingerprint.of_text(ignore, first.names, vectors, *beside)
        self.path = runs[0].folder / f".gram-{key}.npz"
        ids = [f"{k} {checkpoint.identity}" for k, run in enumerate(runs) for checkpoint in run]
        known, gram = self._read()
        places = {identity: place for place, identity in enumerate(known)}
        old = [k for k, identity in enumerate(ids) if identity in places]
        old.sort(key=lambda k: places[ids[k]])
        if not old or places[ids[old[0]]] != 0:  # rows are told from the first: it must be there
            old = []
        self.order = [*old, *sorted(set(range(len(ids))) - set(old))]
        self.gram = gram[np.ix_(*[[places[ids[k]] for k in old]] * 2)]
        self._ids = [ids[k] for k in self.order]
        rows = {k: row for row, k in enumerate(self.order)}
        bounds = itertools.pairwise(itertools.accumulate(map(len, runs), initial=0))
        self.ends = [(rows[first], rows[end - 1]) for first, end in bounds]  # of each path

    def _read(self) -> tuple[list[str], np.ndarray]:
        try:
            with self.path.open("rb") as file, np.load(file) as stored:
                return stored["checkpoints"].tolist(), stored["gram"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return [], np.empty((0, 0))

    def write(self, gram: np.ndarray) -> None:
        """Keep a Gram matrix of all rows; where the folder cannot be written to, go without."""
        with contextlib.suppress(OSError), whole(self.path) as part:
            np.savez(part, checkpoints=np.array(self._ids), gram=gram)


def _gram(columns: Columns, kept: _Kept) -> np.ndarray:
    """Return the products of all rows, each less the first, shape (n, n)."""
    size, old = len(columns), len(kept.gram)
    gram = np.zeros((size, size))
    gram[:old, :old] = kept.gram
    if old == size:
        return gram
    width = _width(max(_GRAM_SHARE * columns.bytes, _LITTLE), size + 1)

    def products(reader: Reader, begin: int, end: int) -> np.ndarray:
        total, part = (room((size - old) * size).reshape(size - old, size) for _ in range(2))
        memory = room(size * width)
        for first in range(begin, end, width):
            last = min(first + width, end)
            block = memory[: size * (last - first)].reshape(size, last - first)
            for index, row in enumerate(block):
                reader.row(index, first, last, row)
            block -= block[0].copy()
            total += np.matmul(block[old:], block.T, out=part)
        return total

    new = np.sum(_in_threads(columns, columns.moving, width, products), axis=0)
    gram[old:] = new
    gram[:old, old:] = new[:, :old].T
    odd = next((k for k, square in enumerate(gram.diagonal()) if not np.isfinite(square)), None)
    if odd is not None:
        raise DirectionError(
            f"{columns.checkpoints[odd].path} holds weights that are not finite: leave checkpoints"
            " out from which on training had failed."
        )
    kept.write(gram)
    return gram


def _decomposed(gram: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return singular values (d,), left singular vectors (n, d) and the total of all squares."""
    means = gram.mean(axis=0)
    centered = gram - means - means[:, None] + means.mean()
    total, size = float(np.trace(centered)), len(gram)
    if total <= 0:
        raise DirectionError(f"the {size} checkpoints are equal: there is no path to look along.")
    squares, vectors = np.linalg.eigh(centered)
    rank = int((squares > _ROUNDING * size * total).sum())
    if rank < count:
        raise DirectionError(
            f"count={count}, but the {size} checkpoints vary along {rank} directions only: ask for"
            f" count={rank}."
        )
    return np.sqrt(squares[::-1][:count]), vectors[:, ::-1][:, :count], total


def _signs(vectors: np.ndarray, ends: Sequence[tuple[int, int]], center: int | None) -> np.ndarray:
    """Return the signs with which paths run to the right, and bend upwards, shape (d,).

    Args:
        vectors: left singular vectors (n, d), whose rows are places along the components.
        ends: the first and the last row of each path.
        center: the row of the center; None for the mean.
    """
    places = vectors if center is None else vectors - vectors[center]
    signs: np.ndarray = np.sign(places[np.abs(places).argmax(axis=0), np.arange(vectors.shape[1])])
    right = sum(vectors[last, 0] - vectors[first, 0] for first, last in ends)
    signs[0] = 1.0 if right >= 0 else -1.0
    return signs


def _directions(columns: Columns, weights: np.ndarray) -> tuple[list[Params], np.ndarray]:
    """Return orthonormal directions and the lengths that their making took away, shape (d,).

    The Gram matrix knows small singular values only to the rounding of the largest one; Gram and
    Schmidt, in the order of falling variance, give the digits back.

    Args:
        columns: of the checkpoints.
        weights: of each checkpoint in each direction, shape (d, n).
    """
    found = [_empty(columns) for _ in weights]
    weights = weights - weights.mean(axis=1, keepdims=True)  # they take the mean of rows away
    factor = np.linalg.cholesky(_combine(columns, columns.moving, weights, found))
    inverse, width = np.linalg.inv(factor), _width(_RESULT_SHARE * columns.bytes, 3 * len(weights))
    for name in found[0]:
        flat = [params[name].reshape(-1).numpy() for params in found]
        for start in range(0, len(flat[0]), width):
            parts = [values[start : start + width] for values in flat]
            straight = inverse @ np.array(parts, np.float64)
            for part, row in zip(parts, straight, strict=True):
                part[:] = row
    return found, factor.diagonal()


def _mean(columns: Columns) -> Params:
    """Return the mean of all checkpoints, the ignored weights included."""
    found = _empty(columns)
    weights = np.full((1, len(columns)), 1 / len(columns))
    _combine(columns, columns.total, weights, [found], apart=False)
    return found


def _combine(
    columns: Columns,
    end: int,
    weights: np.ndarray,
    into: Sequence[Params],
    *,
    apart: bool = True,
) -> np.ndarray:
    """Write weighted sums of the checkpoints into tensors, and return their products (d, d).

    Args:
        columns: of the checkpoints.
        end: how many columns.
        weights: shape (d, n).
        into: the d results.
        apart: take the first checkpoint away from all.
    """
    flat = [{name: t.reshape(-1).numpy() for name, t in params.items()} for params in into]
    count = len(weights)
    width = _width(_RESULT_SHARE * columns.bytes, count + 4)

    def work(reader: Reader, begin: int, until: int) -> np.ndarray:
        products = np.zeros((count, count))
        memory = room((count + 3) * width).reshape(count + 3, width)
        for first in range(begin, until, width):
            last = min(first + width, until)
            memory[:] = 0.0
            base, row, part = memory[:3, : last - first]
            sums = memory[3:, : last - first]
            if apart:
                reader.row(0, first, last, base)
            for index, shares in enumerate(weights.T):
                reader.row(index, first, last, row)
                row -= base
                for k, share in enumerate(shares):
                    sums[k] += np.multiply(row, share, out=part)
            products += sums @ sums.T
            for name, low, high, start in columns.pieces(first, last):
                for values, total in zip(flat, sums, strict=True):
                    values[name][start : start + high - low] = total[low:high]
        return products

    found: np.ndarray = np.sum(_in_threads(columns, end, width, work), axis=0)
    return found


def _center(checkpoint: Checkpoint) -> Params:
    """Return the parameters of a checkpoint, at least in float32."""
    found = checkpoint.params()
    return like(
        found, {n: t.to(torch.promote_types(t.dtype, torch.float32)) for n, t in found.items()}
    )


def _empty(columns: Columns) -> Params:
    """Return zeros in the shapes of the checkpoints, at least in float32."""
    kinds = {n: torch.promote_types(d, torch.float32) for n, d in columns.dtypes.items()}
    zeros = {n: torch.zeros(shape, dtype=kinds[n]) for n, shape in columns.shapes.items()}
    return Params(zeros, columns.checkpoints[0].layouts)


def _in_threads(
    columns: Columns, end: int, width: int, work: Callable[[Reader, int, int], np.ndarray]
) -> list[np.ndarray]:
    """Return what work makes of each half of the first columns, in threads."""

    def part(begin: int, until: int) -> np.ndarray:
        with columns.reader(width) as reader, np.errstate(invalid="ignore", over="ignore"):
            return work(reader, begin, until)

    bounds = [end * k // _HANDS for k in range(_HANDS + 1)]
    with ThreadPoolExecutor(_HANDS) as pool:
        return list(pool.map(part, bounds[:-1], bounds[1:]))


def _width(memory: float, rows: int) -> int:
    """Return how many columns of so many rows fit into so many bytes, shared by all threads."""
    return max(_LEAST, int(memory / (_HANDS * 8 * rows)))


def _one_thread_each() -> contextlib.AbstractContextManager[object]:
    """Let a matrix product keep to the thread that asks for it: the matrices are small."""
    from threadpoolctl import threadpool_limits

    limits: contextlib.AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


def _check(size: int, count: int, ignore: str | None) -> None:
    if ignore not in (None, *get_args(Ignore)):
        raise DirectionError(f"ignore={ignore!r}; expected 'biasbn' or None.")
    if count < 1:
        raise DirectionError(f"count={count}; expected 1 or more components.")
    if size < count + 1:
        raise DirectionError(
            f"count={count} components want {count + 1} checkpoints or more; there are {size}:"
            " record more often, or ask for fewer."
        )
