"""The verdict on random planes: what they show of a point, and what they do not, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def compose_verdict(numbers: Mapping[str, Any]) -> str:
    """Return the verdict on random planes, one statement per line.

    Args:
        numbers: The summary of a ``Representativeness``.
    """
    statements = [
        f"A random plane shows 2 of {numbers['parameters']:,} dimensions. This is what"
        f" {numbers['planes']} of them, and the Hessian, say.",
        _describe_curvature(numbers),
        _describe_convexity(numbers),
        _describe_edge(numbers),
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


def _describe_curvature(numbers: Mapping[str, Any]) -> str:
    mean, largest = numbers["curvature_random_mean"], numbers["hessian_max"]
    return (
        f"Curvature at the point: from {numbers['hessian_min']:.3g} (+-"
        f" {numbers['hessian_min_residual']:.1g}) to {largest:.4g} (+-"
        f" {numbers['hessian_max_residual']:.1g}). Random directions see {mean:.3g} (+-"
        f" {numbers['curvature_random_stderr']:.1g}) on average, {_ratio(largest, mean)} less than"
        " the sharpest one."
    )


def _describe_convexity(numbers: Mapping[str, Any]) -> str:
    smallest, largest = numbers["hessian_min"], numbers["hessian_max"]
    if numbers["negative_curvature"] is None:
        return (
            "Whether the loss is convex at the point is not told within rounding: the smallest"
            f" eigenvalue is known to +- {numbers['hessian_min_residual']:.1g}, and the largest is"
            f" {largest:.2g}. Use precision='float64'."
        )
    if not numbers["negative_curvature"]:
        return (
            "No negative curvature was found at the point, to the accuracy of the smallest"
            " eigenvalue: the loss is convex there, which says nothing about points further away."
        )
    share = abs(smallest / largest) if largest else math.nan
    negative = numbers["planes_with_negative_curvature"]
    return (
        f"The loss is not convex at the point: the most negative curvature is {share:.2g} of the"
        f" largest. {negative or 'None'} of {numbers['planes']} random planes showed negative"
        f" curvature there (95% interval of the share: {numbers['share_low']:.0%} to"
        f" {numbers['share_high']:.0%})."
        + ("" if negative else " Such planes alone would not have revealed it.")
    )


def _describe_edge(numbers: Mapping[str, Any]) -> str:
    return (
        f"At distance {numbers['radius']:g} the loss is {numbers['edge_loss_mean']:.4g} on"
        f" average over {numbers['directions']} random directions (from"
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
