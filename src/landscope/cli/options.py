"""Options that several commands share, and the engine that they choose.

Torch is imported inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from landscope.errors import EngineError

if TYPE_CHECKING:
    from landscope.engines.job import Engine

# The library's own words, and "none" for None. They are listed here because the rooms that own them
# import torch, which would make ``--help`` slow; a test compares them.
Normalize = Literal["filter", "layer", "weight", "dfilter", "dlayer", "none"]
Ignore = Literal["biasbn", "none"]
Matrix = Literal["hessian", "ggn", "fisher"]
Scale = Literal["log", "linear"]
PictureFormat = Literal["png", "pdf", "svg"]

Moved = Literal["parameters", "states"]
EngineName = Literal["local", "ray"]

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
    Scale | None, typer.Option(help="Linear or logarithmic; chosen by the values if not given.")
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Argument for TARGET's function."),
]

Out = Annotated[Path, typer.Option(help="Folder of the run; a run that was started there resumes.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Weights to load first: .t7, .pt, .pth, .safetensors.")
]
Directions = Annotated[
    Path | None,
    typer.Option(help="Take the directions from a run's folder or a .h5 file of the 2018 scripts."),
]
NormalizeOption = Annotated[Normalize, typer.Option(help="Scaling of random directions.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Select = Annotated[
    list[str] | None,
    typer.Option(
        help="Parameters to differentiate with respect to: a name pattern such as 'layer3.*', or"
        " 'dimension > 1'; repeat it for more patterns; all parameters if not given."
    ),
]
Where = Annotated[
    EngineName,
    typer.Option("--engine", help="Where points are evaluated: on this machine or on a cluster."),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Number of points evaluated at the same time; measured if not given."),
]
Address = Annotated[str | None, typer.Option(help="Address of a Ray cluster, with --engine ray.")]
Gpus = Annotated[float, typer.Option(help="GPUs per worker, with --engine ray.")]


def make_engine(name: EngineName, workers: int | None, address: str | None, gpus: float) -> Engine:
    """Return the engine that evaluates the points.

    Raises:
        EngineError: When options of a cluster are given for this machine, or an option is out of
            range.
    """
    if name == "ray":
        from landscope.engines.ray import Ray

        return Ray(address, workers=workers, gpus=gpus)
    from landscope.engines.local import Local

    if address is not None or gpus:
        raise EngineError("--address and --gpus are for a cluster: add --engine ray.")
    return Local(workers=workers)
