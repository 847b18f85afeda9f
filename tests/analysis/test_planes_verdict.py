"""The verdict on random planes, for surfaces whose curvature is known, sentence by sentence."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from landscope.analysis.representative_planes import Representativeness
from tests.analysis.test_representative_planes import (
    SIZE,
    beside_the_center,
    hessian_of,
    objective,
    seen,
)


def sentences(result: Representativeness) -> str:
    return " ".join(result.verdict.split())


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


def test_within_rounding_nothing_is_said_about_convexity() -> None:
    result = seen(objective(), 2)
    largest = result.extremes.largest
    unknown = dataclasses.replace(
        result.extremes,
        value=torch.tensor([-0.01 * largest, largest], dtype=torch.float64),
        residual=torch.tensor([0.02 * largest, 0.02 * largest], dtype=torch.float64),
    )
    text = sentences(dataclasses.replace(result, extremes=unknown))
    assert unknown.is_saddle_like is None
    assert "not told within rounding" in text
    assert "not convex" not in text
    assert "is convex there" not in text
