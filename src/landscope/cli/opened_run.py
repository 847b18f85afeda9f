"""Runs for looking at: finished ones, unfinished ones from their journal, and what else there is.

A folder of another kind is refused with the command that shows it.
"""

from __future__ import annotations

from pathlib import Path

from landscope.cli import report, run_folder
from landscope.cli.recorded_command import describe_command
from landscope.cli.recorded_request import describe_request
from landscope.errors import FormatError, JournalError
from landscope.landscape import Landscape

CURVATURE, WHOLE, TRAJECTORY, TRAINING = (  # the numbers of a run
    "curvature.json", "whole.json", "trajectory.json", "training.json",
)  # fmt: skip
_DATABASES = (".sqlite", ".db")


def open_landscape(path: Path) -> Landscape:
    """Return the landscape of a run or a file, as far as it is known.

    That of a scan that was stopped has holes, and a warning says how much is done and which
    command goes on.

    Args:
        path: The folder of a run, its journal, or a .nc, .zarr, .csv or .h5 file.

    Raises:
        FormatError: When there is no landscape; the text names the command that shows the folder.
        JournalError: When the journal is damaged, or holds no value yet.
    """
    if path.suffix in _DATABASES and path.is_file():
        return _open_journal(path, path.parent)
    if not path.exists():
        raise FormatError(f"{path} does not exist: check the name, or create it with a scan.")
    if not path.is_dir() or path.suffix == ".zarr":
        return run_folder.open_run(path)
    journal, file = path / run_folder.JOURNAL, path / run_folder.LANDSCAPE
    if not file.is_file() and not journal.is_file():
        raise FormatError(_describe_folder(path))
    if not file.is_file():
        return _open_journal(journal, path)
    try:
        return run_folder.open_run(path)
    except FormatError:
        if not journal.is_file():
            raise
        report.print_warning(f"{file} is damaged: these are the values in the journal.")
        return _open_journal(journal, path)


def list_measurements(run: Path) -> list[Path]:
    """Return the files of a folder that hold numbers: of curvature, paths or a training."""
    names = (CURVATURE, WHOLE, TRAJECTORY, TRAINING)
    return [run / name for name in names if (run / name).is_file()]


def list_runs(folder: Path) -> list[Path]:
    """Return the folders of runs in a folder."""
    names = (run_folder.LANDSCAPE, run_folder.JOURNAL, WHOLE, CURVATURE)
    inner = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    return [p for p in inner if any((p / name).is_file() for name in names)]


def _open_journal(journal: Path, run: Path) -> Landscape:
    """Return the values in a journal, and print how much is done and how it goes on."""
    from landscope.progress import duration
    from landscope.scanning.stopped_scan import open_journal

    request = run_folder.read_metadata(run).get("asked", {})
    goes_on = describe_command(request, run) if request else "the command that began it"
    try:
        stopped = open_journal(journal)
    except JournalError as error:
        raise JournalError(f"{error} To begin again, run it ({goes_on}).") from error
    if stopped.is_finished:
        report.print_warning(
            f"{run} has all of its values; to write its files again, run it ({goes_on})."
        )
    else:
        report.print_warning(
            f"{run} is not finished: {stopped.done:,} of {stopped.total:,} points"
            f" ({stopped.done / stopped.total:.0%}), about {duration(stopped.seconds_left)} left."
            f" To go on, run it again ({goes_on})."
        )
    land = stopped.landscape
    attributes = {**describe_request(request), "title": str(request.get("target", run.name))}
    return Landscape(land.data.assign_attrs({**attributes, **land.data.attrs}), land.seconds)


def _describe_folder(path: Path) -> str:
    """Return what a folder without a landscape is, and the command that shows it."""
    runs = list_runs(path)
    target = run_folder.read_metadata(path).get("asked", {}).get("target", "TARGET")
    if (path / CURVATURE).is_file():
        return (
            f"{path} holds a spectrum and no surface: landscope info shows its numbers, landscope"
            f" plot draws it, and landscope scan {target} --directions {path} --x auto --y auto"
            f" --out {path}-plane scans the plane of its eigenvectors."
        )
    if (path / WHOLE).is_file():
        return (
            f"{path} holds profiles along random directions and no surface: landscope info shows"
            f" the verdict, landscope plot draws them, and landscope scan {target} --out"
            f" {path}-plane scans a plane."
        )
    if (path / "profiles").is_dir():
        return f"{path} is an unfinished run of landscope whole: the same command goes on with it."
    if (path / TRAINING).is_file():
        return (
            f"{path} holds the checkpoints of a training: landscope trajectory {path} --out"
            f" {path}-path draws the path that it took, and landscope info shows its options."
        )
    if runs:
        names = " ".join(map(str, runs[:6]))
        return f"{path} is not a run itself, but holds runs: name one or several of them ({names})."
    return (
        f"{path} is not the folder of a run: it has neither {run_folder.LANDSCAPE} nor"
        f" {run_folder.JOURNAL}. Name the folder that --out named, or a .nc, .zarr, .csv or .h5"
        " file."
    )
