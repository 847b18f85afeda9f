from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from landscope import params
from landscope.errors import ParamsError
from landscope.params import Layout, Params


def numbered(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel()), dtype=torch.float64).reshape(shape)


FILTER, VECTOR = Layout(), Layout(vector=True)
LAYOUTS: list[tuple[str, Callable[[], nn.Module], dict[str, Layout]]] = [
    ("Linear", lambda: nn.Linear(3, 2), {"weight": FILTER, "bias": VECTOR}),
    ("Conv1d", lambda: nn.Conv1d(2, 4, 3), {"weight": FILTER, "bias": VECTOR}),
    ("Conv2d", lambda: nn.Conv2d(2, 4, 3), {"weight": FILTER, "bias": VECTOR}),
    ("Conv3d", lambda: nn.Conv3d(2, 4, 3, groups=2), {"weight": FILTER, "bias": VECTOR}),
    ("ConvTranspose1d", lambda: nn.ConvTranspose1d(4, 6, 3), {"weight": Layout(1, 1)}),
    ("ConvTranspose2d", lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), {"weight": Layout(1, 2)}),
    ("ConvTranspose3d", lambda: nn.ConvTranspose3d(4, 8, 3, groups=4), {"weight": Layout(1, 4)}),
    ("Embedding", lambda: nn.Embedding(5, 3), {"weight": FILTER}),
    (
        "MultiheadAttention",
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True),
        {
            "in_proj_weight": FILTER,
            "in_proj_bias": VECTOR,
            "bias_k": VECTOR,
            "bias_v": VECTOR,
            "out_proj.weight": FILTER,
        },
    ),
    (
        "MultiheadAttention, not packed",
        lambda: nn.MultiheadAttention(4, 2, kdim=3),
        {"q_proj_weight": FILTER, "k_proj_weight": FILTER, "v_proj_weight": FILTER},
    ),
    ("LayerNorm", lambda: nn.LayerNorm((3, 4)), {"weight": VECTOR, "bias": VECTOR}),
    ("RMSNorm", lambda: nn.RMSNorm((3, 4)), {"weight": VECTOR}),
    ("GroupNorm", lambda: nn.GroupNorm(2, 4), {"weight": VECTOR}),
    ("BatchNorm2d", lambda: nn.BatchNorm2d(4), {"weight": VECTOR, "running_var": VECTOR}),
]


@pytest.mark.parametrize(
    ("build", "expected"), [row[1:] for row in LAYOUTS], ids=[row[0] for row in LAYOUTS]
)
def test_a_module_says_how_its_tensors_are_made_of_filters(
    build: Callable[[], nn.Module], expected: dict[str, Layout]
) -> None:
    states = params.states(build())
    for name, layout in expected.items():
        assert states.layout(name) == layout
        assert states[name].ndim <= 1 or (name in params.filters(states)) == (not layout.vector)


def test_a_normalized_weight_has_the_filters_of_its_module() -> None:
    from torch.nn.utils.parametrizations import weight_norm

    alone = weight_norm(nn.ConvTranspose2d(4, 6, 3, groups=2))
    inside = nn.Sequential(weight_norm(nn.ConvTranspose2d(4, 6, 3, groups=2)), nn.Flatten())
    for model, prefix in ((alone, ""), (inside, "0.")):
        layouts = params.layouts(model)
        assert layouts[f"{prefix}parametrizations.weight.original1"] == Layout(1, 2)
        assert layouts[f"{prefix}parametrizations.weight.original0"].vector  # gains, one a channel
        assert layouts[f"{prefix}bias"].vector


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (nn.utils.weight_norm, {"weight_v": Layout(1, 2), "weight_g": VECTOR}),
        (nn.utils.spectral_norm, {"weight_orig": Layout(1, 2)}),
        (lambda m: prune.random_unstructured(m, "weight", 0.5), {"weight_orig": Layout(1, 2)}),
    ],
)
def test_a_weight_kept_under_another_name_has_the_filters_of_its_module(
    change: Callable[[nn.Module], nn.Module], expected: dict[str, Layout]
) -> None:
    layouts = params.layouts(change(nn.ConvTranspose1d(4, 6, 3, groups=2)))
    assert {name: layouts[name] for name in expected} == expected


class Causal(nn.Conv1d):
    """A convolution that is not torch's own; with one output it has the shape of a table."""


def test_a_table_of_positions_is_told_from_a_filter_and_found_in_lists() -> None:
    assert params.layouts(Causal(4, 1, 3))["weight"] == FILTER
    for holder in (
        nn.ParameterList([torch.zeros(1, 5, 8)]),
        nn.ParameterDict({"0": numbered(1, 5, 8)}),
    ):
        assert params.layouts(holder)["0"] == Layout(axis=1)


def test_biases_of_several_experts_or_heads_are_no_filters() -> None:
    experts = nn.ParameterDict({"up": numbered(4, 3, 2), "up_bias": numbered(4, 3)})
    assert params.layouts(experts) == {"up": FILTER, "up_bias": VECTOR}


def test_complex_parameters_are_refused_with_a_sentence_and_may_be_frozen() -> None:
    model = nn.Linear(3, 2)
    model.phases = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    with pytest.raises(ParamsError, match=r"'phases' holds complex numbers \(torch.complex64\)"):
        params.parameters(model)
    model.phases.requires_grad_(False)
    assert list(params.parameters(model)) == ["weight", "bias"]


def test_an_empty_tensor_has_no_filters() -> None:
    assert params.filters({"w": torch.zeros(0, 4)})["w"].shape == (0, 4)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_rows_of_a_transposed_convolution_are_its_output_channels(
    kind: type[nn.ConvTranspose2d], groups: int
) -> None:
    module = kind(4, 8, 2, groups=groups)
    weight = numbered(*module.weight.shape)
    rows = params.layouts(module)["weight"].rows(weight)
    outputs = 8 // groups
    assert rows.shape == (8, weight.numel() // 8)
    for group in range(groups):
        inside = weight[group * (4 // groups) : (group + 1) * (4 // groups)]
        for k in range(outputs):
            assert rows[group * outputs + k].tolist() == inside[:, k].reshape(-1).tolist()


@pytest.mark.parametrize("layout", [Layout(), Layout(1, 1), Layout(1, 2), Layout(1, 4)])
@pytest.mark.parametrize("shape", [(4, 3), (4, 6, 2), (8, 3, 2, 2), (4, 1, 1, 2, 3)])
def test_a_tensor_is_made_again_from_its_rows(layout: Layout, shape: tuple[int, ...]) -> None:
    tensor = numbered(*shape)
    assert layout.from_rows(layout.rows(tensor), tensor.shape).equal(tensor)


def test_a_plain_dict_has_its_output_axis_first_and_vectors_of_one_dimension() -> None:
    wrapped = params.wrap({"m": torch.zeros(3, 2, 2), "v": torch.zeros(3), "s": torch.tensor(0.0)})
    assert [wrapped.layout(n) for n in wrapped] == [FILTER, VECTOR, VECTOR]
    assert {n: r.shape for n, r in params.filters(wrapped).items()} == {"m": (3, 4)}


def test_parameters_come_in_module_order_and_are_not_copies() -> None:
    model = nn.Sequential(OrderedDict(z=nn.Linear(2, 2), a=nn.Linear(2, 1)))
    parameters = params.parameters(model)
    assert list(parameters) == ["z.weight", "z.bias", "a.weight", "a.bias"]
    assert all(parameters[n] is p for n, p in model.named_parameters())


def test_frozen_parameters_are_no_parameters_but_states() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert list(params.parameters(model)) == ["1.weight", "1.bias"]
    assert list(params.states(model)) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_tied_tensors_come_once_under_their_first_name() -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4))
    model[1].weight = model[0].weight
    assert list(params.parameters(model)) == ["0.weight", "1.bias"]
    assert list(params.states(model)) == ["0.weight", "1.bias"]


def test_states_stand_in_the_order_of_the_state_dict_without_counters() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 2))
    expected = [n for n in model.state_dict() if not n.endswith("num_batches_tracked")]
    states = params.states(model)
    assert list(states) == expected
    assert states["1.running_mean"] is model[1].running_mean


def test_buffers_that_are_not_saved_are_no_states() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("scratch", torch.zeros(2), persistent=False)
    assert list(params.states(model)) == ["weight", "bias"]


def test_wrap_returns_params_themselves_and_keeps_their_layouts() -> None:
    parameters = params.parameters(nn.ConvTranspose1d(2, 3, 2))
    assert params.wrap(parameters) is parameters
    assert params.clone(parameters).layout("weight") == Layout(1, 1)


def test_copies_share_no_memory_and_need_no_gradient() -> None:
    model = nn.Linear(2, 2)
    copy = params.clone(params.parameters(model))
    before = copy["weight"].clone()
    nn.init.zeros_(model.weight)
    assert copy["weight"].equal(before)
    assert not copy["weight"].requires_grad


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "params is an empty dict; expected a dict of named tensors"),
        (Params(), "params is an empty Params; expected a dict"),
        ([torch.zeros(1)], "params is a list; expected a dict"),
        (nn.Linear(1, 1), "params is a Linear; expected a dict"),
        ({"a": torch.zeros(1), "b": 1.0}, r"params\['b'\] is a float; expected a tensor"),
    ],
)
def test_what_is_no_dict_of_tensors_is_refused_with_a_sentence(given: object, words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        params.wrap(given)  # type: ignore[arg-type]


def test_select_takes_names_by_pattern_in_module_order() -> None:
    model = nn.Sequential(nn.ConvTranspose1d(2, 3, 1), nn.Linear(2, 2), nn.Linear(2, 1))
    here = params.parameters(model)
    assert list(params.select(here, "1.*")) == ["1.weight", "1.bias"]
    assert list(params.select(here, ["2.bias", "0.*"])) == ["0.weight", "0.bias", "2.bias"]
    assert params.select(here, "0.*").layout("0.weight") == Layout(1, 1)


def test_a_pattern_that_matches_nothing_names_some_that_exist() -> None:
    with pytest.raises(ParamsError, match=r"pattern='head\.\*' matches no name; there are weight"):
        params.select(params.parameters(nn.Linear(1, 1)), "head.*")


def test_flatten_follows_the_names_and_unflatten_takes_it_back() -> None:
    here = Params(
        {"b": numbered(2, 3), "a": -numbered(4), "s": torch.tensor(9.0).double()},
        {"b": Layout(1, 2)},
    )
    flat = params.flatten(here)
    assert flat.tolist() == [0, 1, 2, 3, 4, 5, 0, -1, -2, -3, 9]
    back = params.unflatten(flat, here)
    assert all(back[n].equal(t) for n, t in here.items())
    assert back.layout("b") == Layout(1, 2)


def test_unflatten_gives_each_tensor_its_own_dtype() -> None:
    here = {"a": torch.zeros(2, dtype=torch.float32), "b": torch.zeros(1, dtype=torch.bfloat16)}
    unflattened = params.unflatten(torch.ones(3, dtype=torch.float64), here)
    assert [t.dtype for t in unflattened.values()] == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("size", [3, 5])
def test_a_vector_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ParamsError, match=f"vector has {size} entries; the parameters have 4"):
        params.unflatten(torch.zeros(size), {"a": torch.zeros(2, 2)})


def test_dot_and_norm_are_those_of_the_flat_vectors_in_float64() -> None:
    torch.manual_seed(0)
    a = params.clone(params.parameters(nn.Linear(7, 5)))
    b = params.clone(params.parameters(nn.Linear(7, 5)))
    x, y = params.flatten(a).double(), params.flatten(b).double()
    assert params.dot(a, b) == pytest.approx(float(x @ y), rel=1e-13)
    assert params.norm(a) == pytest.approx(float(x.norm()), rel=1e-13)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"a": (2,)}, "point lacks 'b'"),
        ({"a": (2,), "b": (3, 1)}, r"point\['b'\] has the shape \(3, 1\); expected \(1, 3\)"),
        ({"a": (2,), "b": (1, 3), "c": (1,)}, "point has 'c', which is not among the parameters"),
    ],
)
def test_the_first_difference_of_names_or_shapes_is_named(
    given: dict[str, tuple[int, ...]], words: str
) -> None:
    expected = {"a": torch.zeros(2), "b": torch.zeros(1, 3)}
    params.check_like(expected, expected, "point")
    with pytest.raises(ParamsError, match=words):
        params.check_like({n: torch.zeros(s) for n, s in given.items()}, expected, "point")


def test_bytes_are_those_in_memory_whatever_the_strides() -> None:
    numbers = torch.arange(12.0).reshape(4, 3)
    for tensor in (numbers, numbers.T, numbers[:, 0], numbers[3:, 0], numbers[0, 0], numbers[:0]):
        assert params.as_bytes(tensor).numpy().tobytes() == tensor.numpy().tobytes()


def test_the_origin_survives_pickling_and_does_not_change_its_bytes() -> None:
    tensors = {"w": torch.ones(2)}
    params = Params(tensors).record_origin(kind="random", seed=3)
    same = Params({"w": torch.ones(2)}).record_origin(kind="random", seed=3)
    assert pickle.loads(pickle.dumps(params)).origin == {"kind": "random", "seed": 3}
    assert params.__getstate__() == same.__getstate__()
    params["w"].add_(1)
    assert pickle.loads(pickle.dumps(params)).origin == {}
