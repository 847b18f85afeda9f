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
    EngineName,
    Gpus,
    Ignore,
    Moved,
    Normalize,
    Out,
    Target,
    Workers,
)
from landscope.cli.scan_request import ScanRequest, parse_spans


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
    ] = ScanRequest.normalize,
    ignore: Annotated[
        Ignore, typer.Option(help="Held still by random directions.")
    ] = ScanRequest.ignore,
    orthogonal: Annotated[
        bool, typer.Option(help="Make random directions orthogonal, filter by filter.")
    ] = ScanRequest.orthogonal,
    select: Annotated[
        list[str] | None,
        typer.Option(help="Move these only: a name pattern such as '*lora*', again for more."),
    ] = None,
    over: Annotated[
        Moved | None,
        typer.Option(
            help="Move parameters, or batch-norm statistics as well (states; so with --toward)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random directions.")] = ScanRequest.seed,
    set_: Arguments = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Evaluate about a tenth of the points.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="Error of ln(loss) that --adaptive aims at.")
    ] = ScanRequest.tolerance,
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
    engine: Annotated[EngineName, typer.Option(help="Who evaluates.")] = "local",
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
    from landscope.cli.pictures import draw_pictures
    from landscope.cli.recorded_scan import run_scan
    from landscope.cli.slice_options import make_slice
    from landscope.progress import show_bar

    request = ScanRequest(
        target, parse_spans(x, y, z), checkpoint=checkpoint, toward=tuple(toward or ()),
        directions=directions, same=same, normalize=normalize, ignore=ignore,
        orthogonal=orthogonal, select=tuple(select or ()), over=over, seed=seed,
        arguments=tuple(set_ or ()), adaptive=adaptive, tolerance=tolerance, samples=samples,
        budget=budget, average=average, error_bars=error_bars,
    )  # fmt: skip
    objective = request.make_objective()
    slice_ = make_slice(request, objective)
    with report.stoppable(out), show_bar(f"scan {target}") as progress:
        land = run_scan(
            objective, slice_, request.make_sampler(), out,
            request={"command": "scan", **request.record()}, title=title or target,
            progress=progress, engine=options.make_engine(engine, workers, address, gpus),
            budget=budget, samples=request.make_samples(), quantities=request.make_quantities(),
        )  # fmt: skip
    report.tell(land, out)
    if len(land.dims) < 3:
        report.tell_files(draw_pictures(land, out))


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
    from landscope.cli.slice_options import make_slice
    from landscope.scanning.cost import estimate

    request = ScanRequest(
        target, parse_spans(x, y, z), checkpoint=checkpoint, arguments=tuple(set_ or ()),
        adaptive=adaptive, samples=samples,
    )  # fmt: skip
    objective = request.make_objective()
    slice_, sampler = make_slice(request, objective), request.make_sampler()
    report.say(f"{target}, {' x '.join(str(points) for *_, points in request.spans)} points")
    report.say(str(estimate(objective, slice_, sampler, samples=request.make_samples())))
