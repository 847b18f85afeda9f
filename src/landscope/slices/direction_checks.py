"""Checks of a slice when it is made: its center is finite, and its directions span all axes.

Two parallel directions would give a picture that is constant along a line of the slice: it looks
like a result and is none. (A zero direction does too, but random directions of weights that are all
zero are zero: a scan makes a note of it.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from landscope.errors import SliceError
from landscope.params import Params, dot
from landscope.slices.least_squares import BLOCK, RANK, reduce_rows
from landscope.slices.seeded_directions import Seeded

_SURELY = 1e-9  # smallest eigenvalue of the cosines above which rounding hides no dependence


def check_center(center: Mapping[str, Tensor]) -> None:
    """Check that the center of a slice holds no NaN; infinity is left, for masks of attention.

    Raises:
        SliceError: When a tensor does.
    """
    for name, tensor in center.items():
        if tensor.is_floating_point() and bool(torch.isnan(tensor.detach()).any()):
            raise SliceError(
                f"center[{name!r}] holds NaN: the model itself is not finite, so its loss is NaN at"
                " every point: load a checkpoint from before its training diverged."
            )


def check_directions(
    dims: Sequence[str], directions: Sequence[Params | Seeded], *, dependent: bool = False
) -> None:
    """Check that directions are finite, and independent (zeros aside) unless ``dependent``.

    Raises:
        SliceError: When they are not.

    Cost: one pass over the parameters for each pair of directions.
    """
    named = dict(zip(dims, directions, strict=True))
    stored = {dim: d for dim, d in named.items() if not isinstance(d, Seeded)}
    seeded = {dim: d.identity for dim, d in named.items() if isinstance(d, Seeded)}
    for dim, direction in stored.items():
        if not math.isfinite(dot(direction, direction)):
            raise SliceError(
                f"direction {dim} holds NaN or infinity; a slice needs finite directions."
            )
    if dependent:
        return
    for (dim, a), (other, b) in itertools.combinations(seeded.items(), 2):
        if a == b:
            _refuse_dependent([dim, other])
    nonzero = {dim: d for dim, d in stored.items() if list_moving(d)}
    for count in range(2, len(nonzero) + 1):
        for some in itertools.combinations(nonzero, count):
            if _are_dependent([nonzero[dim] for dim in some]):
                _refuse_dependent(some)


def list_moving(direction: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors of a direction that are not zero."""
    if isinstance(direction, Seeded):
        tables = direction.basis.tables
        return [n for n, t in tables.items() if t.coefficients[direction.index].count_nonzero()]
    return [n for n, t in _moving(direction).items() if t.count_nonzero()]


def _refuse_dependent(dims: Sequence[str]) -> None:
    words = "parallel" if len(dims) == 2 else "linearly dependent"
    raise SliceError(
        f"directions {', '.join(dims[:-1])} and {dims[-1]} are {words}, so that the slice has fewer"
        " dimensions than axes: pass independent directions, such as those of"
        " ls.directions.random(center), or dependent=True if this is what you want."
    )


def check_order(
    model: Mapping[str, Tensor], parts: Mapping[str, Mapping[str, Tensor]]
) -> list[str]:
    """Check that the center of a slice and its directions were not swapped.

    Args:
        model: The center of the objective.
        parts: The parts of the slice, "center" among them if it has one.

    Returns:
        A note where a direction is the center of the slice itself.

    Raises:
        SliceError: When a direction is the model, and the center of the slice is neither the model
            nor zero.

    Cost: one comparison of tensors, up to the first difference.
    """
    center = parts.get("center")
    directions = {dim: part for dim, part in parts.items() if dim in ("x", "y", "z")}
    same = [dim for dim, part in directions.items() if agree(model, part)]
    if center is None or not same:
        return []
    if agree(model, center):
        return [
            f"direction {same[0]} is the center itself: along {same[0]} all weights of the model"
            f" are multiplied by 1 + {same[0]}"
        ]
    if list_moving(center):
        raise SliceError(
            f"direction {same[0]} is the model, objective.center, and the center of the slice is"
            " not: the order is Line(center, dx), Plane(center, dx, dy), Volume(center, dx, dy,"
            " dz)."
        )
    return []


def agree(model: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> bool:
    """Return whether a part of a slice holds the values of the model, which are not all zero."""
    if isinstance(part, Seeded) or not model.keys() <= part.keys():
        return False
    named = {n: (t.detach(), part[n].detach()) for n, t in _moving(model).items()}
    equal = all(a is b or a.equal(b.to(a)) for a, b in named.values() if a.shape == b.shape)
    return equal and any(a.count_nonzero() for a, _ in named.values())


def _are_dependent(directions: Sequence[Params]) -> bool:
    """Return whether directions are dependent, but for the rounding of their dtype."""
    tensors = [t for d in directions for t in _moving(d).values()]
    rounding = max([RANK, *(torch.finfo(t.dtype).eps for t in tensors)])
    gram = torch.tensor([[dot(a, b) for b in directions] for a in directions], dtype=torch.float64)
    lengths = gram.diagonal().sqrt()
    smallest = torch.linalg.eigvalsh(gram / torch.outer(lengths, lengths))[0]
    if smallest > max(_SURELY, 4 * rounding**2):
        return False
    triangle = reduce_rows(_columns(directions), len(directions))
    return bool(torch.linalg.svdvals(triangle / triangle.norm(dim=0))[-1] < rounding)


def _columns(directions: Sequence[Params]) -> Iterator[Tensor]:
    """Yield the directions as columns, some rows at a time."""
    for name, tensor in _moving(directions[0]).items():
        flat = [d[name].detach().to(tensor.device).reshape(-1) for d in directions]
        for pieces in zip(*(t.split(BLOCK) for t in flat), strict=True):
            yield torch.stack([piece.double() for piece in pieces], dim=1)


def _moving(direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in direction.items() if t.is_floating_point()}
