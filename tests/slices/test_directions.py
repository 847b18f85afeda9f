from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from landscope import directions, params
from landscope.errors import DirectionError, ParamsError
from landscope.params import Params
from landscope.slices.normalization import Normalize

NORMALIZATIONS: list[Normalize | None] = ["filter", "layer", "weight", "dfilter", "dlayer", None]
each_normalization = pytest.mark.parametrize("normalize", NORMALIZATIONS)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    return layers.double().requires_grad_(False)


def formula(raw: Tensor, weight: Tensor, normalize: Normalize | None) -> Tensor:
    """Write the normalization out, filter by filter, for an output axis that comes first."""
    found = raw.clone()
    for k in range(len(raw)):
        if normalize == "filter":
            found[k] = raw[k] * weight[k].norm() / raw[k].norm()
        elif normalize == "dfilter":
            found[k] = raw[k] / raw[k].norm()
    if normalize == "layer":
        found = raw * weight.norm() / raw.norm()
    elif normalize == "dlayer":
        found = raw / raw.norm()
    elif normalize == "weight":
        found = raw * weight
    return found


@each_normalization
def test_a_random_direction_is_the_gaussian_scaled_as_the_formula_says(
    normalize: Normalize | None,
) -> None:
    here = params.states(model())
    (raw,) = directions.random(here, 1, normalize=None, seed=4)
    (found,) = directions.random(here, 1, normalize=normalize, seed=4)
    for name in ("0.weight", "3.weight"):
        expected = formula(raw[name], here[name], normalize)
        torch.testing.assert_close(found[name], expected, rtol=1e-13, atol=1e-15)


@each_normalization
def test_independent_directions_are_each_scaled_as_the_formula_says(
    normalize: Normalize | None,
) -> None:
    here = params.states(model())
    raws = directions.random(here, 3, normalize=None, orthogonal=False)
    found = directions.random(here, 3, normalize=normalize, orthogonal=False)
    for raw, direction in zip(raws, found, strict=True):
        expected = formula(raw["0.weight"], here["0.weight"], normalize)
        torch.testing.assert_close(direction["0.weight"], expected, rtol=1e-13, atol=1e-15)


@each_normalization
def test_a_given_direction_is_rescaled_as_the_formula_says(normalize: Normalize | None) -> None:
    here = params.states(model())
    (raw,) = directions.random(here, 1, normalize=None, ignore=None)
    found = directions.rescale(raw, here, normalize)
    assert list(found) == list(here)
    for name, tensor in here.items():
        scaled = formula(raw[name], tensor, normalize) if tensor.ndim > 1 else raw[name]
        torch.testing.assert_close(found[name], scaled, rtol=1e-13, atol=1e-15)


def test_the_gaussian_has_mean_0_and_variance_1() -> None:
    (d,) = directions.random({"w": torch.zeros(200, 200)}, 1, normalize=None)
    assert abs(float(d["w"].mean())) < 4 / 200
    assert abs(float(d["w"].var()) - 1) < 4 * 2**0.5 / 200


@each_normalization
def test_biases_and_batch_norm_are_held_still(normalize: Normalize | None) -> None:
    here = params.states(model())
    for direction in directions.random(here, 3, normalize=normalize):
        moving = [n for n, t in direction.items() if t.count_nonzero()]
        assert moving == ["0.weight", "3.weight"]


@pytest.mark.parametrize("count", [1, 3])
def test_there_are_as_many_directions_as_asked_for(count: int) -> None:
    here = params.states(model())
    found = directions.random(here, count)
    assert len(found) == count
    for direction in found:
        params.check_like(direction, here, "direction")
        assert list(direction) == list(here)
        assert direction.layouts == here.layouts


def test_vectors_that_are_not_ignored_move_along_themselves_first() -> None:
    here = params.states(model())
    first, second, third = directions.random(here, 3, ignore=None)
    bias = here["0.bias"]
    torch.testing.assert_close(first["0.bias"], bias, rtol=1e-13, atol=0)
    for a, b in [(first, second), (first, third), (second, third)]:
        assert abs(float(a["0.bias"] @ b["0.bias"])) < 1e-14
    for d in (second, third):
        assert float(d["0.bias"].norm()) == pytest.approx(float(bias.norm()), rel=1e-12)


def test_vectors_that_need_not_be_orthogonal_all_move_along_themselves() -> None:
    here = params.states(model())
    for direction in directions.random(here, 3, ignore=None, orthogonal=False):
        assert direction["0.bias"].equal(here["0.bias"])
        assert direction["1.running_var"].equal(here["1.running_var"])


def test_a_vector_of_one_entry_has_room_for_one_direction() -> None:
    first, second = directions.random({"b": torch.tensor([2.0])}, ignore=None)
    assert first["b"].tolist() == [2.0]
    assert second["b"].tolist() == [0.0]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    here = params.states(model())
    one, two = directions.random(here, seed=3), directions.random(here, seed=3)
    other = directions.random(here, seed=4)
    for k in range(2):
        assert params.flatten(one[k]).equal(params.flatten(two[k]))
        assert not params.flatten(one[k]).equal(params.flatten(other[k]))
    assert not params.flatten(one[0]).equal(params.flatten(one[1]))


def test_a_tensor_gets_the_same_numbers_in_any_selection_of_parameters() -> None:
    here = params.states(model())
    whole = directions.random(here, seed=3)
    part = directions.random(params.select(here, "3.*"), seed=3)
    for a, b in zip(whole, part, strict=True):
        assert a["3.weight"].equal(b["3.weight"])


def test_random_directions_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    directions.random(params.states(model()))
    assert torch.get_rng_state().equal(before)


def test_the_first_direction_does_not_depend_on_how_many_there_are() -> None:
    here = params.states(model())
    (alone,) = directions.random(here, 1)
    assert params.flatten(alone).equal(params.flatten(directions.random(here, 3)[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_directions_have_the_dtype_of_the_parameters(dtype: torch.dtype) -> None:
    here = {"w": torch.ones(3, 4, dtype=dtype)}
    for direction in directions.random(here):
        assert direction["w"].dtype == dtype
        assert direction["w"].double().norm(dim=1).tolist() == pytest.approx([2.0] * 3, rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"normalize": "filters"}, "normalize='filters'; expected one of 'filter', 'layer'"),
        ({"ignore": "bias"}, "ignore='bias'; expected one of 'biasbn' or None"),
        ({"count": 0}, "count=0; expected 1 or more directions"),
    ],
)
def test_directions_that_cannot_be_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(DirectionError, match=words):
        directions.random({"w": torch.zeros(2, 2)}, **arguments)


@pytest.mark.parametrize("make", [directions.random, directions.seeded])
def test_directions_in_which_nothing_moves_are_refused(make: Any) -> None:
    """Their surface would be flat for every network."""
    here = params.parameters(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
    with pytest.raises(ParamsError, match=r"of 0\.bias, 1\.bias are zero.*ignore=None"):
        make(here, select="*.bias")
    assert make(here, select="*.bias", ignore=None)[0]["0.bias"].any()


def test_rescale_refuses_an_unknown_normalization_and_other_shapes() -> None:
    here = {"w": torch.zeros(2, 2)}
    with pytest.raises(DirectionError, match="normalize='l2'"):
        directions.rescale(here, here, "l2")  # type: ignore[arg-type]
    with pytest.raises(ParamsError, match=r"direction\['w'\] has the shape \(3,\)"):
        directions.rescale({"w": torch.zeros(3)}, here)


@each_normalization
def test_a_zero_direction_stays_zero(normalize: Normalize | None) -> None:
    here = params.states(model())
    zero = Params({n: torch.zeros_like(t) for n, t in here.items()})
    assert params.flatten(directions.rescale(zero, here, normalize)).count_nonzero() == 0


def test_between_goes_from_one_model_to_another() -> None:
    a, b = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    found = directions.between(params.parameters(a), params.parameters(b))
    assert found["weight"].equal((b.weight - a.weight).detach())
    assert found["bias"].equal((b.bias - a.bias).detach())
    assert not found["weight"].requires_grad


def test_between_keeps_layouts_and_holds_integers_still() -> None:
    a = params.states(nn.ConvTranspose1d(2, 3, 2))
    assert directions.between(a, a).layout("weight") == a.layout("weight")
    found = directions.between({"n": torch.tensor([1, 2])}, {"n": torch.tensor([5, 5])})
    assert found["n"].tolist() == [0, 0]


def test_between_models_that_do_not_fit_is_refused() -> None:
    a, b = dict(nn.Linear(3, 2).named_parameters()), dict(nn.Linear(2, 3).named_parameters())
    with pytest.raises(ParamsError, match=r"b\['weight'\] has the shape \(3, 2\)"):
        directions.between(a, b)


def test_flat_vectors_become_directions_in_the_order_of_the_names() -> None:
    here = {"b": torch.zeros(2, 2), "a": torch.zeros(1)}
    matrix = torch.arange(10.0).reshape(2, 5)
    for vectors in (matrix, list(matrix)):
        first, second = directions.from_vectors(here, vectors)
        assert first["b"].tolist() == [[0.0, 1.0], [2.0, 3.0]]
        assert first["a"].tolist() == [4.0]
        assert second["a"].tolist() == [9.0]
    with pytest.raises(ParamsError, match="vector has 4 entries; the parameters have 5"):
        directions.from_vectors(here, torch.zeros(1, 4))


@pytest.mark.parametrize("draw", [directions.random, directions.seeded])
@pytest.mark.parametrize("seed", ["a", 0.5, None, True])
def test_a_seed_that_is_no_whole_number_is_refused(draw: Any, seed: Any) -> None:
    with pytest.raises(DirectionError, match=r"seed=.*expected a whole number"):
        draw({"w": torch.ones(2, 2)}, seed=seed)


@pytest.mark.parametrize("draw", [directions.random, directions.seeded])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_blamed(draw: Any, value: float) -> None:
    with pytest.raises(DirectionError, match=r"params\['w'\] holds NaN or inf.*the model itself"):
        draw({"v": torch.ones(2, 2), "w": torch.tensor([[1.0, value]])})
