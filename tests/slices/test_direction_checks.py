"""The order of center and directions, which only a scan can check: it knows the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import landscope as ls
from landscope.errors import SliceError
from landscope.params import Params, like


def _objective() -> ls.Objective:
    torch.manual_seed(0)
    data = torch.randn(20, 4), torch.randint(3, (20,))
    return ls.Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), data)


def _copy(params: Params, factor: float = 1.0) -> Params:
    return like(params, {n: factor * t for n, t in params.items()})


@pytest.mark.parametrize("run", [ls.scan, ls.estimate], ids=["scan", "estimate"])
@pytest.mark.parametrize("place", [1, 2])
def test_center_and_directions_in_the_wrong_order_are_refused(run: object, place: int) -> None:
    objective = _objective()
    dx, dy = ls.directions.random(objective.center)
    parts = [dx, dy]
    parts.insert(place, _copy(objective.center))
    plane = ls.Plane(*parts)
    dim = "xy"[place - 1]
    with pytest.raises(SliceError, match=rf"direction {dim} is the model.*Plane\(center, dx, dy\)"):
        run(objective, plane, 3)  # type: ignore[operator]


def test_a_model_along_itself_is_scanned_with_a_note_on_what_that_is() -> None:
    objective = _objective()
    land = ls.scan(objective, ls.Line(objective.center, objective.center), 3)
    assert "multiplied by 1 + x" in land.data.attrs["notes"]
    zeros = _copy(objective.center, 0.0)
    scaled = ls.scan(objective, ls.Line(zeros, objective.center), ls.Grid(2, (0, 2)))
    assert "direction" not in scaled.data.attrs["notes"]
    assert float(scaled.data.loss[1]) == pytest.approx(float(land.data.loss[2]), rel=1e-6)


def test_two_models_span_a_line_as_before() -> None:
    objective = _objective()
    other = _copy(objective.center, 0.5)
    line = ls.Line(objective.center, ls.directions.between(objective.center, other))
    assert "direction" not in ls.scan(objective, line, 3).data.attrs["notes"]
