"""The commands for the examples that come with landscope: ``demo`` and ``zoo``.

Torch and matplotlib are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landscope.cli import report


def demo(
    out: Annotated[Path, typer.Option(help="Folder for what it makes.")] = Path("landscope-demo"),
    sequence: Annotated[
        bool, typer.Option("--sequence", help="An LSTM and a transformer, on text.")
    ] = False,
    resolution: Annotated[int, typer.Option(min=5, help="Points an axis.")] = 31,
    seed: Annotated[int, typer.Option(help="Of the random directions.")] = 0,
) -> None:
    """Train two networks on real data, scan their loss surfaces, draw them: start here."""
    from landscope.cli.demo import demo as run_demo

    made = run_demo(out, sequence=sequence, resolution=resolution, seed=seed, tell=report.say)
    for title, shape in made.shapes.items():
        report.say(f"\n{title}")
        report.tell_shape(shape)
    report.say("\nWritten:")
    for file in made.files:
        report.say(f"  {file}")
    report.say(f"\nOpen {out / 'page.html'} in a browser and turn the surfaces with the mouse.")


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
    report.say(
        "\nThe digits networks train in seconds, the text networks in less than a minute:"
        " landscope scan zoo:digits_mlp --out runs/mlp\n"
        "The CIFAR-10 networks want your files: landscope scan zoo:resnet56"
        " --set data=cifar-10-python.tar.gz --checkpoint model_300.t7 --out runs/resnet56"
    )
