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
    from landscope.analysis.representative_planes import Representativeness
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


def describe_representativeness(result: Representativeness) -> str:
    """Return what random planes show of a point and what they do not, one statement per line.

    Example:
        >>> whole = ls.representativeness(objective, num_planes=10)  # doctest: +SKIP
        >>> print(describe_representativeness(whole))  # doctest: +SKIP
    """
    numbers = result.numbers
    statements = [
        f"A random plane shows 2 of {result.size:,} dimensions. This is what {numbers['planes']} of"
        " them, and the Hessian, say.",
        _describe_curvature(result),
        _describe_convexity(result),
        _describe_edge(result),
    ]
    if numbers["lower_than_center_random"] > 0:
        statements.append(
            f"{_percent(numbers['lower_than_center_random'])} of the points along random directions"
            " lie lower than the point itself: it is not their minimum."
        )
    statements.append(
        "Not shown: other minima, the paths between them, and curvature away from the point (see"
        " the convexity map). The profiles cover this distance only."
    )
    return "\n".join(statements)


def _describe_curvature(result: Representativeness) -> str:
    numbers, ends = result.numbers, result.extremes
    residuals = ends.residual.tolist()
    mean, stderr = numbers["curvature_random_mean"], numbers["curvature_random_stderr"]
    return (
        f"Curvature at the point: from {ends.smallest:.3g} (+- {residuals[0]:.1g}) to"
        f" {ends.largest:.4g} (+- {residuals[1]:.1g}). Random directions see {mean:.3g} (+-"
        f" {stderr:.1g}) on average, {_ratio(ends.largest, mean)} less than the sharpest one."
    )


def _describe_convexity(result: Representativeness) -> str:
    if not result.is_saddle_like:
        return (
            "No negative curvature was found at the point, to the accuracy of the smallest"
            " eigenvalue: the loss is convex there, which says nothing about points further away."
        )
    numbers, ends = result.numbers, result.extremes
    share = abs(ends.smallest / ends.largest) if ends.largest else float("nan")
    negative = numbers["planes_with_negative_curvature"]
    return (
        f"The loss is not convex at the point: the most negative curvature is {share:.2g} of the"
        f" largest. {negative or 'None'} of {numbers['planes']} random planes showed negative"
        f" curvature there (95% interval of the share: {numbers['share_low']:.0%} to"
        f" {numbers['share_high']:.0%})."
        + ("" if negative else " Such planes alone would not have revealed it.")
    )


def _describe_edge(result: Representativeness) -> str:
    numbers = result.numbers
    return (
        f"At distance {result.distances[-1]:g} the loss is {numbers['edge_loss_mean']:.4g} on"
        f" average over {len(result.random)} random directions (from"
        f" {numbers['edge_loss_least']:.4g} to {numbers['edge_loss_most']:.4g});"
        f" {numbers['edge_loss_sharpest']:.4g} along the sharpest direction,"
        f" {numbers['edge_loss_steepest']:.4g} along the one of the smallest eigenvalue."
        f" {_percent(numbers['nonconvex_random'])} of the inner points along random directions bend"
        " downwards."
    )


def _ratio(large: float, small: float) -> str:
    if small <= 0 or large <= 0:
        return "far"
    return f"{large / small:,.0f} times" if large / small >= 10 else f"{large / small:.1f} times"


def _percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 0.095 else f"{share:.0%}"


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
    naive = run_folder.read_metadata(run).get("naive_seconds") if run.is_dir() else None
    told = duration(land.seconds)
    if naive:
        told += f"; the plain loop: about {duration(naive)}"
    say(f"  {'time':<14}  {told}")
