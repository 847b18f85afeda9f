"""The program ``landscope``: its commands in the order of ``--help``, and its exit status.

The commands are plain functions; each calls public functions, writes files and reports on them.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from landscope._version import __version__
from landscope.cli import examples, measure, outputs, report, scan, train, trajectory
from landscope.errors import LandscopeError

app = typer.Typer(
    name="landscope",
    help="See and measure the loss landscape of any PyTorch model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _show_version(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        report.print_line(f"landscope {__version__}")
        raise typer.Exit


app.command()(examples.demo)
app.command()(scan.scan)
app.command()(scan.cost)
app.command()(measure.curvature)
app.command()(measure.convexity)
app.command()(measure.whole)
app.command()(train.train)
app.command()(trajectory.trajectory)
app.command()(outputs.plot)
app.command()(outputs.page)
app.command()(outputs.info)
app.command()(outputs.export)
app.command(name="import")(outputs.import_)
app.command()(examples.zoo)


def main() -> None:
    """Run the command line; an error is one sentence, and exit status 1."""
    try:
        app()
    except LandscopeError as error:
        report.print_warning(str(error))
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LANDSCOPE_TRACEBACK"):
            raise
        report.print_warning(
            f"{type(error).__name__}: {' '.join(str(error).split())}"
            " (LANDSCOPE_TRACEBACK=1 shows where it happened)"
        )
        sys.exit(1)
