"""Is this the whole surface? What random planes show of a minimum, compared with what exists there.

A plane shows two dimensions out of p. The loss along many random directions says how much planes
differ; the ends of the Hessian's spectrum, and the line from the initialization, say what none of
them shows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from landscope import params as params_
from landscope.analysis.ensembles import choose_point, derive_seed, journal_path
from landscope.analysis.planes_verdict import compose_verdict
from landscope.curvature.eigensolver import Extremes, extremes
from landscope.curvature.matrices import Hessian
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

_QUANTILE = 1.959964  # of the normal distribution, for a two-sided 95% interval
_PROFILE = 8.0  # multiples of the rounding of a number, to which second differences are exact
_ROUNDING = 1e-5  # relative error that a scan may have; a smaller difference counts as none


@final
@dataclass(frozen=True, eq=False)
class Representativeness:
    """What random planes through a point show, and what they miss.

    Distances are Euclidean, in units of ``unit``, the mean length of the random filter-normalized
    directions, so that all profiles have one axis. Curvatures are second derivatives with respect
    to Euclidean distance, so they lie between the extreme eigenvalues.

    Args:
        distances: The distances from the point, both ways, shape [r].
        random: The loss along random filter-normalized directions, two for each plane, shape
            [d, r].
        sharpest: The loss along the eigenvector of the largest eigenvalue, shape [r].
        steepest: The loss along the eigenvector of the smallest eigenvalue, shape [r].
        initialization: The loss along the line from the initialization, shape [r]; None where it is
            not known. Negative distances lead back to it.
        initialization_at: The distance of the initialization (negative); None where it is not
            known.
        curvatures: The curvatures along the random directions, shape [d].
        plane_smallest: The smallest curvature on each plane, shape [planes].
        extremes: The ends of the Hessian's spectrum.
        loss: The loss at the point.
        unit: The Euclidean length of one unit of distance.
        size: The number of parameters, p.
        plane_rounding: The estimated error of the curvatures on planes by rounding: a smaller one
            is not counted as negative.
        precision: The relative rounding of a loss.
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
    plane_rounding: float = 0.0
    precision: float = 0.0

    def __repr__(self) -> str:
        return f"<Representativeness of {len(self.plane_smallest)} random planes>\n{self.verdict}"

    @property
    def numbers(self) -> dict[str, Any]:
        """The summary in numbers, for a file."""
        low, high = wilson_interval(self._negative_planes, len(self.plane_smallest))
        residual_min, residual_max = self.extremes.residual.tolist()
        count = len(self.curvatures)
        lowest = self.loss - _ROUNDING * abs(self.loss)
        return {
            "parameters": self.size,
            "loss": self.loss,
            "unit": self.unit,
            "hessian_min": self.extremes.smallest,
            "hessian_min_residual": residual_min,
            "hessian_max": self.extremes.largest,
            "hessian_max_residual": residual_max,
            "hessian_rounding": self.extremes.rounding,
            "hessian_symmetry": self.extremes.symmetry,
            "hessian_route": self.extremes.route,
            "negative_curvature": self.is_saddle_like,
            "curvature_random_mean": float(self.curvatures.mean()),
            "curvature_random_stderr": float(self.curvatures.std(ddof=1)) / math.sqrt(count),
            "planes": len(self.plane_smallest),
            "planes_with_negative_curvature": self._negative_planes,
            "share_low": low,
            "share_high": high,
            **self._edge_numbers,
            "lower_than_center_random": float(np.mean(self.random < lowest)),
            "nonconvex_random": _nonconvex_share(self.random, self.precision),
            "initialization_distance": self.initialization_at,
        }

    @property
    def verdict(self) -> str:
        """What random planes show of the point and what they do not, one statement per line."""
        return compose_verdict(self.numbers)

    @property
    def is_saddle_like(self) -> bool | None:
        """Whether the point has negative curvature; None where rounding does not permit to say.

        See :class:`landscope.curvature.Extremes`.
        """
        return self.extremes.is_saddle_like

    @property
    def _edge_numbers(self) -> dict[str, Any]:
        edge = self.random[:, [0, -1]]
        return {
            "radius": float(self.distances[-1]),
            "directions": len(self.random),
            "edge_loss_mean": _reduce(np.mean, edge),
            "edge_loss_least": _reduce(np.min, edge),
            "edge_loss_most": _reduce(np.max, edge),
            "edge_loss_sharpest": _reduce(np.max, self.sharpest[[0, -1]]),
            "edge_loss_steepest": _reduce(np.min, self.steepest[[0, -1]]),
        }

    @property
    def _negative_planes(self) -> int:
        return int((self.plane_smallest < -self.plane_rounding).sum())


def representativeness(
    objective: Objective,
    params: Mapping[str, Tensor] | None = None,
    *,
    num_planes: int = 10,
    initialization: Mapping[str, Tensor] | None = None,
    radius: float = 1.0,
    resolution: int = 21,
    eigenvalue_tol: float = 0.01,
    engine: Engine | None = None,
    journal: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Report | bool | None = None,
) -> Representativeness:
    """Return what random planes show of a point, compared with what exists there.

    Args:
        objective: The objective.
        params: The point; the center if None.
        num_planes: The number of random filter-normalized planes, each of two directions, all of
            them different.
        initialization: The parameters before training, for the profile along the line from there.
        radius: The largest distance of the profiles, in mean lengths of the random directions.
        resolution: The number of points of a profile.
        eigenvalue_tol: The tolerance of the extreme eigenvalues, relative to their size.
        engine: The engine that evaluates the profiles; this machine if None.
        journal: A folder with a journal of each profile, from which the same call resumes.
        seed: The seed of all random numbers.
        progress: A function that is called before each profile and after the last one with an
            ``ls.Progress``; True shows a bar.

    Returns:
        Profiles and curvatures; their summary in numbers is ``numbers``, and in words ``verdict``.

    Raises:
        ParamsError: When there are fewer than 2 planes, params or initialization do not fit, or a
            direction is zero: there are no filters, or the initialization is the point itself.
        DeterminismError: When two evaluations at the point give different losses.

    Cost: ``(2 num_planes + 3) resolution`` evaluations, about ``2 num_planes + 30`` products.

    Source: filter normalization and the question, Li et al. 2018 (arXiv 1712.09913); the interval
    of a proportion, Wilson 1927.
    """
    if num_planes < 2:
        raise ParamsError(f"num_planes={num_planes}; expected 2 or more, to see how they differ.")
    center = choose_point(objective, params)
    _check_finite(center)
    line = None if initialization is None else _line_from(initialization, center)
    check_determinism(objective.problem)
    seeds = (derive_seed(seed, k) for k in range(num_planes))
    planes = [directions_.random(params_.clone(center), 2, seed=each) for each in seeds]
    random = [direction for plane in planes for direction in plane]
    unit = _mean_length(random)
    hessian = Hessian(objective, center)
    ends = extremes(hessian, eigenvalue_tol=eigenvalue_tol, seed=seed)
    curvatures, smallest, rounding = _measure_planes(hessian, planes, ends)
    others = [*reversed(ends.vectors), *([] if line is None else [line])]
    lines = [Line(center, d) for d in random]
    lines += [Line(center, _scale_to_length(d, unit, center)) for d in others]
    grid = Grid(resolution, (-radius, radius))
    profiles = _scan_profiles(
        objective, lines, grid, engine=engine, journal=journal, progress=progress
    )
    sharpest, steepest, *rest = profiles[len(random) :]
    return Representativeness(
        distances=grid.axes(("x",))[0], random=np.array(profiles[: len(random)]),
        sharpest=sharpest, steepest=steepest, initialization=rest[0] if rest else None,
        initialization_at=None if line is None else -norm(line) / unit,
        curvatures=curvatures, plane_smallest=smallest, extremes=ends, loss=objective.loss(center),
        unit=unit, size=hessian.shape[0], plane_rounding=rounding,
        precision=torch.finfo(hessian.dtype).eps,
    )  # fmt: skip


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95% interval of the proportion ``count`` / ``total`` (Wilson 1927)."""
    z, share = _QUANTILE, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + (z / total / 2) ** 2)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def measure_plane(hessian: Hessian, dx: Params, dy: Params) -> tuple[list[float], float]:
    """Return the curvatures along two directions, and the smallest one on their plane."""
    units = [like(d, {n: t / norm(d) for n, t in d.items()}) for d in (dx, dy)]
    images = [hessian @ d for d in units]
    matrix = np.array([[dot(a, b) for b in images] for a in units])
    matrix = (matrix + matrix.T) / 2
    gram = np.array([[dot(a, b) for b in units] for a in units])
    inverse = np.linalg.inv(np.linalg.cholesky(gram))
    smallest = float(np.linalg.eigvalsh(inverse @ matrix @ inverse.T)[0])
    return [float(matrix[0, 0]), float(matrix[1, 1])], smallest


def _line_from(initialization: Mapping[str, Tensor], center: Params) -> Params:
    """Return the direction from the initialization to the point."""
    check_like(initialization, center, "initialization")
    direction = directions_.between(initialization, center)
    if not norm(direction) > 0:
        raise ParamsError(
            "initialization is the point itself: pass the parameters from before training, such as"
            " params.clone(objective.center) at that time, or leave it out."
        )
    return direction


def _check_finite(center: Params) -> None:
    if not math.isfinite(norm(center)):
        raise ParamsError("the parameters hold NaN or infinity: there is no surface around them.")


def _mean_length(directions: Sequence[Params]) -> float:
    lengths = [norm(direction) for direction in directions]
    if not min(lengths) > 0:
        raise ParamsError(
            "random directions are zero here: they move only filters (of tensors with two or more"
            " dimensions), and all filters are zero, or they have too few weights for a plane."
        )
    return float(np.mean(lengths))


def _scale_to_length(direction: Params, length: float, center: Params) -> Params:
    """Return a direction with a given length; parameters that it lacks do not move."""
    scale = length / norm(direction)
    return like(
        center,
        {n: direction[n] * scale if n in direction else t * 0.0 for n, t in center.items()},
    )


def _scan_profiles(
    objective: Objective,
    lines: Sequence[Line],
    grid: Grid,
    *,
    engine: Engine | None,
    journal: str | os.PathLike[str] | None,
    progress: Report | bool | None,
) -> list[np.ndarray]:
    """Return the loss along each line."""
    profiles: list[np.ndarray] = []
    clock = Clock(0, len(lines))
    with open_report(progress, "profiles", "profiles") as report:
        for k, line in enumerate(lines):
            report(clock.progress(k, {}))
            land = scan(objective, line, grid, engine=engine, journal=journal_path(journal, k))
            profiles.append(np.asarray(land.data[land.quantity].values))
        report(clock.progress(len(lines), {}))
    return profiles


def _reduce(function: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    """Return ``function`` of the values that are not NaN; NaN if there are none."""
    numbers = values[~np.isnan(values)]
    return float(function(numbers)) if numbers.size else float("nan")


def _measure_planes(
    hessian: Hessian, planes: Sequence[Sequence[Params]], ends: Extremes
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return curvatures along all directions, the smallest on each plane, and their rounding.

    They have the precision that the ends of the spectrum needed.
    """
    double = hessian.in_double() if ends.route.endswith("float64") else None
    hessian = double or hessian
    pairs = (measure_plane(hessian, dx, dy) for dx, dy in planes)
    curvatures, smallest = zip(*pairs, strict=True)
    columns = torch.stack([hessian.flatten(d) / norm(d) for d in planes[0]], dim=1)
    rounding = float(hessian.estimate_errors(columns).norm(dim=0).max())
    return np.concatenate(curvatures), np.array(smallest), rounding


def _nonconvex_share(profiles: np.ndarray, precision: float) -> float:
    """Return the share of inner points at which a second difference is negative beyond rounding."""
    second = np.diff(profiles, n=2, axis=1)
    sizes = np.abs(profiles)
    largest = np.maximum(np.maximum(sizes[:, 2:], sizes[:, :-2]), sizes[:, 1:-1])
    finite = np.isfinite(second)
    return (
        float((second < -_PROFILE * precision * largest)[finite].mean())
        if finite.any()
        else float("nan")
    )
