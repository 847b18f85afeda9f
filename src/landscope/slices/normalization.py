"""Scaling: what random directions move, and which size they give it.

Filter normalization: H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein, *Visualizing the Loss
Landscape of Neural Nets*, NeurIPS 2018, arXiv 1712.09913, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from landscope import params as params_
from landscope.errors import DirectionError, ParamsError
from landscope.params import Params

Normalize = Literal["filter", "layer", "weight", "dfilter", "dlayer"]
Ignore = Literal["biasbn"]


def check_choices(count: int, normalize: str | None, ignore: str | None) -> None:
    """Raise a sentence for directions that cannot be made.

    Raises:
        DirectionError: so.
    """
    check_choice("normalize", normalize, get_args(Normalize))
    check_choice("ignore", ignore, get_args(Ignore))
    if count < 1:
        raise DirectionError(f"count={count}; expected 1 or more directions.")


def check_choice(what: str, value: str | None, choices: tuple[str, ...]) -> None:
    """Raise a sentence unless a value is one of the choices, or None.

    Raises:
        DirectionError: so.
    """
    if value is not None and value not in choices:
        listed = ", ".join(repr(c) for c in choices)
        raise DirectionError(f"{what}={value!r}; expected one of {listed} or None.")


def moving(params: Params, ignore: str | None, select: str | Sequence[str] | None) -> set[str]:
    """Return the names of the tensors that random directions move.

    Args:
        params: the point that they start from.
        ignore: "biasbn" leaves biases, norms and all other vectors out.
        select: name patterns; None for all.

    Raises:
        ParamsError: when ``select`` matches no name, or only names that are held still.
    """
    chosen = params if select is None else params_.select(params, select)
    found = {
        name
        for name, tensor in chosen.items()
        if tensor.is_floating_point()
        and not params.layout(name).constant
        and not (params.layout(name).vector and ignore == "biasbn")
    }
    if not found:
        raise ParamsError(
            f"random directions of {', '.join(list(chosen)[:4])} are zero: with ignore={ignore!r}"
            " biases, norms and other vectors are held still, and integers and constants always:"
            " pass ignore=None, or select= other names."
        )
    return found


def rescaled(rows: Tensor, weights: Tensor, normalize: str | None) -> Tensor:
    """Give rows [f, w] the norms that ``normalize`` asks for; a zero row stays zero."""
    match normalize:
        case "filter":
            sizes: Tensor = weights.norm(dim=1, keepdim=True)
            return sizes * unit(rows)
        case "layer":
            size: Tensor = weights.norm()
            return size * unit(rows.reshape(1, -1)).reshape(rows.shape)
        case "dfilter":
            return unit(rows)
        case "dlayer":
            return unit(rows.reshape(1, -1)).reshape(rows.shape)
    return rows


def unit(rows: Tensor) -> Tensor:
    """Return rows [..., w] divided by their norms; a zero row stays zero."""
    norms = rows.norm(dim=-1, keepdim=True)
    return torch.where(norms > 0, rows / norms, 0.0)
