"""The words of the command line: what they stand for, and sentences for those that fit nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from landscope.cli import options
from landscope.engines.local import Local
from landscope.errors import EngineError, SamplerError
from landscope.sampling.adaptive import Adaptive
from landscope.sampling.grid import Grid


@pytest.mark.parametrize(
    ("texts", "spans"),
    [
        ((None, None, None), [(-1.0, 1.0, 51)] * 2),
        (("-1:2:5", None, None), [(-1.0, 2.0, 5)]),
        (("auto", "auto:9", None), [(None, None, 51), (None, None, 9)]),
        (("0:1:2", "0:1:3", "-.5:1e1:4"), [(0.0, 1.0, 2), (0.0, 1.0, 3), (-0.5, 10.0, 4)]),
    ],
)
def test_axes_are_read_from_their_texts_and_none_is_the_plane_of_the_paper(
    texts: tuple[str | None, ...], spans: list[Any]
) -> None:
    assert options.spans(*texts) == spans


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ((None, "0:1:2", None), "--y is given without --x"),
        ((None, None, "0:1:2"), "--z is given without --x"),
        (("0:1:2", None, "0:1:2"), "--z is given without --y"),
        (("0:1", None, None), "axis '0:1'; expected first:last:points"),
        (("0:1:2.5", None, None), "axis '0:1:2.5'; expected"),
    ],
)
def test_axes_that_are_none_get_a_sentence(texts: tuple[str | None, ...], told: str) -> None:
    with pytest.raises(SamplerError, match=told):
        options.spans(*texts)


def test_the_sampler_is_a_grid_or_adaptive_over_the_axes_that_are_asked_for() -> None:
    asked: dict[str, Any] = {"spans": options.spans("0:1:2", "-1:1:3", None), "adaptive": False}
    ends = [(0.0, 1.0), (-1.0, 1.0)]
    assert options.sampler(asked) == Grid([2, 3], ends)
    asked |= {"adaptive": True, "tolerance": 0.1}
    assert options.sampler(asked) == Adaptive(0.1, [2, 3], ends)
    asked["spans"] = options.spans("auto:9", "auto:9", None)
    assert options.sampler(asked) == Adaptive(0.1, [9, 9], "auto")


def test_every_word_of_a_recipe_is_passed_on() -> None:
    asked = {"normalize": options.Normalize.none, "ignore": options.Ignore.none, "seed": 4}
    recipe = options.recipe({**asked, "over": options.Over.states, "same": True})
    assert (recipe.normalize, recipe.ignore, recipe.seed) == (None, None, 4)
    assert (recipe.over, recipe.same, recipe.orthogonal, recipe.toward) == (
        "states",
        True,
        True,
        (),
    )
    plain = options.recipe({"normalize": options.Normalize.filter})
    assert (plain.normalize, plain.ignore, plain.kept) == ("filter", "biasbn", None)


def test_options_of_a_cluster_are_refused_on_this_machine() -> None:
    assert isinstance(options.engine(options.Where.local, 2, None, 0), Local)
    for address, gpus in (("here:1", 0), (None, 1)):
        with pytest.raises(EngineError, match="add --engine ray"):
            options.engine(options.Where.local, None, address, gpus)
