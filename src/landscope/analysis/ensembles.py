"""Ensembles: the same scan along several random directions, to see how much is due to chance."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from landscope import params as params_
from landscope.engines.job import Engine
from landscope.errors import ParamsError
from landscope.landscape import Landscape
from landscope.objective.objective import Objective, check_objective
from landscope.params import Params, check_like, like
from landscope.progress import Report
from landscope.sampling.adaptive import Adaptive
from landscope.sampling.grid import Grid, Sampler
from landscope.scanning.loop import scan
from landscope.slices import directions as directions_
from landscope.slices.slices import Line, Plane


def ensemble(
    objective: Objective,
    params: Mapping[str, Tensor] | None = None,
    sampler: Sampler | int | None = None,
    *,
    count: int = 9,
    axes: int = 2,
    engine: Engine | None = None,
    journal: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Report | bool | None = None,
) -> list[Landscape]:
    """Return the landscapes over several random planes (or lines) through a point.

    Draw planes as small multiples on one scale, ``ls.draw.side_by_side_figure(lands)``, and lines
    as a band, ``ls.draw.loss_band(lands)``: what differs among them is chance, not the network.

    Args:
        objective: The objective.
        params: The point; the center if None.
        sampler: The points of each slice, as in ``ls.scan``; if None ``Adaptive(resolution=31)``
            for planes and ``Grid(31)`` for lines.
        count: The number of landscapes.
        axes: 2 for planes, 1 for lines.
        engine: The engine, as in ``ls.scan``.
        journal: A folder with a journal of each scan, from which the same call resumes.
        seed: The seed of the directions, which are different for each slice.
        progress: As in ``ls.scan``, for each scan in turn.

    Raises:
        ParamsError: When ``params`` do not fit, ``count`` is below 1, or ``axes`` is not 1 or 2.

    Cost: that of ``count`` scans.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> lands = ls.ensemble(objective, sampler=ls.Grid(5), count=3, axes=1)
        >>> axes = ls.draw.loss_band(lands)
    """
    if count < 1 or axes not in (1, 2):
        raise ParamsError(f"count={count}, axes={axes}; expected 1 or more, and 1 or 2 axes.")
    if sampler is None:
        sampler = Adaptive(resolution=31) if axes == 2 else Grid(31)
    center = choose_point(objective, params)
    lands = []
    for k in range(count):
        directions = directions_.random(center, axes, seed=derive_seed(seed, k))
        slice_ = Plane(center, *directions) if axes == 2 else Line(center, *directions)
        path = journal_path(journal, k, "slice")
        land = scan(objective, slice_, sampler, engine=engine, journal=path, progress=progress)
        title = f"random {'plane' if axes == 2 else 'direction'} {k + 1}"
        lands.append(Landscape(land.data.assign_attrs(title=title), land.seconds))
    return lands


def choose_point(objective: Objective, params: Mapping[str, Tensor] | None) -> Params:
    """Return the point of an analysis: ``params``, or the center if None.

    Raises:
        ParamsError: When ``params`` do not have the names and shapes of the center.
    """
    check_objective(objective)
    center = objective.center
    if params is None:
        return center
    check_like(params_.wrap(params), center, "params")
    return params_.clone(like(center, params))


def derive_seed(seed: int, k: int) -> int:
    """Return the seed of the k-th plane: no two calls with small seeds share one."""
    return seed * 1_000_003 + k


def journal_path(
    folder: str | os.PathLike[str] | None, k: int, name: str = "profile"
) -> Path | None:
    """Return the path of the k-th journal in a folder, which is made; None without a folder."""
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / f"{name}_{k}.sqlite"
