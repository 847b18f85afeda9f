"""The program ``landscope``: its commands in the order of ``--help``, and its exit status.

The commands are plain functions; each calls public functions, writes files and reports on them.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from landscope._version import __version__
from landscope.cli import error_words, examples, measure, outputs, report, scan, train, trajectory
from landscope.errors import LandscopeError

_WRONG_USAGE = 2  # the exit status of typer

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
    except SystemExit as end:
        more = error_words.describe_usage(sys.argv) if end.code == _WRONG_USAGE else ""
        if more:
            report.print_warning(more)
        raise
    except LandscopeError as error:
        if os.environ.get("LANDSCOPE_TRACEBACK"):
            raise
        report.print_warning(error_words.explain(error, _list_options()))
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LANDSCOPE_TRACEBACK"):
            raise
        line = error_words.find_user_line(error)
        where = f"{line}; " if line else ""
        report.print_warning(
            f"{type(error).__name__}: {' '.join(str(error).split())}"
            f" ({where}LANDSCOPE_TRACEBACK=1 shows where it happened)"
        )
        sys.exit(1)


def _list_options() -> dict[str, str]:
    """Return argument -> option of the command that was called."""
    commands = getattr(typer.main.get_command(app), "commands", {})
    command = commands.get(next((word for word in sys.argv[1:] if word in commands), ""))
    names = {} if command is None else {p.name: p.opts[0] for p in command.params}
    return {name: option for name, option in names.items() if option.startswith("--")}
