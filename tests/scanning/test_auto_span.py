"""Automatic spans: as far as the loss of a model that knows nothing, on each side by itself."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.params import like
from landscope.scanning import auto_span


class Parabola(nn.Module):
    """Loss 1 + (a x)^2 to the right and 1 + (b x)^2 to the left, with its own level at zero."""

    def __init__(self, right: float, left: float, level: float = 5.0) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([100.0], dtype=torch.float64))
        self.right, self.left, self.level = right, left, level

    def forward(self, rows: Tensor) -> Tensor:
        step = self.x - 100
        slope = torch.where(step > 0, self.right, self.left)
        value = torch.where(self.x == 0, self.level, 1 + (slope * step) ** 2)
        return value.expand(len(rows), 1)


def _found(model: nn.Module, slope: float = 1.0) -> tuple[float, float]:
    objective = ls.Objective(model, lambda out, _: out[:, 0], (torch.zeros(4, 1), torch.zeros(4)))
    d = like(objective.center, {n: torch.full_like(p, slope) for n, p in objective.center.items()})
    ((first, last),) = auto_span.find_span(objective, ls.Line(objective.center, d))
    return first, last


@pytest.mark.parametrize(("right", "left"), [(1.0, 1.0), (8.0, 0.5), (0.05, 100.0)])
def test_each_side_reaches_a_little_beyond_its_wall(right: float, left: float) -> None:
    first, last = _found(Parabola(right, left))
    assert 2 / right <= last <= 1.3 * 2 / right  # 1 + (a x)^2 = 5 at x = 2 / a
    assert 2 / left <= -first <= 1.3 * 2 / left


def test_a_side_without_a_wall_reaches_to_one() -> None:
    assert _found(Parabola(0.0, 1.0))[1] == 1.0


def test_a_level_that_is_not_far_off_does_not_send_the_span_far_away() -> None:
    """Text is learned in part: the loss of a model that knows nothing may be 1.5 times as high."""
    last = _found(Parabola(1.0, 1.0, level=1.5))[1]
    assert 1.0 <= last <= 1.3  # 1 + x^2 = 2


def test_terms_need_not_be_one_a_row_however_many_rows_there_are() -> None:
    rows = torch.arange(2300)

    def kept(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs[targets >= 0, 0]

    targets = torch.where(rows % 3 == 0, -1, rows)
    objective = ls.Objective(Parabola(1.0, 1.0), kept, (torch.zeros(2300, 1), targets))
    step = like(objective.center, {"x": torch.ones(1, dtype=torch.float64)})
    ((first, last),) = auto_span.find_span(objective, ls.Line(objective.center, step))
    assert 2 <= -first == last <= 2.6


class Constant(nn.Module):
    """A model whose zero tells nothing: its loss is infinite there."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))

    def forward(self, rows: Tensor) -> Tensor:
        value = torch.where(self.x == 0, math.inf, (self.x - 1) ** 2)
        return value.expand(len(rows), 1)


def test_a_tenfold_loss_is_the_wall_where_zero_tells_nothing() -> None:
    last = _found(Constant())[1]  # (1 + x)^2 = 10
    assert math.sqrt(10) - 1 <= last <= 1.3 * (math.sqrt(10) - 1)


def test_a_scan_finds_its_span_and_shows_basin_and_walls() -> None:
    data = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    targets = (data[:, 0] > 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data), targets).backward()
        optimizer.step()
    objective = ls.Objective(model, nn.CrossEntropyLoss(), (data, targets))
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    land = ls.scan(objective, plane, ls.Grid(15, "auto"))
    x, y = land.data["x"].values, land.data["y"].values
    assert x[0] < 0 < x[-1]
    assert y[0] < 0 < y[-1]
    for at in ({"x": x[0]}, {"x": x[-1]}):
        edge = float(land.data["loss"].sel(at).interp(y=0.0))
        assert math.log(2) < edge < 20 * math.log(2)
    assert np.nanmin(land.data["loss"].values) < 0.05


def test_a_journal_remembers_the_span(tmp_path: pytest.TempPathFactory) -> None:
    model = nn.Linear(3, 2)
    objective = ls.Objective(model, nn.CrossEntropyLoss(), (torch.ones(4, 3), torch.arange(4) % 2))
    (d,) = ls.directions.random(objective.center, 1)
    line = ls.Line(objective.center, d)
    lands = [ls.scan(objective, line, ls.Grid(5, "auto"), journal=f"{tmp_path}/j") for _ in "ab"]
    assert lands[0].data.identical(lands[1].data)


def test_an_adaptive_scan_with_a_found_span_resumes(tmp_path: Path) -> None:
    """Version 0.1 refused: JSON gave lists back for tuples, so the sampler seemed another one."""
    torch.manual_seed(0)
    data = torch.randn(40, 3), torch.randint(2, (40,))
    objective = ls.Objective(nn.Linear(3, 2), nn.CrossEntropyLoss(), data)
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    sampler = ls.Adaptive(resolution=15, span="auto", tolerance=0.2)
    first = ls.scan(objective, plane, sampler, journal=tmp_path / "journal.sqlite")
    again = ls.scan(objective, plane, sampler, journal=tmp_path / "journal.sqlite")
    assert first.data.identical(again.data)
