"""What sequence models are made of: each filter has its norm, and rescaling changes no surface.

Which numbers form a filter is written out here by hand, module by module, as in the table of
docs/guides/filters.md; the code asks layouts instead. Surfaces are compared between two networks of
the same function: nothing in these tests knows how directions are made.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope import params

transformers = pytest.importorskip("transformers")

UNITS, INPUTS, HEADS = 6, 4, 2
Rows = Callable[[Tensor], list[Tensor]]


def _rows(weight: Tensor) -> list[Tensor]:
    return [weight[unit] for unit in range(len(weight))]


def _columns(weight: Tensor) -> list[Tensor]:
    return [weight[:, unit] for unit in range(weight.shape[1])]


def _gates(count: int) -> Rows:
    """Rows of each gate, packed one gate below the other."""
    return lambda weight: [unit for gate in weight.chunk(count) for unit in gate]


def _packed_heads(weight: Tensor) -> list[Tensor]:
    """Rows of each head of queries, keys and values, packed in this order."""
    parts = [part.unflatten(0, (HEADS, -1)) for part in weight.chunk(3)]
    return [unit for part in parts for head in part for unit in head]


def _transposed_heads(weight: Tensor) -> list[Tensor]:
    return _packed_heads(weight.t())


class _Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, UNITS, INPUTS))


def _conv1d() -> Any:
    return transformers.pytorch_utils.Conv1D(3 * UNITS, INPUTS)


TABLE: dict[str, tuple[Callable[[], nn.Module], dict[str, Rows]]] = {
    "RNN": (lambda: nn.RNN(INPUTS, UNITS), {"weight_ih_l0": _rows, "weight_hh_l0": _rows}),
    "LSTM": (
        lambda: nn.LSTM(INPUTS, UNITS, 2, bidirectional=True),
        {
            f"weight_{what}_l{layer}{back}": _gates(4)
            for what in ("ih", "hh") for layer in (0, 1) for back in ("", "_reverse")
        },
    ),
    "LSTM projected": (
        lambda: nn.LSTM(INPUTS, UNITS, proj_size=3),
        {"weight_ih_l0": _gates(4), "weight_hh_l0": _gates(4), "weight_hr_l0": _rows},
    ),
    "GRU": (lambda: nn.GRU(INPUTS, UNITS), {"weight_ih_l0": _gates(3), "weight_hh_l0": _gates(3)}),
    "LSTMCell": (
        lambda: nn.LSTMCell(INPUTS, UNITS), {"weight_ih": _gates(4), "weight_hh": _gates(4)}
    ),
    "GRUCell": (
        lambda: nn.GRUCell(INPUTS, UNITS), {"weight_ih": _gates(3), "weight_hh": _gates(3)}
    ),
    "MultiheadAttention": (
        lambda: nn.MultiheadAttention(UNITS, HEADS),
        {"in_proj_weight": _packed_heads, "out_proj.weight": _rows},
    ),
    "MultiheadAttention of other keys": (
        lambda: nn.MultiheadAttention(UNITS, HEADS, kdim=3, vdim=5),
        {"q_proj_weight": _rows, "k_proj_weight": _rows, "v_proj_weight": _rows},
    ),
    "packed Linear": (lambda: nn.Linear(INPUTS, 3 * UNITS), {"weight": _packed_heads}),
    "Conv1D of GPT-2": (_conv1d, {"weight": _transposed_heads}),
    "Embedding": (lambda: nn.Embedding(9, INPUTS), {"weight": _rows}),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(9, INPUTS), {"weight": _rows}),
    "position table": (_Positions, {"table": lambda table: _rows(table[0])}),
    "Bilinear": (lambda: nn.Bilinear(3, INPUTS, UNITS), {"weight": _rows}),
}  # fmt: skip


def _made(center: params.Params, kind: str) -> list[Mapping[str, Tensor]]:
    make: Any = getattr(ls.directions, kind)
    return list(make(center, 2, seed=5))


@pytest.mark.parametrize("kind", ["random", "seeded"])
@pytest.mark.parametrize("name", list(TABLE))
def test_each_filter_of_the_table_has_the_norm_of_that_filter(name: str, kind: str) -> None:
    torch.manual_seed(1)
    build, expected = TABLE[name]
    center = params.clone(params.parameters(build()))
    assert {n for n, t in center.items() if t.ndim > 1} >= set(expected)
    for direction in _made(center, kind):
        for tensor, filters in expected.items():
            pairs = zip(filters(direction[tensor]), filters(center[tensor]), strict=True)
            ratios = [float(d.double().norm() / w.double().norm()) for d, w in pairs]
            assert ratios == pytest.approx([1.0] * len(ratios), abs=1e-6)
            assert len(ratios) == center[tensor].numel() // filters(center[tensor])[0].numel()


@pytest.mark.parametrize("kind", ["random", "seeded"])
@pytest.mark.parametrize("name", list(TABLE))
def test_two_directions_are_orthogonal_in_each_filter_of_the_table(name: str, kind: str) -> None:
    torch.manual_seed(2)
    build, expected = TABLE[name]
    center = params.clone(params.parameters(build()))
    dx, dy = _made(center, kind)
    for tensor, filters in expected.items():
        for a, b in zip(filters(dx[tensor]), filters(dy[tensor]), strict=True):
            cosine = (a.double() * b.double()).sum() / (a.double().norm() * b.double().norm())
            assert abs(float(cosine)) < 1e-6


@pytest.mark.parametrize("kind", ["random", "seeded"])
def test_gains_of_norms_and_biases_stay_still(kind: str) -> None:
    model = nn.ModuleList([nn.LayerNorm((3, 4)), nn.RMSNorm((2, 4)), nn.LSTM(4, 3)])
    center = params.parameters(model)
    for direction in _made(center, kind):
        moved = {n for n in direction if direction[n].any()}
        assert moved == {"2.weight_ih_l0", "2.weight_hh_l0"}


@pytest.mark.parametrize("kind", ["random", "seeded"])
def test_the_embedding_of_the_padding_token_stays_zero(kind: str) -> None:
    center = params.parameters(nn.Embedding(5, 3, padding_idx=2))
    for direction in _made(center, kind):
        assert not direction["weight"][2].any()
        assert direction["weight"][1].any()


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("inv_freq", torch.rand(4, 2))
        self.norm = nn.BatchNorm1d(4)


@pytest.mark.parametrize("kind", ["random", "seeded"])
@pytest.mark.parametrize("ignore", ["biasbn", None])
def test_rotary_buffers_are_left_alone_and_statistics_are_not(kind: str, ignore: Any) -> None:
    model = Rotary()
    model.norm.get_buffer("running_mean").fill_(0.5)
    make: Any = getattr(ls.directions, kind)
    for direction in make(params.states(model), ignore=ignore, seed=1):
        assert not direction["inv_freq"].any()
        assert bool(direction["norm.running_mean"].any()) == (ignore is None)


@pytest.mark.parametrize("kind", ["random", "seeded"])
def test_select_moves_adapters_only(kind: str) -> None:
    """As LoRA adds them: W x + B A x, beside weights that may be trainable or not."""
    names = ["attn.weight", "attn.lora_A.weight", "attn.lora_B.weight", "mlp.weight"]
    center = {n: torch.randn(6, 6) for n in names}
    make: Any = getattr(ls.directions, kind)
    for direction in make(center, select="*lora*", seed=1):
        assert {n for n in direction if direction[n].any()} == set(names[1:3])
    whole, part = make(center, seed=1)[0], make(center, select="*lora*", seed=1)[0]
    assert torch.equal(whole[names[1]], part[names[1]])
    with pytest.raises(ls.errors.ParamsError, match=r"'\*adapter\*' matches no name"):
        make(center, select="*adapter*")


# ------------------------------------------------------------------------------ invariance


def _gpt2() -> tuple[nn.Module, list[dict[str, Tensor]]]:
    config = transformers.GPT2Config(
        n_layer=2, n_head=HEADS, n_embd=8, vocab_size=17, n_positions=12, bos_token_id=0,
        eos_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.GPT2LMHeadModel(config).double().eval()
    text = torch.randint(17, (3, 9))
    return model, [{"input_ids": text, "use_cache": torch.tensor(0), "labels": text}]


@torch.no_grad()
def _rescaled_gpt2(model: nn.Module) -> nn.Module:
    """Return the same function: queries against keys, values against outputs, gains against what
    follows them, and the two layers after a norm, each by a factor of its own.
    """
    other: Any = copy.deepcopy(model)
    for block in other.transformer.h:
        attention, width = block.attn, 8
        units = torch.logspace(-1, 1, width, base=4.0, dtype=torch.float64)  # one for each unit
        values = torch.full((width,), 3.0, dtype=torch.float64)
        for tensor in (attention.c_attn.weight, attention.c_attn.bias):
            tensor.mul_(torch.cat([units, 1 / units, values]))
        attention.c_proj.weight.div_(3.0)
        for norm, layer, factor in (
            (block.ln_1, attention.c_attn, 5.0),
            (block.ln_2, block.mlp.c_fc, 0.2),
        ):
            norm.weight.mul_(factor)
            norm.bias.mul_(factor)
            layer.weight.div_(factor)
    changed: nn.Module = other
    return changed.eval()


class Recurrent(nn.Module):
    """Embedding, an LSTM of two layers with projections, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, 5)
        self.cells = nn.LSTM(5, 8, 2, proj_size=4, batch_first=True)
        self.head = nn.Linear(4, 17)

    def forward(self, text: Tensor) -> Tensor:
        logits: Tensor = self.head(self.cells(self.embedding(text))[0])
        return logits


def _lstm() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(4)
    model = Recurrent().double()
    for parameter in model.parameters():
        parameter.data.mul_(2.0)
    text = torch.randint(17, (3, 9))
    return model, [(text, text)]


@torch.no_grad()
def _rescaled_lstm(model: nn.Module) -> nn.Module:
    other: Any = copy.deepcopy(model)
    other.embedding.weight.mul_(7.0)
    other.cells.weight_ih_l0.div_(7.0)
    for layer, after, factor in ((0, other.cells.weight_ih_l1, 0.3), (1, other.head.weight, 4.0)):
        getattr(other.cells, f"weight_hr_l{layer}").mul_(factor)
        getattr(other.cells, f"weight_hh_l{layer}").div_(factor)
        after.div_(factor)
    changed: nn.Module = other
    return changed.eval()


def _surface(model: nn.Module, data: Any, kind: str, normalize: Any) -> np.ndarray:
    objective = ls.Objective(model, ls.losses.tokens(shift=True), data)
    make: Any = getattr(ls.directions, kind)
    plane = ls.Plane(objective.center, *make(objective.center, normalize=normalize, seed=8))
    values: np.ndarray = ls.scan(objective, plane, ls.Grid(5)).data["loss"].values
    return values


@pytest.mark.parametrize("kind", ["random", "seeded"])
@pytest.mark.parametrize(("made", "again"), [(_gpt2, _rescaled_gpt2), (_lstm, _rescaled_lstm)])
def test_rescaling_that_leaves_the_function_leaves_the_surface(
    made: Callable[[], Any], again: Callable[[nn.Module], nn.Module], kind: str
) -> None:
    model, data = made()
    other = again(model)
    surface = _surface(model, data, kind, "filter")
    assert surface.max() > 1.2 * surface.min()
    assert _surface(other, data, kind, "filter") == pytest.approx(surface, rel=1e-9)
    naive = _surface(model, data, kind, None), _surface(other, data, kind, None)
    assert naive[1][2, 2] == pytest.approx(naive[0][2, 2], rel=1e-9)  # the same function
    assert np.abs(naive[1] / naive[0] - 1).max() > 0.01  # whose unnormalized surfaces differ
