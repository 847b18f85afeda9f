"""The commands that evaluate a slice: ``scan``, and ``cost``, which says what a scan will take.

Torch and matplotlib are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscope.cli import options, report
from landscope.cli.options import (
    Address,
    Arguments,
    Checkpoint,
    Gpus,
    Ignore,
    Normalize,
    Out,
    Over,
    Target,
    Where,
    Workers,
)


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
    from landscope.progress import show_bar

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
    with report.stoppable(out), show_bar(f"scan {target}") as progress:
        land = run_folder.perform(
            objective, slice_, options.sampler(asked), out,
            asked=asked, title=title or target, progress=progress, budget=budget,
            engine=options.engine(engine, workers, address, gpus), samples=options.samples(samples),
            quantities=options.quantities(average, error_bars=error_bars),
        )  # fmt: skip
    report.tell(land, out)
    if len(land.dims) < 3:
        report.tell_files(run_folder.pictures(land, out))


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
    told = estimate(objective, slice_, options.sampler(asked), samples=options.samples(samples))
    report.say(str(told))
