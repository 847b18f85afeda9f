"""Least squares with a few directions and very many parameters, block by block.

The normal equations would square the condition number: from directions at an angle of 1e-6, half
of the digits of each coordinate would be lost, and at 1e-8 all of them. Instead the matrix of the
directions is reduced to a triangle by Householder reflections, one block of parameters at a time:
J. Demmel, L. Grigori, M. Hoemmen, J. Langou, *Communication-optimal parallel and sequential QR and
LU factorizations*, SIAM J. Sci. Comput. 34 (2012), arXiv 0808.2664, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

BLOCK = 2**16  # rows that are reduced at once: 2 MiB for three directions and a target

RANK = 1e-13  # smallest singular value of the directions at unit length that is not rounding


def reduce_rows(blocks: Iterable[Tensor], columns: int) -> Tensor:
    """Return the triangle R of the QR factorization of all rows, shape (columns, columns), float64.

    Args:
        blocks: Pieces of the rows, each of shape (any, columns), float64, on any device.
        columns: The number of columns.

    Cost: 2 columns^2 operations per row; the memory of one block.
    """
    triangle = torch.zeros(columns, columns, dtype=torch.float64)
    for block in blocks:
        rows = torch.cat([triangle.to(block.device), block])
        triangle = torch.linalg.qr(rows, mode="r").R.cpu()
    return triangle


def solve_triangle(triangle: Tensor) -> tuple[tuple[float, ...], float]:
    """Return the coordinates of a target in some directions, and its distance from their span.

    Args:
        triangle: The triangle of the columns (directions, target), from :func:`reduce_rows`.

    Returns:
        One coordinate per direction, those of least norm if directions are dependent, and the
        distance.
    """
    directions, target = triangle[:-1, :-1], triangle[:-1, -1]
    lengths = directions.norm(dim=0)
    unit = directions / lengths
    if bool((lengths > 0).all()) and float(torch.linalg.svdvals(unit)[-1]) > RANK:
        upper = torch.linalg.solve_triangular(unit, target[:, None], upper=True)
        coordinates = upper[:, 0] / lengths
    else:
        coordinates = torch.linalg.pinv(directions, rtol=RANK) @ target
    rest = torch.cat([target - directions @ coordinates, triangle[-1:, -1]])
    return tuple(float(c) + 0.0 for c in coordinates), float(rest.norm())  # no -0.0
