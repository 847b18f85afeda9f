"""Commands that measure curvature: each calls public functions, writes JSON and pictures.

Whatever is heavy (torch, matplotlib) is imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import time
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
    Matrix,
    Normalize,
    Out,
    Seed,
    Select,
    Target,
    Workers,
)
from landscope.cli.scan_request import ScanRequest, parse_spans

CURVATURE, WHOLE = "curvature.json", "whole.json"  # what the commands find, in their run's folder
_RECORDED = (  # of a request for a map of convexity
    "target", "checkpoint", "spans", "directions", "normalize", "seed", "set", "select", "adaptive",
)  # fmt: skip

Engine = Annotated[EngineName, typer.Option(help="Who evaluates.")]


def curvature(
    target: Target,
    *,
    out: Out,
    checkpoint: Checkpoint = None,
    count: Annotated[int, typer.Option(min=1, help="Eigenvalues, from both ends.")] = 6,
    kind: Annotated[
        Matrix, typer.Option(help="The Hessian, its Gauss-Newton part, or the empirical Fisher.")
    ] = "hessian",
    select: Select = None,
    samples: Annotated[int | None, typer.Option(help="Draw so many samples of the data.")] = None,
    vectors: Annotated[int, typer.Option(min=1, help="Random vectors for the spectrum.")] = 4,
    seed: Seed = 0,
    set_: Arguments = None,
) -> None:
    """Measure the Hessian at a model's minimum: eigenvalues, trace, spectrum, and draw them.

    The eigenvectors are kept as directions: `landscope scan TARGET --directions RUN --out ...`
    draws the plane of the sharpest way up and the steepest way down.
    """
    from landscope import curvature as measures
    from landscope import draw
    from landscope.cli import run_folder, targets
    from landscope.curvature.matrices import MATRICES
    from landscope.objective.determinism import check_determinism

    began = time.perf_counter()
    objective = targets.objective(target, arguments=set_ or (), checkpoint=checkpoint)
    check_determinism(objective.problem)
    folder = run_folder.create_run(out)
    matrix = MATRICES[kind](
        objective, select=select or None, samples=samples, seed=seed, progress=True
    )  # fmt: skip
    pairs = measures.eigenpairs(matrix, count, seed=seed)
    total = measures.trace(matrix, seed=seed)
    density = measures.spectrum(matrix, num_vectors=vectors, seed=seed)
    run_folder.write_vectors(dict(zip("xy", pairs.vectors, strict=False)), objective.center, folder)
    told = {
        "target": target,
        "kind": kind,
        "parameters": matrix.shape[0],
        "samples": matrix.samples,
        "eigenvalues": pairs.value.tolist(),
        "residuals": pairs.residual.tolist(),
        "stderr": pairs.stderr.tolist() if samples else None,
        "converged": pairs.converged,
        "trace": total.value,
        "trace_stderr": total.stderr,
        "trace_converged": total.converged,
        "products": matrix.products,
        "route": matrix.route,
        "product_error": matrix.relative_error,
        "spectrum": {"nodes": density.nodes.tolist(), "weights": density.weights.tolist()},
    }
    run_folder.write_json(folder / CURVATURE, told)
    asked = {
        "command": "curvature", "target": target, "checkpoint": checkpoint, "count": count,
        "kind": kind, "select": select, "samples": samples, "vectors": vectors, "seed": seed,
        "set": set_,
    }  # fmt: skip
    run_folder.write_metadata(folder, asked, seconds=time.perf_counter() - began)
    report.say(f"{target}: {kind} of {matrix.shape[0]:,} parameters, {matrix.route}")
    for value, residual in zip(pairs.value.tolist(), pairs.residual.tolist(), strict=True):
        report.say(f"  eigenvalue  {value:12.6g}  residual {residual:.1g}")
    report.say(f"  trace       {total.value:12.6g}  +- {total.stderr:.1g}")
    report.say(f"  products    {matrix.products:>12,}")
    axes = draw.spectrum(density)
    report.tell_files([folder / CURVATURE, draw.save(axes, folder / "spectrum.png")])


def convexity(
    target: Target,
    *,
    out: Out,
    checkpoint: Checkpoint = None,
    x: Annotated[str, typer.Option(help="Axis x as first:last:points.")] = "-1:1:9",
    y: Annotated[str, typer.Option(help="Axis y as first:last:points.")] = "-1:1:9",
    directions: Annotated[
        Path | None, typer.Option(help="Use these: a run's folder or a 2018 .h5 file.")
    ] = None,
    normalize: Annotated[
        Normalize, typer.Option(help="Scaling of random directions.")
    ] = ScanRequest.normalize,
    select: Select = None,
    tolerance: Annotated[float, typer.Option(help="Of each eigenvalue.")] = 0.01,
    samples: Annotated[int | None, typer.Option(help="Of the data, for the Hessian only.")] = None,
    seed: Seed = 0,
    set_: Arguments = None,
    engine: Engine = "local",
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0,
) -> None:
    """Map the convexity of a plane: |smallest / largest| eigenvalue of the Hessian at each point.

    It is the map of the paper's Figure 7: 0 where the loss is convex. After Ctrl-C or a crash the
    same command goes on where it stopped.
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
    with report.stoppable(out), show_bar(f"convexity {target}") as progress:
        land = run_scan(
            objective, slice_, request.make_sampler(), out, request=record, title=target,
            progress=progress, engine=options.make_engine(engine, workers, address, gpus),
            quantities=(quantity,),
        )  # fmt: skip
    report.tell(land, out)
    files = [draw.save(draw.convexity(land), Path(out) / "convexity.png")]
    files.append(draw.save(draw.convexity_figure(land), Path(out) / "convexity_beside.png"))
    report.tell_files(files)


def whole(
    target: Target,
    *,
    out: Out,
    checkpoint: Checkpoint = None,
    initialization: Annotated[
        Path | None, typer.Option(help="Weights that training began with, for the way from there.")
    ] = None,
    planes: Annotated[int, typer.Option(min=2, help="Random planes.")] = 10,
    radius: Annotated[float, typer.Option(help="How far, in lengths of random directions.")] = 1.0,
    resolution: Annotated[int, typer.Option(min=5, help="Points of each profile.")] = 21,
    surfaces: Annotated[
        int, typer.Option(help="Scan so many random planes whole, and draw them side by side.")
    ] = 0,
    seed: Seed = 0,
    set_: Arguments = None,
    engine: Engine = "local",
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0,
) -> None:
    """Ask whether a plane shows the whole surface: random planes beside what is there.

    The loss along many random directions, along the sharpest and the most negative direction and
    from the initialization; curvature that planes see beside that which exists; a verdict in words
    and numbers. After Ctrl-C or a crash the same command goes on where it stopped.
    """
    from landscope import draw
    from landscope.analysis.ensembles import ensemble
    from landscope.analysis.representative_planes import representativeness
    from landscope.cli import run_folder, targets
    from landscope.progress import show_bar

    began, arguments = time.perf_counter(), set_ or ()
    objective = targets.objective(target, arguments=arguments, checkpoint=checkpoint)
    start = targets.initialization(target, objective, arguments, checkpoint, initialization)
    folder = run_folder.create_run(out)
    with report.stoppable(out), show_bar(f"profiles {target}", "profiles") as progress:
        found = representativeness(
            objective, num_planes=planes, initialization=start, radius=radius,
            resolution=resolution, engine=options.make_engine(engine, workers, address, gpus),
            journal=folder / "profiles", seed=seed, progress=progress,
        )  # fmt: skip
    verdict = report.describe_representativeness(found)
    report.say(verdict)
    told = {
        "target": target,
        "verdict": verdict.splitlines(),
        **found.numbers,
        "distances": found.distances.tolist(),
        "random": found.random.tolist(),
        "sharpest": found.sharpest.tolist(),
        "steepest": found.steepest.tolist(),
        "initialization": None if found.initialization is None else found.initialization.tolist(),
    }
    run_folder.write_json(folder / WHOLE, told)
    asked = {
        "command": "whole", "target": target, "checkpoint": checkpoint, "planes": planes,
        "initialization": initialization, "radius": radius, "resolution": resolution,
        "surfaces": surfaces, "seed": seed, "set": set_,
    }  # fmt: skip
    run_folder.write_metadata(folder, asked, seconds=time.perf_counter() - began)
    files = [folder / WHOLE, draw.save(draw.curvature_profiles(found), folder / "whole.png")]
    if surfaces:
        with report.stoppable(out), show_bar(f"surfaces {target}") as progress:
            lands = ensemble(
                objective, count=surfaces, seed=seed, progress=progress,
                engine=options.make_engine(engine, workers, address, gpus),
                journal=folder / "surfaces",
            )  # fmt: skip
        files.append(draw.save(draw.side_by_side_figure(lands), folder / "surfaces.png"))
    report.tell_files(files)
