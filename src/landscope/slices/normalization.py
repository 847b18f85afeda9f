"""Normalization: which tensors a random direction moves, and the norms of its filters.

Filter normalization: H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein, *Visualizing the Loss
Landscape of Neural Nets*, NeurIPS 2018, arXiv 1712.09913, section 4.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from landscope import params as params_
from landscope.errors import DirectionError, ParamsError
from landscope.params import Params

Normalize = Literal["filter", "layer", "weight", "dfilter", "dlayer"]
Ignore = Literal["biasbn"]


def check_choices(count: int, normalize: str | None, ignore: str | None, seed: int) -> None:
    """Check the arguments of random directions.

    Raises:
        DirectionError: For an unknown ``normalize`` or ``ignore``, a count below 1, or a count or a
            seed that is not a whole number.
    """
    check_choice("normalize", normalize, get_args(Normalize))
    check_choice("ignore", ignore, get_args(Ignore))
    if not _is_whole(count) or count < 1:
        raise DirectionError(f"count={count!r}; expected 1 or more directions, a whole number.")
    if not _is_whole(seed):
        raise DirectionError(
            f"seed={seed!r}; expected a whole number such as 0: each one gives other directions."
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_finite(params: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Check that the weights around which directions are drawn are finite.

    Raises:
        DirectionError: When some are not; the message names the first tensor.
    """
    for name in names:
        if not bool(torch.isfinite(params[name].detach()).all()):
            raise not_finite(name)


def not_finite(name: str) -> DirectionError:
    """Return the error of a tensor of weights that holds NaN or infinity."""
    return DirectionError(
        f"params[{name!r}] holds NaN or infinity: the model itself is not finite, so no direction"
        " has its size: load a checkpoint from before its training diverged."
    )


def check_choice(argument: str, value: str | None, choices: tuple[str, ...]) -> None:
    """Check that a value is one of the choices, or None.

    Raises:
        DirectionError: When it is not.
    """
    if value is not None and value not in choices:
        listed = ", ".join(repr(c) for c in choices)
        raise DirectionError(f"{argument}={value!r}; expected one of {listed} or None.")


def find_moving(params: Params, ignore: str | None, select: str | Sequence[str] | None) -> set[str]:
    """Return the names of the tensors that random directions move.

    Args:
        params: The point at which the directions start.
        ignore: "biasbn" excludes biases, norms and all other vectors; None excludes nothing.
        select: Name patterns; None for all names.

    Raises:
        ParamsError: When ``select`` matches no name, or only names that do not move.
    """
    if not (select is None or isinstance(select, str | Iterable)):
        raise ParamsError(f"select={select!r}; expected a pattern of names such as 'layer3.*'.")
    candidates = params if select is None else params_.select(params, select)
    moving = {
        name
        for name, tensor in candidates.items()
        if tensor.is_floating_point()
        and not params.layout(name).constant
        and not (params.layout(name).vector and ignore == "biasbn")
    }
    if not moving:
        raise ParamsError(
            f"random directions of {', '.join(list(candidates)[:4])} are zero: ignore={ignore!r}"
            " does not move biases, norms and other vectors, and integers and constants never move:"
            " pass ignore=None, or select= other names."
        )
    return moving


def rescale_rows(rows: Tensor, weights: Tensor, normalize: str | None) -> Tensor:
    """Return the rows d, shape (f, w), rescaled to the norms of the weights; zero rows stay zero.

    "filter": d_i |w_i| / |d_i| for each row i; "layer": d |w| / |d|; "dfilter": d_i / |d_i|;
    "dlayer": d / |d|; anything else: d.

    Args:
        rows: The filters of a direction, shape (f, w).
        weights: The filters of the point, shape (f, w).
        normalize: The normalization.
    """
    match normalize:
        case "filter":
            sizes: Tensor = weights.norm(dim=1, keepdim=True)
            return sizes * to_unit_norm(rows)
        case "layer":
            size: Tensor = weights.norm()
            return size * to_unit_norm(rows.reshape(1, -1)).reshape(rows.shape)
        case "dfilter":
            return to_unit_norm(rows)
        case "dlayer":
            return to_unit_norm(rows.reshape(1, -1)).reshape(rows.shape)
    return rows


def to_unit_norm(rows: Tensor) -> Tensor:
    """Return the rows, shape (..., w), divided by their norms; zero rows stay zero."""
    norms = rows.norm(dim=-1, keepdim=True)
    return torch.where(norms > 0, rows / norms, 0.0)
