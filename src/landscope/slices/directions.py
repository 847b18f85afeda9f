"""Directions in parameter space: random ones, and differences of models.

A direction is a Params with the names and shapes of the point at which it starts.
Filter normalization: H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein, *Visualizing the Loss
Landscape of Neural Nets*, NeurIPS 2018, arXiv 1712.09913, section 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from landscope.errors import ParamsError
from landscope.params import Layout, Params, check_like, like, unflatten, wrap
from landscope.slices.normalization import (
    Ignore,
    Normalize,
    check_choice,
    check_choices,
    check_finite,
    find_moving,
    rescale_rows,
    to_unit_norm,
)


def random(
    params: Mapping[str, Tensor],
    count: int = 2,
    *,
    normalize: Normalize | None = "filter",
    ignore: Ignore | None = "biasbn",
    orthogonal: bool = True,
    select: str | Sequence[str] | None = None,
    seed: int = 0,
) -> list[Params]:
    """Return random Gaussian directions, by default normalized filter by filter.

        d_f <- d_f |w_f| / |d_f|     for each filter f, the weights into one output unit

    One step along d then moves every filter by its own norm, so that rescaling whole layers, or
    filters before a batch norm, does not change the picture. Rescaling ReLU units one by one does
    (docs/guides/filters.md): the filters of the next layer then get weights of unequal scales.

    Args:
        params: The point at which the directions start, e.g. ``objective.center``.
        count: The number of directions.
        normalize: ``"filter"`` gives each filter the norm of that filter of ``params`` (the
            default of the paper); ``"layer"`` gives each tensor the norm of that tensor;
            ``"weight"`` multiplies each entry by its parameter; ``"dfilter"`` and ``"dlayer"`` give
            each filter or tensor norm 1; ``None`` keeps the Gaussian numbers.
        ignore: ``"biasbn"`` does not move biases, batch-norm parameters and all other vectors.
            ``None`` moves them too: in the direction of the vector itself, as the 2018 scripts did;
            with ``orthogonal`` the second and further directions are random, of the same norm.
        orthogonal: Whether filters are orthogonalized (Gram-Schmidt inside every filter) *before*
            they are rescaled, so that norms and orthogonality both hold exactly. A filter with
            w weights has at most w orthogonal directions: further directions are made orthogonal
            over its whole tensor instead and get the norm of the tensor. Zero filters stay zero.
        select: Name patterns such as ``"*lora*"`` or ``["layer3.*", "fc.*"]`` of the tensors that
            move; None for all.
        seed: The seed of the random numbers. Each tensor has its own stream, so the same name gets
            the same numbers in any selection of parameters.

    Returns:
        ``count`` Params on the device and in the dtype of ``params``. Integer entries are zero, and
        so are buffers that are not statistics, such as rotary frequencies.

    Raises:
        DirectionError: For an unknown ``normalize`` or ``ignore``, a count below 1, a seed that is
            not a whole number, or weights that are not finite.
        ParamsError: When ``select`` matches no name, or only names that ``ignore`` excludes.

    Source: Li et al. 2018, arXiv 1712.09913, section 4.

    Example:
        >>> from torch import nn
        >>> import landscope as ls
        >>> dx, dy = ls.directions.random(dict(nn.Linear(8, 3).named_parameters()), seed=1)
        >>> dx["weight"].shape
        torch.Size([3, 8])
    """
    check_choices(count, normalize, ignore, seed)
    known = wrap(params)
    moving = find_moving(known, ignore, select)
    check_finite(known, (name for name in known if name in moving))
    directions: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, tensor in known.items():
        layout = known.layout(name)
        if name not in moving:
            tensors = [torch.zeros_like(tensor, requires_grad=False) for _ in range(count)]
        else:
            draws = torch.stack([draw_normal(seed, k, name, tensor) for k in range(count)])
            make = _along_vector if layout.vector else _along_filters
            tensors = make(draws, tensor.detach().double().cpu(), layout, normalize, orthogonal)
        for direction, drawn in zip(directions, tensors, strict=True):
            direction[name] = drawn.to(tensor)
    facts = {
        "kind": "random", "seed": seed, "normalize": normalize, "ignore": ignore,
        "orthogonal": orthogonal, "select": select,
    }  # fmt: skip
    return [
        like(known, direction).record_origin(**facts, index=k)
        for k, direction in enumerate(directions)
    ]


def between(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Params:
    """Return the direction b - a from ``a`` (coordinate 0) to ``b`` (coordinate 1).

    Two directions from one model to two others span the plane through all three.

    Raises:
        ParamsError: When names or shapes of the two differ.
    """
    check_like(b, wrap(a), "b")
    steps = {n: (b[n].to(t) - t).detach() if t.is_floating_point() else t * 0 for n, t in a.items()}
    return like(wrap(a), steps).record_origin(kind="between")


def from_vectors(params: Mapping[str, Tensor], vectors: Tensor | Sequence[Tensor]) -> list[Params]:
    """Return directions from flat vectors, in the order of ``params``.

    Args:
        params: The point at which the directions start, with p parameters.
        vectors: The vectors, shape (d, p).

    Raises:
        ParamsError: When the length of a vector is not the number of parameters.
    """
    if not all(isinstance(vector, Tensor) for vector in vectors):
        raise ParamsError(
            f"vectors is a {type(vectors).__name__} that holds no tensors; expected a tensor of"
            " shape (directions, parameters), or a list of tensors: torch.as_tensor(vectors)."
        )
    return [unflatten(vector, params).record_origin(kind="vector") for vector in vectors]


def rescale(
    direction: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    normalize: Normalize | None = "filter",
) -> Params:
    """Return a direction whose filters are rescaled as in :func:`random`; vectors do not change.

        d_f <- d_f |w_f| / |d_f|     for each filter f of at least two-dimensional tensors

    Args:
        direction: The direction.
        params: The point at which it starts.
        normalize: The normalization, as for :func:`random`.

    Raises:
        DirectionError: For an unknown ``normalize``.
        ParamsError: When names or shapes of direction and params differ.
    """
    check_choice("normalize", normalize, get_args(Normalize))
    check_like(direction, params, "direction")
    known = wrap(params)
    rescaled = {}
    for name, tensor in known.items():
        layout, original = known.layout(name), direction[name]
        if layout.vector or not original.is_floating_point():
            rescaled[name] = original.clone()
        else:
            rows, weights = layout.rows(original.double()), layout.rows(tensor.detach().double())
            weighted = rows * weights if normalize == "weight" else rows
            rescaled_rows = rescale_rows(weighted, weights, normalize)
            rescaled[name] = layout.from_rows(rescaled_rows, tensor.shape).to(original)
    of = wrap(direction).origin
    return like(known, rescaled).record_origin(kind="rescaled", normalize=normalize, of=of)


def _along_vector(
    draws: Tensor, tensor: Tensor, layout: Layout, normalize: Normalize | None, orthogonal: bool
) -> list[Tensor]:
    """Return directions of a vector: the first is the vector itself, for every normalization."""
    del layout, normalize
    if not orthogonal:
        return [tensor.clone() for _ in draws]
    flat = draws.reshape(len(draws), 1, -1)
    flat[0, 0] = tensor.reshape(-1)
    independent = min(len(draws), tensor.numel())
    _orthogonalize(flat[:independent])
    flat[independent:] = 0.0
    rescaled = to_unit_norm(flat) * tensor.norm()
    return list(rescaled.reshape(draws.shape))


def _along_filters(
    draws: Tensor, tensor: Tensor, layout: Layout, normalize: Normalize | None, orthogonal: bool
) -> list[Tensor]:
    """Return directions of a tensor of filters, shape (f, w)."""
    weights = layout.rows(tensor)  # [f, w]
    rows = torch.stack([layout.rows(draw) for draw in draws])  # [d, f, w]
    if normalize == "weight":
        rows = rows * weights
    independent = min(len(rows), weights.shape[1]) if orthogonal else len(rows)
    if orthogonal:
        _orthogonalize(rows[:independent])
    rescaled = torch.stack([rescale_rows(r, weights, normalize) for r in rows])
    if independent < len(rows):
        _orthogonalize_tensors(rescaled, rows, independent, weights, normalize)
    return [layout.from_rows(r, tensor.shape) for r in rescaled]


def _orthogonalize_tensors(
    rescaled: Tensor, rows: Tensor, independent: int, weights: Tensor, normalize: Normalize | None
) -> None:
    """Make ``rescaled[independent:]`` orthogonal over the whole tensor to all before, in place."""
    filters = len(weights)
    nonzero = weights.norm(dim=1, keepdim=True) > 0
    for k in range(independent, len(rescaled)):
        row = rows[k] * nonzero if normalize == "filter" else rows[k]
        tensors = torch.cat([rescaled[:k], row.unsqueeze(0)]).reshape(k + 1, 1, -1)
        _orthogonalize(tensors, first=k)
        norms = {
            "filter": weights.norm(),
            "layer": weights.norm(),
            "dfilter": torch.tensor(float(filters) ** 0.5),
            "dlayer": torch.tensor(1.0),
        }
        last = tensors[k] if k < row.count_nonzero() else torch.zeros_like(tensors[k])
        if normalize in norms:
            last = to_unit_norm(last) * norms[normalize]
        rescaled[k] = last.reshape(rows[k].shape)


def _orthogonalize(rows: Tensor, first: int = 1) -> None:
    """Orthogonalize over the first axis of [d, f, w], filter by filter, in place (Gram-Schmidt).

    Two rounds are needed: after one, the error is of the order of rounding / the angle between the
    rows.
    """
    for j in range(first, len(rows)):
        for _ in range(2):
            for i in range(j):
                length = (rows[i] * rows[i]).sum(dim=1, keepdim=True)
                share = (rows[j] * rows[i]).sum(dim=1, keepdim=True) / length
                rows[j] -= torch.where(length > 0, share, 0.0) * rows[i]


def draw_normal(seed: int | str, index: int, name: str, tensor: Tensor) -> Tensor:
    """Return standard normal numbers in the shape of a tensor, float64 on the CPU.

    Args:
        seed: The seed.
        index: The number of the direction.
        name: The name of the tensor; each (seed, index, name) has its own stream.
        tensor: The tensor whose shape is used.
    """
    key = hashlib.blake2b(f"{seed}/{index}/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
