"""The folder of a run: all that is needed to understand a scan and to go on with it.

journal.sqlite          every value, from the moment that it exists
directions.safetensors  the directions by axis: "x/layer1.weight", ...
landscape.nc            the result; the same request gives the same file, bit for bit
run.json                the request, versions, seconds
*.png, page.html        pictures; preview.png while an adaptive scan is running
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscope import landscape
from landscope._version import __version__
from landscope.cli.recorded_request import describe_old_directions, describe_request
from landscope.errors import FormatError, JournalError
from landscope.files import advise, write_atomically
from landscope.landscape import Landscape

if TYPE_CHECKING:
    from landscope.params import Params
    from landscope.slices.slices import Direction, Slice

JOURNAL, DIRECTIONS, LANDSCAPE, METADATA = (
    "journal.sqlite", "directions.safetensors", "landscape.nc", "run.json",
)  # fmt: skip
_METADATA = "landscope"  # of directions; one key, because several come in an order of chance


def create_run(folder: str | os.PathLike[str]) -> Path:
    """Return a writable folder, which is created if it does not exist.

    Raises:
        JournalError: When the folder cannot be created or written to.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with write_atomically(path / "probe") as part:
            part.touch()
        (path / "probe").unlink()
    except OSError as error:
        advice = advise(error) if "room" in advise(error) else "choose another --out"
        raise JournalError(f"folder {path} cannot be written to ({error}): {advice}.") from error
    return path


def open_run(path: str | os.PathLike[str], *, batches: int | None = None) -> Landscape:
    """Return the landscape of a run, or of any file that holds one (.h5 of 2018 as well).

    Args:
        path: The folder of the run, or the file.
        batches: The number of batches over which a 2018 script summed its eigenvalues; see
            ``read_surface``.

    Raises:
        FormatError: When there is no landscape, or it is damaged.
    """
    path = Path(path)
    if path.suffix == ".h5":
        from landscope.formats import reference_h5

        return reference_h5.read_surface(path, batches=batches)
    if path.is_dir() and path.suffix != ".zarr" and not (path / LANDSCAPE).is_file():
        is_run = (path / JOURNAL).is_file()
        problem = (
            "its scan is not finished: run it again" if is_run else "it is not the folder of a run"
        )
        raise FormatError(f"{path} holds no {LANDSCAPE}: {problem}.")
    land = landscape.load(path)
    metadata = read_metadata(path) if path.is_dir() else {}
    request = metadata.get("asked", {})
    attributes = {**describe_old_directions(request), **describe_request(request)}
    data = land.data.assign_attrs({**attributes, **land.data.attrs})
    return Landscape(data, metadata.get("seconds"))


# --- run.json -----------------------------------------------------------------------------------


def write_metadata(
    folder: Path,
    request: Mapping[str, Any],
    *,
    seconds: float | None,
    naive_seconds: float | None = None,
    is_finished: bool = True,
) -> None:
    """Write run.json.

    Args:
        folder: The folder of the run.
        request: The command and its options.
        seconds: The time that the workers took.
        naive_seconds: The time that a plain loop over the whole grid would take.
        is_finished: Whether the result is there.
    """
    import torch

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    metadata = {
        "asked": dict(request),
        "seconds": seconds,
        "naive_seconds": naive_seconds,
        "finished": now if is_finished else None,
        "landscope": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "machine": platform.platform(),
    }
    write_json(folder / METADATA, metadata)


def read_metadata(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the contents of run.json; an empty dict for a folder without one.

    Raises:
        FormatError: When the file is damaged.
    """
    path = Path(folder) / METADATA
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except ValueError as error:
        raise FormatError(
            f"{path} is damaged ({error}): delete it; the values are not in it."
        ) from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON; NaN and infinity, which JSON does not have, become null."""
    text = json.dumps(_as_json(values), indent=2, default=str, allow_nan=False)
    with write_atomically(path) as part:
        part.write_text(text + "\n")


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- directions.safetensors ---------------------------------------------------------------------


def write_directions(slice_: Slice, folder: Path) -> None:
    """Write the directions of a slice by axis, for other scans to use."""
    _write_vectors({dim: v for dim, v in slice_.parts.items() if dim != "center"}, folder)


def write_vectors(vectors: Mapping[str, Params], center: Params, folder: Path) -> None:
    """Write vectors by axis as the directions of a run; entries that they lack become zero."""
    import torch

    from landscope.params import like

    zeros = {n: torch.zeros_like(t) for n, t in center.items()}
    _write_vectors(
        {dim: like(center, {**zeros, **v}).record_origin(**v.origin) for dim, v in vectors.items()},
        folder,
    )


def _write_vectors(vectors: Mapping[str, Direction], folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from landscope.params import Params
    from landscope.slices.seeded_directions import Seeded

    tensors = {
        f"{dim}/{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for dim, vector in vectors.items()
        if not isinstance(vector, Seeded)
        for name, tensor in vector.items()
    }
    metadata = {
        "recipes": {dim: v.recipe for dim, v in vectors.items() if isinstance(v, Seeded)},
        "origins": {dim: v.origin for dim, v in vectors.items() if isinstance(v, Params)},
    }
    with write_atomically(folder / DIRECTIONS) as part:
        save_file(tensors, part, {_METADATA: json.dumps(metadata)})


def read_directions(folder: str | os.PathLike[str], params: Params) -> list[Direction]:
    """Return the directions of a run, with the names and devices of ``params``.

    Directions that were stored as a seed are drawn again around ``params``.

    Raises:
        FormatError: When the run has no directions, or they belong to another model.
    """
    from safetensors import safe_open

    from landscope.params import like
    from landscope.slices.seeded_directions import from_recipe

    path = Path(folder) / DIRECTIONS
    if not path.is_file():
        raise FormatError(f"{path} does not exist: {folder} is not the folder of a run.")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        texts = file.metadata() or {}
    metadata = json.loads(texts.get(_METADATA, "{}"))
    recipes = {dim: json.loads(texts[dim]) for dim in texts if dim != _METADATA}  # of version 0.1
    recipes |= metadata.get("recipes", {})
    directions: list[Direction] = []
    for dim in ("x", "y", "z"):
        vector = {n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(f"{dim}/")}
        if dim in recipes:
            directions.append(from_recipe(params, recipes[dim]))
        elif vector:
            missing = next((n for n in params if n not in vector), None)
            if missing is not None:
                raise FormatError(
                    f"{path} has no direction for {missing!r}: it belongs to another model, or to"
                    " other parameters (--over)."
                )
            origin = metadata.get("origins", {}).get(dim) or {"kind": "vector"}
            direction = like(params, {n: vector[n].to(t) for n, t in params.items()})
            directions.append(direction.record_origin(**origin))
    return directions
