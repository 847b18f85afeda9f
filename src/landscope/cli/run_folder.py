"""Runs: the folder of a scan, with all that is needed to understand it and to go on with it.

journal.sqlite          every value, the moment that it exists
directions.safetensors  the directions, by axis: "x/layer1.weight", ...
landscape.nc            the result; the same question gives the same file, bit for bit
run.json                what was asked, versions, seconds
*.png, page.html        pictures; preview.png while an adaptive scan is under way
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscope import landscape
from landscope._version import __version__
from landscope.engines.job import Engine
from landscope.engines.tuning import Plan
from landscope.errors import FormatError, JournalError
from landscope.files import write_atomically
from landscope.landscape import Landscape
from landscope.objective.objective import Objective
from landscope.objective.quantities import Quantity
from landscope.params import Params, like
from landscope.progress import Progress, Report
from landscope.sampling.calibrated import Calibrated
from landscope.sampling.grid import Grid, Sampler
from landscope.scanning.journal import Journal
from landscope.scanning.loop import scan
from landscope.slices.seeded_directions import Seeded, remade
from landscope.slices.slices import Direction, Slice

JOURNAL, DIRECTIONS, LANDSCAPE, ASKED = (
    "journal.sqlite", "directions.safetensors", "landscape.nc", "run.json",
)  # fmt: skip


PREVIEW = "preview.png"
_FIRST_PREVIEW = 5.0  # seconds after the start


def perform(
    objective: Objective,
    slice: Slice,  # noqa: A002 - the field's word, and that of ls.scan
    sampler: Sampler,
    folder: str | os.PathLike[str],
    *,
    record: Mapping[str, Any],
    title: str | None = None,
    progress: Report | bool | None = None,
    engine: Engine | None = None,
    budget: float | str | None = None,
    samples: Calibrated | None = None,
    quantities: Sequence[Quantity] = (),
) -> Landscape:
    """Return the landscape of a scan that keeps everything in a folder, and goes on there.

    Args:
        objective: what to evaluate.
        slice: where.
        sampler: at which points.
        folder: of the run; made when it is not there.
        record: the request, for run.json.
        title: of the landscape, for pictures.
        progress: as in ``ls.scan``.
        engine: as in ``ls.scan``.
        budget: as in ``ls.scan``.
        samples: as in ``ls.scan``.
        quantities: as in ``ls.scan``.

    Raises:
        JournalError: when the folder cannot be written, or holds another question.
    """
    folder = made(folder)
    if callable(progress) and (budget is not None or not isinstance(sampler, Grid)):
        progress = _previewing(progress, folder / PREVIEW)
    land = scan(
        objective, slice, sampler, journal=folder / JOURNAL, progress=progress,
        engine=engine, budget=budget, samples=samples, quantities=quantities,
    )  # fmt: skip
    if title:
        land = Landscape(land.data.assign_attrs(title=title), land.seconds)
    keep_directions(slice, folder / DIRECTIONS)
    land.save(folder / LANDSCAPE)
    naive = None if quantities else _naive_seconds(folder, land, objective)
    note(folder, record, seconds=land.seconds, naive=naive)
    (folder / PREVIEW).unlink(missing_ok=True)
    return land


def _naive_seconds(folder: Path, land: Landscape, objective: Objective) -> float | None:
    """Return about how long the plain loop over the whole grid would take; None where unknown.

    It is known from the choice of a plan; and a scan that made plain passes was the plain loop.
    """
    with Journal(folder / JOURNAL) as journal:
        kept, points = journal.settings(), len(journal.values())
    text = kept.get("plan of anchors") or kept.get("plan")
    plan = Plan() if text is None else Plan.loads(text)
    cells = land.data[land.quantity].size
    if plan.plain is not None:
        return cells * plan.plain * objective.problem.rows
    is_plain = plan == Plan() and "plan of anchors" not in kept
    return cells * (land.seconds or 0.0) / points if is_plain and points else None


def _previewing(progress: Report, path: Path) -> Report:
    """Return a progress that draws the surface so far now and then, each time half as often."""
    due = [_FIRST_PREVIEW]

    def tell(now: Progress) -> None:
        progress(now)
        if now.so_far is not None and now.seconds >= due[0]:
            from landscope import draw

            due[0] = 2 * now.seconds
            land = now.so_far()
            if len(land.dims) == 2 and np.isfinite(land.data[land.quantity].values).any():
                draw.save(draw.heatmap(land), path)

    return tell


def made(folder: str | os.PathLike[str]) -> Path:
    """Return a folder that can be written to, making it when it is not there.

    Raises:
        JournalError: when it cannot be.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with write_atomically(path / "probe") as part:
            part.touch()
        (path / "probe").unlink()
    except OSError as error:
        raise JournalError(
            f"folder {path} cannot be written to ({error}): choose another --out."
        ) from error
    return path


def note(
    folder: Path, asked: Mapping[str, Any], *, seconds: float | None, naive: float | None = None
) -> None:
    """Write run.json; ``naive`` are the seconds of a plain loop over the whole grid."""
    told = {
        "asked": dict(asked),
        "seconds": seconds,
        "naive_seconds": naive,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "landscope": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "machine": platform.platform(),
    }
    write_json(folder / ASKED, told)


def write_json(path: Path, told: Mapping[str, Any]) -> None:
    """Write what was found or asked; what is not finite is null, as JSON wants it."""
    text = json.dumps(_finite(told), indent=2, default=str, allow_nan=False)
    with write_atomically(path) as part:
        part.write_text(text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def noted(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what run.json says; nothing for a folder without one.

    Raises:
        FormatError: when the file is damaged.
    """
    path = Path(folder) / ASKED
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except ValueError as error:
        raise FormatError(
            f"{path} is damaged ({error}): delete it; the values are not in it."
        ) from error


def keep_directions(slice_: Slice, path: Path) -> None:
    """Write the directions of a slice, by axis, so that they can be used again."""
    _write_directions({d: p for d, p in slice_.parts.items() if d != "center"}, path)


def keep_vectors(
    vectors: Mapping[str, Params], center: Params, folder: str | os.PathLike[str]
) -> None:
    """Write vectors by axis as the directions of a run; entries that they lack stay still."""
    still = {n: torch.zeros_like(t) for n, t in center.items()}
    whole_ = {dim: like(center, {**still, **vector}) for dim, vector in vectors.items()}
    _write_directions(whole_, Path(folder) / DIRECTIONS)


def _write_directions(parts: Mapping[str, Direction], path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {
        f"{dim}/{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for dim, params in parts.items()
        if not isinstance(params, Seeded)
        for name, tensor in params.items()
    }
    seeds = {dim: json.dumps(p.recipe) for dim, p in parts.items() if isinstance(p, Seeded)}
    with write_atomically(path) as part:
        save_file(tensors, part, seeds)


def directions(folder: str | os.PathLike[str], params: Params) -> list[Direction]:
    """Return the directions that a run kept, with the names of ``params``.

    Those of a seed are drawn again, around ``params``.

    Raises:
        FormatError: when the run kept none, or they belong to another model.
    """
    from safetensors import safe_open

    path = Path(folder) / DIRECTIONS
    if not path.is_file():
        raise FormatError(f"{path} does not exist: {folder} is not the folder of a run.")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        seeds = file.metadata() or {}
    found: list[Direction] = []
    for dim in ("x", "y", "z"):
        if dim in seeds:
            found.append(remade(params, json.loads(seeds[dim])))
            continue
        named = {n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(f"{dim}/")}
        if named:
            missing = next((n for n in params if n not in named), None)
            if missing:
                raise FormatError(f"{path} has no direction for {missing!r}: it is of another"
                                  " model, or over other parameters (--over).")  # fmt: skip
            found.append(like(params, {n: named[n].to(t) for n, t in params.items()}))
    return found


def opened(folder: str | os.PathLike[str], *, batches: int | None = None) -> Landscape:
    """Return the landscape of a run, or of any file that holds one (.h5 of 2018 as well).

    Args:
        folder: of the run, or the file.
        batches: over which a 2018 script summed its eigenvalues; see ``read_surface``.

    Raises:
        FormatError: when there is none.
    """
    path = Path(folder)
    if path.suffix == ".h5":
        from landscope.formats import reference_h5

        return reference_h5.read_surface(path, batches=batches)
    if path.is_dir() and path.suffix != ".zarr" and not (path / LANDSCAPE).is_file():
        what = "its scan is not finished: run it again" if (path / JOURNAL).is_file() else (
            "it is not the folder of a run")  # fmt: skip
        raise FormatError(f"{path} holds no {LANDSCAPE}: {what}.")
    land = landscape.load(path)
    seconds = noted(path).get("seconds") if path.is_dir() else None
    return Landscape(land.data, seconds)


def pictures(
    land: Landscape,
    folder: str | os.PathLike[str],
    *,
    quantity: str | None = None,
    scale: str | None = None,
    kind: str = "png",
) -> list[Path]:
    """Draw every picture that fits a line or a plane into a folder; return the files.

    Args:
        land: what to draw.
        folder: where to.
        quantity: of a plane; its loss if not given.
        scale: "log" or "linear"; what suits the values if not given.
        kind: "png", "pdf" or "svg".

    Raises:
        DrawError: when it cannot be drawn as asked.
    """
    from landscope import draw

    place = Path(folder)
    extra = []
    if "averaged_loss" in land.data and quantity is None:
        beside = draw.quantities_figure(land, ("loss", "averaged_loss"), scale=scale)
        extra = [draw.save(beside, place / f"averaged.{kind}")]
    if len(land.dims) == 1:
        scales = [scale] if scale else ["linear", "log"] if _positive(land) else ["linear"]
        lines = [draw.save(draw.line(land, scale=s), place / f"line_{s}.{kind}") for s in scales]
        return lines + extra
    renderers: dict[str, Callable[..., Any]] = {
        "surface": draw.surface,
        "contour": draw.contour,
        "filled": draw.filled,
        "heatmap": draw.heatmap,
    }
    if f"{land.quantity}_error" in land.data:
        renderers["error"] = lambda land, **_: draw.error_map(land)
    stem = f"_{quantity}" if quantity and quantity != land.quantity else ""
    return [
        draw.save(render(land, quantity=quantity, scale=scale), place / f"{name}{stem}.{kind}")
        for name, render in renderers.items()
    ] + extra


def _positive(land: Landscape) -> bool:
    return bool((land.data[land.quantity] > 0).any())
