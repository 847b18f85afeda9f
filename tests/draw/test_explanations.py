"""The sentences that explain a picture: its middle, the other models on it, and its unit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from landscope.draw.explanations import explain
from landscope.landscape import Landscape

FILTER = {"kind": "random", "normalize": "filter"}
STEP = "A step of 1 along an axis changes each filter (the weights that feed one unit) by as much"


def with_origins(land: Landscape, **origins: Any) -> Landscape:
    return Landscape(land.data.assign_attrs(directions=json.dumps(origins)))


def test_random_directions_are_explained_where_all_landscapes_have_the_same(
    bowl: Landscape,
) -> None:
    land = with_origins(bowl, x=FILTER, y=FILTER)
    assert explain([land, land]) == (
        f"The cross at (0, 0) is the model. {STEP} as its own norm."
        " Heights and colors are the loss."
    )
    other = with_origins(bowl, x=FILTER | {"normalize": None}, y=FILTER)
    assert STEP not in explain([land, other])


def test_both_models_of_a_line_between_them_are_named(training: Landscape) -> None:
    land = with_origins(training, x={"kind": "between", "file": "other.pt"})
    assert explain([land]) == "x = 0 is the model. x = 1 is other.pt."


@pytest.mark.parametrize("text", ["{}", "no JSON", "[1]", '{"x": 3}'])
def test_nothing_is_said_of_what_is_not_known(bowl: Landscape, text: str) -> None:
    land = Landscape(bowl.data.assign_attrs(directions=text).isel(x=slice(30, 41)))
    assert explain([land]) == "Heights and colors are the loss."


def test_the_origin_of_principal_components_is_not_the_model(bowl: Landscape) -> None:
    component = {"kind": "principal component"}
    for land, has_paths in ((with_origins(bowl, x=component, y=component), False), (bowl, True)):
        assert "is the origin of the plane" in explain([land], has_paths=has_paths)
