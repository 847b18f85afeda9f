"""Report: what the command line prints.

Torch and numpy are imported inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import xarray as xr

    from landscope.analysis.shape_statistics import Shape
    from landscope.landscape import Landscape

_MAIN_FACTS = ("model", "loss", "penalty", "directions", "cost", "notes", "file")
_CLEAR = 0.005  # of a value; a smaller error does not change its digits
_INTERRUPTED = 130  # the exit status that shells expect after Ctrl-C


def print_landscape(land: Landscape, run: Path, *, all_facts: bool = False) -> None:
    """Print the grid of a landscape, its values, its shape, its origin and the time it took.

    Args:
        land: The landscape.
        run: The folder or file that holds it.
        all_facts: Whether to print all that is known of its origin, or the main facts only.
    """
    axes = ", ".join(
        f"{dim} from {axis[0]:g} to {axis[-1]:g} in {len(axis)}"
        for dim, axis in reversed(list(zip(land.dims, land.axes, strict=True)))
    )
    print_line(f"{run}: {axes}")
    for name, variable in land.data.items():
        meaning = str(variable.attrs.get("long_name", ""))
        is_plain = meaning.replace("training ", "train ") in ("", str(name).replace("_", " "))
        more = "" if is_plain or name == "evaluated" else f" ({meaning})"
        print_line(f"  {name!s:<14}  {_describe_values(variable)}{more}")
    if len(land.dims) < 3:
        from landscope.analysis.shape_statistics import shape

        print_shape(shape(land))
    from landscope.scanning import provenance

    for label, words in provenance.describe(land).items():
        if all_facts or label in _MAIN_FACTS:
            print_line(f"  {label:<14}  {words}")
    if land.seconds:
        print_line(f"  {'time':<14}  {_describe_time(land.seconds, run)}")


def _describe_values(variable: xr.DataArray) -> str:
    import numpy as np

    values = np.asarray(variable.values, dtype=np.float64)
    if variable.name == "evaluated":
        return f"{int(values.sum()):,} of {values.size:,} points; the others are predicted"
    finite = values[np.isfinite(values)]
    spread = f"{finite.min():.6g} to {finite.max():.6g}" if finite.size else "nothing finite"
    units = str(variable.attrs.get("units", ""))
    units = "" if units in ("", "1") else f" {units}"
    holes = values.size - finite.size
    return f"{spread}{units}" + (f", {holes} hole{'s' * (holes > 1)}" if holes else "")


def _describe_time(seconds: float, run: Path) -> str:
    """Return how long the workers were busy, and how long a plain loop takes if that is known."""
    from landscope.cli import run_folder
    from landscope.progress import duration

    naive = run_folder.read_metadata(run).get("naive_seconds") if run.is_dir() else None
    plain_loop = f"; the plain loop: about {duration(naive)}" if naive else ""
    return f"{duration(seconds)}{plain_loop}"


def print_shape(shape: Shape) -> None:
    """Print how deep a basin is, and how much of the slice is not convex, and how sure that is."""
    print_line(f"  {'basin':<14}  {_describe_basin(shape)}")
    print_line(f"  {'not convex':<14}  {_describe_bending(shape)}")


def _describe_basin(shape: Shape) -> str:
    at = ", ".join(f"{dim} = {c:.4g}" for dim, c in zip("xyz", shape.at, strict=False))
    uncertain = shape.rim_error > _CLEAR * abs(shape.rim)
    error = f" +- {shape.rim_error:.1g}" if uncertain else ""
    rivals = f"{shape.rivals:,} other cell{'s' * (shape.rivals > 1)}"
    place = f"; its place is possible, not certain: {rivals} may lie lower" if shape.rivals else ""
    return f"{shape.lowest:.4g} at {at}; {shape.rim:.4g}{error} at the rim (median){place}"


def _describe_bending(shape: Shape) -> str:
    bending = shape.bending
    judged, inner = int(bending.told.sum()), int(bending.inner.sum())
    proofs = int(bending.above.sum())
    if not inner:
        return "not told: the grid has no inner cells; take at least 3 points along each axis"
    texts = []
    if judged:
        texts.append(
            f"certain: {shape.nonconvex:.1%}, possible: {shape.possible:.1%} of the {judged:,}"
            " inner cells that can be judged bend downwards"
        )
    if judged < inner:
        texts.append(
            f"not told: {inner - judged:,} of {inner:,} inner cells, which were not evaluated, or a"
            " neighbor of which was not"
        )
    if proofs and not bending.certain.any():
        texts.append(
            f"certain: {proofs:,} evaluated cell{'s' * (proofs > 1)} lie above a chord between two"
            " others, so the slice bends downwards somewhere"
        )
    return "; ".join(texts)


def print_measurements(path: Path) -> None:
    """Print the numbers and texts of a JSON file; of its lists, the verdict and eigenvalues."""
    print_line(str(path))
    for name, value in json.loads(path.read_text()).items():
        label = f"{name.replace('_', ' '):<30}"
        if isinstance(value, int | float | str):
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            print_line(f"  {label}  {text}")
        elif name in ("verdict", "eigenvalues"):
            for line in value:
                is_number = isinstance(line, float)
                print_line(f"  {label}  {line:.6g}" if is_number else f"  {line}")


def print_metadata(metadata: dict[str, Any], command: str) -> None:
    """Print the command behind a run, and when and where it finished.

    Args:
        metadata: The contents of run.json.
        command: The command; "" if it is unknown.
    """
    facts = {"command": command, **{n: metadata.get(n) for n in ("finished", "machine", "threads")}}
    for name, fact in facts.items():
        if fact:
            print_line(f"  {name:<14}  {fact}")


def print_files(files: list[Path]) -> None:
    """Print which files were written."""
    for file in files:
        print_line(f"  wrote {file}")
    if not files:
        print_line("  nothing to draw: a picture needs two or more points along each axis")


def print_line(text: str) -> None:
    """Print a line to standard output."""
    typer.echo(text)


def print_warning(text: str) -> None:
    """Print a line to standard error, with the name of the program."""
    typer.echo(f"landscope: {text}", err=True)


def print_advice(text: str) -> None:
    """Print a hint to standard error; nothing if it is empty."""
    if text:
        print_warning(text)


@contextlib.contextmanager
def exit_on_interrupt(run: Path) -> Iterator[None]:
    """Turn Ctrl-C into a sentence and an exit status; computed values stay in the run."""
    try:
        yield
    except KeyboardInterrupt:
        print_warning(
            f"stopped; everything computed so far is in {run}: the same command goes on from there."
        )
        raise typer.Exit(_INTERRUPTED) from None
