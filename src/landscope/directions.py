"""Directions in parameter space, as ``ls.directions``: names only."""

from __future__ import annotations

from landscope.curvature.eigensolver import eigenvectors
from landscope.slices.directions import (
    between,
    from_vectors,
    random,
    rescale,
)
from landscope.slices.normalization import Ignore, Normalize
from landscope.slices.seeded_directions import seeded
from landscope.training.principal_components import PCA, pca

__all__ = [
    "PCA",
    "Ignore",
    "Normalize",
    "between",
    "eigenvectors",
    "from_vectors",
    "pca",
    "random",
    "rescale",
    "seeded",
]


def __dir__() -> list[str]:
    return __all__
