"""Options: the words of the command line, and what they stand for.

Whatever is heavy (torch) is imported inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscope.errors import EngineError, SamplerError

if TYPE_CHECKING:
    from landscope.cli.slice_options import Recipe
    from landscope.engines.job import Engine
    from landscope.objective.quantities import Quantity as Quantity_
    from landscope.sampling.calibrated import Calibrated
    from landscope.sampling.grid import Sampler


class Normalize(StrEnum):
    """How random directions are scaled."""

    filter = "filter"
    layer = "layer"
    weight = "weight"
    dfilter = "dfilter"
    dlayer = "dlayer"
    none = "none"


class Ignore(StrEnum):
    """What random directions hold still."""

    biasbn = "biasbn"
    none = "none"


class Over(StrEnum):
    """What moves."""

    parameters = "parameters"
    states = "states"


class Where(StrEnum):
    """Who evaluates points."""

    local = "local"
    ray = "ray"


class Matrix(StrEnum):
    """Which matrix of second derivatives."""

    hessian = "hessian"
    ggn = "ggn"
    fisher = "fisher"


class Scale(StrEnum):
    """How values are drawn."""

    log = "log"
    linear = "linear"


class Kind(StrEnum):
    """Files of pictures."""

    png = "png"
    pdf = "pdf"
    svg = "svg"


_NORMALIZE: dict[Normalize, Literal["filter", "layer", "weight", "dfilter", "dlayer"] | None] = {
    Normalize.filter: "filter",
    Normalize.layer: "layer",
    Normalize.weight: "weight",
    Normalize.dfilter: "dfilter",
    Normalize.dlayer: "dlayer",
    Normalize.none: None,
}

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="file.py:function or package.module:function that returns an ls.Objective, or"
        " zoo:NAME.",
    ),
]
Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="Folders of runs, or .nc, .zarr, .csv, .h5 files."),
]
Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run, or a .nc, .zarr, .csv, .h5 file.")
]
Quantity = Annotated[str | None, typer.Option(help="What to draw: loss, accuracy, test_loss, ...")]
ScaleOption = Annotated[
    Scale | None, typer.Option(help="Linear, or logarithmic; what suits the values if not given.")
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Argument for TARGET's function."),
]

Out = Annotated[Path, typer.Option(help="Folder of the run; what is begun in it goes on.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Weights to load first: .t7, .pt, .pth, .safetensors.")
]
Seed = Annotated[int, typer.Option(help="Of all that is random.")]
Select = Annotated[
    list[str] | None,
    typer.Option(
        help="Parameters to differentiate by: a name pattern such as 'layer3.*', again for more,"
        " or 'dimension > 1'; all if not given."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Points evaluated at the same time; measured if not given."),
]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster, with --engine ray.")]
Gpus = Annotated[float, typer.Option(help="GPUs a worker, with --engine ray.")]


def spans(*axes: str | None) -> list[tuple[float | None, float | None, int]]:
    """Return (first, last, points) of each axis that is asked for; a plane where none is.

    Args:
        axes: the texts of x, y and z.

    Raises:
        SamplerError: when an axis is left out before another, or a text is no axis.
    """
    given = [axis for axis in axes if axis is not None] or ["-1:1:51"] * 2
    if axes[0] is None and any(axes):
        later = "y" if axes[1] is not None else "z"
        raise SamplerError(f"--{later} is given without --x: name the axes in order.")
    if axes[1] is None and axes[2] is not None:
        raise SamplerError("--z is given without --y: name the axes in order.")
    return [_span(text) for text in given]


def recipe(asked: dict[str, Any]) -> Recipe:
    """Return which slice is asked for."""
    from landscope.cli.slice_options import Recipe

    return Recipe(
        toward=tuple(asked.get("toward") or ()), kept=asked.get("directions"),
        same=asked.get("same", False), over=asked.get("over"),
        normalize=_NORMALIZE[asked["normalize"]],
        ignore=None if asked.get("ignore") is Ignore.none else "biasbn",
        orthogonal=asked.get("orthogonal", True), select=tuple(asked.get("select") or ()),
        seed=asked.get("seed", 0),
    )  # fmt: skip


def sampler(asked: dict[str, Any]) -> Sampler:
    """Return at which points to evaluate.

    Raises:
        SamplerError: when one axis is auto and another is not, or what the sampler refuses.
    """
    from landscope.sampling.adaptive import Adaptive
    from landscope.sampling.grid import Grid

    resolution = [points for *_, points in asked["spans"]]
    ends = [tuple(ends) for *ends, _ in asked["spans"]]
    found = [(None, None) in ends, set(ends) == {(None, None)}]
    if found[0] and not found[1]:
        raise SamplerError("one axis is auto and another is not: give the ends of all, or of none.")
    span: Any = "auto" if found[0] else ends
    if asked["adaptive"]:
        return Adaptive(tolerance=asked["tolerance"], resolution=resolution, span=span)
    return Grid(resolution, span)


def engine(where: Where, workers: int | None, address: str | None, gpus: float) -> Engine:
    """Return who evaluates.

    Raises:
        EngineError: when this machine gets options of a cluster, or what the engine refuses.
    """
    if where is Where.ray:
        from landscope.engines.ray import Ray

        return Ray(address, workers=workers, gpus=gpus)
    from landscope.engines.local import Local

    if address is not None or gpus:
        raise EngineError("--address and --gpus are for a cluster: add --engine ray.")
    return Local(workers=workers)


def quantities(average: float | None, *, error_bars: bool) -> list[Quantity_]:
    """Return what to measure beside the loss."""
    from landscope.analysis.averages import loss_stderr, neighborhood_average

    found: list[Quantity_] = [] if average is None else [neighborhood_average(average)]
    return [*found, loss_stderr] if error_bars else found


def samples(size: int | None) -> Calibrated | None:
    """Return which samples to evaluate; None for all."""
    from landscope.sampling.calibrated import Calibrated

    return None if size is None else Calibrated(size)


def _span(text: str) -> tuple[float | None, float | None, int]:
    """Return an axis; its ends are None where they are to be found ("auto", "auto:51")."""
    try:
        if text.partition(":")[0] == "auto":
            return None, None, int(text.partition(":")[2] or 51)
        first, last, points = text.split(":")
        return float(first), float(last), int(points)
    except ValueError:
        raise SamplerError(
            f"axis {text!r}; expected first:last:points, such as -1:1:51, or auto:points."
        ) from None
