"""The zoo's catalog and its objectives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from landscope import zoo
from landscope.errors import TargetError
from landscope.zoo import cifar, digits


def test_the_catalog_holds_every_network_once() -> None:
    assert list(zoo.CATALOG) == [*digits.NETWORKS, *cifar.NETWORKS]
    assert all(entry.name == name for name, entry in zoo.CATALOG.items())


@pytest.mark.parametrize("name", ["digits_mlp", "digits_resnet8", "digits_resnet20_noshort"])
def test_sizes_count_trainable_parameters_and_layers(name: str) -> None:
    parameters, layers = zoo.CATALOG[name].size()
    assert parameters == sum(p.numel() for p in digits.NETWORKS[name]().parameters())
    assert layers == {"digits_mlp": 3, "digits_resnet8": 8, "digits_resnet20_noshort": 20}[name]


def test_an_objective_of_the_zoo_is_the_mean_loss_of_the_trained_network() -> None:
    objective = zoo.objective("digits_mlp", epochs=1, test=True)
    inputs, targets = digits.data()
    with torch.no_grad():
        expected = F.cross_entropy(digits.trained("digits_mlp", epochs=1)(inputs), targets)
    assert objective.loss() == pytest.approx(float(expected), rel=1e-5)
    assert set(objective.batches) >= {"data"} or len(objective.batches) == 2


def test_the_mean_squared_error_of_the_softmax_is_a_loss_of_the_zoo() -> None:
    inputs, targets = digits.data()
    with torch.no_grad():
        shares = digits.trained("digits_mlp", epochs=1)(inputs).softmax(1)
    expected = F.mse_loss(shares, F.one_hot(targets, 10).float())
    found = zoo.objective("digits_mlp", epochs=1, loss="mse").loss()
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_given_weights_are_used_instead_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = digits.NETWORKS["digits_mlp"]()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    monkeypatch.setattr(digits, "trained", None)
    objective = zoo.objective("digits_mlp", checkpoint=tmp_path / "w.pt")
    for name, tensor in model.named_parameters():
        assert torch.equal(objective.center[name], tensor.detach())


@pytest.mark.parametrize(
    ("name", "words", "text"),
    [
        ("resnet57", {}, "zoo:resnet57 is not in the zoo"),
        ("digits_mlp", {"loss": "hinge"}, "loss='hinge'; expected one of cross_entropy, mse"),
        ("resnet56", {}, "needs CIFAR-10"),
        ("resnet56", {"data": "x"}, "needs trained weights"),
    ],
)
def test_what_is_lacking_is_named(name: str, words: dict[str, str], text: str) -> None:
    with pytest.raises(TargetError, match=text):
        zoo.objective(name, **words)  # type: ignore[arg-type]
