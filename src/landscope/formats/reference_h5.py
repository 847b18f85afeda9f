"""Files of the 2018 scripts (Li, Xu, Taylor, Studer, Goldstein, arXiv 1712.09913): HDF5.

Surfaces, directions and projections, read and written in their layout:

    surface     xcoordinates (nx,), ycoordinates (ny,), dir_file, train_loss, train_acc (percent),
                test_loss, test_acc, min_eig, max_eig; float64; -1 where a cell has no value yet
    directions  groups xdirection, ydirection with members "0", "1", ... in parameter (or state)
                order, float32; integer counters among the states are scalars;
                PCA directions also have explained_variance_ratio_, explained_variance_ and
                singular_values_ (2,)
    projection  proj_xcoord, proj_ycoord (checkpoints,)
"""

from __future__ import annotations

from landscope.formats.reference_directions import (
    Explained,
    read_directions,
    read_explained,
    write_directions,
)
from landscope.formats.reference_projections import Projection, read_projection, write_projection
from landscope.formats.reference_surfaces import read_surface, write_surface

__all__ = [
    "Explained",
    "Projection",
    "read_directions",
    "read_explained",
    "read_projection",
    "read_surface",
    "write_directions",
    "write_projection",
    "write_surface",
]


def __dir__() -> list[str]:
    return __all__
