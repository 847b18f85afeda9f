"""The paths of training in the folder of a run: ``RUN/paths/*.nc``, one file per trajectory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from landscope import fingerprint
from landscope.analysis import path_projection
from landscope.analysis.training_path import TrainingPath
from landscope.cli.run_folder import JOURNAL
from landscope.errors import JournalError
from landscope.objective.objective import Objective
from landscope.slices.slices import Affine
from landscope.training.trajectory import Trajectory

PATHS = "paths"


def read_paths(run: Path) -> list[TrainingPath]:
    """Return the paths of a run of ``landscope trajectory``; none for other runs.

    Raises:
        FormatError: When one of them is damaged.
    """
    paths = [TrainingPath.load(file) for file in _list_files(run)]
    return sorted(paths, key=lambda path: int(path.data.attrs.get("number", 0)))


def project_trajectories(
    plane: Affine, trajectories: Sequence[Trajectory], objective: Objective, run: Path
) -> list[TrainingPath]:
    """Return the trajectories projected on a plane: read from the run, or computed and written.

    Raises:
        JournalError: When the run has a surface with other paths, which stay there.
    """
    keys = [
        fingerprint.of_text(
            path_projection.fingerprint_slice(plane), objective.problem.fingerprints(), number,
            trajectory.name, *(checkpoint.identity for checkpoint in trajectory),
        ) for number, trajectory in enumerate(trajectories)
    ]  # fmt: skip
    stored = _read_matching(run, keys)
    for number, (trajectory, key) in enumerate(zip(trajectories, keys, strict=True)):
        if key not in stored:
            path = path_projection.project(trajectory, plane, objective, progress=True)
            path.data.attrs.update(question=key, number=number)
            name = re.sub(
                r"[^A-Za-z0-9._-]+", "_", trajectory.name
            )  # two trajectories may share it
            path.save(run / PATHS / f"{number}-{name}.nc")
            stored[key] = path
    return [stored[key] for key in keys]


def _read_matching(run: Path, keys: Sequence[str]) -> dict[str, TrainingPath]:
    """Return the paths of a run by their keys; paths with other keys are errors or are deleted."""
    stored: dict[str, TrainingPath] = {}
    for file in _list_files(run):
        path = TrainingPath.load(file)
        key = str(path.data.attrs.get("question"))
        if key in keys:
            stored[key] = path
        elif (run / JOURNAL).exists():
            raise JournalError(
                f"{run} holds the path of another question ({path.name}: with different"
                " checkpoints, plane or losses). Nothing was mixed in: ask the same question, or"
                " choose another --out."
            )
        else:  # from a command that was stopped before its surface was begun
            file.unlink()
    return stored


def _list_files(run: Path) -> list[Path]:
    """Return the files of paths, without the hidden ones that a killed process left unfinished."""
    return sorted((run / PATHS).glob("[!.]*.nc")) if run.is_dir() else []
