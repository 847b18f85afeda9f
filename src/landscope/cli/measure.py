"""The commands that measure curvature: ``curvature``, ``convexity`` and ``whole``.

Torch and matplotlib are imported inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscope.cli import options, report
from landscope.cli.options import (
    Address,
    Arguments,
    Checkpoint,
    Directions,
    Gpus,
    Matrix,
    NormalizeOption,
    Out,
    Seed,
    Select,
    Target,
    Where,
    Workers,
)
from landscope.cli.scan_request import ScanRequest, parse_spans
from landscope.errors import SamplerError

if TYPE_CHECKING:
    from landscope.analysis.representative_planes import Representativeness
    from landscope.curvature.eigensolver import Eigenpairs
    from landscope.curvature.linear_operator import CurvatureOperator
    from landscope.curvature.spectral_density import Spectrum
    from landscope.curvature.trace_estimation import Trace
    from landscope.engines.job import Engine
    from landscope.objective.objective import Objective

_RECORDED = (  # of a request for a map of convexity
    "target", "checkpoint", "spans", "directions", "normalize", "seed", "set", "select", "adaptive",
)  # fmt: skip


def curvature(
    target: Target,
    *,
    out: Out,
    checkpoint: Checkpoint = None,
    count: Annotated[
        int, typer.Option(min=1, help="Number of eigenvalues, from both ends of the spectrum.")
    ] = 6,
    kind: Annotated[
        Matrix, typer.Option(help="The Hessian, its Gauss-Newton part, or the empirical Fisher.")
    ] = "hessian",
    select: Select = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Number of samples to draw from the data; all if not given."),
    ] = None,
    vectors: Annotated[
        int, typer.Option(min=1, help="Number of random vectors for the spectrum.")
    ] = 4,
    seed: Seed = 0,
    set_: Arguments = None,
) -> None:
    """Measure the Hessian at a model's minimum: eigenvalues, trace, spectrum, and draw them.

    The eigenvectors are stored as directions: `landscope scan TARGET --directions RUN --out ...`
    draws the plane of the steepest ascent and the steepest descent.
    """
    from landscope import curvature as measures
    from landscope import draw
    from landscope.cli import run_folder, targets
    from landscope.cli.opened_run import CURVATURE
    from landscope.curvature.matrices import MATRICES
    from landscope.objective.determinism import check_determinism

    start = time.perf_counter()
    objective = targets.load_objective(target, arguments=set_ or (), checkpoint=checkpoint)
    check_determinism(objective.problem)
    run = run_folder.create_run(out)
    matrix = MATRICES[kind](
        objective, select=select or None, samples=samples, seed=seed, progress=True
    )
    pairs = measures.eigenpairs(matrix, count, seed=seed)
    trace = measures.trace(matrix, seed=seed)
    spectrum = measures.spectrum(matrix, num_vectors=vectors, seed=seed)
    _write_directions(pairs, objective, run)
    numbers = _summarize(matrix, pairs, trace, spectrum)
    run_folder.write_json(run / CURVATURE, {"target": target, "kind": kind, **numbers})
    request = {
        "command": "curvature", "target": target, "checkpoint": checkpoint, "count": count,
        "kind": kind, "select": select, "samples": samples, "vectors": vectors, "seed": seed,
        "set": set_,
    }  # fmt: skip
    run_folder.write_metadata(run, request, seconds=time.perf_counter() - start)
    report.print_line(f"{target}: {kind} of {matrix.shape[0]:,} parameters, {matrix.route}")
    _print_summary(numbers)
    axes = draw.spectrum(spectrum)
    report.print_files([run / CURVATURE, draw.save(axes, run / "spectrum.png")])


def _write_directions(pairs: Eigenpairs, objective: Objective, run: Path) -> None:
    """Write the first two eigenvectors as the directions of the run."""
    from landscope.cli import run_folder

    for vector, value in zip(pairs.vectors, pairs.value.tolist(), strict=True):
        vector.record_origin(kind="eigenvector", eigenvalue=value)
    run_folder.write_vectors(dict(zip("xy", pairs.vectors, strict=False)), objective.center, run)


def _summarize(
    matrix: CurvatureOperator, pairs: Eigenpairs, trace: Trace, spectrum: Spectrum
) -> dict[str, Any]:
    """Return the numbers of curvature.json."""
    from landscope.cli.recorded_measures import record_spectrum

    return {
        "parameters": matrix.shape[0],
        "samples": matrix.samples,
        "eigenvalues": pairs.value.tolist(),
        "residuals": pairs.residual.tolist(),
        "stderr": pairs.stderr.tolist() if matrix.samples else None,
        "converged": pairs.converged,
        "trace": trace.value,
        "trace_stderr": trace.stderr,
        "trace_converged": trace.converged,
        "products": matrix.products,
        "route": matrix.route,
        "product_error": matrix.relative_error,
        "spectrum": record_spectrum(spectrum),
    }


def _print_summary(numbers: dict[str, Any]) -> None:
    for value, residual in zip(numbers["eigenvalues"], numbers["residuals"], strict=True):
        report.print_line(f"  eigenvalue  {value:12.6g}  residual {residual:.1g}")
    report.print_line(f"  trace       {numbers['trace']:12.6g}  +- {numbers['trace_stderr']:.1g}")
    report.print_line(f"  products    {numbers['products']:>12,}")


def convexity(
    target: Target,
    *,
    out: Out,
    checkpoint: Checkpoint = None,
    x: Annotated[str, typer.Option(help="Axis x as first:last:points.")] = "-1:1:9",
    y: Annotated[str, typer.Option(help="Axis y as first:last:points.")] = "-1:1:9",
    directions: Directions = None,
    normalize: NormalizeOption = ScanRequest.normalize,
    select: Select = None,
    tolerance: Annotated[float, typer.Option(help="Relative error of each eigenvalue.")] = 0.01,
    samples: Annotated[
        int | None,
        typer.Option(help="Number of samples to draw for the Hessian; all data if not given."),
    ] = None,
    seed: Seed = 0,
    set_: Arguments = None,
    engine: Where = "local",
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0,
) -> None:
    """Map the convexity of a plane: |smallest / largest| eigenvalue of the Hessian at each point.

    This is the map of the paper's Figure 7: it is 0 where the loss is convex. After Ctrl-C or a
    crash, the same command continues where it stopped.
    """
    from landscope import curvature as measures
    from landscope import draw
    from landscope.cli.recorded_scan import run_scan
    from landscope.cli.slice_options import make_slice
    from landscope.progress import show_bar

    request = ScanRequest(
        target, parse_spans(x, y, None), checkpoint=checkpoint, directions=directions,
        normalize=normalize, select=tuple(select or ()), seed=seed, arguments=tuple(set_ or ()),
    )  # fmt: skip
    objective = request.make_objective()
    slice_ = make_slice(request, objective)
    quantity = measures.hessian_extremes(
        select=request.select or None, eigenvalue_tol=tolerance, samples=samples, seed=seed
    )
    record = {
        "command": "convexity", **request.record(*_RECORDED), "hessian_tolerance": tolerance,
        "samples": samples,
    }  # fmt: skip
    with report.exit_on_interrupt(out), show_bar(f"convexity {target}") as progress:
        land = run_scan(
            objective, slice_, request.make_sampler(), out, request=record, title=target,
            progress=progress, engine=options.make_engine(engine, workers, address, gpus),
            quantities=(quantity,),
        )  # fmt: skip
    report.print_landscape(land, out)
    files = [draw.save(draw.convexity(land), Path(out) / "convexity.png")]
    files.append(draw.save(draw.convexity_figure(land), Path(out) / "convexity_beside.png"))
    report.print_files(files)


def whole(
    target: Target,
    *,
    out: Out,
    checkpoint: Checkpoint = None,
    initialization: Annotated[
        Path | None,
        typer.Option(
            help="Weights from before training, for the profile along the line from them."
        ),
    ] = None,
    planes: Annotated[int, typer.Option(min=2, help="Number of random planes.")] = 10,
    radius: Annotated[
        float,
        typer.Option(help="Distance that profiles reach, in mean lengths of random directions."),
    ] = 1.0,
    resolution: Annotated[int, typer.Option(min=5, help="Number of points per profile.")] = 21,
    surfaces: Annotated[
        int, typer.Option(min=0, help="Number of random planes to scan and draw side by side.")
    ] = 0,
    seed: Seed = 0,
    set_: Arguments = None,
    engine: Where = "local",
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0,
) -> None:
    """Measure how much of the whole surface a plane shows: random planes against the Hessian.

    Draws the loss along many random directions, along the directions of the largest and the
    smallest eigenvalue, and from the initialization; compares the curvature that planes see with
    the curvature that exists; gives a verdict in words and numbers. After Ctrl-C or a crash, the
    same command continues where it stopped.
    """
    from landscope import draw
    from landscope.analysis.representative_planes import representativeness
    from landscope.cli import run_folder, targets
    from landscope.cli.opened_run import WHOLE
    from landscope.progress import show_bar

    if not 0 < radius < math.inf:
        raise SamplerError(f"--radius {radius:g}; expected a distance above 0, such as 1.")
    start, arguments = time.perf_counter(), set_ or ()
    evaluator = options.make_engine(engine, workers, address, gpus)
    objective = targets.load_objective(target, arguments=arguments, checkpoint=checkpoint)
    initial = targets.find_initialization(target, objective, arguments, checkpoint, initialization)
    run = run_folder.create_run(out)
    with report.exit_on_interrupt(out), show_bar(f"profiles {target}", "profiles") as progress:
        result = representativeness(
            objective, num_planes=planes, initialization=initial, radius=radius,
            resolution=resolution, engine=evaluator, journal=run / "profiles", seed=seed,
            progress=progress,
        )  # fmt: skip
    _report_verdict(target, result, run)
    request = {
        "command": "whole", "target": target, "checkpoint": checkpoint, "planes": planes,
        "initialization": initialization, "radius": radius, "resolution": resolution,
        "surfaces": surfaces, "seed": seed, "set": set_,
    }  # fmt: skip
    run_folder.write_metadata(run, request, seconds=time.perf_counter() - start)
    report.print_files([
        run / WHOLE, draw.save(draw.curvature_profiles(result), run / "whole.png"),
        *_draw_surfaces(target, objective, surfaces, engine=evaluator, run=run, seed=seed),
    ])  # fmt: skip


def _report_verdict(target: str, result: Representativeness, run: Path) -> None:
    """Print the verdict on random planes, and write it to whole.json with its numbers."""
    from landscope.cli import run_folder
    from landscope.cli.opened_run import WHOLE

    report.print_line(result.verdict)
    profiles = {
        name: None if values is None else values.tolist()
        for name, values in (
            ("distances", result.distances), ("random", result.random),
            ("sharpest", result.sharpest), ("steepest", result.steepest),
            ("initialization", result.initialization),
        )
    }  # fmt: skip
    run_folder.write_json(
        run / WHOLE,
        {"target": target, "verdict": result.verdict.splitlines(), **result.numbers, **profiles},
    )


def _draw_surfaces(
    target: str, objective: Objective, count: int, *, engine: Engine, run: Path, seed: int
) -> list[Path]:
    """Scan random planes and draw them side by side; return the file, none without planes."""
    from landscope import draw
    from landscope.analysis.ensembles import ensemble
    from landscope.progress import show_bar

    if not count:
        return []
    with report.exit_on_interrupt(run), show_bar(f"surfaces {target}") as progress:
        lands = ensemble(
            objective,
            count=count,
            engine=engine,
            journal=run / "surfaces",
            seed=seed,
            progress=progress,
        )
    return [draw.save(draw.side_by_side_figure(lands), run / "surfaces.png")]
