"""The commands ``scan``, which evaluates a slice, and ``cost``, which estimates what a scan takes.

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
    Directions,
    Gpus,
    Ignore,
    Moved,
    NormalizeOption,
    Out,
    Target,
    Where,
    Workers,
)
from landscope.cli.scan_request import ScanRequest, parse_spans


def scan(
    target: Target,
    *,
    out: Out,
    checkpoint: Checkpoint = None,
    x: Annotated[
        str | None, typer.Option(help="Axis x as first:last:points; a line if it is the only axis.")
    ] = None,
    y: Annotated[str | None, typer.Option(help="Axis y as first:last:points.")] = None,
    z: Annotated[
        str | None, typer.Option(help="Axis z as first:last:points, for a volume.")
    ] = None,
    toward: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint of another model, which lies at x = 1; repeat it for y = 1."),
    ] = None,
    directions: Directions = None,
    same: Annotated[bool, typer.Option("--same", help="Use direction x for all axes.")] = False,
    normalize: NormalizeOption = ScanRequest.normalize,
    ignore: Annotated[
        Ignore, typer.Option(help="Parameters that random directions leave unchanged.")
    ] = ScanRequest.ignore,
    orthogonal: Annotated[
        bool, typer.Option(help="Make random directions orthogonal, filter by filter.")
    ] = ScanRequest.orthogonal,
    select: Annotated[
        list[str] | None,
        typer.Option(
            help="Move only these parameters: a name pattern such as '*lora*'; repeat it for more."
        ),
    ] = None,
    over: Annotated[
        Moved | None,
        typer.Option(
            help="Move parameters, or batch-norm statistics as well (states, the default with"
            " --toward)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random directions.")] = ScanRequest.seed,
    set_: Arguments = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Evaluate about a tenth of the points.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="Error of ln(loss) that --adaptive aims at.")
    ] = ScanRequest.tolerance,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Number of samples to draw (such as 600); all data is used at 36 points only."
        ),
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(help="Also average the loss over a neighborhood of this size (such as 0.1)."),
    ] = None,
    error_bars: Annotated[
        bool,
        typer.Option("--error-bars", help="Measure standard errors of the loss over the samples."),
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time for the whole scan, such as 60s, 5m or 2h; it sets points and samples."
        ),
    ] = None,
    engine: Where = "local",
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0,
    title: Annotated[str | None, typer.Option(help="Title of the pictures.")] = None,
) -> None:
    """Evaluate a model's loss over a line, a plane or a volume, and draw it.

    Without --x and --y, the slice is the plane of the paper, -1:1:51 along both axes. --x auto
    --y auto searches for the range that shows the basin and its walls. Every value is stored as
    soon as it is computed: after Ctrl-C or a crash, the same command continues where it stopped.
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
    sampler, evaluator = request.make_sampler(), options.make_engine(engine, workers, address, gpus)
    objective = request.make_objective()
    slice_ = make_slice(request, objective)
    report.print_advice(request.advise_toward())
    with report.exit_on_interrupt(out), show_bar(f"scan {target}") as progress:
        land = run_scan(
            objective, slice_, sampler, out, request={"command": "scan", **request.record()},
            title=title or target, progress=progress, engine=evaluator, budget=budget,
            samples=request.make_samples(), quantities=request.make_quantities(),
        )  # fmt: skip
    report.print_landscape(land, out)
    report.print_files(draw_pictures(land, out))


def cost(
    target: Target,
    *,
    checkpoint: Checkpoint = None,
    x: Annotated[str | None, typer.Option(help="Axis x as first:last:points.")] = None,
    y: Annotated[str | None, typer.Option(help="Axis y as first:last:points.")] = None,
    z: Annotated[
        str | None, typer.Option(help="Axis z as first:last:points, for a volume.")
    ] = None,
    adaptive: Annotated[bool, typer.Option("--adaptive", help="As for scan.")] = False,
    samples: Annotated[int | None, typer.Option(help="As for scan.")] = None,
    set_: Arguments = None,
) -> None:
    """Estimate the time, memory and operations of a scan before it starts."""
    from landscope.cli.slice_options import make_slice
    from landscope.scanning.cost import estimate

    request = ScanRequest(
        target, parse_spans(x, y, z), checkpoint=checkpoint, arguments=tuple(set_ or ()),
        adaptive=adaptive, samples=samples,
    )  # fmt: skip
    objective = request.make_objective()
    slice_, sampler = make_slice(request, objective), request.make_sampler()
    report.print_line(f"{target}, {' x '.join(str(points) for *_, points in request.spans)} points")
    report.print_line(str(estimate(objective, slice_, sampler, samples=request.make_samples())))
