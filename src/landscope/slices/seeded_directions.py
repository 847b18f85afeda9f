"""Directions that are drawn again from a seed wherever they are needed, and never stored.

A model that fills the memory has no room for directions as large as itself. What is kept of these
is a few numbers a filter. The random numbers r_j of direction j come piece by piece; direction k is

    d_k = sum over j <= k of c_kj r_j,

where the coefficients c_kj, one for each filter, hold both the Gram-Schmidt inside the filter and
its norm. They are found once, from inner products of the pieces.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from landscope import fingerprint
from landscope.errors import DirectionError
from landscope.params import Layout, check_like, wrap
from landscope.slices.normalization import Ignore, Normalize, check_choices, moving

PIECE = 2**20  # entries that are drawn at once; a part of what is drawn: it may never change
_SHORT = 64  # weights; directions of shorter filters may be nearly parallel before Gram-Schmidt


def seeded(
    params: Mapping[str, Tensor],
    count: int = 2,
    *,
    normalize: Normalize | None = "filter",
    ignore: Ignore | None = "biasbn",
    orthogonal: bool = True,
    select: str | Sequence[str] | None = None,
    seed: int = 0,
) -> list[Seeded]:
    """Return random directions that take no memory: each tensor is drawn again when it is read.

    They have the law of :func:`landscope.slices.directions.random`, but other numbers.

    Args:
        params: the point that the directions start from, e.g. ``objective.center``.
        count: how many directions.
        normalize: as for ``random``; not "weight", for which the weights would have to be kept.
        ignore: as for ``random``; with ``None`` each bias or gain moves randomly, as one filter.
        orthogonal: as for ``random``; a tensor whose filters have fewer weights than there are
            directions counts as one filter.
        select: name patterns: only these move; all if None.
        seed: of the random numbers, which are drawn on the device of each tensor: a GPU draws
            others than a CPU.

    Returns:
        ``count`` mappings from names to tensors, to be used as directions of a slice.

    Raises:
        DirectionError: for an unknown ``normalize`` or ``ignore``, a count below 1, or weights that
            are not finite.
        ParamsError: when ``select`` matches no name, or only names that ``ignore`` holds still.

    Cost: drawing all numbers once, now and for each point that is evaluated (7 ns a number on two
    cores). Memory: count^2 numbers a filter, and some pieces of 2^20 numbers.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> model = torch.nn.Linear(4, 3)
        >>> objective = ls.Objective(model, torch.nn.CrossEntropyLoss(), data, in_place=True)
        >>> dx, dy = ls.directions.seeded(objective.center, seed=1)
        >>> land = ls.scan(objective, ls.Plane(objective.center, dx, dy), ls.Grid(3))
    """
    check_choices(count, normalize, ignore)
    if normalize == "weight":
        raise DirectionError(
            "normalize='weight' multiplies by each weight, which would have to be kept: use"
            " ls.directions.random, or normalize='filter'."
        )
    known = wrap(params)
    moved = moving(known, ignore, select)
    tables = {}
    for name, tensor in known.items():
        if name in moved:
            tables[name] = _table(
                seed, name, tensor.detach(),
                layout=known.layout(name), count=count, normalize=normalize, orthogonal=orthogonal,
            )  # fmt: skip
    shapes = {n: _Shape(t.shape, t.dtype, t.device) for n, t in known.items()}
    asked = {
        "count": count, "normalize": normalize, "ignore": ignore, "orthogonal": orthogonal,
        "select": select, "seed": seed,
    }  # fmt: skip
    drawn = Drawn(seed, shapes, tables, asked)
    return [Seeded(drawn, k) for k in range(count)]


@final
class Seeded(Mapping[str, Tensor]):
    """One of several directions of a seed; its tensors are drawn when they are read."""

    def __init__(self, drawn: Drawn, index: int) -> None:
        self.drawn, self.index = drawn, index

    def __getitem__(self, name: str) -> Tensor:
        """Return the tensor of a name, drawn anew."""
        shape = self.drawn.shapes[name]
        found = torch.zeros(shape.size, dtype=shape.dtype, device=shape.device)
        for start, stop in pieces(shape.size):
            self.drawn.add(found[start:stop] if found.ndim else found, name, start, {self.index: 1})
        return found

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self.drawn.shapes)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.drawn.shapes)

    @property
    def moved(self) -> Iterable[str]:
        """The names of the tensors that are not zero."""
        return self.drawn.tables.keys()

    def check(self, params: Mapping[str, Tensor], what: str) -> None:
        """Raise a sentence unless there is a tensor of the same shape for each of ``params``.

        Raises:
            ParamsError: naming the first difference.
        """
        sizes = {n: s.size for n, s in self.drawn.shapes.items()}
        check_like({n: torch.empty(s, device="meta") for n, s in sizes.items()}, params, what)

    @property
    def recipe(self) -> dict[str, Any]:
        """What :func:`remade` needs, in plain values."""
        return {**self.drawn.asked, "index": self.index}

    @property
    def identity(self) -> str:
        """A fingerprint: the same for the same seed around the same weights."""
        tables = {n: table.coefficients for n, table in self.drawn.tables.items()}
        return f"seed {self.drawn.seed}, direction {self.index}, {fingerprint.of_tensors(tables)}"


def remade(params: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Seeded:
    """Return the direction of a recipe, around the params that it was made around."""
    asked = {name: value for name, value in recipe.items() if name != "index"}
    index: int = recipe["index"]
    return seeded(params, **asked)[index]


@dataclass(frozen=True)
class _Shape:
    """What is known of a tensor besides its values."""

    size: torch.Size
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, eq=False)
class _Table:
    """Coefficients of the directions of one tensor.

    Args:
        groups: which group of filters each row (first axis) belongs to, shape (rows,).
        along: whether the filters of a group lie along the second axis.
        coefficients: shape (d, d, groups, filters a group), float64: of r_j in d_k at [k, j].
        exact: combine pieces in float64.
    """

    groups: Tensor
    along: bool
    coefficients: Tensor
    exact: bool


@final
@dataclass(frozen=True, eq=False)
class Drawn:
    """What all directions of a seed share.

    Args:
        seed: of the random numbers.
        shapes: name -> what is known of its tensor.
        tables: name -> coefficients, of the tensors that move.
        asked: what makes the directions again.
    """

    seed: int
    shapes: Mapping[str, _Shape]
    tables: Mapping[str, _Table]
    asked: Mapping[str, Any]

    def add(self, piece: Tensor, name: str, start: int, steps: Mapping[int, float]) -> None:
        """Add step x direction to the rows of a tensor from ``start`` on, in place.

        Args:
            piece: these rows, as :func:`pieces` divides the tensor.
            name: of the tensor.
            start: the first row.
            steps: direction -> step.
        """
        table = self.tables.get(name)
        if table is None:
            return
        kind = torch.float64 if table.exact else torch.float32
        exact = piece if piece.dtype == kind else piece.to(kind)
        which = table.groups[start : start + len(exact)] if exact.ndim else table.groups
        for j in range(max(steps) + 1):
            whole = sum(step * table.coefficients[k, j] for k, step in steps.items())
            factor = torch.as_tensor(whole)[which].to(exact.device, kind)
            factor = _shaped(factor, exact, along=table.along)
            drawn = _raw(self.seed, j, name, start, exact.shape, device=self.shapes[name].device)
            exact.addcmul_(drawn.to(exact.device), factor)
        if exact is not piece:
            piece.copy_(exact)


def pieces(size: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the rows (start, stop) of the pieces that a tensor is drawn in."""
    count = size[0] if len(size) else 1
    rows = max(PIECE // max(math.prod(size[1:]), 1), 1)
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def _table(
    seed: int,
    name: str,
    tensor: Tensor,
    *,
    layout: Layout,
    count: int,
    normalize: Normalize | None,
    orthogonal: bool,
) -> _Table:
    """Find the coefficients of one tensor, in two inner products a pair of directions."""
    groups, filters, along = _filters(tensor, layout)
    if normalize in ("layer", "dlayer") or _weights(tensor, groups, filters) < count:
        groups, filters, along = torch.zeros_like(groups), 1, False
    size = (int(groups.max()) + 1 if len(groups) else 1, filters)
    gram = torch.zeros(count, count, *size, dtype=torch.float64, device=tensor.device)
    norms = torch.zeros(size, dtype=torch.float64, device=tensor.device)
    for start, stop in pieces(tensor.shape):
        rows = tensor[start:stop] if tensor.ndim else tensor
        asked = name, start, rows.shape
        drawn = [_raw(seed, j, *asked, device=rows.device).double() for j in range(count)]
        for j in range(count):
            for i in range(j + 1):
                _add_by_filter(gram[j, i], drawn[j] * drawn[i], groups[start:stop], along=along)
        _add_by_filter(norms, rows.double().square(), groups[start:stop], along=along)
    if not bool(torch.isfinite(norms).all()):
        raise DirectionError(f"params[{name!r}] holds NaN or infinity: no direction has its size.")
    lengths = _orthonormal(gram, orthogonal=orthogonal)
    if normalize in ("filter", "layer"):
        lengths *= norms.sqrt()
    elif normalize is None:
        lengths *= (lengths.diagonal().movedim(-1, 0) ** -1).nan_to_num(posinf=0.0)[:, None]
    exact = _weights(tensor, groups, filters) < _SHORT or tensor.dtype == torch.float64
    return _Table(groups, along, lengths, exact)


def _filters(tensor: Tensor, layout: Layout) -> tuple[Tensor, int, bool]:
    """Return the group of each row, the filters of a group, and whether they lie along axis 1."""
    rows = len(tensor) if tensor.ndim else 1
    places = torch.arange(rows, device=tensor.device)
    if layout.vector or tensor.ndim < 2:
        return torch.zeros_like(places), 1, False
    if layout.axis == 0:
        return places, 1, False
    return places // (rows // layout.groups), tensor.shape[1], True


def _weights(tensor: Tensor, groups: Tensor, filters: int) -> int:
    """Return how many weights a filter has."""
    return tensor.numel() // max((int(groups.max()) + 1 if len(groups) else 1) * filters, 1)


def _orthonormal(gram: Tensor, *, orthogonal: bool) -> Tensor:
    """Return what makes vectors of norm 1 of drawn ones, by Gram-Schmidt; a zero stays zero.

    Args:
        gram: their inner products, shape (d, d, ...), the lower triangle.
        orthogonal: make them orthogonal, not only of norm 1.
    """
    found = torch.zeros_like(gram)
    for k in range(len(gram)):
        found[k, k] = 1.0
        for j in range(k if orthogonal else 0):
            share = sum(found[j, i] * gram[k, i] for i in range(j + 1))
            found[k, : j + 1] -= share * found[j, : j + 1]
        left = sum(found[k, i] * gram[k, i] for i in range(k + 1))
        none = torch.as_tensor(left) <= 1e-12 * gram[k, k]
        found[k] = torch.where(none, 0.0, found[k] / torch.as_tensor(left).clamp(min=0).sqrt())
    return found


def _raw(
    seed: int, index: int, name: str, start: int, shape: torch.Size, *, device: torch.device
) -> Tensor:
    """Return the random numbers of some rows of a tensor, float32."""
    key = hashlib.blake2b(f"{seed}/{index}/{name}/{start}".encode(), digest_size=8).digest()
    generator = torch.Generator(device).manual_seed(int.from_bytes(key, "little") >> 1)
    return torch.randn(shape, generator=generator, device=device)


def _add_by_filter(total: Tensor, products: Tensor, groups: Tensor, *, along: bool) -> None:
    """Add up products of some rows filter by filter, into total [groups, filters a group]."""
    kept = products.shape[:2] if along else products.shape[:1] or (1,)
    sums = products.reshape(*kept, -1).sum(dim=-1).reshape(kept[0], -1)
    total.index_add_(0, groups, sums)


def _shaped(factors: Tensor, like: Tensor, *, along: bool) -> Tensor:
    """Return factors [rows, filters a group] so that they multiply rows [rows, ...]."""
    if not like.ndim:
        return factors.reshape(())
    return factors.reshape(factors.shape + (1,) * (like.ndim - (2 if along else 1)))[
        (slice(None),) if along else (slice(None), 0)
    ]
