"""The command that draws paths of training over the surface: from folders to pictures.

RUN/paths/*.nc        where each trajectory runs: coordinates, distances off the plane, losses
RUN/trajectory.json   the principal components and the ends of the paths, in numbers

Torch and matplotlib are imported inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscope.cli import options, report
from landscope.cli.options import Address, Arguments, Gpus, Ignore, Out, Where, Workers
from landscope.cli.scan_request import ScanRequest
from landscope.errors import FormatError

if TYPE_CHECKING:
    from landscope.analysis.training_path import TrainingPath
    from landscope.cli.recorded_training import RecordedTraining
    from landscope.landscape import Landscape
    from landscope.objective.objective import Objective
    from landscope.slices.slices import Affine
    from landscope.training.principal_components import PCA
    from landscope.training.trajectory import Trajectory

_RECORDED = ("target", "spans", "directions", "adaptive", "tolerance")  # of the request

Buffers = Literal["keep", "recompute"]
Animation = Literal["gif", "mp4"]


def trajectory(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Folders of checkpoints: from ls.Recorder, from landscope train --record, or with"
            " numbered files or folders: model_3.t7, epoch_3.pth, checkpoint-500.",
        ),
    ],
    *,
    out: Out,
    target: Annotated[
        str | None,
        typer.Option(
            help="file.py:function, package.module:function or zoo:NAME; the one that landscope"
            " train recorded in the first DIR if not given."
        ),
    ] = None,
    set_: Arguments = None,
    ignore: Annotated[
        Ignore, typer.Option(help="Parameters that the principal components leave out.")
    ] = "none",
    directions: Annotated[
        Path | None,
        typer.Option(
            help="Use the directions of a run's folder or a .h5 file of the 2018 scripts instead."
        ),
    ] = None,
    buffers: Annotated[
        Buffers | None,
        typer.Option(
            help="Batch-norm statistics: those of the last checkpoint (keep), or computed at every"
            " point (recompute, twice the time); if not given, recompute for several DIRs."
        ),
    ] = None,
    grid: Annotated[int, typer.Option(min=5, help="Number of points per axis.")] = 51,
    margin: Annotated[
        float,
        typer.Option(min=0.0, help="Margin around the paths, as a share of the longest axis."),
    ] = 0.2,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Evaluate about a tenth of the points.")
    ] = False,
    animate: Annotated[
        Animation | None, typer.Option(help="Also write an animation of the paths.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the pictures.")] = None,
    engine: Where = "local",
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0,
) -> None:
    """Draw the path that training took over the surface, and measure how far off the plane it runs.

    The plane is that of the first two principal components of all checkpoints, through the last one
    (with several DIRs: through their mean). Each checkpoint has two losses: its own, and that of
    its projection, which the surface shows. After Ctrl-C or a crash, the same command continues
    where it stopped.
    """
    from landscope.analysis.training_path import spans
    from landscope.cli import run_folder
    from landscope.cli.path_folder import project_trajectories
    from landscope.cli.recorded_scan import run_scan
    from landscope.cli.recorded_training import find_training
    from landscope.progress import show_bar

    trajectories = _open_trajectories(folders)
    training = find_training(folders, target, set_ or ())
    objective = _make_objective(training, trajectories, buffers)
    trajectories = _name_parameters(trajectories, objective)
    request = ScanRequest(training.target, directions=directions, adaptive=adaptive)
    run = run_folder.create_run(out)
    with report.exit_on_interrupt(out):
        pca, plane = _make_plane(trajectories, objective, ignore, request)
        paths = project_trajectories(plane, trajectories, objective, run)
    request = replace(request, spans=tuple((*ends, grid) for ends in spans(paths, margin)))
    record = {
        "command": "trajectory", "folders": folders, "set": training.arguments, "margin": margin,
        "ignore": ignore, "buffers": objective.problem.buffers, **request.record(*_RECORDED),
    }  # fmt: skip
    with report.exit_on_interrupt(out), show_bar(f"scan {training.target}") as progress:
        land = run_scan(
            objective, plane, request.make_sampler(), out, request=record, progress=progress,
            title=title or ", ".join(t.name for t in trajectories),
            engine=options.make_engine(engine, workers, address, gpus),
        )  # fmt: skip
    report.print_landscape(land, out)
    _report_summary(_summarize(training.target, trajectories, paths, pca), pca, run)
    report.print_files(_draw(land, paths, run, animate))


def _open_trajectories(folders: Sequence[Path]) -> list[Trajectory]:
    """Return the trajectories, with their notes printed, such as which checkpoints are skipped."""
    from landscope.training.trajectory import Trajectory

    names = _shorten_names(folders)
    trajectories = [Trajectory.open(f, name) for f, name in zip(folders, names, strict=True)]
    for trajectory in trajectories:
        if trajectory.reading:
            report.print_warning(trajectory.reading)
        for note in trajectory.notes:
            report.print_warning(f"skipped: {note}")
    return trajectories


def _shorten_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the folders' paths that are all different."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise FormatError("a DIR is given twice: each trajectory is drawn once.")
    longest = max(len(p) for p in parts)
    for count in range(1, longest + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            break
    return names


def _make_objective(
    training: RecordedTraining, trajectories: Sequence[Trajectory], buffers: Buffers | None
) -> Objective:
    """Return the objective at the end of the first trajectory.

    Batch-norm statistics are recomputed at every point if the user wants it, and for several
    trajectories, because the mean of several networks has no recorded statistics.
    """
    from landscope.objective.objective import Objective

    objective = training.make_objective(trajectories[0][-1])
    has_statistics = any(n.endswith("running_mean") for n, _ in objective.model.named_buffers())
    recompute = buffers == "recompute" or (buffers is None and len(trajectories) > 1)
    if not (has_statistics and recompute):
        return objective
    return Objective.of(replace(objective.problem, buffers="recompute"))


def _name_parameters(trajectories: Sequence[Trajectory], objective: Objective) -> list[Trajectory]:
    """Return the trajectories; those of old files learn which tensors are parameters."""
    from landscope.training.trajectory import Trajectory

    return [
        t if t[0].names else Trajectory.open(t.folder, t.name, like=objective.center)
        for t in trajectories
    ]


def _make_plane(
    trajectories: Sequence[Trajectory],
    objective: Objective,
    ignore: Ignore,
    request: ScanRequest,
) -> tuple[PCA | None, Affine]:
    """Return the plane of the request's directions, or that of principal components with them."""
    from landscope.analysis import path_projection
    from landscope.cli.slice_options import make_slice
    from landscope.training import principal_components

    if request.directions is not None:
        return None, make_slice(request, objective)
    report.print_line(f"principal components of {sum(map(len, trajectories))} checkpoints")
    pca = principal_components.pca(trajectories, ignore=None if ignore == "none" else ignore)
    return pca, path_projection.plane(pca, objective)


def _summarize(
    target: str,
    trajectories: Sequence[Trajectory],
    paths: Sequence[TrainingPath],
    pca: PCA | None,
) -> dict[str, Any]:
    components = {} if pca is None else {
        "explained_variance_ratio": pca.explained_variance_ratio.tolist(),
        "explained_by_two": float(pca.explained_variance_ratio.sum()),
        "explained_variance": pca.explained_variance.tolist(),
        "singular_values": pca.singular_values.tolist(),
        "total_variance": pca.total_variance,
        "ignore": pca.ignore,
    }  # fmt: skip
    summaries = [
        {"name": p.name, "folder": str(t.folder), "checkpoints": len(t), **_summarize_path(p)}
        for t, p in zip(trajectories, paths, strict=True)
    ]
    total = sum(map(len, trajectories))
    return {"target": target, "checkpoints": total, **components, "paths": summaries}


def _summarize_path(path: TrainingPath) -> dict[str, float]:
    """Return the losses at both ends of a path, and how far off the plane it runs."""
    import numpy as np

    loss, relative = path.data["loss"].values, path.data["relative_distance"].values
    finite = relative[np.isfinite(relative)]
    return {
        "first_loss": float(loss[0]),
        "last_loss": float(loss[-1]),
        "greatest_relative_distance": float(finite.max()) if finite.size else float("nan"),
        "greatest_distance": float(np.nanmax(path.data["distance"].values, initial=0.0)),
    }


def _report_summary(numbers: dict[str, Any], pca: PCA | None, run: Path) -> None:
    """Write the numbers to trajectory.json, and print them."""
    from landscope.cli import run_folder
    from landscope.cli.opened_run import TRAJECTORY

    run_folder.write_json(run / TRAJECTORY, numbers)
    for label in () if pca is None else pca.labels:
        report.print_line(f"  {label}")
    for path in numbers["paths"]:
        report.print_line(
            f"  {path['name']}: {path['checkpoints']} checkpoints, loss {path['first_loss']:.4g} to"
            f" {path['last_loss']:.4g}; up to {path['greatest_distance']:.3g} off the plane, and up"
            f" to {path['greatest_relative_distance']:.0%} of its distance from the center"
        )


def _draw(
    land: Landscape, paths: list[TrainingPath], run: Path, animation: Animation | None
) -> list[Path]:
    from landscope import draw
    from landscope.cli import pictures

    files = pictures.draw_pictures(land, run) + pictures.draw_path_pictures(land, paths, run)
    files.append(draw.page([land], run / "page.html", paths=[paths]))
    if animation is not None:
        files.append(draw.animate(land, paths, run / f"walk.{animation}"))
    return files
