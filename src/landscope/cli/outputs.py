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
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the pictures; that of the (first) run if not given."),
    ] = None,
    quantity: Quantity = None,
    scale: ScaleOption = None,
    kind: Annotated[PictureFormat, typer.Option("--format", help="Format of the files.")] = "png",
    title: Annotated[str | None, typer.Option(help="Title of the pictures; '' for none.")] = None,
    levels: Annotated[
        str | None, typer.Option(help="Contour levels: their number, or a list such as 0.1,0.5,1.")
    ] = None,
    cmap: Annotated[
        str | None, typer.Option(help="Color map of matplotlib; viridis if not given.")
    ] = None,
    view: Annotated[
        str | None, typer.Option(help="Elevation and azimuth of surfaces in degrees, as 30,-60.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Width and height of pictures in inches, as 6x4.")
    ] = None,
    dpi: Annotated[
        int | None, typer.Option(help="Dots per inch of .png files; 150 if not given.")
    ] = None,
) -> None:
    """Draw runs: every picture that fits, and several runs side by side on one color scale."""
    from landscope.cli import path_folder, run_folder
    from landscope.cli.picture_style import read_style
    from landscope.cli.pictures import draw_path_pictures, draw_pictures, draw_side_by_side

    style = read_style(
        quantity=quantity, scale=scale, kind=kind, title=title, levels=levels, cmap=cmap, view=view,
        size=size, dpi=dpi,
    )  # fmt: skip
    lands = [run_folder.open_run(run) for run in runs_]
    folder = out or _folder_of(runs_[0])
    if len(lands) == 1:
        files = draw_pictures(lands[0], folder, style)
        paths = path_folder.read_paths(runs_[0])
        files += draw_path_pictures(lands[0], paths, folder, style)
    else:
        files = draw_side_by_side(lands, folder, style)
    report.print_files(files)


def page(
    runs_: Runs,
    out: Annotated[
        Path | None, typer.Option(help="The .html file; page.html in the (first) run if not given.")
    ] = None,
    quantity: Quantity = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
) -> None:
    """Make one interactive HTML file of one or several runs; it works offline."""
    from landscope import draw
    from landscope.cli import path_folder, run_folder

    lands = [run_folder.open_run(run) for run in runs_]
    file = out or _folder_of(runs_[0]) / "page.html"
    paths = [path_folder.read_paths(run) or None for run in runs_]
    report.print_files(
        [
            draw.page(
                lands, file, quantity=quantity, title=title, paths=paths if any(paths) else None
            )
        ]
    )


def info(run: Run) -> None:
    """Show what a run holds: its grid, its values, its shape, its origin."""
    from landscope.cli import run_folder

    names = (measure.CURVATURE, measure.WHOLE, trajectory.TRAJECTORY)
    measurements = [run / name for name in names if (run / name).is_file()]
    if not measurements or (run / run_folder.LANDSCAPE).is_file():
        report.print_landscape(run_folder.open_run(run), run, all_facts=True)
    for path in measurements:
        report.print_measurements(path)
    metadata = run_folder.read_metadata(run)
    for name in ("finished", "machine", "threads"):
        if name in metadata:
            report.print_line(f"  {name:<10}  {metadata[name]}")


def export(
    run: Run,
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File that ends in .vtp .vts .h5 .nc .zarr .csv")
    ],
    quantity: Quantity = None,
    scale: Annotated[Scale, typer.Option(help="Scale of the heights in .vtp and .vts.")] = "linear",
    clip: Annotated[float | None, typer.Option(help="Largest value in .vtp and .vts.")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Number of points per axis to which splines refine a .vtp.")
    ] = None,
) -> None:
    """Write a run for another tool: ParaView, the 2018 scripts, xarray, a spreadsheet."""
    from landscope.cli import run_folder
    from landscope.formats import reference_h5, vtk
    from landscope.landscape import locate_side_file

    land, files = run_folder.open_run(run), [file]
    if file.suffix in (".vtp", ".vts"):
        vtk.write(land, file, quantity=quantity, scale=scale, clip=clip, resolution=resolution)
    elif file.suffix == ".h5":
        reference_h5.write_surface(land, file)
    else:
        land.save(file)
        files += [locate_side_file(file)] if file.suffix == ".csv" else []
    report.print_files(files)


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Surface file of the 2018 scripts (.h5), or a .nc, .zarr or .csv file.",
        ),
    ],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder to create.")],
    batches: Annotated[
        int | None,
        typer.Option(help="Number of batches over which a 2018 script summed its eigenvalues."),
    ] = None,
) -> None:
    """Create a run from a file of the 2018 scripts, or from any file of landscope."""
    from landscope.cli import run_folder

    land = run_folder.open_run(file, batches=batches)
    folder = run_folder.create_run(run)
    land.save(folder / run_folder.LANDSCAPE)
    run_folder.write_metadata(folder, {"command": "import", "file": file}, seconds=land.seconds)
    report.print_landscape(land, run)


def _folder_of(run: Path) -> Path:
    return run if run.is_dir() and run.suffix != ".zarr" else run.parent
