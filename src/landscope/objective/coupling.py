"""Coupled rows: whether the loss of a row depends on the other rows of its batch.

Rows are coupled by contrastive and ranking losses, by batch norm in training mode, by attention
across a batch, by a loss that is divided by a statistic of its batch. Then the loss over some rows
of the data, or over other batches, is not an estimate of the loss but another function.

A batch is evaluated whole and divided in two ways, into halves and into every second row: halves
alone would not separate rows that are paired with their neighbors. A loss that is one number for a
batch is also evaluated row by row: any mean of independent terms is between these.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from landscope import params as params_
from landscope.objective import batch_norm
from landscope.objective.evaluation import Session
from landscope.objective.loss_terms import Loss
from landscope.objective.nested_batches import count_rows, index_rows, iter_tensors, map_tensors
from landscope.params import Params

_ROWS = 16  # the most rows of a batch that are compared; coupling of any two rows is seen
_BATCHES = 2
_STEP = 0.3  # of the second point, in units of the root mean square of each tensor
_FLOAT32_INSIDE = 1e-5  # relative; a model in float64 may compute parts in float32


@final
@dataclass
class Traits:
    """What is known about a model, a loss and their data; shared by all problems made of them.

    Args:
        written: The names of tensors into which the forward pass writes, as far as seen.
        coupling: How rows are coupled, in words; "" if they are not, None before it is known.
    """

    written: tuple[str, ...] = ()
    coupling: str | None = None

    def add_written(self, names: Iterable[str]) -> None:
        """Add names of tensors into which the forward pass writes."""
        self.written = tuple(dict.fromkeys((*self.written, *names)))


def measure_coupling(problem: Any) -> str:
    """Return how rows of the data of a problem are coupled, in words; "" if they are not.

    Args:
        problem: A ``Problem``; with recomputed statistics, norms couple no rows.

    Cost: about 30 passes over 16 rows, in float64 where device and model permit it: there rounding
    cannot be taken for coupling.
    """
    if not problem.in_place:
        center = {n: t.double() for n, t in problem.center.items() if problem.device.type != "mps"}
        precise = dataclasses.replace(
            problem,
            dtype=torch.float64,
            precision="float64",
            center=params_.like(problem.center, center),
        )
        with contextlib.suppress(Exception):  # a user's model may raise anything
            return _find_in_session(precise)
    return _find_in_session(problem)


def _find_in_session(problem: Any) -> str:
    def match(tensor: Tensor) -> Tensor:
        is_number = tensor.is_floating_point() and problem.dtype.itemsize > 2
        return tensor.to(problem.dtype) if is_number else tensor

    alone = dataclasses.replace(problem, buffers="keep", metrics={}, notes=[], weights=None)
    batches = [map_tensors(match, batch) for batch in _take_rows(problem.first_batches)]
    with alone.session({"": batches}) as session:
        if problem.buffers == "recompute":
            batch_norm.fix_statistics(session.borrowed.model)
        points = [problem.center] if problem.in_place else _choose_points(problem.center)
        return find_coupling(session, batches, points)


def _take_rows(batches: Iterable[Any]) -> list[Any]:
    """Return some rows of the first batches, in which coupling is looked for."""
    taken = []
    for batch in itertools.islice(batches, _BATCHES):
        rows = count_rows(batch)
        if rows is not None and rows >= 4:
            places = torch.linspace(0, rows - 1, min(rows, _ROWS)).long()
            taken.append(index_rows(batch, places))
    return taken


def _choose_points(center: Params) -> list[Params]:
    """Return the center and a point near it, where a loss that is 0 at the center is not 0."""
    generator = torch.Generator().manual_seed(0)
    moved = {}
    for name, tensor in center.items():
        noise = torch.randn(tensor.shape, generator=generator).to(tensor)
        scale = tensor.double().square().mean().sqrt().to(tensor)
        moved[name] = tensor + _STEP * scale * noise
    return [center, params_.like(center, moved)]


@torch.no_grad()
def find_coupling(session: Session, batches: Sequence[Any], points: Sequence[Params]) -> str:
    """Return how the loss of a row depends on other rows, in words; "" if it does not.

    Losses that give one number for a batch count as coupled where that number is not between those
    of the parts, as no mean with any weights is. Random functions, such as those with dropout, are
    not judged.

    Args:
        session: A session whose model nobody else uses.
        batches: The batches.
        points: The points at which they are evaluated.

    Cost: four passes over each batch at each point, and one for each of its rows if the loss is one
    number for a batch.
    """
    comparisons = list(itertools.chain.from_iterable(_compare(session, b, points) for b in batches))
    largest = max((c.scale for c in comparisons), default=0.0)
    dtype = session.low_precision or next(iter(points[0].values())).dtype
    eps = torch.finfo(dtype).eps
    coupled = (c for c in comparisons if c.difference > c.tolerance(eps, largest))
    return next((c.describe() for c in coupled), "")


@final
@dataclass(frozen=True)
class _Comparison:
    """How much values change when their batch is divided.

    Args:
        difference: The largest change; infinite if a part cannot be evaluated.
        scale: The largest value of the whole batch.
        reason: Why a part cannot be evaluated.
    """

    difference: float
    scale: float
    reason: str = ""

    def tolerance(self, eps: float, largest: float) -> float:
        """Return the change that rounding explains; values may be small at one point only."""
        relative = max(eps**0.5, _FLOAT32_INSIDE)
        return float(relative * self.scale + max(16 * eps, 1e-7) * largest)

    def describe(self) -> str:
        """Return in words how rows are coupled."""
        if self.reason:
            return f"a part of a batch cannot be evaluated alone: {self.reason}"
        return (
            "the loss of a row depends on the other rows of its batch (divided in two, a batch has"
            f" values that differ by {self.difference:.3g}, where the largest is {self.scale:.3g})"
        )


def _compare(session: Session, batch: Any, points: Sequence[Params]) -> Iterator[_Comparison]:
    """Yield comparisons of a batch with its parts, at each point."""
    order = torch.arange(count_rows(batch) or 0)
    divisions = (order.tensor_split(2), (order[::2], order[1::2]), order.split(1))
    for point in points:
        try:
            whole, again = (_evaluate(session, batch, point) for _ in range(2))
        except Exception:  # reported where the whole data are evaluated
            continue
        if not all(torch.equal(v, again[n]) for n, v in whole.items()):
            continue  # a random function
        for division in divisions:
            single = len(division) > 2
            if single and "mean" not in whole:
                continue
            try:
                parts = [
                    _evaluate(session, index_rows(batch, d), point, by_row="loss" in whole)
                    for d in division
                ]
            except Exception as error:  # the user's model may raise anything
                if single:  # some losses have no value for one row
                    continue
                yield _Comparison(float("inf"), 0.0, str(error).partition("\n")[0])
                return
            for name, values in whole.items():
                if all(name in part for part in parts):
                    yield _compare_values(name, values, [part[name] for part in parts], division)


def _evaluate(
    session: Session, batch: Any, point: Params, *, by_row: bool = True
) -> dict[str, Tensor]:
    """Return what is compared: losses and weights of rows, or one mean and the outputs of rows."""
    session.move(point)
    rows = count_rows(batch) or 0
    terms = session.batch_terms(batch)
    if by_row and terms.divide_into(rows):
        values, weights = terms.sum_by_row(rows)
        return {"loss": _clear(values / weights), "weight": _clear(weights)}
    total, weight = terms.values.double().sum(), terms.weights.double().sum()
    compared = {"mean": (total / weight).reshape(1)}
    if isinstance(session.loss, Loss):
        session.borrowed.renew()
        for k, output in enumerate(iter_tensors(session.outputs(batch)[0])):
            if output.ndim and len(output) == rows and output.is_floating_point():
                compared[f"output {k}"] = _clear(output.double())
    return compared


def _compare_values(
    name: str, whole: Tensor, parts: Sequence[Tensor], division: Sequence[Tensor]
) -> _Comparison:
    """Compare values of the rows of a batch, or one mean, with those of its parts."""
    scale = float(whole.abs().max())
    if name == "mean":
        means = torch.cat(list(parts))
        finite = means[means.isfinite()].tolist()
        if not finite or not math.isfinite(scale):
            return _Comparison(0.0, 0.0)
        outside = max(min(finite) - float(whole), float(whole) - max(finite))
        return _Comparison(max(outside, 0.0), scale)
    divided = torch.empty_like(whole)
    for rows, part in zip(division, parts, strict=True):
        places = rows.to(whole.device)
        # Weights may be normalized in each batch.
        ratio = whole[places].sum() / part.sum() if name == "weight" and part.sum() else 1.0
        divided[places] = part * ratio
    return _Comparison(float((divided - whole).abs().max()), scale)


def _clear(values: Tensor) -> Tensor:
    """Return values with 0 in the place of NaN and infinity, which cannot be compared."""
    return values.nan_to_num(0.0, 0.0, 0.0)
