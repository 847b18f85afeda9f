"""The command line: each command calls one public function, writes files, tells what was done.

Whatever is heavy (torch, matplotlib) is imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from landscope._version import __version__
from landscope.cli import measure, options, report, train, trajectory
from landscope.cli.options import (
    Address,
    Arguments,
    Checkpoint,
    Gpus,
    Ignore,
    Kind,
    Normalize,
    Out,
    Over,
    Quantity,
    Run,
    Runs,
    Scale,
    ScaleOption,
    Target,
    Where,
    Workers,
)
from landscope.errors import LandscopeError

app = typer.Typer(
    name="landscope",
    help="See and measure the loss landscape of any PyTorch model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        report.say(f"landscope {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for what it makes.")] = Path("landscope-demo"),
    sequence: Annotated[
        bool, typer.Option("--sequence", help="An LSTM and a transformer, on text.")
    ] = False,
    resolution: Annotated[int, typer.Option(min=5, help="Points an axis.")] = 31,
    seed: Annotated[int, typer.Option(help="Of the random directions.")] = 0,
) -> None:
    """Train two networks on real data, scan their loss surfaces, draw them: start here."""
    from landscope.cli.demo import demo as run_demo

    made = run_demo(out, sequence=sequence, resolution=resolution, seed=seed, tell=report.say)
    for title, shape in made.shapes.items():
        report.say(f"\n{title}")
        report.tell_shape(shape)
    report.say("\nWritten:")
    for file in made.files:
        report.say(f"  {file}")
    report.say(f"\nOpen {out / 'page.html'} in a browser and turn the surfaces with the mouse.")


@app.command()
def scan(
    target: Target,
    *,
    out: Out,
    checkpoint: Checkpoint = None,
    x: Annotated[
        str | None, typer.Option(help="Axis x as first:last:points; alone, it makes a line.")
    ] = None,
    y: Annotated[str | None, typer.Option(help="Axis y as first:last:points.")] = None,
    z: Annotated[str | None, typer.Option(help="Axis z, for a volume.")] = None,
    toward: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint of another model: x = 1 there; again for y = 1."),
    ] = None,
    directions: Annotated[
        Path | None, typer.Option(help="Use these: a run's folder or a 2018 .h5 file.")
    ] = None,
    same: Annotated[bool, typer.Option("--same", help="Use direction x for y as well.")] = False,
    normalize: Annotated[
        Normalize, typer.Option(help="Scaling of random directions.")
    ] = Normalize.filter,
    ignore: Annotated[
        Ignore, typer.Option(help="Held still by random directions.")
    ] = Ignore.biasbn,
    orthogonal: Annotated[
        bool, typer.Option(help="Make random directions orthogonal, filter by filter.")
    ] = True,
    select: Annotated[
        list[str] | None,
        typer.Option(help="Move these only: a name pattern such as '*lora*', again for more."),
    ] = None,
    over: Annotated[
        Over | None,
        typer.Option(
            help="Move parameters, or batch-norm statistics as well (states; so with --toward)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random directions.")] = 0,
    set_: Arguments = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Evaluate about a tenth of the points.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="Error of ln(loss) that --adaptive aims at.")
    ] = 0.03,
    samples: Annotated[
        int | None,
        typer.Option(help="Draw so many samples (600, say); all are evaluated at 36 points only."),
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(help="Average the loss over so large a neighborhood too (0.1, say)."),
    ] = None,
    error_bars: Annotated[
        bool, typer.Option("--error-bars", help="Standard errors of the loss, over the samples.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(help="Time for all of it, such as 60s, 5m, 2h: the best picture.")
    ] = None,
    engine: Annotated[Where, typer.Option(help="Who evaluates.")] = Where.local,
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0,
    title: Annotated[str | None, typer.Option(help="Title for pictures.")] = None,
) -> None:
    """Evaluate a model's loss over a line, a plane or a volume, and draw it.

    Without --x and --y it is the plane of the paper, -1:1:51 along both; --x auto --y auto finds
    how far the picture must reach to show the basin and its walls. Everything that is computed is
    kept at once: after Ctrl-C or a crash the same command goes on where it stopped.
    """
    from landscope.cli import run_folder, targets
    from landscope.progress import bar

    spans = options.spans(x, y, z)
    asked = {
        "command": "scan", "target": target, "checkpoint": checkpoint, "spans": spans,
        "toward": toward, "directions": directions, "same": same, "normalize": normalize,
        "ignore": ignore, "orthogonal": orthogonal, "select": select, "over": over, "seed": seed,
        "set": set_,
        "adaptive": adaptive, "tolerance": tolerance, "samples": samples, "budget": budget,
        "average": average, "error_bars": error_bars,
    }  # fmt: skip
    objective = targets.objective(target, arguments=set_ or (), checkpoint=checkpoint)
    slice_ = options.recipe(asked).slice(objective, len(spans))
    with report.stoppable(out), bar(f"scan {target}") as progress:
        land = run_folder.perform(
            objective, slice_, options.sampler(asked), out,
            asked=asked, title=title or target, progress=progress, budget=budget,
            engine=options.engine(engine, workers, address, gpus), terms=options.terms(samples),
            quantities=options.quantities(average, error_bars=error_bars),
        )  # fmt: skip
    report.tell(land, out)
    if len(land.dims) < 3:
        report.tell_files(run_folder.pictures(land, out))


@app.command()
def cost(
    target: Target,
    *,
    checkpoint: Checkpoint = None,
    x: Annotated[str | None, typer.Option(help="Axis x as first:last:points.")] = None,
    y: Annotated[str | None, typer.Option(help="Axis y as first:last:points.")] = None,
    z: Annotated[str | None, typer.Option(help="Axis z, for a volume.")] = None,
    adaptive: Annotated[bool, typer.Option("--adaptive", help="As for scan.")] = False,
    samples: Annotated[int | None, typer.Option(help="As for scan.")] = None,
    set_: Arguments = None,
) -> None:
    """Tell what a scan will cost in time, memory and operations, before it starts."""
    from landscope.cli import targets
    from landscope.scanning.cost import estimate

    spans = options.spans(x, y, z)
    asked = {"spans": spans, "adaptive": adaptive, "tolerance": 0.03, "normalize": Normalize.filter}
    objective = targets.objective(target, arguments=set_ or (), checkpoint=checkpoint)
    slice_ = options.recipe(asked).slice(objective, len(spans))
    report.say(f"{target}, {' x '.join(str(points) for *_, points in spans)} points")
    told = estimate(objective, slice_, options.sampler(asked), terms=options.terms(samples))
    report.say(str(told))


app.command()(measure.curvature)
app.command()(measure.convexity)
app.command()(measure.whole)
app.command()(train.train)
app.command()(trajectory.trajectory)


@app.command()
def plot(
    runs_: Runs,
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures; that of the (first) run if not given.")
    ] = None,
    quantity: Quantity = None,
    scale: ScaleOption = None,
    kind: Annotated[Kind, typer.Option("--format", help="Of the files.")] = Kind.png,
) -> None:
    """Draw runs: every picture that fits, and several runs side by side on one color scale."""
    from landscope import draw
    from landscope.cli import run_folder

    lands = [run_folder.opened(run) for run in runs_]
    folder = out or _home(runs_[0])
    if len(lands) == 1:
        files = run_folder.pictures(lands[0], folder, quantity=quantity, scale=scale, kind=kind)
        files += trajectory.pictures(lands[0], runs_[0], folder, scale=scale, kind=kind)
    else:
        kinds = ("line",) if len(lands[0].dims) == 1 else ("surface", "filled", "contour")
        files = [
            draw.save(
                draw.side_by_side(lands, kind=name, quantity=quantity, scale=scale),
                folder / f"side_by_side_{name}.{kind}",
            )
            for name in kinds
        ]
    report.tell_files(files)


@app.command()
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

    lands = [run_folder.opened(run) for run in runs_]
    place = out or _home(runs_[0]) / "page.html"
    walked = [trajectory.paths_of(run) or None for run in runs_]
    paths = walked if any(walked) else None
    report.tell_files([draw.page(lands, place, quantity=quantity, title=title, paths=paths)])


@app.command()
def info(run: Run) -> None:
    """Tell what a run holds: its grid, its values, its shape, where it comes from."""
    from landscope.cli import run_folder

    measured = [run / name for name in (measure.CURVATURE, measure.WHOLE, trajectory.TRACED)]
    measured = [path for path in measured if path.is_file()]
    if not measured or (run / run_folder.LANDSCAPE).is_file():
        report.tell(run_folder.opened(run), run)
    for path in measured:
        report.tell_numbers(path)
    asked = run_folder.noted(run)
    for name in ("finished", "machine", "threads"):
        if name in asked:
            report.say(f"  {name:<10}  {asked[name]}")


@app.command()
def export(
    run: Run,
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Ends in .vtp .vts .h5 .nc .zarr .csv")
    ],
    quantity: Quantity = None,
    scale: Annotated[Scale, typer.Option(help="Of heights in .vtp and .vts.")] = Scale.linear,
    clip: Annotated[float | None, typer.Option(help="Greatest value in .vtp and .vts.")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Refine a .vtp to so many points an axis, by splines.")
    ] = None,
) -> None:
    """Write a run for another tool: ParaView, the 2018 scripts, xarray, a spreadsheet."""
    from landscope.cli import run_folder
    from landscope.formats import reference_h5, vtk

    land = run_folder.opened(run)
    if file.suffix in (".vtp", ".vts"):
        vtk.write(
            land, file, quantity=quantity, scale=scale.value, clip=clip, resolution=resolution
        )
    elif file.suffix == ".h5":
        reference_h5.write_surface(land, file)
    else:
        land.save(file)
    report.tell_files([file])


@app.command(name="import")
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

    land = run_folder.opened(file, batches=batches)
    folder = run_folder.made(run)
    land.save(folder / run_folder.LANDSCAPE)
    run_folder.note(folder, {"command": "import", "file": file}, seconds=land.seconds)
    report.tell(land, run)


@app.command()
def zoo() -> None:
    """List the networks that come with landscope."""
    from rich.console import Console
    from rich.table import Table

    from landscope.zoo import CATALOG

    table = Table("name", "layers", "parameters", "data", box=None, pad_edge=False)
    for entry in CATALOG.values():
        parameters, layers = entry.size()
        table.add_row(f"zoo:{entry.name}", str(layers), f"{parameters:,}", entry.data)
    Console().print(table)
    report.say(
        "\nThe digits networks train in seconds, the text networks in less than a minute:"
        " landscope scan zoo:digits_mlp --out runs/mlp\n"
        "The CIFAR-10 networks want your files: landscope scan zoo:resnet56"
        " --set data=cifar-10-python.tar.gz --checkpoint model_300.t7 --out runs/resnet56"
    )


def main() -> None:
    """Run the command line; an error is one sentence, and exit status 1."""
    try:
        app()
    except LandscopeError as error:
        report.complain(str(error))
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LANDSCOPE_TRACEBACK"):
            raise
        report.complain(
            f"{type(error).__name__}: {' '.join(str(error).split())}"
            " (LANDSCOPE_TRACEBACK=1 shows where it happened)"
        )
        sys.exit(1)


def _home(run: Path) -> Path:
    return run if run.is_dir() and run.suffix != ".zarr" else run.parent
