"""Budgets: what is chosen for a time, that the scan keeps to it and says what it chose."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.engines.job import Job
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.errors import SamplerError
from landscope.scanning import budget as budgets_
from landscope.scanning.budget import Choice
from tests.cases import seeded

ENGINE = Local(plan=Plan())


class Slow(nn.Module):
    """A model that takes a known time for a row."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.layer, self.seconds = nn.Linear(3, 2), seconds

    def forward(self, rows: Tensor) -> Tensor:
        time.sleep(self.seconds * len(rows))
        found: Tensor = self.layer(rows)
        return found


def _question(seconds: float, rows: int = 10) -> tuple[ls.Objective, ls.Plane]:
    torch.manual_seed(0)
    data = torch.randn(rows, 3, generator=seeded(0)), torch.arange(rows) % 2
    objective = ls.Objective(Slow(seconds / rows), nn.CrossEntropyLoss(), data, batch_size=1000)
    return objective, ls.Plane(objective.center, *ls.directions.random(objective.center))


@pytest.mark.parametrize(
    ("text", "value"), [(5, 5), (0.5, 0.5), ("90", 90), ("60s", 60), ("5m", 300), ("1.5h", 5400),
                        ("2 min", 120)],
)  # fmt: skip
def test_budgets_are_seconds_or_texts(text: Any, value: float) -> None:
    assert budgets_.parse_budget(text) == value


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", 0, -1, "5 weeks", float("nan")])
def test_what_is_no_time_is_refused(text: Any) -> None:
    with pytest.raises(SamplerError, match=r"budget=.*; expected seconds above 0"):
        budgets_.parse_budget(text)


@pytest.mark.parametrize(
    ("pass_", "left", "rows", "kind"),
    [(0.001, 20.0, 10, "grid"), (0.01, 3.0, 10, "points"), (0.05, 3.0, 4000, "samples")],
)
def test_the_choice_fits_the_time(
    monkeypatch: pytest.MonkeyPatch, pass_: float, left: float, rows: int, kind: str
) -> None:
    monkeypatch.setattr(budgets_, "time_points", lambda *_, **__: (pass_, "plan"))
    objective, plane = _question(0.0, rows)
    choice, plan = budgets_.choose_sampling(
        Job(objective, plane), ENGINE, ls.Grid(9, (-2, 1)), left
    )
    assert plan == "plan"
    sampler = choice.make_sampler(ls.Grid(9, (-2, 1)), plane.dims)
    assert [axis[0] for axis in sampler.axes(plane.dims)] == [-2, -2]
    if kind == "grid":
        assert isinstance(sampler, ls.Grid)
        assert 0.8 * left < choice.resolution**2 * pass_ < left
        assert choice.resolution % 2 == 1
        assert "a grid of" in choice.note
    else:
        assert isinstance(sampler, ls.Adaptive)
    assert (choice.make_samples() is not None) == (kind == "samples")
    assert Choice.loads(choice.dumps()) == choice


@pytest.mark.parametrize(("pass_", "budget"), [(0.0005, 1.5), (0.008, 1.5)])
def test_a_scan_keeps_to_its_budget_and_says_what_it_chose(pass_: float, budget: float) -> None:
    objective, plane = _question(pass_)
    began = time.perf_counter()
    land = ls.scan(objective, plane, engine=ENGINE, budget=budget)
    assert time.perf_counter() - began < 2.5 * budget  # generous: machines are busy
    assert "budget of 1.5 s" in land.data.attrs["notes"]
    assert np.isfinite(land.data["loss"].values).mean() > 0.9


def test_a_resumed_scan_keeps_the_choice(tmp_path: Path) -> None:
    objective, plane = _question(0.003)
    first = ls.scan(objective, plane, engine=ENGINE, budget=1, journal=tmp_path / "j.sqlite")
    again = ls.scan(objective, plane, engine=ENGINE, budget="1h", journal=tmp_path / "j.sqlite")
    assert again.data.sizes == first.data.sizes
    done = first.data["evaluated"].values == 1
    assert 10 < done.sum() <= again.data["evaluated"].sum()
    np.testing.assert_array_equal(first.data["loss"].values[done], again.data["loss"].values[done])
    assert np.isfinite(again.data["loss"].values).all()
