"""Directions that are drawn again from a seed.

The witnesses are norms and inner products of the drawn tensors, taken filter by filter in float64
through the layouts that tests/test_params.py checks; and what a law of large numbers says.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope import params
from landscope.errors import DirectionError, ParamsError
from landscope.slices import seeded_directions
from landscope.slices.normalization import Normalize

NORMALIZATIONS: list[Normalize | None] = ["filter", "layer", "dfilter", "dlayer", None]


def _model() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 6, 3, groups=2),
        nn.Flatten(), nn.Linear(150, 40), nn.Embedding(30, 7),
    )  # fmt: skip


@pytest.fixture
def center() -> params.Params:
    return params.clone(params.parameters(_model()))


@pytest.fixture(params=[2**20, 64])
def piece(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Tensors in one piece, and in many."""
    monkeypatch.setattr(seeded_directions, "PIECE", request.param)
    return int(request.param)


def _sizes(center: params.Params, normalize: str | None) -> dict[str, Tensor]:
    """Return the norm that each filter is to have; those of None are left to the draw."""
    found = {}
    for name, rows in params.filters(center).items():
        exact = rows.double()
        if normalize == "filter":
            found[name] = exact.norm(dim=1)
        elif normalize == "dfilter":
            found[name] = torch.ones(len(rows), dtype=torch.float64)
    return found


@pytest.mark.parametrize("normalize", ["filter", "dfilter"])
def test_each_filter_has_the_norm_that_is_asked_for(
    center: params.Params, normalize: Normalize, piece: int
) -> None:
    expected = _sizes(center, normalize)
    for direction in ls.directions.seeded(center, 3, normalize=normalize, seed=4):
        drawn = params.filters(params.like(center, dict(direction)))
        assert set(drawn) == set(expected) == {n for n, t in center.items() if t.ndim > 1}
        for name, rows in drawn.items():
            ratios = rows.double().norm(dim=1) / expected[name]
            assert ratios.tolist() == pytest.approx([1.0] * len(rows), abs=1e-6)


@pytest.mark.parametrize(("normalize", "size"), [("layer", None), ("dlayer", 1.0)])
def test_each_tensor_has_the_norm_that_is_asked_for(
    center: params.Params, normalize: Normalize, size: float | None, piece: int
) -> None:
    for direction in ls.directions.seeded(center, 2, normalize=normalize, seed=4):
        for name in direction.moving:
            expected = float(center[name].double().norm()) if size is None else size
            assert float(direction[name].double().norm()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_directions_are_orthogonal_in_every_filter(
    center: params.Params, normalize: Normalize | None, piece: int
) -> None:
    made = ls.directions.seeded(center, 3, normalize=normalize, seed=4)
    drawn = [params.filters(params.like(center, dict(d))) for d in made]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        for name in drawn[a]:
            x, y = drawn[a][name].double(), drawn[b][name].double()
            if normalize in ("layer", "dlayer"):
                x, y = x.reshape(1, -1), y.reshape(1, -1)
            cosines = (x * y).sum(dim=1) / (x.norm(dim=1) * y.norm(dim=1))
            assert cosines.abs().max() < 2e-6


def test_directions_that_need_not_be_orthogonal_are_independent_draws(
    center: params.Params,
) -> None:
    one = ls.directions.seeded(center, 1, seed=4)[0]
    both = ls.directions.seeded(center, 2, orthogonal=False, seed=4)
    for name in one.moving:
        assert torch.equal(one[name], both[0][name])
    x, y = (params.flatten(dict(d)).double() for d in both)
    assert 0 < abs(float(x @ y / (x.norm() * y.norm()))) < 0.1


def test_unscaled_numbers_are_standard_normal() -> None:
    params_ = {"weight": torch.ones(300, 400)}
    (direction,) = ls.directions.seeded(params_, 1, normalize=None, seed=1)
    values = direction["weight"].double()
    count = values.numel()
    assert abs(float(values.mean())) < 4 / math.sqrt(count)
    assert abs(float(values.square().mean()) - 1) < 4 * math.sqrt(2 / count)
    assert abs(float(values.pow(4).mean()) - 3) < 4 * math.sqrt(96 / count)
    assert abs(float((values > 0).double().mean()) - 0.5) < 2 / math.sqrt(count)


def test_pieces_rows_and_directions_have_numbers_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seeded_directions, "PIECE", 100)
    params_ = {"a": torch.ones(40, 10), "b": torch.ones(40, 10)}
    made = ls.directions.seeded(params_, 2, normalize=None, orthogonal=False, seed=1)
    parts = [d[n][k : k + 10] for d in made for n in params_ for k in range(0, 40, 10)]
    for k, part in enumerate(parts):
        for other in parts[:k]:
            cosine = float((part * other).sum() / (part.norm() * other.norm()))
            assert 0 < abs(cosine) < 0.45


def test_the_same_seed_gives_the_same_tensors_and_another_seed_others(
    center: params.Params,
) -> None:
    a, b, c = (ls.directions.seeded(center, 1, seed=s)[0] for s in (3, 3, 4))
    for name in a.moving:
        assert torch.equal(a[name], b[name])
        assert torch.equal(a[name], a[name])
        x, y = a[name].double(), c[name].double()
        assert abs(float((x * y).sum() / (x.norm() * y.norm()))) < 0.35
    assert a.identity == b.identity != c.identity


def test_a_direction_is_made_again_from_its_recipe(center: params.Params) -> None:
    made = ls.directions.seeded(center, 3, normalize="layer", select=["0.*", "4.*"], seed=9)
    for direction in made:
        again = seeded_directions.from_recipe(center, direction.recipe)
        assert all(torch.equal(again[n], direction[n]) for n in direction)
        assert again.identity == direction.identity


def test_vectors_stay_still_or_move_as_one_filter(center: params.Params) -> None:
    still = ls.directions.seeded(center, 1)[0]
    assert not any(still[n].any() for n, t in center.items() if t.ndim <= 1)
    moved = ls.directions.seeded(center, 2, ignore=None)
    for name in ("1.weight", "4.bias"):
        for direction in moved:
            expected = float(center[name].double().norm())
            assert float(direction[name].double().norm()) == pytest.approx(expected, rel=1e-6)
        assert abs(float(moved[0][name].double() @ moved[1][name].double())) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_come_in_the_dtype_of_the_parameters(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    center = {"weight": torch.randn(20, 100).to(dtype)}
    for direction in ls.directions.seeded(center):
        assert direction["weight"].dtype == dtype
        ratios = direction["weight"].double().norm(dim=1) / center["weight"].double().norm(dim=1)
        assert ratios.tolist() == pytest.approx([1.0] * 20, abs=8 * torch.finfo(dtype).eps)


def test_zero_filters_numbers_without_axes_and_empty_tensors_are_no_trouble() -> None:
    center = {
        "zeros": torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]),
        "number": torch.tensor(2.0),
        "empty": torch.ones(0, 4),
        "steps": torch.tensor([1, 2]),
    }
    for direction in ls.directions.seeded(center, 2, ignore=None):
        assert not direction["zeros"][0].any()
        assert float(direction["zeros"][1].norm()) == pytest.approx(14**0.5, rel=1e-6)
        assert direction["empty"].shape == (0, 4)
        assert not direction["steps"].any()
        assert bool(torch.isfinite(direction["number"]))
    one, two = ls.directions.seeded(center, 2, ignore=None)
    assert abs(float(one["number"])) == 2.0
    assert float(two["number"]) == 0.0  # one number has no room for two directions


def test_filters_of_fewer_weights_than_directions_count_as_one() -> None:
    center = {"weight": torch.randn(50, 1, generator=torch.Generator().manual_seed(1))}
    dx, dy = ls.directions.seeded(center)
    assert abs(float(dx["weight"].flatten().double() @ dy["weight"].flatten().double())) < 1e-5
    for direction in (dx, dy):
        expected = float(center["weight"].double().norm())
        assert float(direction["weight"].double().norm()) == pytest.approx(expected, rel=1e-6)


def test_a_mapping_tells_its_names_without_drawing(
    center: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    (direction,) = ls.directions.seeded(center, 1)
    monkeypatch.setattr(seeded_directions, "_draw", None)
    assert list(direction) == list(center)
    assert len(direction) == len(center)
    assert "0.weight" in direction.moving
    ls.Line(center, direction)
    with pytest.raises(TypeError):
        direction["0.weight"]


def test_slices_take_them_as_they_take_stored_ones(center: params.Params) -> None:
    made = ls.directions.seeded(center, 2, seed=6)
    stored = [params.like(center, dict(d)) for d in made]
    plane, other = ls.Plane(center, *made), ls.Plane(center, *stored)
    at, same = plane.at((0.3, -0.7)), other.at((0.3, -0.7))
    assert all(torch.allclose(at[n], same[n], rtol=1e-6, atol=1e-7) for n in center)
    out = plane.at((0.1, 0.1))
    assert plane.at((0.3, -0.7), out) is out
    assert all(torch.equal(out[n], at[n]) for n in center)
    found, residual = plane.project(at)
    assert found == pytest.approx((0.3, -0.7), abs=1e-6)
    assert residual < 1e-5


def test_a_direction_of_another_model_is_refused(center: params.Params) -> None:
    (direction,) = ls.directions.seeded({"weight": torch.ones(2, 3)}, 1)
    with pytest.raises(ParamsError, match=r"direction x lacks '0\.weight'"):
        ls.Line(center, direction)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalize": "weight"}, "would have to be stored"),
        ({"normalize": "filters"}, "normalize='filters'; expected one of"),
        ({"ignore": "bias"}, "ignore='bias'"),
        ({"count": 0}, "count=0"),
    ],
)
def test_invalid_arguments_are_explained(
    center: params.Params, arguments: Any, message: str
) -> None:
    with pytest.raises(DirectionError, match=message):
        ls.directions.seeded(center, **arguments)


def test_weights_that_are_not_finite_are_named(center: params.Params) -> None:
    center["4.weight"][3, 5] = torch.nan
    with pytest.raises(DirectionError, match=r"params\['4\.weight'\] holds NaN"):
        ls.directions.seeded(center)
