"""Directions in parameter space: random ones, between models, eigenvectors, principal components.

A direction is a Params with the names and shapes of the point that it starts from.
Filter normalization: H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein, *Visualizing the Loss
Landscape of Neural Nets*, NeurIPS 2018, arXiv 1712.09913, section 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from landscope.params import Layout, Params, check_like, like, unflatten, wrap
from landscope.slices.normalization import (
    Ignore,
    Normalize,
    check_choice,
    check_choices,
    moving,
    rescaled,
    unit,
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
    """Return random Gaussian directions, normalized tensor by tensor.

    For each filter f (the weights that feed one output unit): d_f <- d_f |w_f| / |d_f|, so that
    one step along d perturbs every filter by its own size and scaling symmetries do not show.

    Args:
        params: the point that the directions start from, e.g. ``objective.center``.
        count: how many directions.
        normalize: ``"filter"`` gives each filter the norm of that filter of ``params`` (the
            default of the paper); ``"layer"`` each tensor the norm of that tensor; ``"weight"``
            multiplies each entry by its parameter; ``"dfilter"`` and ``"dlayer"`` give each
            filter or tensor norm 1; ``None`` leaves the Gaussian as it is.
        ignore: ``"biasbn"`` holds biases, batch-norm parameters and all other vectors still.
            ``None`` moves them too: along themselves, as the 2018 scripts did; where directions
            must be orthogonal, the second and later ones are random, of the same norm.
        orthogonal: Gram-Schmidt inside every filter *before* the rescaling, so that norms and
            orthogonality both hold exactly. A filter with fewer weights than directions has no
            room for this: the directions beyond are made orthogonal over its whole tensor and get
            the norm of the tensor; zero filters stay zero.
        select: name patterns such as ``"*lora*"`` or ``["layer3.*", "fc.*"]``: only these move;
            all if None.
        seed: of the random numbers. Each tensor has its own stream, so the same name gets the
            same numbers in any selection of parameters.

    Returns:
        ``count`` Params on the device and in the dtype of ``params``; integer entries are zero, and
        so are buffers that are no statistics, such as rotary frequencies.

    Raises:
        DirectionError: for an unknown ``normalize`` or ``ignore``, or a count below 1.
        ParamsError: when ``select`` matches no name, or only names that ``ignore`` holds still.

    Example:
        >>> from torch import nn
        >>> import landscope as ls
        >>> dx, dy = ls.directions.random(dict(nn.Linear(8, 3).named_parameters()), seed=1)
        >>> dx["weight"].shape
        torch.Size([3, 8])
    """
    check_choices(count, normalize, ignore)
    known = wrap(params)
    moved = moving(known, ignore, select)
    columns: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, tensor in known.items():
        layout = known.layout(name)
        if name not in moved:
            drawn = [torch.zeros_like(tensor, requires_grad=False) for _ in range(count)]
        else:
            draws = torch.stack([standard_normal(seed, k, name, tensor) for k in range(count)])
            make = _along_vector if layout.vector else _along_filters
            drawn = make(draws, tensor.detach().double().cpu(), layout, normalize, orthogonal)
        for column, direction in zip(columns, drawn, strict=True):
            column[name] = direction.to(tensor)
    return [like(known, column) for column in columns]


def between(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Params:
    """Return the direction from ``a`` to ``b``, that is b - a: 0 is ``a`` and 1 is ``b``.

    Two directions from one model to two others span the plane through all three.

    Raises:
        ParamsError: when the two do not have the same names and shapes.
    """
    check_like(b, a, "b")
    moved = {n: (b[n].to(t) - t).detach() if t.is_floating_point() else t * 0 for n, t in a.items()}
    return like(wrap(a), moved)


def from_vectors(params: Mapping[str, Tensor], vectors: Tensor | Sequence[Tensor]) -> list[Params]:
    """Return directions from flat vectors, shape (d, p), in the order of ``params``.

    Raises:
        ParamsError: when a vector has not one entry a parameter.
    """
    return [unflatten(vector, params) for vector in vectors]


def normalized(
    direction: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    normalize: Normalize | None = "filter",
) -> Params:
    """Return a direction rescaled to ``params`` as :func:`random` does; vectors stay as they are.

    Raises:
        DirectionError: for an unknown ``normalize``.
        ParamsError: when direction and params do not fit.
    """
    check_choice("normalize", normalize, get_args(Normalize))
    check_like(direction, params, "direction")
    known = wrap(params)
    scaled = {}
    for name, tensor in known.items():
        layout, given = known.layout(name), direction[name]
        if layout.vector or not given.is_floating_point():
            scaled[name] = given.clone()
        else:
            rows, weights = layout.rows(given.double()), layout.rows(tensor.detach().double())
            weighted = rows * weights if normalize == "weight" else rows
            scaled_rows = rescaled(weighted, weights, normalize)
            scaled[name] = layout.from_rows(scaled_rows, tensor.shape).to(given)
    return like(known, scaled)


def _along_vector(
    draws: Tensor, tensor: Tensor, layout: Layout, normalize: Normalize | None, orthogonal: bool
) -> list[Tensor]:
    del layout, normalize  # a vector goes along itself, whatever the norm
    if not orthogonal:
        return [tensor.clone() for _ in draws]
    flat = draws.reshape(len(draws), 1, -1)
    flat[0, 0] = tensor.reshape(-1)
    room = min(len(draws), tensor.numel())
    _orthogonalize(flat[:room])
    flat[room:] = 0.0
    scaled = unit(flat) * tensor.norm()
    return list(scaled.reshape(draws.shape))


def _along_filters(
    draws: Tensor, tensor: Tensor, layout: Layout, normalize: Normalize | None, orthogonal: bool
) -> list[Tensor]:
    weights = layout.rows(tensor)  # [f, w]
    rows = torch.stack([layout.rows(draw) for draw in draws])  # [d, f, w]
    if normalize == "weight":
        rows = rows * weights
    room = min(len(rows), weights.shape[1]) if orthogonal else len(rows)
    if orthogonal:
        _orthogonalize(rows[:room])
    scaled = torch.stack([rescaled(r, weights, normalize) for r in rows])
    if room < len(rows):
        _orthogonalize_tensors(scaled, rows, room, weights, normalize)
    return [layout.from_rows(r, tensor.shape) for r in scaled]


def _orthogonalize_tensors(
    scaled: Tensor, rows: Tensor, room: int, weights: Tensor, normalize: Normalize | None
) -> None:
    """Make ``scaled[room:]`` orthogonal to all before it over the whole tensor, in place."""
    filters = len(weights)
    alive = weights.norm(dim=1, keepdim=True) > 0
    for k in range(room, len(scaled)):
        row = rows[k] * alive if normalize == "filter" else rows[k]
        whole = torch.cat([scaled[:k], row.unsqueeze(0)]).reshape(k + 1, 1, -1)
        _orthogonalize(whole, first=k)
        target = {
            "filter": weights.norm(),
            "layer": weights.norm(),
            "dfilter": torch.tensor(float(filters) ** 0.5),
            "dlayer": torch.tensor(1.0),
        }
        last = whole[k] if k < row.count_nonzero() else torch.zeros_like(whole[k])
        if normalize in target:
            last = unit(last) * target[normalize]
        scaled[k] = last.reshape(rows[k].shape)


def _orthogonalize(rows: Tensor, first: int = 1) -> None:
    """Gram-Schmidt over the first axis of [d, f, w], filter by filter, in place.

    Two rounds: one leaves an error of the order of rounding times the angle between the rows.
    """
    for j in range(first, len(rows)):
        for _ in range(2):
            for i in range(j):
                length = (rows[i] * rows[i]).sum(dim=1, keepdim=True)
                share = (rows[j] * rows[i]).sum(dim=1, keepdim=True) / length
                rows[j] -= torch.where(length > 0, share, 0.0) * rows[i]


def standard_normal(seed: int | str, index: int, name: str, tensor: Tensor) -> Tensor:
    """Return standard normal numbers, float64 on the CPU, of the stream (seed, index, name)."""
    key = hashlib.blake2b(f"{seed}/{index}/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
