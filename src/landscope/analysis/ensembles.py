"""Ensembles: the same scan along several random directions, to see what is chance in it."""

from __future__ import annotations

import os
from pathlib import Path

from landscope.engines.job import Engine
from landscope.errors import ParamsError
from landscope.landscape import Landscape
from landscope.objective.objective import Objective
from landscope.progress import Report
from landscope.sampling.adaptive import Adaptive
from landscope.sampling.grid import Grid, Sampler
from landscope.scanning.loop import scan
from landscope.slices import directions as directions_
from landscope.slices.slices import Line, Plane


def ensemble(
    objective: Objective,
    count: int = 9,
    sampler: Sampler | int | None = None,
    *,
    axes: int = 2,
    engine: Engine | None = None,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Report | bool | None = None,
) -> list[Landscape]:
    """Return the landscapes over several random planes (or lines) through the center.

    Draw planes as small multiples on one scale, ``ls.draw.side_by_side_figure(lands)``, and lines
    as a band, ``ls.draw.loss_band(lands)``: what differs among them is chance, not the network.

    Args:
        objective: what to evaluate.
        count: how many.
        sampler: at which points, as in ``ls.scan``; ``Adaptive(resolution=31)`` if not given, for
            lines ``Grid(31)``.
        axes: 2 for planes, 1 for lines.
        engine: as in ``ls.scan``.
        folder: keeps a journal of each, so that the same call goes on where it stopped.
        seed: of the directions; each plane has its own.
        progress: as in ``ls.scan``, for each in turn.

    Raises:
        ParamsError: when there is none to make, or axes is not 1 or 2.

    Cost: a scan each.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> lands = ls.ensemble(objective, 3, ls.Grid(5), axes=1)
        >>> axes = ls.draw.loss_band(lands)
    """
    if count < 1 or axes not in (1, 2):
        raise ParamsError(f"count={count}, axes={axes}; expected 1 or more, and 1 or 2 axes.")
    if sampler is None:
        sampler = Adaptive(resolution=31) if axes == 2 else Grid(31)
    found = []
    for k in range(count):
        drawn = directions_.random(objective.center, axes, seed=own_seed(seed, k))
        where = Plane(objective.center, *drawn) if axes == 2 else Line(objective.center, *drawn)
        journal = place(folder, k, "slice")
        land = scan(objective, where, sampler, engine=engine, journal=journal, progress=progress)
        title = f"random {'plane' if axes == 2 else 'direction'} {k + 1}"
        found.append(Landscape(land.data.assign_attrs(title=title), land.seconds))
    return found


def own_seed(seed: int, k: int) -> int:
    """Return the seed of the k-th plane: no two calls with small seeds share one."""
    return seed * 1_000_003 + k


def place(folder: str | os.PathLike[str] | None, k: int, name: str = "profile") -> Path | None:
    """Return the journal of the k-th scan in a folder; None without a folder."""
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / f"{name}_{k}.sqlite"
