"""A scan that records all its results in the folder of a run, and resumes there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from landscope.cli.recorded_command import describe_command, describe_differences
from landscope.cli.recorded_request import describe_request
from landscope.cli.run_folder import (
    JOURNAL,
    LANDSCAPE,
    create_run,
    read_metadata,
    write_directions,
    write_metadata,
)
from landscope.engines.job import Engine
from landscope.engines.plan import Plan
from landscope.errors import FormatError, JournalError
from landscope.landscape import Landscape
from landscope.objective.objective import Objective
from landscope.objective.quantities import Quantity
from landscope.progress import Progress, Report, open_report
from landscope.sampling.calibrated import Calibrated
from landscope.sampling.grid import Grid, Sampler
from landscope.scanning.journal import Journal, OtherScanError
from landscope.scanning.loop import scan
from landscope.slices.slices import Slice

PREVIEW = "preview.png"
_FIRST_PREVIEW = 5.0  # seconds after the start


def run_scan(
    objective: Objective,
    slice: Slice,  # noqa: A002 - the field's word, and that of ls.scan
    sampler: Sampler,
    folder: str | os.PathLike[str],
    *,
    request: Mapping[str, Any],
    title: str | None = None,
    progress: Report | bool | None = None,
    engine: Engine | None = None,
    budget: float | str | None = None,
    samples: Calibrated | None = None,
    quantities: Sequence[Quantity] = (),
) -> Landscape:
    """Return the landscape of a scan that is recorded in a folder, where it also resumes.

    Args:
        objective: As in ``ls.scan``.
        slice: As in ``ls.scan``.
        sampler: As in ``ls.scan``.
        folder: The folder of the run, which is created if it does not exist.
        request: The command and its options, for run.json.
        title: The title of the landscape, for pictures.
        progress: As in ``ls.scan``.
        engine: As in ``ls.scan``.
        budget: As in ``ls.scan``.
        samples: As in ``ls.scan``.
        quantities: As in ``ls.scan``.

    Raises:
        JournalError: When the folder cannot be written to, or holds another scan.
    """
    run = create_run(folder)
    if callable(progress) and (budget is not None or not isinstance(sampler, Grid)):
        progress = _with_preview(progress, run / PREVIEW)
    with _explain_other_scan(run, request), open_report(progress) as report:
        land = scan(
            objective, slice, sampler, journal=run / JOURNAL,
            progress=_with_request(report, run, request), engine=engine, budget=budget,
            samples=samples, quantities=quantities,
        )  # fmt: skip
    attributes = describe_request(request) | ({"title": title} if title else {})
    land = Landscape(land.data.assign_attrs(attributes), land.seconds)
    write_directions(slice, run)
    land.save(run / LANDSCAPE)
    naive_seconds = None if quantities else _estimate_plain_loop(run, land, objective)
    write_metadata(run, request, seconds=land.seconds, naive_seconds=naive_seconds)
    (run / PREVIEW).unlink(missing_ok=True)
    return land


def _estimate_plain_loop(run: Path, land: Landscape, objective: Objective) -> float | None:
    """Return about how many seconds the plain loop over the whole grid takes; None if unknown.

    The tuning of a plan measured it, or the scan itself made plain passes only.
    """
    with Journal(run / JOURNAL) as journal:
        settings, points = journal.settings(), len(journal.values())
    text = settings.get("plan of anchors") or settings.get("plan")
    plan = Plan() if text is None else Plan.loads(text)
    cells = land.data[land.quantity].size
    if plan.plain is not None:
        return cells * plan.plain * objective.problem.rows
    is_plain = plan == Plan() and "plan of anchors" not in settings
    return cells * (land.seconds or 0.0) / points if is_plain and points else None


def _with_request(progress: Report, run: Path, request: Mapping[str, Any]) -> Report:
    """Return a progress that first writes run.json, so that a scan that is stopped has one."""
    is_written = _read_before(run).get("finished") is not None

    def report(now: Progress) -> None:
        nonlocal is_written
        if not is_written:
            write_metadata(run, request, seconds=None, is_finished=False)
            is_written = True
        progress(now)

    return report


@contextlib.contextmanager
def _explain_other_scan(run: Path, request: Mapping[str, Any]) -> Iterator[None]:
    """Name the options in which a command differs from the one that made the run."""
    try:
        yield
    except OtherScanError as error:
        before = _read_before(run).get("asked", {})
        differences = describe_differences(before, request) if before else []
        if not differences:
            changed = ", ".join(error.aspects)
            raise JournalError(
                f"{run} holds another scan. The options are the same, but what they name has"
                f" changed since: {changed}. Nothing was written to it: choose another --out."
            ) from error
        raise JournalError(
            f"{run} holds another scan: {'; '.join(differences)}. Nothing was written to it: choose"
            f" another --out, or go on with that scan ({describe_command(before, run)})."
        ) from error


def _read_before(run: Path) -> dict[str, Any]:
    """Return what run.json said before this command; nothing if it is damaged."""
    try:
        return read_metadata(run)
    except FormatError:
        return {}


def _with_preview(progress: Report, path: Path) -> Report:
    """Return a progress that also draws the surface so far, each time after twice as long."""
    next_preview = _FIRST_PREVIEW

    def report(now: Progress) -> None:
        nonlocal next_preview
        progress(now)
        if now.so_far is None or now.seconds < next_preview:
            return
        from landscope import draw

        next_preview = 2 * now.seconds
        land = now.so_far()
        if len(land.dims) == 2 and np.isfinite(land.data[land.quantity].values).any():
            draw.save(draw.heatmap(land), path)

    return report
