"""A first look: the loss around a model in one call, with the choices that suit most models."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from torch import nn

from landscope.landscape import Landscape, check_path
from landscope.objective.objective import Objective
from landscope.progress import Report
from landscope.sampling.adaptive import Adaptive
from landscope.scanning.loop import scan
from landscope.slices.directions import random
from landscope.slices.slices import Plane


def look(
    model: nn.Module,
    loss: Any,
    data: Any,
    *,
    seed: int = 0,
    resolution: int = 51,
    budget: float | str | None = None,
    save: str | os.PathLike[str] | None = None,
    progress: Report | bool | None = True,
) -> Landscape:
    """Return the loss over a plane around a trained model, as a landscape that shows itself.

    A notebook displays it as a picture; ``plot()`` is the picture elsewhere, and ``show()`` a page
    with a surface that can be turned. The plane has two random directions, filter-normalized and
    orthogonal. It reaches to where the loss is that of a model that has learned nothing. About a
    tenth of the points are evaluated, and the others are predicted with an error bar. The model is
    evaluated in evaluation mode, and is unchanged afterwards.

    Args:
        model: The trained module.
        loss: A torch loss module or function (outputs, targets), as for ``ls.Objective``.
        data: (inputs, targets) tensors, a DataLoader, or an iterable of batches that can be
            iterated twice.
        seed: The seed of the directions: another seed is another plane.
        resolution: The number of points along each axis.
        budget: The time for the whole scan, in seconds or as a text such as "5m", for models or
            data that are large: it replaces the resolution, and draws samples where it must. By
            default there is no limit.
        save: A .nc, .zarr or .csv file for the landscape. A journal beside it keeps every value, so
            that the same call resumes after an interruption. By default nothing is written.
        progress: True for a bar with the time left, None for none, or a function that is called
            with an ``ls.Progress``.

    Returns:
        The landscape, whose ``data`` hold the values with error bars, ranges and origin.

    Raises:
        ObjectiveError, DirectionError, DeterminismError, SamplerError, FormatError: When model,
            loss, data or options do not fit; the text explains what to do.

    Cost: about 250 passes over the data for a smooth surface, up to ``resolution`` squared for a
    rough one, and some 40 to find the span; the bar shows the time left from the first points on.
    ``ls.estimate`` says beforehand what a scan costs.

    Source: filter-normalized planes, Li et al. 2018 (arXiv 1712.09913), section 4.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> model = torch.nn.Linear(4, 3)
        >>> ls.look(model, torch.nn.CrossEntropyLoss(), data, resolution=9, progress=None).dims
        ('y', 'x')
    """
    file = None if save is None else check_path(save)
    sampler = Adaptive(resolution=resolution, span="auto")
    objective = Objective(model, loss, data)
    plane = Plane(objective.center, *random(objective.center, seed=seed))
    journal = None if file is None else file.with_suffix(".sqlite")
    with _evaluation_mode(model):
        land = scan(objective, plane, sampler, budget=budget, journal=journal, progress=progress)
    if file is not None:
        land.save(file)
    return land


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set every module to evaluation mode, and afterwards each to the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
