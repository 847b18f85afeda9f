"""The commands that show a run or convert it: ``plot``, ``page``, ``info``, ``export``, ``import``.

Torch and matplotlib are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscope.cli import report
from landscope.cli.options import PictureFormat, Quantity, Run, Runs, Scale, ScaleOption
from landscope.errors import DrawError, FormatError

if TYPE_CHECKING:
    from landscope.landscape import Landscape

_KINDS = ("line", "plane", "volume")
_ENDINGS = (".vtp", ".vts", ".h5", ".nc", ".zarr", ".csv")  # of files that export writes


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
    from landscope.cli.picture_style import read_style
    from landscope.cli.pictures import draw_run, draw_side_by_side

    style = read_style(
        quantity=quantity, scale=scale, kind=kind, title=title, levels=levels, cmap=cmap, view=view,
        size=size, dpi=dpi,
    )  # fmt: skip
    folder = out or _folder_of(runs_[0])
    if len(runs_) == 1:
        report.print_files(draw_run(runs_[0], folder, style))
    else:
        report.print_files(draw_side_by_side(_open_alike(runs_), folder, style))


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
    from landscope.cli import path_folder

    if out is not None and out.suffix not in (".html", ".htm"):
        raise DrawError(f"--out {out}; a page is a file that ends in .html.")
    lands = _open_alike(runs_)
    if len(lands[0].dims) == 3:
        raise DrawError(
            f"{runs_[0]} is a volume, and a page shows lines and planes: landscope plot {runs_[0]}"
            f" draws planes of it, landscope export {runs_[0]} volume.vts writes it for ParaView."
        )
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
    """Show what a run holds: its grid, its values, its shape, and where it comes from."""
    from landscope.cli.opened_run import list_measurements, open_landscape
    from landscope.cli.recorded_command import describe_command
    from landscope.cli.run_folder import LANDSCAPE, read_metadata

    measurements = list_measurements(run)
    if not measurements or (run / LANDSCAPE).is_file():
        report.print_landscape(open_landscape(run), run, all_facts=True)
    for path in measurements:
        report.print_measurements(path)
    metadata = read_metadata(run)
    report.print_metadata(metadata, describe_command(metadata.get("asked", {}), run))


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
    from landscope.cli.opened_run import open_landscape
    from landscope.formats import reference_h5, vtk
    from landscope.landscape import locate_side_file

    _check_ending(run, file)
    land, files = open_landscape(run), [file]
    if file.suffix not in (".vtp", ".vts") and (quantity or clip is not None or resolution):
        raise FormatError(
            f"--quantity, --clip and --resolution are for .vtp and .vts; {file} keeps all values"
            " as they are: leave them out."
        )
    if file.suffix == ".h5" and len(land.dims) == 3:
        raise FormatError(f"{run} is a volume, which no .h5 file of 2018 holds: write .nc or .vts.")
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

    if file.is_dir() and file.suffix != ".zarr":
        raise FormatError(f"{file} is a folder; landscope import takes a file, and runs are ready.")
    land = run_folder.open_run(file, batches=batches)
    folder = run_folder.create_run(run)
    land.save(folder / run_folder.LANDSCAPE)
    run_folder.write_metadata(folder, {"command": "import", "file": file}, seconds=land.seconds)
    report.print_landscape(land, run)


def _folder_of(run: Path) -> Path:
    return run if run.is_dir() and run.suffix != ".zarr" else run.parent


def _open_alike(runs: Sequence[Path]) -> list[Landscape]:
    """Return the landscapes of runs, which must all be lines, planes or volumes.

    Raises:
        DrawError: When they are of different kinds; the text says which is what.
    """
    from landscope.cli.opened_run import open_landscape

    lands = [open_landscape(run) for run in runs]
    kinds = [_KINDS[len(land.dims) - 1] for land in lands]
    other = next((k for k, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is not None:
        raise DrawError(
            f"{runs[0]} is a {kinds[0]} and {runs[other]} is a {kinds[other]}: give lines, or"
            " planes, and not both."
        )
    if len(lands) > 1 and kinds[0] == "volume":
        raise DrawError(f"{runs[0]} is a volume: volumes are shown one at a time.")
    return lands


def _check_ending(run: Path, file: Path) -> None:
    """Refuse an ending that export does not write; pictures and pages have other commands."""
    endings = ".vtp .vts (ParaView), .h5 (the 2018 scripts), .nc .zarr (xarray) or .csv (a table)"
    if file.suffix in _ENDINGS:
        return
    command = {
        ".html": f"landscope page {run} --out {file}", ".png": f"landscope plot {run}",
        ".pdf": f"landscope plot {run} --format pdf", ".svg": f"landscope plot {run} --format svg",
    }.get(file.suffix.lower())  # fmt: skip
    if command:
        raise FormatError(
            f"{file} is a picture, which another command makes: {command}. Files for other tools"
            f" end in {endings}."
        )
    raise FormatError(
        f"{file} ends in {file.suffix!r}; files for other tools end in {endings}, and pictures are"
        f" made by landscope plot {run}."
    )
