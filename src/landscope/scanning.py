"""scan(): the one loop. Slices of any dimension, samplers and engines of any kind.

The module is not called ``scan``: a module of that name would take the place of the function
``landscope.scan`` as soon as anyone imported it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscope import _version, fingerprint
from landscope.engines import Engine, Quantity
from landscope.engines.local import Local
from landscope.errors import ObjectiveError, SliceError
from landscope.journal import Journal
from landscope.landscape import Landscape
from landscope.objective import Objective
from landscope.sampling import Grid, Sampler
from landscope.slices import Affine, Slice

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Progress:
    """How far a scan is; its last point is in the journal already.

    Args:
        done: points that are known, those of earlier sessions included.
        total: points of the grid.
        seconds: since this session began.
        remaining: seconds left at the pace of this session; None before its first point.
        values: of the last point; empty before the first.
    """

    done: int
    total: int
    seconds: float
    remaining: float | None
    values: Mapping[str, float]


def scan(
    objective: Objective,
    slice: Slice,  # noqa: A002 - the field's word
    sampler: Sampler | None = None,
    *,
    engine: Engine | None = None,
    journal: Journal | str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | bool | None = None,
    quantities: Sequence[Quantity] = (),
) -> Landscape:
    """Return the landscape of an objective over a slice.

    Args:
        objective: what to evaluate.
        slice: where: a Line, a Plane, a Volume, or anything with the four members of Slice.
        sampler: at which points; ``Grid(51)`` on [-1, 1] if not given.
        engine: who evaluates; this machine if not given.
        journal: a file that keeps every value as it is found. When it is there already the scan
            goes on where it stopped, after checking that it answers the same question.
        progress: called after each point with a Progress; True shows a bar.
        quantities: functions (objective, params) -> {name: number}: further columns.

    Returns:
        The landscape; cells of points that were not asked for are NaN.

    Raises:
        DeterminismError: when the center does not give the same values twice.
        JournalError: when the journal answers another question, or cannot be written.
        SamplerError, SliceError, ObjectiveError: when the parts do not fit.

    Cost: a pass over the data a point, and two for the check of the center when anything is left
    to do. Values equal those of a plain loop to rounding.

    Example:
        >>> import torch, landscope as ls
        >>> data = torch.randn(20, 4), torch.randint(3, (20,))
        >>> objective = ls.Objective(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), data)
        >>> dx, dy = ls.directions.random(objective.center)
        >>> land = ls.scan(objective, ls.Plane(objective.center, dx, dy), ls.Grid(5))
        >>> land.data["loss"].shape
        (5, 5)
    """
    sampler = Grid() if sampler is None else sampler
    engine = Local() if engine is None else engine
    dims = slice.dims
    axes = sampler.axes(dims)
    shape = tuple(len(axis) for axis in axes)
    question = _question(objective, slice, axes, quantities)
    report = _reporter(progress)
    own = journal if isinstance(journal, Journal) else Journal(journal)
    with contextlib.nullcontext(own) if isinstance(journal, Journal) else own, report as tell:
        own.begin(question)
        known = own.known()
        clock = _Clock(len(known), int(np.prod(shape)))
        tell(clock.progress(len(known), {}))
        checked = False
        while wanted := sampler.ask(shape, known):
            if not checked:
                objective.probe()
                own.remark(objective.notes)
                checked = True
            points = ((k, _coordinates(axes, shape, k)) for k in wanted)
            with contextlib.closing(engine.run(objective, slice, points, quantities)) as results:
                for result in results:
                    own.write(result.point, result.values, result.seconds)
                    # SQLite has no -0.0: what is returned now is what a resumed scan returns.
                    known[result.point] = {n: v + 0.0 for n, v in result.values.items()}
                    tell(clock.progress(len(known), result.values))
        seconds, remarks = own.seconds, own.remarks
    data = _dataset(objective, slice, axes, known, question)
    data.attrs["notes"] = "; ".join([*remarks, *objective.data_notes])
    return Landscape(data, seconds)


def _coordinates(axes: Sequence[np.ndarray], shape: Sequence[int], index: int) -> tuple[float, ...]:
    """Return the coordinates of a flat index, x running fastest."""
    found = []
    for axis, count in zip(axes, shape, strict=True):
        index, k = divmod(index, count)
        found.append(float(axis[k]))
    return tuple(found)


def _question(
    objective: Objective, slice_: Slice, axes: Sequence[np.ndarray], quantities: Sequence[Quantity]
) -> dict[str, str]:
    if not isinstance(objective, Objective):
        raise ObjectiveError(
            f"objective is a {type(objective).__name__}; expected an ls.Objective(model, loss,"
            " data)."
        )
    parts = {role: fingerprint.of_tensors(params) for role, params in slice_.parts.items()}
    if isinstance(slice_, Affine) and not set(slice_.center) & set(
        objective.model.state_dict(keep_vars=True)
    ):
        raise SliceError("the slice moves no parameter of the objective's model.")
    return {
        **objective.question(),
        "slice": f"{type(slice_).__name__} {json.dumps(parts)}",
        "grid": json.dumps(
            {d: [float(a[0]), float(a[-1]), len(a)] for d, a in zip(slice_.dims, axes, strict=True)}
        ),
        "quantities": json.dumps([fingerprint.of_function(q) for q in quantities]),
    }


def _dataset(
    objective: Objective,
    slice_: Slice,
    axes: Sequence[np.ndarray],
    known: Mapping[int, Mapping[str, float]],
    question: Mapping[str, str],
) -> xr.Dataset:
    import xarray as xr

    dims = slice_.dims[::-1]
    shape = tuple(len(axis) for axis in axes)[::-1]
    own = [prefix + n for prefix in objective.batches for n in ("loss", *objective.metrics)]
    found = {name for values in known.values() for name in values}
    names = [*filter(found.__contains__, own), *sorted(found - set(own))]  # the same when resumed
    columns = {name: np.full(int(np.prod(shape)), np.nan) for name in names}
    for index, values in known.items():
        for name, value in values.items():
            columns[name][index] = value
    units = _units(objective)
    labels = dict(zip(slice_.dims, getattr(slice_, "labels", ()), strict=False))
    return xr.Dataset(
        {
            name: (dims, column.reshape(shape), _attributes(name, units))
            for name, column in columns.items()
        },
        coords={
            dim: ((dim,), axis, {"units": "1", "long_name": labels.get(dim, f"direction {dim}")})
            for dim, axis in zip(slice_.dims, axes, strict=True)
        },
        attrs=_provenance(objective, question),
    )


def _attributes(name: str, units: Mapping[str, str]) -> dict[str, str]:
    prefix, _, rest = name.partition("_")
    plain = rest if prefix in ("train", "test") else name
    words = {"train": "training ", "test": "test "}.get(prefix, "") + plain.replace("_", " ")
    return {"units": units.get(plain, ""), "long_name": words}


def _units(objective: Objective) -> dict[str, str]:
    return {
        "loss": objective.loss_terms.units,
        **{n: m.units for n, m in objective.metrics.items()},
    }


def _provenance(objective: Objective, question: Mapping[str, str]) -> dict[str, str]:
    """Return where a result comes from: nothing in it changes from one run to the next."""
    return {
        **objective.describe(),
        "fingerprints": json.dumps(dict(question)),
        "made_with": f"landscope {_version.VERSION}, torch {torch.__version__},"
        f" numpy {np.__version__}, Python {platform.python_version()}",
    }


class _Clock:
    """Seconds so far and seconds left."""

    def __init__(self, known: int, total: int) -> None:
        self.began, self.known, self.total = time.perf_counter(), known, total

    def progress(self, done: int, values: Mapping[str, float]) -> Progress:
        seconds = time.perf_counter() - self.began
        fresh = done - self.known
        remaining = seconds / fresh * (self.total - done) if fresh else None
        return Progress(done, self.total, seconds, remaining, values)


@contextlib.contextmanager
def _reporter(
    progress: Callable[[Progress], None] | bool | None,
) -> Iterator[Callable[[Progress], None]]:
    if callable(progress):
        yield progress
    elif progress:
        with bar("scan") as tell:
            yield tell
    else:
        yield lambda _: None


@contextlib.contextmanager
def bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar with the time left on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("points"), TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    with Bar(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(title, total=None, left="")

        def tell(now: Progress) -> None:
            left = "" if now.remaining is None else f"{_clock_text(now.remaining)} left"
            shown.update(task, completed=now.done, total=now.total, left=left)

        yield tell


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
