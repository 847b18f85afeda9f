"""What the command line prints, line by line, for a landscape with simple numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from landscope.cli import report, run_folder
from landscope.landscape import Landscape


def valley() -> Landscape:
    """Loss 1 + x^2 on 3 x 2 points, with one hole, and nothing finite of another quantity."""
    data = xr.Dataset(
        {
            "loss": (("y", "x"), np.array([[2.0, 1.0, 2.0], [2.0, 1.0, np.inf]])),
            "accuracy": (("y", "x"), np.full((2, 3), np.nan), {"units": "%"}),
            "perplexity": (("y", "x"), np.full((2, 3), 3.0), {"units": "1"}),
        },
        {"x": [-1.0, 0.0, 1.0], "y": [0.0, 4.0]},
        {"model": "Sequential", "penalty": "none", "notes": ""},
    )
    return Landscape(data, seconds=75.0)


def test_grid_values_shape_source_and_time_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder.write_metadata(tmp_path, {"command": "scan"}, seconds=75.0, naive_seconds=7_500.0)
    report.print_landscape(valley(), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        f"{tmp_path}: x from -1 to 1 in 3, y from 0 to 4 in 2",
        "  loss            1 to 2, 1 hole",
        "  accuracy        nothing finite %, 6 holes",
        "  perplexity      3 to 3",
    ]
    assert [line.split()[0] for line in lines[4:]] == ["basin", "not", "model", "time"]
    assert lines[-1] == "  time            1 min 15 s; the plain loop: about 2 h 5 min"


def test_what_goes_wrong_is_written_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_line("well")
    report.print_warning("not well")
    assert capsys.readouterr() == ("well\n", "landscope: not well\n")
