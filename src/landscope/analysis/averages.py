"""Quantities of a scan: the loss averaged over a neighborhood, and its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch

from landscope.errors import ObjectiveError, ParamsError
from landscope.objective.objective import Objective
from landscope.objective.quantities import Quantity
from landscope.params import Params, like
from landscope.slices.directions import draw_normal

_NORMAL = 1.96  # half the width of a 95% interval in standard errors, as pictures draw it
_DOMINATED = 0.02  # of skewness^2 / rows, where 1.96 standard errors hold in 93% at most
_FEW_ROWS = (
    "loss_stderr: at some points a few rows of the data have most of the loss's variance: there an"
    " interval of 1.96 standard errors holds less often than 95%, and further such rows would raise"
    " the loss"
)

Metric = Literal["filter", "euclidean"]


@final
@dataclass(frozen=True)
class NeighborhoodAverage:
    """The quantity that :func:`neighborhood_average` returns.

    Journals contain the name of this class and of its fields, so they stay as they are: ``samples``
    is the number of draws.
    """

    sigma: float
    samples: int
    metric: Metric
    seed: int

    def __call__(self, objective: Objective, params: Params) -> dict[str, float]:
        """Return the mean loss around a point and its standard error."""
        movable = {n: t for n, t in params.items() if n in objective.center}  # not the batch norms'
        scales = _measure_scales(like(params, movable), self.metric)
        means = []
        with objective.problem.session() as session:
            for k in range(self.samples // 2):
                noise = {n: s * self._draw_noise(k, n, s) for n, s in scales.items()}
                losses = []
                for sigma in (self.sigma, -self.sigma):
                    shifted = {n: params[n] + sigma * noise[n] for n in noise}
                    values = session.evaluate(like(params, {**params, **shifted}))
                    losses.append(values["loss" if "loss" in values else "train_loss"])
                means.append(sum(losses) / 2)
        stderr = _measure_half_width(np.array(means)) / _NORMAL
        return {"averaged_loss": float(np.mean(means)), "averaged_loss_stderr": stderr}

    def _draw_noise(self, index: int, name: str, like_: torch.Tensor) -> torch.Tensor:
        """Return noise from a random stream that random directions do not use."""
        return draw_normal(f"around/{self.seed}", index, name, like_).to(like_)


def neighborhood_average(
    sigma: float = 0.05,
    draws: int = 32,
    *,
    metric: Metric = "filter",
    seed: int = 0,
) -> Quantity:
    """Return a quantity for ``ls.scan``: the loss averaged over a neighborhood in all dimensions.

        E L(w + sigma D n),  n normal in p dimensions, D the diagonal scales of the metric

    It is what remains of a surface when details smaller than sigma are blurred. For a quadratic
    with the Hessian H it is L + sigma^2 tr(D H D) / 2.

    Args:
        sigma: The standard deviation, in the units of the metric. With "filter" each of the m
            weights of a filter w moves by sigma |w| / sqrt(m), so the filter moves by sigma |w|.
        draws: The number of evaluations at each point, an even number of at least 4. They come in
            pairs n, -n, so the slope does not contribute to the error.
        metric: "filter" (vectors, such as biases, move by sigma of their own norm), or "euclidean":
            every weight moves by sigma.
        seed: The seed of the noise, which is the same at every point, so that the averaged surface
            is smooth.

    Returns:
        A quantity with the values ``averaged_loss`` and ``averaged_loss_stderr``: the standard
        error over pairs, scaled so that +- 1.96 times it is a 95% interval: by Student's t for few
        pairs (1.09 for 16), and for their skewness where few eigenvalues dominate (1.9 on average
        for 16 pairs and one eigenvalue). Measured with one dominant eigenvalue, the interval holds
        in 93% with 16 pairs or more, 92% with 8, 89% with 4.

    Raises:
        ParamsError: When sigma, draws or metric are out of range.

    Cost: ``draws`` evaluations at each point.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> line = ls.Line(objective.center, ls.directions.random(objective.center, 1)[0])
        >>> land = ls.scan(objective, line, ls.Grid(3), quantities=(ls.neighborhood_average(0.1),))
        >>> sorted(land.data.data_vars)
        ['averaged_loss', 'averaged_loss_stderr', 'loss']
    """
    known = isinstance(sigma, int | float) and metric in ("filter", "euclidean")
    if not known or not sigma > 0 or draws < 4 or draws % 2:
        given = sigma if isinstance(sigma, int | float) else type(sigma).__name__
        raise ParamsError(
            f"sigma={given}, draws={draws}, metric={metric!r}; expected a sigma above 0, an even"
            " number of draws of at least 4, and 'filter' or 'euclidean'."
        )
    return NeighborhoodAverage(sigma, draws, metric, seed)


def loss_stderr(objective: Objective, params: Params) -> dict[str, float]:
    """Return the standard error of the mean loss over its terms: a quantity for ``ls.scan``.

    It says how far the loss over other data of the same kind may be from this one. The rows of the
    data count as independent draws, each with all of its terms, because the tokens of a text or the
    pixels of an image depend on each other:

        sqrt(n / (n - 1) sum_i (l_i - w_i L)^2) / sum_i w_i,   L = sum_i l_i / sum_i w_i

    with the sum l_i of a row's terms and their weight w_i (the standard error of a ratio; Cochran,
    *Sampling Techniques*, 1977, section 2.11). It is the standard deviation over sqrt(n) where all
    rows weigh the same. Where it is not known which row a term is of, as for batches that are not
    tensors with an entry for each row, single terms count as draws.

    +- 1.96 of it is a 95% interval unless a few rows dominate (skewness^2 / rows above 0.02, as
    with rare rows of a large loss): then a note says so, in ``objective.notes`` and in the notes of
    a scan on this machine. Measured with log-normal losses of 1,000 rows, whose logarithms have the
    standard deviations 1, 1.5 and 2, the interval holds in 95%, 92% and 85%. Rare rows that the
    data lack altogether show in no number.

    Raises:
        ObjectiveError: In a scan with ``samples=``, whose samples are not random draws of the data.

    Cost: one more pass over the data.

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
            "loss_stderr needs samples that count alike, and those of a calibrated subset"
            " (samples=) have weights: leave samples out; land.data['loss_error'] is the error that"
            " the subset adds."
        )
    objective.problem.check_independent_rows("loss_stderr")
    with objective.problem.session() as session, torch.no_grad():
        rows = session.row_terms(params)
    sums, weights = rows.values[rows.weights != 0], rows.weights[rows.weights != 0]
    count = len(sums)
    if count < 2:
        return {"loss_stderr": float("nan")}
    residuals = sums - weights * (sums.sum() / weights.sum())
    if _is_dominated(residuals) and _FEW_ROWS not in objective.problem.notes:
        objective.problem.notes.append(_FEW_ROWS)
    stderr = residuals.norm() * math.sqrt(count / (count - 1)) / weights.sum()
    return {"loss_stderr": float(stderr)}


def _measure_half_width(values: np.ndarray) -> float:
    """Return half the width of a 95% interval of the mean of independent values.

    Student's interval, or if it is wider that of P. Hall, *On the removal of skewness by
    transformation*, Journal of the Royal Statistical Society B 54 (1992) 221-228, with his cubic
    transformation and Student's quantile; of its two sides the root of the mean square. Averages of
    losses are skewed where few eigenvalues dominate.
    """
    from scipy.stats import t

    count, spread = len(values), float(np.std(values))
    quantile = float(t.ppf(0.975, count - 1)) / math.sqrt(count - 1)
    if spread == 0.0:
        return 0.0
    skewness = float(np.mean(((values - values.mean()) / spread) ** 3))
    if abs(skewness) < 1e-3:  # then the two intervals are one
        return spread * quantile
    ends = np.array([quantile, -quantile])
    sides = 3 / skewness * (np.cbrt(1 + skewness * (ends - skewness / (6 * count))) - 1)
    return spread * max(quantile, float(np.sqrt(np.mean(sides**2))))


def _is_dominated(residuals: torch.Tensor) -> bool:
    """Return whether so few residuals dominate that 1.96 standard errors are no 95% interval.

    The term of the coverage of Student's statistic that heavy tails make large is
    -0.25 skewness^2 / n (Hall, *The Bootstrap and Edgeworth Expansion*, 1992, section 2.6).
    """
    scale = residuals.abs().max()
    if not scale > 0:
        return False
    values = residuals / scale
    skewness = (values**3).mean() / (values**2).mean() ** 1.5
    return bool(skewness**2 / len(values) > _DOMINATED)


def _measure_scales(params: Params, metric: Metric) -> dict[str, torch.Tensor]:
    """Return the diagonal of D: how far sigma = 1 moves each weight."""
    scales = {}
    for name, tensor in params.items():
        if not tensor.is_floating_point():
            continue
        if metric == "euclidean":
            scales[name] = torch.ones_like(tensor)
            continue
        layout = params.layout(name)
        rows = tensor.reshape(1, -1) if layout.vector else layout.rows(tensor)
        sizes = rows.norm(dim=1, keepdim=True) / math.sqrt(max(rows.shape[1], 1))
        expanded = sizes.expand_as(rows)
        shape = tensor.shape
        scales[name] = (
            expanded.reshape(shape) if layout.vector else layout.from_rows(expanded, shape)
        )
    return scales
