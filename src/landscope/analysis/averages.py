"""Quantities of a scan that say how sure or how local a value is: averages and error bars."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch

from landscope.errors import ObjectiveError, ParamsError
from landscope.objective.objective import Objective
from landscope.params import Params, like
from landscope.slices.directions import draw_normal

Metric = Literal["filter", "euclidean"]


@final
@dataclass(frozen=True)
class NeighborhoodAverage:
    """The quantity that :func:`neighborhood_average` returns."""

    sigma: float
    samples: int
    metric: Metric
    seed: int

    def __call__(self, objective: Objective, params: Params) -> dict[str, float]:
        """Return the mean loss around a point and its standard error."""
        moving = {n: t for n, t in params.items() if n in objective.center}  # no statistics
        scales = _scales(like(params, moving), self.metric)
        pairs = []
        with objective.problem.session() as session:
            for k in range(self.samples // 2):
                noise = {n: s * self._drawn(k, n, s) for n, s in scales.items()}
                both = []
                for sign in (self.sigma, -self.sigma):
                    moved = {n: params[n] + sign * noise[n] for n in noise}
                    values = session.evaluate(like(params, {**params, **moved}))
                    both.append(values["loss" if "loss" in values else "train_loss"])
                pairs.append(sum(both) / 2)
        stderr = float(np.std(pairs, ddof=1)) / math.sqrt(len(pairs)) * _widened(len(pairs))
        return {"averaged_loss": float(np.mean(pairs)), "averaged_loss_stderr": stderr}

    def _drawn(self, index: int, name: str, like_: torch.Tensor) -> torch.Tensor:
        """Return noise of a stream apart from that of random directions."""
        return draw_normal(f"around/{self.seed}", index, name, like_).to(like_)


def neighborhood_average(
    sigma: float = 0.05,
    samples: int = 32,
    *,
    metric: Metric = "filter",
    seed: int = 0,
) -> NeighborhoodAverage:
    """Return a quantity for ``ls.scan``: the loss averaged over a neighborhood in all dimensions.

    The mean of L(theta + sigma n) over normal n, in p dimensions: what is left of a surface when
    details smaller than sigma are blurred. For a quadratic it is L + sigma^2 tr(D H D) / 2.

    Args:
        sigma: how far, in the units of the metric; every weight of a filter of norm |w| and m
            weights moves by sigma |w| / sqrt(m), so a filter moves by sigma of its norm.
        samples: evaluations a point; they come in pairs n, -n, which takes the slope out of the
            error. An even number, at least 4.
        metric: "filter" (vectors, such as biases, move by sigma of their own norm), or "euclidean":
            every weight by sigma.
        seed: of the noise, the same at every point, so that the averaged surface is smooth.

    Returns:
        Columns ``averaged_loss`` and ``averaged_loss_stderr``, its standard error over pairs,
        widened (by 9% for 16 pairs) so that 1.96 of it on both sides are a 95% interval although
        the pairs are few (Student's t).

    Raises:
        ParamsError: when sigma, samples or metric are out of range.

    Cost: ``samples`` evaluations a point.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> line = ls.Line(objective.center, ls.directions.random(objective.center, 1)[0])
        >>> land = ls.scan(objective, line, ls.Grid(3), quantities=(ls.neighborhood_average(0.1),))
        >>> sorted(land.data.data_vars)
        ['averaged_loss', 'averaged_loss_stderr', 'loss']
    """
    if not sigma > 0 or samples < 4 or samples % 2 or metric not in ("filter", "euclidean"):
        raise ParamsError(
            f"sigma={sigma}, samples={samples}, metric={metric!r}; expected a sigma above 0, an"
            " even number of samples from 4 on, and 'filter' or 'euclidean'."
        )
    return NeighborhoodAverage(sigma, samples, metric, seed)


def loss_stderr(objective: Objective, params: Params) -> dict[str, float]:
    """Return the standard error of the mean loss over its terms: a quantity for ``ls.scan``.

    It tells how far the loss over other data of the same kind may lie from this one. Rows of the
    data are taken as independent draws, each with all of its terms: the tokens of a text, as the
    pixels of an image, are alike. Standard deviation / sqrt(n), from one more pass over the data;
    where rows count differently (tokens, class weights) that of a ratio of two means (Cochran,
    *Sampling Techniques*, 1977, section 2.11). Where the rows of terms are not known, as of
    batches that are no tensors with one entry a row, single terms take their place.

    Raises:
        ObjectiveError: in a scan with ``samples=``, whose samples are no draws of the data.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> line = ls.Line(objective.center, ls.directions.random(objective.center, 1)[0])
        >>> land = ls.scan(objective, line, ls.Grid(3), quantities=(ls.loss_stderr,))
        >>> bool((land.data["loss_stderr"] > 0).all())
        True
    """
    if objective.problem.weights is not None:
        raise ObjectiveError(
            "loss_stderr is over terms that count alike, and a calibrated subset (samples=) has"
            " weights: leave terms out; land.data['loss_error'] is what the subset adds."
        )
    with objective.problem.session() as session, torch.no_grad():
        rows = session.row_terms(params)
    values, counts = rows.values[rows.weights != 0], rows.weights[rows.weights != 0]
    size = len(values)
    if size < 2:
        return {"loss_stderr": float("nan")}
    off = values - counts * (values.sum() / counts.sum())
    return {"loss_stderr": float(off.norm() * math.sqrt(size / (size - 1)) / counts.sum())}


def _widened(count: int) -> float:
    """Return Student's quantile for a 95% interval over that of the normal distribution."""
    from scipy.stats import norm, t

    return float(t.ppf(0.975, count - 1) / norm.ppf(0.975))


def _scales(params: Params, metric: Metric) -> dict[str, torch.Tensor]:
    """Return what one sigma is for every weight."""
    found = {}
    for name, tensor in params.items():
        if not tensor.is_floating_point():
            continue
        if metric == "euclidean":
            found[name] = torch.ones_like(tensor)
            continue
        layout = params.layout(name)
        rows = tensor.reshape(1, -1) if layout.vector else layout.rows(tensor)
        sizes = rows.norm(dim=1, keepdim=True) / math.sqrt(max(rows.shape[1], 1))
        wide = sizes.expand_as(rows)
        found[name] = (
            wide.reshape(tensor.shape) if layout.vector else layout.from_rows(wide, tensor.shape)
        )
    return found
