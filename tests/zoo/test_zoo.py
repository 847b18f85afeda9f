"""The zoo's catalog and its objectives."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import landscope as ls
from landscope import zoo
from landscope.errors import TargetError
from landscope.zoo import cifar_networks, digits, text_networks


def test_the_catalog_holds_every_network_once() -> None:
    assert list(zoo.CATALOG) == [
        *digits.NETWORKS,
        *text_networks.NETWORKS,
        *cifar_networks.NETWORKS,
    ]
    assert all(entry.name == name for name, entry in zoo.CATALOG.items())


@pytest.mark.parametrize("name", ["digits_mlp", "digits_resnet8", "digits_resnet20_noshort"])
def test_sizes_count_trainable_parameters_and_layers(name: str) -> None:
    parameters, layers = zoo.CATALOG[name].size()
    assert parameters == sum(p.numel() for p in digits.NETWORKS[name]().parameters())
    assert layers == {"digits_mlp": 3, "digits_resnet8": 8, "digits_resnet20_noshort": 20}[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("text_lstm", 2), ("text_gru", 2), ("text_gpt", 9), ("text_encoder", 9)],
)
def test_layers_of_sequence_models_are_recurrent_and_linear_ones(name: str, expected: int) -> None:
    parameters, layers = zoo.CATALOG[name].size()
    assert parameters == sum(p.numel() for p in text_networks.NETWORKS[name]().parameters())
    assert layers == expected


def test_an_objective_of_the_zoo_is_the_mean_loss_of_the_trained_network() -> None:
    objective = zoo.objective("digits_mlp", epochs=1, test=True)
    inputs, targets = digits.load_data()
    with torch.no_grad():
        expected = F.cross_entropy(digits.load_trained("digits_mlp", epochs=1)(inputs), targets)
    assert objective.loss() == pytest.approx(float(expected), rel=1e-5)
    assert set(objective.problem.batches) >= {"data"} or len(objective.problem.batches) == 2


def test_the_mean_squared_error_of_the_softmax_is_a_loss_of_the_zoo() -> None:
    inputs, targets = digits.load_data()
    with torch.no_grad():
        shares = digits.load_trained("digits_mlp", epochs=1)(inputs).softmax(1)
    expected = F.mse_loss(shares, F.one_hot(targets, 10).float())
    loss = zoo.objective("digits_mlp", epochs=1, loss="mse").loss()
    assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.fixture
def _untrained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sequence models as they begin, on four windows."""
    monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(text_networks, "_train", lambda *_, **__: None)
    monkeypatch.setattr(text_networks, "SURFACE_ROWS", 4)


@pytest.mark.usefixtures("_untrained")
@pytest.mark.parametrize("name", ["text_lstm", "text_gru", "text_gpt"])
def test_a_language_model_is_measured_by_the_character_over_a_plane(name: str) -> None:
    objective = zoo.objective(name, test=True)
    dx, dy = ls.directions.random(objective.center)
    land = ls.scan(objective, ls.Plane(objective.center, dx, dy), ls.Grid(3))
    assert land.data["train_loss"].units == "nat per character"
    start = zoo.initial(name)
    assert start is not None
    for part, train in (("train", True), ("test", False)):
        inputs, targets = text_networks.load_surface_data(name, train=train)
        with torch.no_grad():
            logits = start(inputs)
        loss = float(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))
        right = 100 * float((logits.argmax(2) == targets).float().mean())
        middle = {n: float(v[1, 1]) for n, v in land.data.data_vars.items()}
        assert middle[f"{part}_loss"] == pytest.approx(loss, rel=1e-5)
        assert middle[f"{part}_perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
        assert middle[f"{part}_accuracy"] == pytest.approx(right, abs=1e-4)
    assert np.isfinite(land.data["train_loss"]).all()


@pytest.mark.usefixtures("_untrained")
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_encoder_is_measured_by_the_passage(loss: str) -> None:
    inputs, labels = text_networks.load_surface_data("text_encoder")
    with torch.no_grad():
        logits = text_networks.initial("text_encoder")(inputs)
    expected = float(F.cross_entropy(logits, labels))
    if loss == "mse":
        expected = float(F.mse_loss(logits.softmax(1), F.one_hot(labels, logits.shape[1]).float()))
    values = zoo.objective("text_encoder", loss=loss).evaluate()
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert values["accuracy"] == pytest.approx(
        100 * float((logits.argmax(1) == labels).float().mean()), abs=1e-4
    )


def test_given_weights_are_used_instead_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = digits.NETWORKS["digits_mlp"]()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    monkeypatch.setattr(digits, "load_trained", None)
    objective = zoo.objective("digits_mlp", checkpoint=tmp_path / "w.pt")
    for name, tensor in model.named_parameters():
        assert torch.equal(objective.center[name], tensor.detach())


@pytest.mark.parametrize(
    ("name", "words", "text"),
    [
        ("resnet57", {}, "zoo:resnet57 is not in the zoo"),
        ("text_gpt", {"loss": "mse"}, "loss='mse' is for classifiers, but zoo:text_gpt predicts"),
        ("digits_mlp", {"loss": "hinge"}, "loss='hinge'; expected one of cross_entropy, mse"),
        ("resnet56", {}, "needs CIFAR-10"),
        ("resnet56", {"data": "x"}, "needs trained weights"),
        ("digits_mlp", {"data": "x"}, "data= is for CIFAR-10, but the data of zoo:digits_mlp are"),
        ("text_gru", {"normalize": False}, "normalize= is for CIFAR-10"),
        ("text_gru", {"split": 2}, "split= is for CIFAR-10"),
        (
            "digits_mlp",
            {"corrupt": 0.5},
            "corrupt= is for CIFAR-10, but the data of zoo:digits_mlp",
        ),
    ],
)
def test_what_is_lacking_or_of_no_use_is_named(name: str, words: dict[str, Any], text: str) -> None:
    with pytest.raises(TargetError, match=text):
        zoo.objective(name, **words)


@pytest.mark.parametrize("name", ["digits_mlp", "text_gru"])
@pytest.mark.parametrize(
    ("odd", "sentence"),
    [
        ({"seed": "abc"}, "seed='abc'; expected a whole number from 0"),
        ({"seed": 2**63}, "seed=9223372036854775808; expected"),
        ({"epochs": 0}, "epochs=0; expected a whole number from 1"),
        ({"epochs": "few"}, "epochs='few'; expected"),
    ],
    ids=str,
)
def test_seeds_and_epochs_out_of_range_are_sentences(
    name: str, odd: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TargetError, match=re.escape(sentence)):
        ls.zoo.objective(name, **odd)
