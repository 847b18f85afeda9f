"""Directions in parameter space, as ``ls.directions``: names only."""

from __future__ import annotations

from landscope.curvature.eigensolver import eigenvectors
from landscope.slices.directions import (
    between,
    from_vectors,
    normalized,
    random,
    standard_normal,
)
from landscope.slices.normalization import Ignore, Normalize
from landscope.slices.seeded_directions import Seeded, seeded
from landscope.training.principal_components import PCA, pca

__all__ = [
    "PCA",
    "Ignore",
    "Normalize",
    "Seeded",
    "between",
    "eigenvectors",
    "from_vectors",
    "normalized",
    "pca",
    "random",
    "seeded",
    "standard_normal",
]


def __dir__() -> list[str]:
    return __all__
