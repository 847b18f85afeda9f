"""The commands for the examples that come with landscope: ``demo`` and ``zoo``.

Torch and matplotlib are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscope.cli import report


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("landscope-demo"),
    sequence: Annotated[
        bool, typer.Option("--sequence", help="Show an LSTM and a transformer that read text.")
    ] = False,
    resolution: Annotated[int, typer.Option(min=5, help="Number of points per axis.")] = 31,
    seed: Annotated[int, typer.Option(help="Seed of the random directions.")] = 0,
) -> None:
    """Train two networks on real data, scan their loss surfaces, draw them: start here."""
    from landscope.cli.demo import demo as run_demo

    results = run_demo(
        out, sequence=sequence, resolution=resolution, seed=seed, announce=report.print_line
    )
    for title, shape in results.shapes.items():
        report.print_line(f"\n{title}")
        report.print_shape(shape)
    report.print_line("\nWritten:")
    for file in results.files:
        report.print_line(f"  {file}")
    report.print_line(
        f"\nOpen {out / 'page.html'} in a browser and turn the surfaces with the mouse."
    )


def zoo() -> None:
    """List the networks that come with landscope."""
    from rich.console import Console
    from rich.table import Table

    from landscope.zoo import CATALOG

    table = Table("name", "layers", "parameters", "data", box=None, pad_edge=False)
    for entry in CATALOG.values():
        parameters, layers = entry.size()
        table.add_row(f"zoo:{entry.name}", str(layers), f"{parameters:,}", entry.data)
    Console().print(table)
    report.print_line(
        "\nThe digits networks train in seconds, the text networks in less than a minute:"
        " landscope scan zoo:digits_mlp --out runs/mlp\n"
        "The CIFAR-10 networks need your data files: landscope scan zoo:resnet56"
        " --set data=cifar-10-python.tar.gz --checkpoint model_300.t7 --out runs/resnet56"
    )
