"""Laws 4, 5 and 9, for directions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from landscope import directions, params
from landscope.params import Params
from landscope.slices.normalization import Normalize

NORMALIZATIONS: list[Normalize | None] = ["filter", "layer", "weight", "dfilter", "dlayer", None]

# name -> (a module, an input of it); each module has one weight and a channel axis 1 of its output
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(5, 3), (2, 5)),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3), (2, 2, 6)),
    "Conv2d": (lambda: nn.Conv2d(2, 3, 2), (2, 2, 4, 4)),
    "Conv2d grouped": (lambda: nn.Conv2d(4, 6, 2, groups=2), (2, 4, 4, 4)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 3, 3)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 3, 3), (2, 2, 4)),
    "ConvTranspose1d grouped": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), (2, 4, 4)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 2, 2), (2, 3, 3, 3)),
    "ConvTranspose2d grouped": (lambda: nn.ConvTranspose2d(6, 4, 2, groups=2), (2, 6, 3, 3)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(3, 2, 2), (2, 3, 2, 2, 2)),
    "ConvTranspose3d grouped": (lambda: nn.ConvTranspose3d(4, 4, 2, groups=4), (2, 4, 2, 2, 2)),
}


def made(kind: str) -> tuple[nn.Module, list[Tensor]]:
    """Return a float64 module and, for each output channel, which weights autograd says feed it."""
    build, shape = MODULES[kind]
    torch.manual_seed(3)
    module = build().double()
    out = module(torch.rand(shape, dtype=torch.float64) + 0.5)
    weight = module.get_parameter("weight")
    masks = []
    for channel in range(out.shape[1]):
        (grad,) = torch.autograd.grad(out[:, channel].sum(), weight, retain_graph=True)
        masks.append(grad != 0)
    assert torch.stack(masks).sum(dim=0).eq(1).all()  # every weight feeds one output unit
    return module, masks


def cosine(a: Params, b: Params) -> float:
    x, y = params.flatten(a).double(), params.flatten(b).double()
    return float(x @ y / (x.norm() * y.norm()))


# ------------------------------------------------------------------------------------- law 4


@pytest.mark.parametrize("kind", list(MODULES))
def test_each_filter_of_a_direction_has_the_norm_of_that_filter(kind: str) -> None:
    module, masks = made(kind)
    weight = module.get_parameter("weight").detach()
    for direction in directions.random(params.parameters(module), seed=1):
        for mask in masks:
            ratio = direction["weight"][mask].norm() / weight[mask].norm()
            torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", list(MODULES))
def test_normalizing_a_given_direction_gives_each_filter_the_norm_of_that_filter(kind: str) -> None:
    module, masks = made(kind)
    here = params.parameters(module)
    weight = module.get_parameter("weight").detach()
    (raw,) = directions.random(here, 1, normalize=None)
    found = directions.rescale(raw, here)["weight"]
    for mask in masks:
        expected = raw["weight"][mask] * weight[mask].norm() / raw["weight"][mask].norm()
        torch.testing.assert_close(found[mask], expected, rtol=1e-12, atol=1e-15)


def test_each_token_of_an_embedding_has_the_norm_of_that_token() -> None:
    model = nn.Embedding(7, 4).double().requires_grad_(False)
    for direction in directions.random(params.states(model)):
        for token in range(7):
            expected = float(model.weight[token].norm())
            assert float(direction["weight"][token].norm()) == pytest.approx(expected, rel=1e-12)


def test_each_row_of_packed_attention_projections_has_the_norm_of_that_row() -> None:
    model = nn.MultiheadAttention(4, 2, add_bias_kv=True).double().requires_grad_(False)
    for direction in directions.random(params.states(model)):
        for name, units in [("in_proj_weight", 12), ("out_proj.weight", 4)]:
            weight = model.get_parameter(name)
            assert len(weight) == units
            for row in range(units):
                expected = float(weight[row].norm())
                assert float(direction[name][row].norm()) == pytest.approx(expected, rel=1e-12)
        for name in ("in_proj_bias", "bias_k", "bias_v", "out_proj.bias"):
            assert direction[name].count_nonzero() == 0


def test_a_tied_weight_is_moved_once() -> None:
    embedding, linear = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    linear.weight = embedding.weight
    model = nn.Sequential(embedding, linear)
    (direction,) = directions.random(params.parameters(model), 1)
    assert list(direction) == ["0.weight"]
    assert direction["0.weight"].norm(dim=1).tolist() == pytest.approx(
        embedding.weight.norm(dim=1).tolist(), rel=1e-6
    )


@pytest.mark.parametrize("width", [1, 2, 6])
@pytest.mark.parametrize("normalize", ["filter", "weight"])
def test_zero_filters_stay_zero(width: int, normalize: Normalize) -> None:
    weight = torch.randn(4, width, dtype=torch.float64)
    weight[1] = 0.0
    for direction in directions.random({"w": weight}, 3, normalize=normalize):
        assert direction["w"].isfinite().all()
        assert direction["w"][1].tolist() == [0.0] * width


# ------------------------------------------------------------------------------------- law 5


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_random_directions_are_sign_balanced(normalize: Normalize | None) -> None:
    model = nn.Linear(100, 100)
    for direction in directions.random(params.parameters(model), normalize=normalize):
        positive = float((direction["weight"] > 0).double().mean())
        assert abs(positive - 0.5) < 4 * 0.5 / 100  # four standard deviations of 10 000 signs


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_directions_of_two_seeds_have_a_cosine_near_zero(normalize: Normalize | None) -> None:
    here = params.parameters(nn.Linear(100, 100))
    (a,) = directions.random(here, 1, normalize=normalize, seed=0)
    (b,) = directions.random(here, 1, normalize=normalize, seed=1)
    bound = 4 / 100 * (1.8 if normalize == "weight" else 1)  # E[w^4] / E[w^2]^2 = 1.8, uniform w
    assert 0 < abs(cosine(a, b)) < bound


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("kind", list(MODULES))
def test_directions_are_orthogonal_in_every_filter_that_has_room(
    kind: str, normalize: Normalize | None
) -> None:
    module, masks = made(kind)
    found = directions.random(params.parameters(module), 3, normalize=normalize, seed=5)
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        for mask in masks:
            a, b = found[i]["weight"][mask], found[j]["weight"][mask]
            assert len(a) >= 3
            assert a.norm() > 0
            assert b.norm() > 0
            assert abs(float(a @ b / (a.norm() * b.norm()))) < 1e-14


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_filters_of_one_weight_are_orthogonal_over_the_tensor(normalize: Normalize | None) -> None:
    model = nn.Linear(1, 8).double().requires_grad_(False)
    found = directions.random(params.states(model), 3, normalize=normalize)
    sizes = {"filter": model.weight.norm(), "layer": model.weight.norm(), "dlayer": 1.0}
    for k, direction in enumerate(found):
        length = float(direction["weight"].norm())
        assert length > 0
        if normalize in sizes:
            assert length == pytest.approx(float(sizes[normalize]), rel=1e-12)
        if normalize == "dfilter":
            assert length == pytest.approx(8**0.5, rel=1e-6)
        for other in found[:k]:
            assert abs(cosine(direction, other)) < 1e-14


@pytest.mark.parametrize("seed", range(8))
def test_there_are_no_more_orthogonal_directions_than_weights_that_can_move(seed: int) -> None:
    weight = torch.tensor([[2.0], [0.0], [3.0]], dtype=torch.float64)
    first, second, third = directions.random({"w": weight}, 3, seed=seed)
    assert first["w"].reshape(-1).abs().tolist() == [2.0, 0.0, 3.0]
    assert abs(cosine(first, second)) < 1e-14
    assert third["w"].tolist() == [[0.0], [0.0], [0.0]]


def test_directions_that_need_not_be_orthogonal_are_independent_draws() -> None:
    here = params.parameters(nn.Linear(100, 100))
    a, b = directions.random(here, orthogonal=False)
    assert 1e-6 < abs(cosine(a, b)) < 4 / 100


# ------------------------------------------------------------------------------------- law 9


class Awkward(nn.Module):
    """Zero bias, frozen, unused, tied and integer tensors."""

    counter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(3, 3)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.used.weight
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.unused = nn.Linear(3, 2)
        self.codes = nn.Parameter(torch.arange(4), requires_grad=False)
        self.register_buffer("counter", torch.tensor(7))
        nn.init.zeros_(self.used.bias)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("orthogonal", [True, False])
def test_awkward_parameters_give_finite_directions(
    normalize: Normalize | None, orthogonal: bool
) -> None:
    model = Awkward()
    found = directions.random(
        params.parameters(model), 3, normalize=normalize, ignore=None, orthogonal=orthogonal
    )
    names = ["used.weight", "used.bias", "tied.bias", "unused.weight", "unused.bias"]
    for direction in found:
        assert list(direction) == names
        assert all(t.isfinite().all() and not t.requires_grad for t in direction.values())
        assert direction["used.bias"].tolist() == [0.0, 0.0, 0.0]
        assert direction["unused.weight"].norm() > 0


def test_integer_entries_of_a_plain_dict_do_not_move() -> None:
    here = {"w": torch.randn(3, 4), "n": torch.tensor([[1, 2], [3, 4]])}
    for direction in directions.random(here, ignore=None):
        assert direction["n"].dtype == torch.int64
        assert direction["n"].tolist() == [[0, 0], [0, 0]]


def test_frozen_parameters_move_when_all_states_are_asked_for() -> None:
    model = Awkward()
    (direction,) = directions.random(params.states(model), 1)
    assert "counter" not in direction
    assert "codes" not in direction
    assert direction["frozen.weight"].norm(dim=1).tolist() == pytest.approx(
        model.frozen.weight.norm(dim=1).tolist(), rel=1e-6
    )
