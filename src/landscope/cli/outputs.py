"""The commands that show a run or convert it: ``plot``, ``page``, ``info``, ``export``, ``import``.

Torch and matplotlib are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscope.cli import measure, report, trajectory
from landscope.cli.options import PictureFormat, Quantity, Run, Runs, Scale, ScaleOption


def plot(
    runs_: Runs,
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures; that of the (first) run if not given.")
    ] = None,
    quantity: Quantity = None,
    scale: ScaleOption = None,
    kind: Annotated[PictureFormat, typer.Option("--format", help="Of the files.")] = "png",
) -> None:
    """Draw runs: every picture that fits, and several runs side by side on one color scale."""
    from landscope import draw
    from landscope.cli import run_folder
    from landscope.cli.pictures import draw_pictures

    lands = [run_folder.open_run(run) for run in runs_]
    folder = out or _home(runs_[0])
    if len(lands) == 1:
        files = draw_pictures(lands[0], folder, quantity=quantity, scale=scale, kind=kind)
        files += trajectory.pictures(lands[0], runs_[0], folder, scale=scale, kind=kind)
    else:
        kinds = ("line",) if len(lands[0].dims) == 1 else ("surface", "filled", "contour")
        files = [
            draw.save(
                draw.side_by_side_figure(lands, kind=name, quantity=quantity, scale=scale),
                folder / f"side_by_side_{name}.{kind}",
            )
            for name in kinds
        ]
    report.tell_files(files)


def page(
    runs_: Runs,
    out: Annotated[
        Path | None, typer.Option(help="The .html file; page.html in the (first) run if not given.")
    ] = None,
    quantity: Quantity = None,
    title: Annotated[str | None, typer.Option(help="Of the page.")] = None,
) -> None:
    """Make one interactive HTML file of one or several runs; it works offline."""
    from landscope import draw
    from landscope.cli import run_folder

    lands = [run_folder.open_run(run) for run in runs_]
    place = out or _home(runs_[0]) / "page.html"
    walked = [trajectory.paths_of(run) or None for run in runs_]
    paths = walked if any(walked) else None
    report.tell_files([draw.page(lands, place, quantity=quantity, title=title, paths=paths)])


def info(run: Run) -> None:
    """Tell what a run holds: its grid, its values, its shape, where it comes from."""
    from landscope.cli import run_folder

    measured = [run / name for name in (measure.CURVATURE, measure.WHOLE, trajectory.TRACED)]
    measured = [path for path in measured if path.is_file()]
    if not measured or (run / run_folder.LANDSCAPE).is_file():
        report.tell(run_folder.open_run(run), run)
    for path in measured:
        report.tell_numbers(path)
    asked = run_folder.read_metadata(run)
    for name in ("finished", "machine", "threads"):
        if name in asked:
            report.say(f"  {name:<10}  {asked[name]}")


def export(
    run: Run,
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Ends in .vtp .vts .h5 .nc .zarr .csv")
    ],
    quantity: Quantity = None,
    scale: Annotated[Scale, typer.Option(help="Of heights in .vtp and .vts.")] = "linear",
    clip: Annotated[float | None, typer.Option(help="Greatest value in .vtp and .vts.")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Refine a .vtp to so many points an axis, by splines.")
    ] = None,
) -> None:
    """Write a run for another tool: ParaView, the 2018 scripts, xarray, a spreadsheet."""
    from landscope.cli import run_folder
    from landscope.formats import reference_h5, vtk

    land = run_folder.open_run(run)
    if file.suffix in (".vtp", ".vts"):
        vtk.write(land, file, quantity=quantity, scale=scale, clip=clip, resolution=resolution)
    elif file.suffix == ".h5":
        reference_h5.write_surface(land, file)
    else:
        land.save(file)
    report.tell_files([file])


def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A surface file of 2018 (.h5), or .nc .zarr .csv."),
    ],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder to make.")],
    batches: Annotated[
        int | None,
        typer.Option(help="Over which a 2018 script summed its eigenvalues: to divide by."),
    ] = None,
) -> None:
    """Make a run from a file of the 2018 scripts, or from any file of landscope."""
    from landscope.cli import run_folder

    land = run_folder.open_run(file, batches=batches)
    folder = run_folder.create_run(run)
    land.save(folder / run_folder.LANDSCAPE)
    run_folder.write_metadata(folder, {"command": "import", "file": file}, seconds=land.seconds)
    report.tell(land, run)


def _home(run: Path) -> Path:
    return run if run.is_dir() and run.suffix != ".zarr" else run.parent
