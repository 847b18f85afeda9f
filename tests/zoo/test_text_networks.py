"""The sequence models: what they may see, what they learn, and that they can be differentiated.

Witnesses: attention written out in NumPy's words (float64), finite differences of gradients, the
entropy of characters counted by NumPy. None of them runs the code of the models.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import landscope as ls
from landscope.zoo import text_data, text_networks

LANGUAGE = ("text_lstm", "text_gru", "text_gpt")


def _some(count: int = 3, length: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, len(text_data.ALPHABET), (count, length), generator=generator)


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train on a sixth of the data."""
    whole = text_networks.load_data

    def data(name: str, *, train: bool = True, count: int | None = None) -> tuple[Tensor, Tensor]:
        return whole(name, train=train, count=count or 750)

    monkeypatch.setattr(text_networks, "load_data", data)


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_language_model_gives_logits_of_every_next_character(name: str) -> None:
    model = text_networks.initial(name)
    with torch.no_grad():
        assert model(_some()).shape == (3, 20, len(text_data.ALPHABET))


@pytest.mark.parametrize("name", LANGUAGE)
def test_no_logit_knows_a_later_character(name: str) -> None:
    model, tokens = text_networks.initial(name), _some()
    changed = tokens.clone()
    changed[:, 12] = tokens[:, 12] % 90 + 1
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12], rtol=0, atol=1e-6)
    assert float((before - after)[:, 12:].abs().amax(dim=(0, 2)).min()) > 1e-5  # all later ones do


def test_the_encoder_sees_every_character_and_no_padding() -> None:
    model = text_networks.initial("text_encoder")
    tokens = _some()
    rows = [tokens[0], tokens[1, :9], tokens[2, :1]]
    with torch.no_grad():
        alone = torch.cat([model(row[None]) for row in rows])
        together = model(text_data.pad(rows, text_networks.LENGTH))
        last = model(torch.cat([tokens[:1, :-1], tokens[:1, -1:] % 90 + 1], dim=1))
        first = model(torch.cat([tokens[:1, :1] % 90 + 1, tokens[:1, 1:]], dim=1))
    assert alone.shape == (3, len(text_data.MODULES))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert not torch.allclose(last, alone[:1], atol=1e-5)
    assert not torch.allclose(first, alone[:1], atol=1e-5)


def _layer_norm(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    gain, shift = (p.detach().numpy() for p in (norm.weight, norm.bias))
    x = x - x.mean(-1, keepdims=True)
    result: np.ndarray = x / np.sqrt((x**2).mean(-1, keepdims=True) + norm.eps) * gain + shift
    return result


def _linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    result: np.ndarray = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    return result


@pytest.mark.parametrize("causal", [True, False])
def test_a_block_is_attention_and_a_network_as_they_are_written(causal: bool) -> None:
    torch.manual_seed(0)
    block = text_networks.Block().double()
    states, present = torch.randn(2, 7, 64).double(), torch.ones(2, 7, dtype=torch.bool)
    present[1, 5:] = False
    result = block(states, None if causal else present[:, None, None]).detach().numpy()

    x = states.numpy()
    packed = _linear(_layer_norm(x, block.attention_norm), block.qkv)
    mixed = np.zeros_like(x)
    for b in range(2):
        for head in range(4):
            width = slice(16 * head, 16 * head + 16)
            q, k, v = (part[b][:, width] for part in np.split(packed, 3, axis=-1))
            seen = np.tril(np.ones((7, 7))) if causal else np.tile(present[b].numpy(), (7, 1))
            weights = np.exp(q @ k.T / 4.0) * seen  # the root of 16, the width of a head
            mixed[b][:, width] = weights / weights.sum(-1, keepdims=True) @ v
    x = x + _linear(mixed, block.out)
    up = torch.from_numpy(_linear(_layer_norm(x, block.mlp_norm), block.up))
    bent = (up * 0.5 * (1 + torch.erf(up / 2**0.5))).numpy()
    np.testing.assert_allclose(result, x + _linear(bent, block.down), rtol=0, atol=1e-10)


def test_the_head_of_the_decoder_is_its_embedding_unless_asked_otherwise() -> None:
    tied, free = text_networks.Transformer(), text_networks.Transformer(tied=False)
    assert tied.head.weight is tied.embedding.weight
    assert "head.weight" not in ls.params.parameters(tied)
    assert free.head.weight is not free.embedding.weight
    sizes = [sum(p.numel() for p in m.parameters()) for m in (tied, free)]
    assert sizes[1] - sizes[0] == len(text_data.ALPHABET) * 64


@pytest.mark.parametrize("name", text_networks.NETWORKS)
def test_second_derivatives_are_those_of_differences_of_gradients(name: str) -> None:
    inputs, targets = text_networks.load_data(name, count=2)
    loss = nn.CrossEntropyLoss() if name == "text_encoder" else ls.losses.tokens()
    model = text_networks.initial(name).double()
    objective = ls.Objective(model, loss, (inputs, targets), precision="float64")
    hessian = ls.curvature.Hessian(objective)
    vector = torch.randn(hessian.shape[0], generator=torch.Generator().manual_seed(1)).double()
    vector /= vector.norm()
    line = ls.Line(objective.center, ls.params.unflatten(vector, objective.center))
    up, down = (objective.gradient(line.at((s,))) for s in (1e-4, -1e-4))
    expected = (ls.params.flatten(up) - ls.params.flatten(down)) / 2e-4
    product = hessian @ vector
    assert hessian.route.startswith("double backward")
    assert float((product - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize("name", LANGUAGE)
def test_a_short_training_finds_more_than_how_often_each_character_occurs(name: str) -> None:
    model = text_networks.load_trained(name, epochs=1, cache=False)
    inputs, targets = text_networks.load_surface_data(name, train=False)
    shares = np.bincount(text_data.cut_windows(64, train=False)[1].numpy().ravel()).astype(float)
    shares = shares[shares > 0] / shares.sum()
    unigram = -float((shares * np.log(shares)).sum())
    with torch.no_grad():
        loss = float(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()))
    assert 2.9 < unigram < 3.2
    assert loss < unigram - 0.2


@pytest.mark.usefixtures("_few")
def test_a_short_training_tells_modules_apart_better_than_chance() -> None:
    model = text_networks.load_trained("text_encoder", epochs=2, cache=False)
    inputs, labels = text_networks.load_data("text_encoder", train=False)
    with torch.no_grad():
        right = float((model(inputs).argmax(dim=1) == labels).float().mean())
    assert right > 1.5 / len(text_data.MODULES)


@pytest.mark.usefixtures("_few")
def test_training_is_deterministic_and_begins_with_the_initial_network() -> None:
    before = torch.get_rng_state()
    a, b = (
        text_networks.load_trained("text_lstm", epochs=1, cache=False).state_dict()
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    start = text_networks.initial("text_lstm").state_dict()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name])
        assert not torch.equal(tensor, start[name])
    other = text_networks.initial("text_lstm", seed=1).state_dict()
    assert not torch.equal(start["head.weight"], other["head.weight"])


@pytest.mark.parametrize("name", ["text_lstm", "text_encoder"])
def test_what_is_evaluated_is_some_of_the_data_from_all_over_the_text(name: str) -> None:
    inputs, targets = text_networks.load_surface_data(name)
    every, _ = text_networks.load_data(name)
    rows = {row.numpy().tobytes(): k for k, row in enumerate(every)}
    places = [rows[row.numpy().tobytes()] for row in inputs]
    assert len(inputs) == len(targets) == {"text_lstm": 64, "text_encoder": 128}[name]
    assert max(np.diff(sorted(places))) < 3 * len(every) / len(inputs)


def _pretended(calls: list[str]) -> Callable[..., None]:
    def train(model: nn.Module, *, name: str, **_: object) -> None:
        calls.append(name)
        nn.init.normal_(next(model.parameters()))

    return train


def test_trained_networks_are_kept_and_belong_to_their_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr(text_networks, "_train", _pretended(calls))
    first, again = (text_networks.load_trained("text_gpt") for _ in range(2))
    assert calls == ["text_gpt"]
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    text_networks.load_trained("text_gpt", seed=1)
    text_networks.load_trained("text_gpt", epochs=1)
    monkeypatch.setattr(text_data, "identity", lambda: "another version of Python")
    text_networks.load_trained("text_gpt")
    assert len(calls) == 4
