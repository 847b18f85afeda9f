"""Report: what the command line tells, line by line.

Whatever is heavy (torch, numpy) is imported inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from landscope.analysis.shape_statistics import Shape
    from landscope.landscape import Landscape

_INTERRUPTED = 130  # what a shell expects of a command that Ctrl-C ended


def tell(land: Landscape, run: Path) -> None:
    """Tell what a landscape holds: its grid, its values, its shape, where it comes from."""
    import numpy as np

    axes = ", ".join(
        f"{dim} from {axis[0]:g} to {axis[-1]:g} in {len(axis)}"
        for dim, axis in list(zip(land.dims, land.axes, strict=True))[::-1]
    )
    say(f"{run}: {axes}")
    for name, variable in land.data.items():
        values = np.asarray(variable.values, dtype=np.float64)
        finite = values[np.isfinite(values)]
        spread = f"{finite.min():.6g} to {finite.max():.6g}" if finite.size else "nothing finite"
        units = str(variable.attrs.get("units", ""))
        units = "" if units in ("", "1") else f" {units}"
        holes = values.size - finite.size
        say(
            f"  {name!s:<14}  {spread}{units}"
            + (f", {holes} hole{'s' * (holes > 1)}" if holes else "")
        )
    if len(land.dims) < 3:
        from landscope.analysis.shape_statistics import shape

        tell_shape(shape(land))
    for name in ("model", "loss", "penalty", "precision", "cost", "notes", "made_with", "file"):
        if land.data.attrs.get(name, "none") not in ("", "none"):
            say(f"  {name:<14}  {land.data.attrs[name]}")
    _tell_seconds(land, run)


def tell_shape(shape: Shape) -> None:
    """Tell how deep a basin is, and how much of the slice is not convex."""
    at = ", ".join(f"{c:g}" for c in shape.at)
    say(f"  {'basin':<14}  {shape.lowest:.4g} at ({at}), {shape.rim:.4g} at the rim (median)")
    say(f"  {'not convex':<14}  {shape.nonconvex:.1%} of the slice's inner cells bend downwards")


def tell_numbers(path: Path) -> None:
    """Tell the single numbers and texts of a JSON file."""
    told = json.loads(path.read_text())
    say(str(path))
    for name, value in told.items():
        if isinstance(value, int | float | str):
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            say(f"  {name:<30}  {text}")
        elif name in ("verdict", "eigenvalues"):
            for line in value:
                say(f"  {name:<30}  {line:.6g}" if isinstance(line, float) else f"  {line}")


def tell_files(files: list[Path]) -> None:
    """Tell which files were written."""
    for file in files:
        say(f"  wrote {file}")


@contextlib.contextmanager
def stoppable(run: Path) -> Iterator[None]:
    """Turn Ctrl-C into a sentence and an exit status: what was computed is kept."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"stopped; what was computed is in {run}: the same command goes on from there.")
        raise typer.Exit(_INTERRUPTED) from None


def say(text: str) -> None:
    """Write a line."""
    typer.echo(text)


def complain(text: str) -> None:
    """Write a line of the program's own to standard error."""
    typer.echo(f"landscope: {text}", err=True)


def _tell_seconds(land: Landscape, run: Path) -> None:
    """Tell how long the workers were busy, and how long a plain loop would have been."""
    from landscope.cli import run_folder
    from landscope.scanning.cost import duration

    if not land.seconds:
        return
    naive = run_folder.noted(run).get("naive_seconds") if run.is_dir() else None
    told = duration(land.seconds)
    if naive:
        told += f"; the plain loop: about {duration(naive)}"
    say(f"  {'time':<14}  {told}")
