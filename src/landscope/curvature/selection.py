"""What a curvature matrix is of: which parameters, and which samples of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from landscope import params as params_
from landscope.curvature.clusters import Data, shuffle_rows
from landscope.errors import ObjectiveError, ParamsError
from landscope.objective import nested_batches
from landscope.objective.objective import Objective
from landscope.params import Params

Select = str | Iterable[str] | nn.Module | Callable[[str, Tensor], bool] | None
Samples = int | Sequence[int] | None

WIDE = "dimension > 1"  # the parameters by which the 2018 scripts differentiate
_ROWS = 256  # the batch size of drawn samples


def select_parameters(objective: Objective, select: Select) -> Params:
    """Return the entries of the center by which to differentiate.

    Raises:
        ParamsError: When none is selected.
    """
    center = objective.center
    if select is None:
        return center
    names = _select_names(objective, center, select)
    if not names:
        raise ParamsError(
            f"select={select!r} chooses no trainable parameter: pass a name pattern, a module of"
            f" the model, a function (name, tensor) -> bool, or {WIDE!r}."
        )
    return params_.like(center, {n: t for n, t in center.items() if n in names})


def _select_names(objective: Objective, center: Params, select: Select) -> set[str]:
    if select == WIDE:
        return {n for n, t in center.items() if t.ndim > 1}
    if isinstance(select, nn.Module):
        ids = {id(p) for p in select.parameters()}
        tensors = dict(params_.named_tensors(objective.model))
        return {n for n in center if id(tensors[n]) in ids}
    if callable(select):
        return {n for n, t in center.items() if select(n, t)}
    if isinstance(select, str):
        return set(params_.select(center, select))
    patterns = _to_list(select, str)
    return set(params_.select(center, patterns)) if patterns else set()


def draw_samples(
    objective: Objective, samples: Samples, seed: int
) -> tuple[int | None, Data | None]:
    """Return how many samples were drawn and the data of them alone; None for all samples.

    Args:
        objective: The objective.
        samples: How many samples to draw without replacement, or which ones; None for all.
        seed: The seed of the draw.

    Raises:
        ObjectiveError: When ``samples`` does not fit the data, or there are two data sets.
    """
    if samples is None:
        return None, None
    objective.problem.check_single_dataset()
    objective.problem.check_independent_rows("samples=")
    generator = torch.Generator().manual_seed(seed)
    rows = _choose_rows(samples, objective.problem.rows, generator)
    ((name, batches),) = objective.problem.batches.items()
    chosen = nested_batches.select_rows(batches, rows)
    if len(chosen) > 1:  # batches of unequal shapes, which cannot be shuffled together
        return len(rows), {name: chosen}
    shuffled = shuffle_rows(chosen, torch.randperm(len(rows), generator=generator))
    return len(rows), {name: nested_batches.rebatch_evenly(shuffled, _ROWS) or shuffled}


def _choose_rows(samples: int | Sequence[int], total: int, generator: torch.Generator) -> list[int]:
    if isinstance(samples, int) and 1 <= samples <= total:
        rows = sorted(torch.randperm(total, generator=generator)[:samples].tolist())
    else:
        rows = sorted({int(row) for row in _to_list(samples, Integral)})
    if not rows or rows[0] < 0 or rows[-1] >= total:
        raise ObjectiveError(
            f"samples={samples!r}; expected how many, 1 to {total}, or a list of which of them, 0"
            f" to {total - 1}."
        )
    return rows


def _to_list(value: Any, kind: type) -> list[Any]:
    """Return the items as a list; an empty one unless all of them are of the given kind."""
    items = list(value) if isinstance(value, Iterable) else []
    return items if all(isinstance(item, kind) for item in items) else []
