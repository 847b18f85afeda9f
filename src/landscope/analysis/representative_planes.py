"""Is this the whole surface? What random planes show of a minimum, beside what is there.

A plane shows two dimensions out of p. The loss along many random directions says how much planes
differ; the ends of the Hessian's spectrum, and the way from the initialization, say what none of
them shows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor

from landscope import params as params_
from landscope.analysis.ensembles import own_seed, place
from landscope.curvature.eigensolver import Extremes, extremes
from landscope.curvature.hessian import Hessian
from landscope.engines.job import Engine
from landscope.errors import ParamsError
from landscope.objective.determinism import check_determinism
from landscope.objective.objective import Objective
from landscope.params import Params, check_like, dot, like, norm
from landscope.progress import Clock, Report, open_report
from landscope.sampling.grid import Grid
from landscope.scanning.loop import scan
from landscope.slices import directions as directions_
from landscope.slices.slices import Line

_QUANTILE = 1.959964  # of the normal distribution: 95% on both sides together
_ROUNDING = 1e-5  # of a loss: what a scan promises; what is lower by less is not lower


@final
@dataclass(frozen=True, eq=False)
class Representativeness:
    """What random planes through a point show, beside what is there.

    Distances are Euclidean, in units of ``unit``, the mean length of the random filter-normalized
    directions, so that all profiles have one axis. Curvatures are second derivatives by Euclidean
    distance: along a direction they lie between the extreme eigenvalues.

    Args:
        distances: from the point, both ways, shape [r].
        random: loss along random filter-normalized directions, two a plane, shape [d, r].
        sharpest: loss along the eigenvector of the largest eigenvalue, shape [r].
        steepest: loss along the eigenvector of the smallest eigenvalue, shape [r].
        initialization: loss along the line from the initialization, shape [r]; None where it is
            not known. Negative distances lead back to it.
        initialization_at: distance of the initialization (negative); None where it is not known.
        curvatures: along the random directions, shape [d].
        plane_smallest: the least curvature on each plane, shape [planes].
        extremes: the ends of the Hessian's spectrum.
        loss: at the point.
        unit: Euclidean length of the distance 1.
        size: number of parameters, p.
    """

    distances: np.ndarray
    random: np.ndarray
    sharpest: np.ndarray
    steepest: np.ndarray
    initialization: np.ndarray | None
    initialization_at: float | None
    curvatures: np.ndarray
    plane_smallest: np.ndarray
    extremes: Extremes
    loss: float
    unit: float
    size: int

    @property
    def numbers(self) -> dict[str, Any]:
        """Return the summary in numbers, for a file."""
        ends = self.extremes
        low, high = shares(self._negative_planes, len(self.plane_smallest))
        count = len(self.curvatures)
        edge = self.random[:, [0, -1]]
        return {
            "parameters": self.size,
            "loss": self.loss,
            "unit": self.unit,
            "hessian_min": ends.smallest,
            "hessian_min_residual": ends.residuals[0],
            "hessian_max": ends.largest,
            "hessian_max_residual": ends.residuals[1],
            "negative_curvature": self.is_saddle_like,
            "curvature_random_mean": float(self.curvatures.mean()),
            "curvature_random_stderr": float(self.curvatures.std(ddof=1)) / math.sqrt(count),
            "planes": len(self.plane_smallest),
            "planes_with_negative_curvature": self._negative_planes,
            "share_low": low,
            "share_high": high,
            "edge_loss_mean": _of_numbers(np.mean, edge),
            "edge_loss_least": _of_numbers(np.min, edge),
            "edge_loss_most": _of_numbers(np.max, edge),
            "edge_loss_sharpest": _of_numbers(np.max, self.sharpest[[0, -1]]),
            "edge_loss_steepest": _of_numbers(np.min, self.steepest[[0, -1]]),
            "lower_than_center_random": float(
                np.mean(self.random < self.loss - _ROUNDING * abs(self.loss))
            ),
            "nonconvex_random": _bending(self.random),
            "initialization_distance": self.initialization_at,
        }

    @property
    def is_saddle_like(self) -> bool:
        """Whether the smallest eigenvalue is negative beyond its residual."""
        return self.extremes.smallest < -self.extremes.residuals[0]

    @property
    def _negative_planes(self) -> int:
        return int((self.plane_smallest < 0).sum())


def representativeness(
    objective: Objective,
    planes: int = 10,
    *,
    params: Mapping[str, Tensor] | None = None,
    initialization: Mapping[str, Tensor] | None = None,
    radius: float = 1.0,
    resolution: int = 21,
    tolerance: float = 0.01,
    engine: Engine | None = None,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Report | bool | None = None,
) -> Representativeness:
    """Return what random planes show of a point, compared with what exists there.

    Args:
        objective: of the loss.
        planes: random filter-normalized planes, each of two directions, all of them different.
        params: the point; the center if None.
        initialization: where training began, for the profile along the way from there.
        radius: how far the profiles go, in mean lengths of the random directions.
        resolution: points of a profile.
        tolerance: of the extreme eigenvalues.
        engine: who evaluates the profiles; this machine if not given.
        folder: keeps a journal of each profile, so that the same call goes on where it stopped.
        seed: of all that is random.
        progress: A function that is called before each profile and after the last one with an
            ``ls.Progress``; True shows a bar.

    Returns:
        Profiles and curvatures; their summary in numbers is ``numbers``.

    Raises:
        ParamsError: when there are less than 2 planes, params or initialization do not fit, or no
            direction leads anywhere: no filters, or an initialization that is the point itself.
        DeterminismError: when the loss at the point does not come out the same twice.

    Cost: ``(2 planes + 3) resolution`` evaluations, ``2 planes + 30`` products or so.

    Source: filter normalization and the question, Li et al. 2018 (arXiv 1712.09913); the interval
    of a share, Wilson 1927.
    """
    if planes < 2:
        raise ParamsError(f"planes={planes}; expected 2 or more, to see how they differ.")
    center = objective.center
    if params is not None:
        check_like(params, center, "params")
        center = like(center, params)
    check_determinism(objective.problem)
    found = [
        directions_.random(params_.clone(center), 2, seed=own_seed(seed, k)) for k in range(planes)
    ]
    drawn = [direction for pair in found for direction in pair]
    lengths = [norm(direction) for direction in drawn]
    if not all(map(math.isfinite, lengths)):
        raise ParamsError("the parameters hold NaN or infinity: there is no surface around them.")
    if not min(lengths) > 0:
        raise ParamsError(
            "random directions from here are zero: they move filters, tensors of two dimensions or"
            " more, and all filters are zero, or there are too few weights for a plane of them."
        )
    unit = float(np.mean(lengths))
    hessian = Hessian(objective, center)
    ends = extremes(hessian, tolerance=tolerance, seed=seed)
    seen = [_on_plane(hessian, *pair) for pair in found]
    ways: list[Params] = [*drawn]
    ways += [_long(params_.unflatten(row, hessian.template), unit, center) for row in
             ends.vectors.flip(0)]  # fmt: skip
    at = None
    if initialization is not None:
        check_like(initialization, center, "initialization")
        way = directions_.between(initialization, center)
        if not norm(way) > 0:
            raise ParamsError(
                "initialization is the point itself: pass the parameters from before training, such"
                " as params.clone(objective.center) at that time, or leave it out."
            )
        at = -norm(way) / unit
        ways.append(_long(way, unit, center))
    grid, count = Grid(resolution, (-radius, radius)), len(ways)
    profiles = []
    clock = Clock(0, count)
    with open_report(progress, "profiles", "profiles") as report:
        for k, way in enumerate(ways):
            report(clock.progress(k, {}))
            profiles.append(_profile(objective, Line(center, way), grid, engine, place(folder, k)))
        report(clock.progress(count, {}))
    random, rest = np.array(profiles[: len(drawn)]), profiles[len(drawn) :]
    return Representativeness(
        distances=grid.axes(("x",))[0],
        random=random,
        sharpest=rest[0],
        steepest=rest[1],
        initialization=rest[2] if len(rest) > 2 else None,
        initialization_at=at,
        curvatures=np.array([c for curvatures, _ in seen for c in curvatures]),
        plane_smallest=np.array([smallest for _, smallest in seen]),
        extremes=ends,
        loss=objective.loss(center),
        unit=unit,
        size=hessian.shape[0],
    )


def shares(count: int, total: int) -> tuple[float, float]:
    """Return the 95% interval of a share, from ``count`` of ``total`` (Wilson 1927)."""
    z, share = _QUANTILE, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + (z / total / 2) ** 2)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _profile(
    objective: Objective,
    line: Line,
    grid: Grid,
    engine: Engine | None,
    journal: Path | None,
) -> np.ndarray:
    land = scan(objective, line, grid, engine=engine, journal=journal)
    found: np.ndarray = np.asarray(land.data[land.quantity].values)
    return found


def _on_plane(hessian: Hessian, dx: Params, dy: Params) -> tuple[list[float], float]:
    """Return curvatures along two directions, and the least one on the plane of both."""
    units = [like(d, {n: t / norm(d) for n, t in d.items()}) for d in (dx, dy)]
    images = [hessian @ d for d in units]
    matrix = np.array([[dot(a, b) for b in images] for a in units])
    matrix = (matrix + matrix.T) / 2
    gram = np.array([[dot(a, b) for b in units] for a in units])
    half = np.linalg.inv(np.linalg.cholesky(gram))
    return [float(matrix[0, 0]), float(matrix[1, 1])], float(
        np.linalg.eigvalsh(half @ matrix @ half.T)[0]
    )


def _long(direction: Params, length: float, center: Params) -> Params:
    """Return a direction of a given length; entries that it lacks stay still."""
    scale = length / norm(direction)
    return like(
        center,
        {n: direction[n] * scale if n in direction else t * 0.0 for n, t in center.items()},
    )


def _of_numbers(function: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    """Return a function of the values that are numbers; NaN where none is."""
    held = values[~np.isnan(values)]
    return float(function(held)) if held.size else float("nan")


def _bending(profiles: np.ndarray) -> float:
    """Return the share of inner points at which a profile bends downwards."""
    second = np.diff(profiles, n=2, axis=1)
    finite = np.isfinite(second)
    return float((second[finite] < 0).mean()) if finite.any() else float("nan")
