"""Directions that are drawn from a seed wherever they are needed, and never stored.

A model that fills the memory leaves no room for directions of its size. Of these directions only a
few numbers per filter are stored. The random numbers r_j of direction j are drawn in pieces, and

    d_k = sum over j <= k of c_kj r_j,

where the coefficients c_kj, one for each filter, contain both the Gram-Schmidt orthogonalization
within the filter and its norm. They are computed once, from inner products of the pieces.
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
from landscope.slices.normalization import Ignore, Normalize, check_choices, find_moving, not_finite

PIECE = 2**20  # entries that are drawn at once; the numbers depend on it, so it must never change
_SHORT = 64  # weights; directions of shorter filters can be nearly parallel before Gram-Schmidt


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

    They have the distribution of :func:`landscope.slices.directions.random`, but other numbers.

    Args:
        params: The point at which the directions start, e.g. ``objective.center``.
        count: The number of directions.
        normalize: The normalization, as for ``random``; not "weight", which needs the weights
            whenever a direction is read.
        ignore: The tensors that do not move, as for ``random``; with ``None`` each bias or gain
            moves randomly, as one filter.
        orthogonal: Whether directions are orthogonal, as for ``random``; a tensor whose filters
            have fewer weights than there are directions counts as one filter.
        select: Name patterns of the tensors that move; None for all.
        seed: The seed of the random numbers. They are drawn on the device of each tensor; a GPU
            draws other numbers than a CPU.

    Returns:
        ``count`` mappings from names to tensors, for use as directions of a slice.

    Raises:
        DirectionError: For an unknown ``normalize`` or ``ignore``, a count below 1, a seed that is
            not a whole number, or weights that are not finite.
        ParamsError: When ``select`` matches no name, or only names that ``ignore`` excludes.

    Cost: All numbers are drawn once in this call and once for each point that is evaluated (7 ns
    per number on two cores). Memory: count^2 numbers per filter, and some pieces of 2^20 numbers.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> model = torch.nn.Linear(4, 3)
        >>> objective = ls.Objective(model, torch.nn.CrossEntropyLoss(), data, in_place=True)
        >>> dx, dy = ls.directions.seeded(objective.center, seed=1)
        >>> land = ls.scan(objective, ls.Plane(objective.center, dx, dy), ls.Grid(3))
    """
    check_choices(count, normalize, ignore, seed)
    if normalize == "weight":
        raise DirectionError(
            "normalize='weight' multiplies by each weight, which would have to be stored: use"
            " ls.directions.random, or normalize='filter'."
        )
    known = wrap(params)
    moving = find_moving(known, ignore, select)
    tables = {}
    for name, tensor in known.items():
        if name in moving:
            tables[name] = _make_table(
                seed, name, tensor.detach(),
                layout=known.layout(name), count=count, normalize=normalize, orthogonal=orthogonal,
            )  # fmt: skip
    shapes = {n: _Shape(t.shape, t.dtype, t.device) for n, t in known.items()}
    options = {
        "count": count, "normalize": normalize, "ignore": ignore, "orthogonal": orthogonal,
        "select": select, "seed": seed,
    }  # fmt: skip
    basis = SeededBasis(seed, shapes, tables, options)
    return [Seeded(basis, k) for k in range(count)]


@final
class Seeded(Mapping[str, Tensor]):
    """A direction that :func:`seeded` returned; its tensors are drawn when they are read."""

    def __init__(self, basis: SeededBasis, index: int) -> None:
        self.basis, self.index = basis, index

    def __repr__(self) -> str:
        return f"<Seeded: direction {self.index} of seed {self.basis.seed}, {len(self)} tensors>"

    def __getitem__(self, name: str) -> Tensor:
        """Return the tensor of a name, drawn anew."""
        shape = self.basis.shapes[name]
        tensor = torch.zeros(shape.size, dtype=shape.dtype, device=shape.device)
        for start, stop in iter_pieces(shape.size):
            piece = tensor[start:stop] if tensor.ndim else tensor
            self.basis.add(piece, name, start, {self.index: 1})
        return tensor

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self.basis.shapes)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.basis.shapes)

    @property
    def moving(self) -> Iterable[str]:
        """The names of the tensors that are not zero."""
        return self.basis.tables.keys()

    def check(self, params: Mapping[str, Tensor], what: str) -> None:
        """Check that the tensors have the names and shapes of ``params``.

        Args:
            params: The center of a slice.
            what: The name of this direction in errors.

        Raises:
            ParamsError: When they differ; the message names the first difference.
        """
        sizes = {n: s.size for n, s in self.basis.shapes.items()}
        check_like({n: torch.empty(s, device="meta") for n, s in sizes.items()}, params, what)

    @property
    def recipe(self) -> dict[str, Any]:
        """The arguments of :func:`from_recipe`, in plain values."""
        return {**self.basis.options, "index": self.index}

    @property
    def identity(self) -> str:
        """A fingerprint, the same for the same seed around the same weights."""
        tables = {n: table.coefficients for n, table in self.basis.tables.items()}
        return f"seed {self.basis.seed}, direction {self.index}, {fingerprint.of_tensors(tables)}"


def from_recipe(params: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Seeded:
    """Return the direction of a recipe.

    Args:
        params: The point at which the direction starts.
        recipe: The ``recipe`` of a direction at the same point.
    """
    options = {name: value for name, value in recipe.items() if name != "index"}
    index: int = recipe["index"]
    return seeded(params, **options)[index]


@dataclass(frozen=True)
class _Shape:
    """The properties of a tensor besides its values."""

    size: torch.Size
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, eq=False)
class _Table:
    """The coefficients of the directions of one tensor.

    Args:
        groups: The group of filters of each row (first axis), shape (rows,).
        along: Whether the filters of a group are along the second axis.
        coefficients: The coefficient of r_j in d_k at [k, j], shape (d, d, groups, filters per
            group), float64.
        exact: Whether pieces are summed in float64.
    """

    groups: Tensor
    along: bool
    coefficients: Tensor
    exact: bool


@final
@dataclass(frozen=True, eq=False)
class SeededBasis:
    """The data that all directions of a seed share.

    Args:
        seed: The seed of the random numbers.
        shapes: Name -> shape of its tensor.
        tables: Name -> coefficients, for the tensors that move.
        options: The arguments of :func:`seeded` besides the point.
    """

    seed: int
    shapes: Mapping[str, _Shape]
    tables: Mapping[str, _Table]
    options: Mapping[str, Any]

    def add(self, piece: Tensor, name: str, start: int, steps: Mapping[int, float]) -> None:
        """Add the sum of step x direction to some rows of a tensor, in place.

        Args:
            piece: The rows, one piece of :func:`iter_pieces`.
            name: The name of the tensor.
            start: The index of the first row.
            steps: Direction -> step.
        """
        table = self.tables.get(name)
        if table is None:
            return
        dtype = torch.float64 if table.exact else torch.float32
        total = piece if piece.dtype == dtype else piece.to(dtype)
        groups = table.groups[start : start + len(total)] if total.ndim else table.groups
        for j in range(max(steps) + 1):
            factor = sum(step * table.coefficients[k, j] for k, step in steps.items())
            factors = torch.as_tensor(factor)[groups].to(total.device, dtype)
            factors = _reshape_factors(factors, total, along=table.along)
            drawn = _draw(self.seed, j, name, start, total.shape, device=self.shapes[name].device)
            total.addcmul_(drawn.to(total.device), factors)
        if total is not piece:
            piece.copy_(total)


def iter_pieces(size: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the rows (start, stop) of the pieces in which a tensor is drawn."""
    count = size[0] if len(size) else 1
    rows = max(PIECE // max(math.prod(size[1:]), 1), 1)
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def _make_table(
    seed: int,
    name: str,
    tensor: Tensor,
    *,
    layout: Layout,
    count: int,
    normalize: Normalize | None,
    orthogonal: bool,
) -> _Table:
    """Return the coefficients of one tensor, from two inner products per pair of directions."""
    groups, filters, along = _group_filters(tensor, layout)
    if normalize in ("layer", "dlayer") or _weights_per_filter(tensor, groups, filters) < count:
        groups, filters, along = torch.zeros_like(groups), 1, False
    size = (int(groups.max()) + 1 if len(groups) else 1, filters)
    gram = torch.zeros(count, count, *size, dtype=torch.float64, device=tensor.device)
    norms = torch.zeros(size, dtype=torch.float64, device=tensor.device)
    for start, stop in iter_pieces(tensor.shape):
        rows = tensor[start:stop] if tensor.ndim else tensor
        key = name, start, rows.shape
        drawn = [_draw(seed, j, *key, device=rows.device).double() for j in range(count)]
        for j in range(count):
            for i in range(j + 1):
                _add_by_filter(gram[j, i], drawn[j] * drawn[i], groups[start:stop], along=along)
        _add_by_filter(norms, rows.double().square(), groups[start:stop], along=along)
    if not bool(torch.isfinite(norms).all()):
        raise not_finite(name)
    coefficients = _orthonormalize(gram, orthogonal=orthogonal)
    if normalize in ("filter", "layer"):
        coefficients *= norms.sqrt()
    elif normalize is None:
        diagonal = coefficients.diagonal().movedim(-1, 0)
        coefficients *= (diagonal**-1).nan_to_num(posinf=0.0)[:, None]
    short = _weights_per_filter(tensor, groups, filters) < _SHORT
    return _Table(groups, along, coefficients, short or tensor.dtype == torch.float64)


def _group_filters(tensor: Tensor, layout: Layout) -> tuple[Tensor, int, bool]:
    """Return the group of each row, the filters per group, and whether they are along axis 1."""
    rows = len(tensor) if tensor.ndim else 1
    indices = torch.arange(rows, device=tensor.device)
    if layout.vector or tensor.ndim < 2:
        return torch.zeros_like(indices), 1, False
    if layout.axis == 0:
        return indices, 1, False
    return indices // (rows // layout.groups), tensor.shape[1], True


def _weights_per_filter(tensor: Tensor, groups: Tensor, filters: int) -> int:
    return tensor.numel() // max((int(groups.max()) + 1 if len(groups) else 1) * filters, 1)


def _orthonormalize(gram: Tensor, *, orthogonal: bool) -> Tensor:
    """Return the coefficients of vectors of norm 1 in drawn ones (Gram-Schmidt); zeros stay zero.

    Args:
        gram: The inner products of the drawn vectors, shape (d, d, ...); the lower triangle.
        orthogonal: Whether the vectors are orthogonal, and not only of norm 1.
    """
    coefficients = torch.zeros_like(gram)
    for k in range(len(gram)):
        coefficients[k, k] = 1.0
        for j in range(k if orthogonal else 0):
            share = sum(coefficients[j, i] * gram[k, i] for i in range(j + 1))
            coefficients[k, : j + 1] -= share * coefficients[j, : j + 1]
        squared = sum(coefficients[k, i] * gram[k, i] for i in range(k + 1))
        squared = torch.as_tensor(squared)
        vanishes = squared <= 1e-12 * gram[k, k]
        norm = squared.clamp(min=0).sqrt()
        coefficients[k] = torch.where(vanishes, 0.0, coefficients[k] / norm)
    return coefficients


def _draw(
    seed: int, index: int, name: str, start: int, shape: torch.Size, *, device: torch.device
) -> Tensor:
    """Return the random numbers of some rows of a tensor, float32."""
    key = hashlib.blake2b(f"{seed}/{index}/{name}/{start}".encode(), digest_size=8).digest()
    generator = torch.Generator(device).manual_seed(int.from_bytes(key, "little") >> 1)
    return torch.randn(shape, generator=generator, device=device)


def _add_by_filter(total: Tensor, products: Tensor, groups: Tensor, *, along: bool) -> None:
    """Add sums over filters of the products of some rows, in place.

    Args:
        total: The sums, shape (groups, filters per group).
        products: The products, shape (rows, ...).
        groups: The group of each row, shape (rows,).
        along: Whether the filters of a group are along the second axis.
    """
    shape = products.shape[:2] if along else products.shape[:1] or (1,)
    sums = products.reshape(*shape, -1).sum(dim=-1).reshape(shape[0], -1)
    total.index_add_(0, groups, sums)


def _reshape_factors(factors: Tensor, rows: Tensor, *, along: bool) -> Tensor:
    """Return factors (rows, filters per group) in a shape that broadcasts against the rows."""
    if not rows.ndim:
        return factors.reshape(())
    return factors.reshape(factors.shape + (1,) * (rows.ndim - (2 if along else 1)))[
        (slice(None),) if along else (slice(None), 0)
    ]
