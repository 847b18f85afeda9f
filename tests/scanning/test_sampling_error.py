"""Error bars of one unit, the one that their attributes state, for every sampler and sign of loss.

Witnesses: the loss over all samples on the full grid; and the scan of a grid with the same draw,
whose error bars at the same cells must be the same in units of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from tests.cases import seeded

ROWS, SIZE = 600, 16
ENGINE = Local(plan=Plan(rows=ROWS))
SAMPLES = ls.Calibrated(120, anchors=16)
Loss = Callable[[Tensor, Tensor], Tensor]


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs[:, :1] - targets) ** 2)[:, 0]


LOSSES: dict[str, tuple[Loss, dict[str, Any]]] = {
    "positive": (squares, {}),
    "positive with a penalty": (squares, {"penalty": ls.losses.weight_decay(0.05)}),
    "negative": (lambda outputs, targets: squares(outputs, targets) - 1000.0, {}),
    "crossing zero": (lambda outputs, targets: squares(outputs, targets) - 18.0, {}),
    "lifted above zero by a penalty": (
        lambda outputs, targets: squares(outputs, targets) - 6.0,
        {"penalty": lambda params: torch.tensor(100.0)},
    ),
    "huge": (lambda outputs, targets: 1e30 * squares(outputs, targets), {}),
    "tiny": (lambda outputs, targets: 1e-20 * squares(outputs, targets), {}),
}
SAMPLERS = {
    "grid": ls.Grid(SIZE),
    "adaptive": ls.Adaptive(resolution=SIZE),
    "adaptive, linear": ls.Adaptive(resolution=SIZE, scale="linear"),
}


def make_plane(name: str) -> tuple[ls.Objective, ls.Plane]:
    loss, options = LOSSES[name]
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    inputs = torch.randn(ROWS, 4, generator=seeded(0))
    targets = 2 * torch.sin(inputs[:, :1]) + torch.randn(ROWS, 1, generator=seeded(1)) ** 3
    objective = ls.Objective(model, loss, (inputs, targets), **options)
    return objective, ls.Plane(objective.center, *ls.directions.random(objective.center))


def scan(name: str, sampler: Any, samples: Any = SAMPLES) -> ls.Landscape:
    return ls.scan(*make_plane(name), sampler, samples=samples, engine=ENGINE)


def cells_with_drawn_samples(land: ls.Landscape) -> np.ndarray:
    drawn = np.ones((SIZE, SIZE), dtype=bool)
    drawn.flat[SAMPLES.places((SIZE, SIZE))] = False
    return drawn & (land.data.get("evaluated", np.ones_like(drawn)) == 1)


@pytest.mark.parametrize("name", LOSSES)
def test_error_bars_hold_and_their_attributes_state_their_unit(name: str) -> None:
    full, grid = scan(name, SAMPLERS["grid"], None), scan(name, SAMPLERS["grid"])
    exact = full.data["loss"].values
    for sampler, given in SAMPLERS.items():
        land = grid if sampler == "grid" else scan(name, given)
        attributes, bars = land.data["loss_error"].attrs, land.data["loss_error"].values
        logarithmic = name in ("positive", "positive with a penalty", "huge", "tiny")
        if name == "lifted above zero by a penalty":  # its samples have negative losses
            logarithmic = sampler == "adaptive"
        logarithmic = logarithmic and sampler != "adaptive, linear"
        of = "ln(loss)" if logarithmic else "loss"
        assert attributes["interval_of"] == of
        assert attributes["long_name"] == f"half-width of the 95% interval of {of}"
        loss = land.data["loss"].values
        errors = np.abs(np.log(loss / exact) if logarithmic else loss - exact)
        drawn = cells_with_drawn_samples(land)
        assert drawn.sum() > 20
        assert (errors <= bars)[drawn].mean() >= 0.85  # of one draw
        lower, upper = land.interval()
        rounding = 1e-6 * np.abs(exact)
        assert ((lower - rounding <= exact) & (exact <= upper + rounding)).mean() >= 0.9
        unit = loss if logarithmic else np.ones_like(loss)
        in_units_of_the_grid = grid.data["loss_error"].values * (
            grid.data["loss"].values if "ln" in grid.data["loss_error"].interval_of else 1.0
        )
        np.testing.assert_allclose((bars * unit)[drawn], in_units_of_the_grid[drawn], rtol=1e-4)


def test_predicted_cells_beside_an_anchor_have_the_error_of_drawn_samples_too() -> None:
    land = scan("positive", SAMPLERS["adaptive"])
    alone = scan("positive", SAMPLERS["adaptive"], None)
    predicted = land.data["evaluated"].values == 0
    drawn = land.data["loss_error"].values[cells_with_drawn_samples(land)]
    assert land.data["loss_error"].values[predicted].min() > 0.5 * drawn.min()
    assert alone.data["loss_error"].values[predicted].min() < 0.5 * drawn.min()


def test_intervals_of_exact_values_are_the_values() -> None:
    land = scan("negative", SAMPLERS["grid"], None)
    assert all((end == land.data["loss"].values).all() for end in land.interval())
    assert (land.half_widths() == 0).all()
    assert "loss_error" not in land.data


def test_half_widths_are_the_larger_side_of_the_interval_in_units_of_the_loss() -> None:
    land = scan("positive", SAMPLERS["adaptive"])
    loss, bars = land.data["loss"].values, land.data["loss_error"].values
    np.testing.assert_allclose(land.half_widths(), loss * np.expm1(bars), rtol=1e-9, atol=1e-12)
    old = ls.Landscape(land.data.copy())  # as in files of version 0.1
    old.data["loss_error"].attrs = {"units": "1", "long_name": "estimated error of ln(loss)"}
    np.testing.assert_array_equal(old.half_widths(), land.half_widths())
    old.data["loss_error"].attrs = {"units": "", "long_name": "estimated error of loss"}
    np.testing.assert_allclose(old.half_widths(), bars, atol=1e-12)
