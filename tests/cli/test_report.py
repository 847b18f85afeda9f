"""What the command line prints, line by line, for a landscape with simple numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from landscope.analysis.representative_planes import Representativeness
from landscope.cli import report, run_folder
from landscope.landscape import Landscape
from tests.analysis.test_representative_planes import (
    SIZE,
    beside_the_center,
    hessian_of,
    objective,
    seen,
)


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


# --- random planes beside the Hessian ------------------------------------------------------------


def sentences(result: Representativeness) -> str:
    return " ".join(report.describe_representativeness(result).split())


def test_the_verdict_on_a_saddle_says_what_the_planes_did_not_show() -> None:
    given = objective(negative=3)
    result = seen(given, 3)
    text = sentences(result)
    values = np.linalg.eigvalsh(hessian_of(given))
    assert result.is_saddle_like
    assert f"shows 2 of {SIZE:,} dimensions" in text
    assert f"from {values[0]:.3g}" in text
    assert f"to {values[-1]:.4g}" in text
    assert f"is {-values[0] / values[-1]:.2g} of the largest" in text
    assert result.numbers["planes_with_negative_curvature"] == 0
    assert "None of 3 random planes showed negative curvature" in text
    assert "(95% interval of the share: 0% to 56%)" in text
    assert "Such planes alone would not have revealed it." in text
    assert "it is not their minimum" not in text


def test_the_verdict_counts_the_planes_that_show_it() -> None:
    result = seen(objective(negative=12), 4)
    count = result.numbers["planes_with_negative_curvature"]
    assert count > 0
    assert f"{count} of 4 random planes showed negative curvature" in sentences(result)
    assert "would not have revealed" not in sentences(result)
    assert "lie lower than the point itself: it is not their minimum" in sentences(result)


def test_the_verdict_on_a_minimum_claims_no_more_than_is_known() -> None:
    text = sentences(seen(objective(), 3))
    assert "No negative curvature was found at the point" in text
    assert "says nothing about points further away" in text
    assert "not convex" not in text
    assert "it is not their minimum" not in text
    assert "0% of the inner points along random directions bend downwards" in text
    assert text.endswith("The profiles cover this distance only.")


def test_the_verdict_on_a_point_beside_a_minimum_says_that_it_is_none() -> None:
    given = objective()
    result = seen(given, 3, params=beside_the_center(given))
    share = (result.random < result.loss).mean()
    assert share > 0
    assert f"{share:.0%} of the points along random directions lie lower" in sentences(result)
    assert "convex there" in sentences(result)


def test_the_verdict_on_a_surface_that_is_not_finite_says_so() -> None:
    result = seen(objective(), 2)
    walled = dataclasses.replace(result, random=np.full_like(result.random, np.nan))
    assert "At distance 1 the loss is nan" in sentences(walled)
