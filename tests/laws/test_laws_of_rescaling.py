"""Rescaling that does not change a network: where filter normalization keeps its surface.

The README and docs/guides/filters.md state these facts. Witness: the rescaled network computes the
same function by construction: ReLU(c z) = c ReLU(z) for c > 0, batch norm divides by the scale. The
surfaces are compared in float64.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls

UNITS = 8
LAYER = torch.full((UNITS,), 3.0, dtype=torch.float64)
EACH_UNIT = torch.logspace(-0.7, 0.7, UNITS, dtype=torch.float64)


def make_data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(50, 4, generator=draw), torch.randint(3, (50,), generator=draw)


def make_network(*, batch_norm: bool) -> nn.Sequential:
    torch.manual_seed(1)
    between = [nn.BatchNorm1d(UNITS)] if batch_norm else []
    model = nn.Sequential(nn.Linear(4, UNITS), *between, nn.ReLU(), nn.Linear(UNITS, 3)).double()
    model(make_data()[0].double())  # so that batch norm has statistics
    for norm in between:
        norm.eps = 0.0  # which does not scale with them
    return model.eval()


def rescale_units(model: nn.Sequential, factors: Tensor) -> nn.Sequential:
    """Multiply the inputs of each hidden unit; divide behind it, or in its batch norm."""
    model = copy.deepcopy(model)
    first, second, last = model[0], model[1], model[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        first.weight.mul_(factors[:, None])
        first.bias.mul_(factors)
        if isinstance(second, nn.BatchNorm1d):
            assert second.running_mean is not None
            assert second.running_var is not None
            second.running_mean *= factors
            second.running_var *= factors**2
        else:
            last.weight.div_(factors)
    return model


def compute_change(*, batch_norm: bool, factors: Tensor) -> tuple[float, float]:
    """The relative change of the loss at the center, and the largest over the surface."""
    model = make_network(batch_norm=batch_norm)
    surfaces = []
    for each in (model, rescale_units(model, factors)):
        objective = ls.Objective(each, nn.CrossEntropyLoss(), make_data(), precision="float64")
        plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
        surfaces.append(ls.scan(objective, plane, ls.Grid(5)).data["loss"].values)
    change = np.abs(surfaces[1] / surfaces[0] - 1)
    return float(change[2, 2]), float(change.max())


@pytest.mark.parametrize(
    ("batch_norm", "factors"),
    [(False, LAYER), (True, LAYER), (True, EACH_UNIT)],
    ids=["whole layer", "whole layer before batch norm", "each filter before batch norm"],
)
def test_the_surface_stays_when_filters_are_rescaled_with_their_layer_or_before_batch_norm(
    batch_norm: bool, factors: Tensor
) -> None:
    center, largest = compute_change(batch_norm=batch_norm, factors=factors)
    assert center < 1e-12
    assert largest < 1e-12


def test_the_surface_changes_when_relu_units_are_rescaled_one_by_one() -> None:
    """The filters of the next layer then have entries of other relative sizes."""
    center, largest = compute_change(batch_norm=False, factors=EACH_UNIT)
    assert center < 1e-12
    assert largest > 0.05
