"""The digits networks: real data, deterministic training, a cache that is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from landscope.zoo import digits


def _rows(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_the_data_are_the_digits_of_scikit_learn_standardized_and_split() -> None:
    (inputs, targets), (test_inputs, test_targets) = (
        digits.load_data(),
        digits.load_data(train=False),
    )
    assert inputs.shape == (1437, 1, 8, 8)
    assert test_inputs.shape == (360, 1, 8, 8)
    images = torch.tensor(load_digits().images, dtype=torch.float32)
    expected = ((images - images.mean()) / images.std())[:, None]
    torch.testing.assert_close(
        torch.cat([inputs, test_inputs]).sum(0), expected.sum(0), rtol=1e-4, atol=1e-2
    )
    assert len(_rows(inputs) & _rows(test_inputs)) == 0
    counts = torch.bincount(torch.cat([targets, test_targets]), minlength=10)
    assert counts.tolist() == torch.bincount(torch.tensor(load_digits().target)).tolist()


@pytest.mark.parametrize("name", digits.NETWORKS)
def test_every_network_classifies_images_of_8_by_8(name: str) -> None:
    with torch.no_grad():
        assert digits.NETWORKS[name]().eval()(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_training_is_deterministic_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    a, b = (digits.load_trained("digits_mlp", epochs=1, cache=False) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not a.training
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name])
    other = digits.load_trained("digits_mlp", epochs=1, seed=1, cache=False)
    assert not torch.equal(other.state_dict()["1.weight"], a.state_dict()["1.weight"])


def test_a_few_epochs_learn_the_digits() -> None:
    model = digits.load_trained("digits_mlp", epochs=5, cache=False)
    inputs, targets = digits.load_data(train=False)
    with torch.no_grad():
        right = (model(inputs).argmax(1) == targets).float().mean()
    assert float(right) > 0.9


def test_a_trained_network_is_kept_and_taken_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path / "cache"))
    first = digits.load_trained("digits_mlp", epochs=1)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.name.startswith("digits_mlp-")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(digits, "_train", never)
    again = digits.load_trained("digits_mlp", epochs=1)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    with pytest.raises(AssertionError, match="trained again"):
        digits.load_trained("digits_mlp", epochs=2)
