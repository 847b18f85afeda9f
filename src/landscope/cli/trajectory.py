"""The command that draws the path of training over the surface: from folders to pictures.

RUN/paths/*.nc        where each trajectory runs: coordinates, distances off the plane, losses
RUN/trajectory.json   the principal components and the ends of the paths, in numbers

Whatever is heavy (torch, matplotlib) is imported inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscope.cli import options, report
from landscope.cli.options import Address, Arguments, EngineName, Gpus, Ignore, Out, Workers
from landscope.cli.scan_request import ScanRequest
from landscope.errors import FormatError, JournalError, TargetError

if TYPE_CHECKING:
    from landscope.analysis.training_path import TrainingPath
    from landscope.landscape import Landscape
    from landscope.objective.objective import Objective
    from landscope.slices.slices import Affine
    from landscope.training.principal_components import PCA
    from landscope.training.trajectory import Checkpoint, Trajectory

TRACED, PATHS = "trajectory.json", "paths"  # what the command finds, in its run's folder
_TRAINED = "training.json"  # what `landscope train` asked for, in the folder of a trajectory
_OF_LOSSES = ("target", "data", "loss", "penalty")  # what it notes of the loss that was trained


Buffers = Literal["keep", "recompute"]
Animation = Literal["gif", "mp4"]


def trajectory(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Folders of checkpoints: of ls.Recorder, of landscope train --record, or of"
            " model_<epoch>.t7 files.",
        ),
    ],
    *,
    out: Out,
    target: Annotated[
        str | None,
        typer.Option(
            help="file.py:function, package.module:function or zoo:NAME; what landscope train"
            " noted in the first DIR if not given."
        ),
    ] = None,
    set_: Arguments = None,
    ignore: Annotated[Ignore, typer.Option(help="Left out by the principal components.")] = "none",
    directions: Annotated[
        Path | None,
        typer.Option(help="Use these instead: a run's folder or a 2018 .h5 file."),
    ] = None,
    buffers: Annotated[
        Buffers | None,
        typer.Option(
            help="Batch-norm statistics of the last checkpoint (keep), or computed at every point"
            " (recompute: twice the time); if not given, recompute for several DIRs."
        ),
    ] = None,
    grid: Annotated[int, typer.Option(min=5, help="Points an axis.")] = 51,
    margin: Annotated[
        float, typer.Option(min=0.0, help="Left free around the paths, in lengths of the plane.")
    ] = 0.2,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Evaluate about a tenth of the points.")
    ] = False,
    animate: Annotated[
        Animation | None, typer.Option(help="Write the path being walked as well.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title for pictures.")] = None,
    engine: Annotated[EngineName, typer.Option(help="Who evaluates.")] = "local",
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0,
) -> None:
    """Draw the path that training took over the surface, and tell how far off the plane it runs.

    The plane is that of the first two principal components of all checkpoints, through the last one
    (of several DIRs: through their mean). Each checkpoint has its own loss beside that of its
    projection, which is the one that the surface shows. After Ctrl-C or a crash the same command
    goes on where it stopped.
    """
    from landscope import draw
    from landscope.analysis.training_path import spans
    from landscope.cli import run_folder
    from landscope.cli.pictures import draw_pictures
    from landscope.cli.recorded_scan import run_scan
    from landscope.progress import show_bar

    walks = _opened(folders)
    target, arguments, noise = _asked(folders, target, set_ or ())
    objective = _objective(target, arguments, walks[0][-1], noise)
    if buffers == "recompute" or (buffers is None and len(walks) > 1):
        objective = _with_own_statistics(objective)
    walks = _like(walks, objective)
    request = ScanRequest(target, directions=directions, adaptive=adaptive)
    run_folder.create_run(out)
    with report.stoppable(out):
        pca, plane = _plane(walks, objective, ignore, request)
        paths = _traced(plane, walks, objective, out)
    request = replace(request, spans=tuple((*ends, grid) for ends in spans(paths, margin)))
    record = {
        "command": "trajectory", "folders": folders, "set": arguments, "margin": margin,
        "ignore": ignore, "buffers": objective.problem.buffers,
        **request.record("target", "spans", "directions", "adaptive", "tolerance"),
    }  # fmt: skip
    with report.stoppable(out), show_bar(f"scan {target}") as progress:
        land = run_scan(
            objective, plane, request.make_sampler(), out, request=record, progress=progress,
            title=title or ", ".join(walk.name for walk in walks),
            engine=options.make_engine(engine, workers, address, gpus),
        )  # fmt: skip
    run_folder.write_json(out / TRACED, _numbers(target, walks, paths, pca))
    report.tell(land, out)
    _tell(walks, paths, pca)
    files = [*draw_pictures(land, out), *pictures(land, out, out)]
    files.append(draw.page([land], out / "page.html", paths=[paths]))
    if animate is not None:
        files.append(draw.animate(land, paths, out / f"walk.{animate}"))
    report.tell_files(files)


def paths_of(run: Path) -> list[TrainingPath]:
    """Return the paths that a run of ``landscope trajectory`` keeps; none for other runs.

    Raises:
        FormatError: when one of them is damaged.
    """
    from landscope.analysis.training_path import TrainingPath

    found = [TrainingPath.load(file) for file in _files(run)]
    return sorted(found, key=lambda path: int(path.data.attrs.get("number", 0)))


def _files(run: Path) -> list[Path]:
    """Return the files of paths; a hidden one is what a killed process had not finished."""
    return sorted((run / PATHS).glob("[!.]*.nc")) if run.is_dir() else []


def pictures(
    land: Landscape, run: Path, folder: Path, *, scale: str | None = None, kind: str = "png"
) -> list[Path]:
    """Draw the paths that a run keeps over its plane into a folder; return the files.

    Args:
        land: of the run.
        run: its folder; nothing is drawn for a run without paths.
        folder: where to.
        scale: "log" or "linear"; what suits the values if not given.
        kind: "png", "pdf" or "svg".

    Raises:
        DrawError: when they cannot be drawn as asked.
        FormatError: when a path is damaged.
    """
    from landscope import draw

    paths = paths_of(run)
    if not paths:
        return []
    return [
        draw.save(draw.path(land, paths, scale=scale), folder / f"path.{kind}"),
        draw.save(draw.path_errors_figure(paths), folder / f"path_errors.{kind}"),
        draw.save(draw.path_surface(land, paths, scale=scale), folder / f"path_surface.{kind}"),
    ]


def _opened(folders: Sequence[Path]) -> list[Trajectory]:
    """Return the trajectories, and tell what was passed over."""
    from landscope.training.trajectory import Trajectory

    names = _names(folders)
    walks = [Trajectory.open(f, name) for f, name in zip(folders, names, strict=True)]
    for note in [note for walk in walks for note in walk.notes]:
        report.complain(f"passed over: {note}")
    return walks


def _names(folders: Sequence[Path]) -> list[str]:
    """Return names of folders as short as they can be told apart."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise FormatError("a DIR is given twice: each trajectory is drawn once.")
    longest = max(len(p) for p in parts)
    for count in range(1, longest + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            break
    return names


def _asked(
    folders: Sequence[Path], target: str | None, texts: Sequence[str]
) -> tuple[str, list[str], tuple[float, int] | None]:
    """Return the target, its arguments, and (share, seed) of noise in the labels.

    The last is None for what ``landscope train`` has not trained.
    """
    told, *others = map(_noted, folders)
    if target is not None and target != told.get("target"):
        return target, list(texts), None
    if "target" not in told:
        raise TargetError(
            f"{folders[0]} does not say what was trained (it has no {_TRAINED}): pass --target"
            " file.py:function, package.module:function or zoo:NAME."
        )
    for folder, other in zip(folders[1:], others, strict=True):
        odd = next((n for n in _OF_LOSSES if n in other and other[n] != told.get(n)), None)
        if odd is not None:
            report.complain(
                f"{folder} and {folders[0]} differ in the {odd} that they were trained with: all"
                f" losses here are those of {folders[0]}."
            )
    known = [f"{name}={value}" for name, value in told["set"].items()]
    return str(told["target"]), [*known, *texts], told["noise"]


def _noted(folder: Path) -> dict[str, Any]:
    """Return what ``landscope train`` noted in a folder; nothing where it did not write it."""
    file = folder / _TRAINED
    try:
        told = dict(json.loads(file.read_text())) if file.is_file() else {}
        noise = float(told.get("label_noise", 0.0)), int(told.get("seed", 0))
        return {**told, "set": dict(told.get("set", {})), "noise": noise}
    except (ValueError, TypeError) as error:
        raise FormatError(f"{file} is damaged ({error}): pass --target.") from error


def _objective(
    target: str, arguments: Sequence[str], last: Checkpoint, noise: tuple[float, int] | None
) -> Objective:
    """Return the objective of a target with the weights and statistics of a checkpoint."""
    from landscope.cli import targets
    from landscope.training import augmentation as noise_

    if target.startswith("zoo:"):  # with weights of its own it is not trained first
        made = targets.objective(target, arguments=arguments, checkpoint=last.path)
    else:
        made = _standing(targets.objective(target, arguments=arguments), last)
    if noise is None:
        return made
    made.model.eval()  # as in training it was evaluated, whatever the target's function says
    return noise_.corrupt_labels(made, noise[0], seed=noise[1])


def _standing(objective: Objective, checkpoint: Checkpoint) -> Objective:
    """Return the objective centered on a checkpoint, buffers included as far as it has them."""
    import torch

    from landscope.objective.objective import Objective
    from landscope.params import check_like, named_tensors

    alive, kept = dict(named_tensors(objective.model)), checkpoint.states()
    lacking = next((name for name in objective.center if name not in kept), None)
    odd = lacking or next((name for name in kept if name not in alive), None)
    if odd is not None:
        where = f"{checkpoint.path} has no" if lacking else "the model of the target has no"
        raise FormatError(f"{where} {odd!r}: pass the --target that was trained, and its --set.")
    check_like(kept, {name: alive[name] for name in kept}, str(checkpoint.path))
    with torch.no_grad():
        for name, tensor in kept.items():
            alive[name].copy_(tensor)
    return Objective.of(objective.problem.recenter())


def _with_own_statistics(objective: Objective) -> Objective:
    """Return the objective with statistics computed at every point, where there are any.

    The mean of several networks has no statistics that were recorded.
    """
    from landscope.objective.objective import Objective

    if not any(name.endswith("running_mean") for name, _ in objective.model.named_buffers()):
        return objective
    return Objective.of(replace(objective.problem, buffers="recompute"))


def _like(walks: Sequence[Trajectory], objective: Objective) -> list[Trajectory]:
    """Return the trajectories of old files knowing which tensors are parameters."""
    from landscope.training.trajectory import Trajectory

    return [
        walk if walk[0].names else Trajectory.open(walk.folder, walk.name, like=objective.center)
        for walk in walks
    ]


def _plane(
    walks: Sequence[Trajectory],
    objective: Objective,
    ignore: Ignore,
    request: ScanRequest,
) -> tuple[PCA | None, Affine]:
    from landscope.analysis import path_projection
    from landscope.cli.slice_options import make_slice
    from landscope.training import principal_components

    if request.directions is not None:
        return None, make_slice(request, objective)
    report.say(f"principal components of {sum(map(len, walks))} checkpoints")
    found = principal_components.pca(walks, ignore=None if ignore == "none" else "biasbn")
    return found, path_projection.plane(found, objective)


def _traced(
    plane: Affine, walks: Sequence[Trajectory], objective: Objective, run: Path
) -> list[TrainingPath]:
    """Return the trajectories on the plane: as the run keeps them, or made and kept.

    Raises:
        JournalError: when the run has a surface with other paths, which stay.
    """
    from landscope import fingerprint
    from landscope.analysis import path_projection

    questions = [
        fingerprint.of_text(
            path_projection.fingerprint_slice(plane), objective.problem.fingerprints(), number,
            walk.name, *(checkpoint.identity for checkpoint in walk),
        ) for number, walk in enumerate(walks)
    ]  # fmt: skip
    kept = _kept(run, questions)
    for number, (walk, question) in enumerate(zip(walks, questions, strict=True)):
        if question not in kept:
            path = path_projection.project(walk, plane, objective, progress=True)
            path.data.attrs.update(question=question, number=number)
            name = re.sub(r"[^A-Za-z0-9._-]+", "_", walk.name)  # of two walks it may be the same
            path.save(run / PATHS / f"{number}-{name}.nc")
            kept[question] = path
    return [kept[question] for question in questions]


def _kept(run: Path, questions: Sequence[str]) -> dict[str, TrainingPath]:
    """Return the paths that a run keeps, by the questions that they answer."""
    from landscope.analysis.training_path import TrainingPath
    from landscope.cli import run_folder

    found: dict[str, TrainingPath] = {}
    for file in _files(run):
        path = TrainingPath.load(file)
        question = str(path.data.attrs.get("question"))
        if question in questions:
            found[question] = path
        elif (run / run_folder.JOURNAL).exists():
            raise JournalError(
                f"{run} holds the path of another question ({path.name}: of other checkpoints, on"
                " another plane, or with other losses). Nothing was mixed in: ask the same"
                " question, or choose another --out."
            )
        else:  # of a command that was stopped before its surface was begun
            file.unlink()
    return found


def _numbers(
    target: str, walks: Sequence[Trajectory], paths: Sequence[TrainingPath], pca: PCA | None
) -> dict[str, Any]:
    held = {} if pca is None else {
        "explained_variance_ratio": pca.explained_variance_ratio.tolist(),
        "explained_by_two": float(pca.explained_variance_ratio.sum()),
        "explained_variance": pca.explained_variance.tolist(),
        "singular_values": pca.singular_values.tolist(),
        "total_variance": pca.total_variance,
        "ignore": pca.ignore,
    }  # fmt: skip
    ends = [
        {"name": path.name, "folder": str(walk.folder), "checkpoints": len(walk), **_ends(path)}
        for walk, path in zip(walks, paths, strict=True)
    ]
    return {"target": target, "checkpoints": sum(map(len, walks)), **held, "paths": ends}


def _ends(path: TrainingPath) -> dict[str, float]:
    """Return how a path begins and ends, and how far off the plane it gets."""
    import numpy as np

    loss, relative = path.data["loss"].values, path.data["relative_distance"].values
    finite = relative[np.isfinite(relative)]
    return {
        "first_loss": float(loss[0]),
        "last_loss": float(loss[-1]),
        "greatest_relative_distance": float(finite.max()) if finite.size else float("nan"),
        "greatest_distance": float(np.nanmax(path.data["distance"].values, initial=0.0)),
    }


def _tell(walks: Sequence[Trajectory], paths: Sequence[TrainingPath], pca: PCA | None) -> None:
    if pca is not None:
        for label in pca.labels:
            report.say(f"  {label}")
    for walk, path in zip(walks, paths, strict=True):
        ends = _ends(path)
        report.say(
            f"  {path.name}: {len(walk)} checkpoints, loss {ends['first_loss']:.4g} to"
            f" {ends['last_loss']:.4g}; up to {ends['greatest_distance']:.3g} off the plane, and up"
            f" to {ends['greatest_relative_distance']:.0%} of its distance from the center"
        )
