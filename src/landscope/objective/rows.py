"""Rows of tensors of any layout: dense, sparse (COO, CSR, CSC and blocks), nested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from landscope.fingerprint import list_parts

_BLOCKS: dict[Any, Any] = {
    torch.sparse_bsr: torch.sparse_csr,
    torch.sparse_bsc: torch.sparse_csc,
}  # some of the rows are not a whole number of blocks


def shape_of(tensor: Tensor) -> tuple[object, ...]:
    """Return the shape of a tensor; that of each row for nested ones, which have none."""
    if tensor.is_nested:
        return tuple(tuple(piece.shape) for piece in tensor.unbind())
    return tuple(tensor.shape)


def count(tensor: Tensor) -> int | None:
    """Return the number of rows; None for a single number."""
    return tensor.size(0) if tensor.ndim else None


def count_bytes(tensor: Tensor) -> int:
    """Return the size of the values of a tensor, with the indices of a sparse one."""
    return sum(part.nbytes for part in list_parts(tensor))


def select(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return the rows with the given indices, shape (rows,), in the layout of the tensor."""
    rows = rows.to(tensor.device)
    if tensor.is_nested:
        pieces = tensor.unbind()
        return _nest([pieces[k] for k in rows.tolist()], tensor)
    if tensor.layout is torch.strided:
        return tensor[rows]
    return _convert(tensor.to_sparse_coo().index_select(0, rows), tensor)


def divide(tensor: Tensor, parts: int) -> Sequence[Tensor]:
    """Return the rows in parts whose sizes differ by at most 1."""
    if not tensor.is_nested and tensor.layout is torch.strided:
        return tensor.tensor_split(parts)
    indices = torch.arange(tensor.size(0)).tensor_split(parts)
    return [select(tensor, rows) for rows in indices]


def join(tensors: Sequence[Tensor]) -> Tensor:
    """Return the rows of several tensors of one layout; the only one as it is."""
    first = tensors[0]
    if len(tensors) == 1:
        return first
    if first.is_nested:
        return _nest([piece for tensor in tensors for piece in tensor.unbind()], first)
    if first.layout is torch.strided:
        return torch.cat(list(tensors))
    return _convert(torch.cat([tensor.to_sparse_coo() for tensor in tensors]), first)


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have equal shapes, layouts and values; NaN equals NaN."""
    if a.layout != b.layout or shape_of(a) != shape_of(b):
        return False
    parts = list_parts(a), list_parts(b)
    return all(
        s.shape == t.shape and bool(((s == t) | (s.isnan() & t.isnan())).all())
        for s, t in zip(*parts, strict=True)
    )


def _nest(pieces: list[Tensor], like: Tensor) -> Tensor:
    return torch.nested.nested_tensor([p.detach() for p in pieces], layout=like.layout)


def _convert(coo: Tensor, like: Tensor) -> Tensor:
    layout: Any = like.layout
    if layout is torch.sparse_coo:
        return coo
    return coo.to_sparse(layout=_BLOCKS.get(layout, layout))
