"""Principal components of the path that training took, without ever holding it in memory.

With the centered checkpoints as the rows of X, the eigenvectors of the Gram matrix X Xᵀ [n, n] are
the left singular vectors u of X, and Xᵀ u / sigma are the components. Both products are summed over
blocks of columns in float64, which are read from the files as they are needed.

Source: Li, Xu, Taylor, Studer, Goldstein, NeurIPS 2018, arXiv 1712.09913, section 7; Gallagher and
Downs, *Visualization of learning in multilayer perceptron networks using principal component
analysis*, IEEE Trans. SMC B 33 (2003); Lorch, *Visualizing deep network training trajectories with
PCA*, ICML workshop 2016.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final, get_args

import numpy as np
import torch

from landscope.errors import DirectionError
from landscope.params import Params, like
from landscope.slices.normalization import Ignore
from landscope.training.checkpoint_matrix import CheckpointMatrix, open_matrix
from landscope.training.gram_cache import GramCache
from landscope.training.matrix_products import (
    combine_rows,
    gram_matrix,
    single_threaded_blas,
    transform_in_place,
)
from landscope.training.trajectory import Checkpoint, Trajectory

_ROUNDING = 1e-14  # error of an eigenvalue, relative to the trace, per checkpoint


@final
@dataclass(frozen=True, eq=False)
class PCA:
    """Principal components of checkpoints, as directions, and the variance that they explain.

    Args:
        center: The last checkpoint; for several trajectories the mean of all checkpoints, through
            which the least-squares plane goes.
        directions: The components, orthonormal, by falling variance.
        explained_variance_ratio: The shares of the total variance, shape (d,).
        explained_variance: The variances sigma^2 / (n - 1) about the mean, shape (d,), as in
            scikit-learn.
        singular_values: The singular values sigma of the centered checkpoints, shape (d,).
        total_variance: The variance of all weights that are not ignored.
        checkpoints: The number n of checkpoints, of all trajectories.
        names: The names of the trajectories.
        ignore: The weights that are left out: "biasbn", or None.
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

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.1%}" for share in self.explained_variance_ratio)
        return f"<PCA of {self.checkpoints} checkpoints: components with {shares} of the variance>"

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of axes along the directions: ``ls.Plane(..., labels=pca.labels)``."""
        return labels(self.explained_variance_ratio)


def labels(shares: Sequence[float] | np.ndarray) -> tuple[str, ...]:
    """Return the labels of axes along principal components.

    Args:
        shares: The shares of the total variance, shape (d,).
    """
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
    X are all checkpoints minus their mean. Their signs are chosen so that paths run from left to
    right (summed over the paths, from start to end) along the first component, and bend upwards
    along the others: there the checkpoint that is farthest from the center has a positive
    coordinate.

    Args:
        trajectory: A trajectory, or several of the same network.
        count: The number of components.
        ignore: "biasbn" leaves out biases, batch norm and all other vectors: they are zero in the
            directions, and do not count as variation.

    Returns:
        Directions in the dtype of the checkpoints, at least float32.

    Raises:
        DirectionError: When there are fewer than count + 1 checkpoints, or they vary along fewer
            than count directions, or their weights are not finite; when ``ignore`` is unknown; and
            when ``trajectory`` is not a trajectory.
        ParamsError: When the checkpoints do not have the same names and shapes.
        FormatError: When a file is missing or damaged.

    Cost: n^2 p / 2 multiplications and two passes over the files; memory for two checkpoints (8 MB
    for small ones), or for the result and half a checkpoint, and some matrices [n, n]. The Gram
    matrix is kept in the (first) folder, so that after more training only products with the new
    checkpoints are computed. Files of ``torch.save`` (.t7) are loaded once, and copied to temporary
    files of the same size. Variances equal those of a full decomposition to 1e-8, if they are more
    than 1e-6 of the first.

    Source: Li et al. 2018, arXiv 1712.09913, section 7.

    Example:
        >>> import tempfile, torch, landscope as ls
        >>> model, folder = torch.nn.Linear(4, 3), tempfile.mkdtemp()
        >>> with ls.Recorder(folder, every=1) as recorder:
        ...     for step in range(6):
        ...         _ = torch.nn.init.normal_(model.weight)
        ...         _ = recorder(model, step=step)
        >>> pca = ls.directions.pca(ls.Trajectory.open(folder))
        >>> plane = ls.Plane(pca.center, *pca.directions, labels=pca.labels)
    """
    trajectories = _check_arguments(trajectory, count, ignore)
    checkpoints = [checkpoint for each in trajectories for checkpoint in each]
    cache = GramCache(trajectories, ignore)
    rows = [checkpoints[k] for k in cache.order]
    ends = _path_ends(trajectories, cache.order)
    with open_matrix(rows, ignore) as matrix, single_threaded_blas():
        gram = _gram(matrix, cache, ignore)
        sigma, vectors, total = _decompose(gram, count)
        last = ends[0][1] if len(trajectories) == 1 else None
        vectors = vectors * _signs(vectors, ends, last)
        directions, lengths = _directions(matrix, (vectors / sigma).T)
        center = _mean(matrix) if last is None else _center(rows[last])
    sigma, freedom = sigma * lengths, len(checkpoints) - 1  # degrees of freedom
    return PCA(
        center, directions, sigma**2 / total, sigma**2 / freedom, sigma, total / freedom,
        len(checkpoints), tuple(each.name for each in trajectories), ignore,
    )  # fmt: skip


def _check_arguments(
    trajectory: Trajectory | Sequence[Trajectory], count: int, ignore: str | None
) -> list[Trajectory]:
    """Return the trajectories."""
    trajectories = list(trajectory) if isinstance(trajectory, Sequence) else [trajectory]
    wrong = next((each for each in trajectories if not isinstance(each, Trajectory)), None)
    if wrong is not None:
        raise DirectionError(
            f"trajectory holds a {type(wrong).__name__}; expected ls.Trajectory.open(folder), or a"
            " list of trajectories."
        )
    if ignore not in (None, *get_args(Ignore)):
        raise DirectionError(f"ignore={ignore!r}; expected 'biasbn' or None.")
    if count < 1:
        raise DirectionError(f"count={count}; expected 1 or more components.")
    size = sum(map(len, trajectories))
    if size < count + 1:
        raise DirectionError(
            f"count={count} components need {count + 1} checkpoints or more; there are {size}:"
            " record more often, or ask for fewer."
        )
    return trajectories


def _path_ends(trajectories: Sequence[Trajectory], order: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and the last row of each trajectory.

    Args:
        trajectories: The trajectories, whose checkpoints are numbered one after the other.
        order: The numbers of the checkpoints in the rows.
    """
    rows = {number: row for row, number in enumerate(order)}
    bounds = itertools.pairwise(itertools.accumulate(map(len, trajectories), initial=0))
    return [(rows[first], rows[stop - 1]) for first, stop in bounds]


def _gram(matrix: CheckpointMatrix, cache: GramCache, ignore: str | None) -> np.ndarray:
    """Return the products of all rows relative to the first, shape (n, n), and keep them."""
    if not matrix.included:
        raise DirectionError(
            f"ignore={ignore!r} leaves no weights: all of {', '.join(matrix.shapes)} are vectors;"
            " ask for ignore=None."
        )
    gram = gram_matrix(matrix, cache.gram)
    if len(cache.gram) == len(matrix):
        return gram
    finite = np.isfinite(gram.diagonal())
    if not finite.all():
        raise DirectionError(
            f"{matrix.checkpoints[int(finite.argmin())].path} holds weights that are not finite:"
            " leave out the checkpoints after which training had failed."
        )
    cache.write(gram)
    return gram


def _decompose(gram: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return singular values (d,), left singular vectors (n, d) and the sum of all squares."""
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
    """Return the signs with which paths run to the right and bend upwards, shape (d,).

    Args:
        vectors: The left singular vectors (n, d), whose rows are coordinates of the checkpoints.
        ends: The first and the last row of each path.
        center: The row of the center; None for the mean.
    """
    offsets = vectors if center is None else vectors - vectors[center]
    farthest = np.abs(offsets).argmax(axis=0)
    signs: np.ndarray = np.sign(offsets[farthest, np.arange(vectors.shape[1])])
    right = sum(vectors[last, 0] - vectors[first, 0] for first, last in ends)
    signs[0] = 1.0 if right >= 0 else -1.0
    return signs


def _directions(
    matrix: CheckpointMatrix, coefficients: np.ndarray
) -> tuple[list[Params], np.ndarray]:
    """Return orthonormal directions, and their lengths before they were normalized, shape (d,).

    The Gram matrix knows small singular values only to the rounding of the largest one;
    Gram-Schmidt orthogonalization, in the order of falling variance, recovers the digits.

    Args:
        matrix: The checkpoints.
        coefficients: The coefficients of each checkpoint in each direction, shape (d, n).
    """
    coefficients = coefficients - coefficients.mean(axis=1, keepdims=True)  # centers the rows
    directions, products = combine_rows(matrix, coefficients, relative=True)
    factor = np.linalg.cholesky(products)
    transform_in_place(matrix, directions, np.linalg.inv(factor))
    return directions, factor.diagonal()


def _mean(matrix: CheckpointMatrix) -> Params:
    """Return the mean of all checkpoints, the ignored weights included."""
    coefficients = np.full((1, len(matrix)), 1 / len(matrix))
    return combine_rows(matrix, coefficients, relative=False)[0][0]


def _center(checkpoint: Checkpoint) -> Params:
    """Return the parameters of a checkpoint, at least in float32."""
    params = checkpoint.params()
    return like(
        params, {n: t.to(torch.promote_types(t.dtype, torch.float32)) for n, t in params.items()}
    )
