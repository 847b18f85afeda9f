"""The cache of trained networks: it saves what was trained, and loads nothing else."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from landscope.errors import TargetError
from landscope.zoo import cache


class Tied(nn.Module):
    """Two layers with one weight, which ``safetensors.torch.save_file`` refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def _train(model: nn.Module) -> None:
    assert model.training
    for parameter in model.parameters():
        nn.init.normal_(parameter, 7.0)


def _never(_: nn.Module) -> None:
    raise AssertionError("it was trained again")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path / "cache"))


def test_weights_come_back_bit_for_bit_and_tied_ones_stay_tied(tmp_path: Path) -> None:
    first = cache.load_or_train("a_net", Tied(), _train, "recipe")
    (file,) = (tmp_path / "cache").iterdir()
    assert file.name.startswith("a_net-")
    again = cache.load_or_train("a_net", Tied(), _never, "recipe")
    assert not first.training
    assert not again.training
    assert isinstance(again, Tied)
    assert torch.equal(again.head.weight, dict(first.named_parameters())["embedding.weight"])
    assert again.head.weight is again.embedding.weight
    assert float(again.head.weight.detach().mean()) > 5


@pytest.mark.parametrize(
    ("name", "model", "recipe"),
    [("b_net", Tied(), "recipe"), ("a_net", nn.Linear(3, 5), "recipe"), ("a_net", Tied(), "other")],
)
def test_another_network_or_recipe_is_trained_for_itself(
    name: str, model: nn.Module, recipe: str
) -> None:
    cache.load_or_train("a_net", Tied(), _train, "recipe")
    with pytest.raises(AssertionError, match="trained again"):
        cache.load_or_train(name, model, _never, recipe)


def test_without_a_cache_nothing_is_written_or_taken(tmp_path: Path) -> None:
    cache.load_or_train("a_net", Tied(), _train, "recipe", cache=False)
    assert not (tmp_path / "cache").exists()
    cache.load_or_train("a_net", Tied(), _train, "recipe")
    with pytest.raises(AssertionError, match="trained again"):
        cache.load_or_train("a_net", Tied(), _never, "recipe", cache=False)


def test_a_folder_that_cannot_be_written_to_is_a_sentence_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(TargetError, match=r"cannot be saved in .*set LANDSCOPE_CACHE"):
        cache.load_or_train("a_net", Tied(), _never, "recipe")


def test_a_disk_that_is_full_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # a file cannot be larger
    try:
        with pytest.raises(
            TargetError, match=r"cannot be saved in .*too large.*set LANDSCOPE_CACHE"
        ):
            cache.load_or_train("a_net", Tied(), _train, "recipe")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "cache").iterdir()) == []


def test_training_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    model = Tied()
    torch.set_rng_state(before)
    cache.load_or_train("a_net", model, _train, "recipe", cache=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    cache.load_or_train("a_net", Tied(), _train, "recipe")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    again = cache.load_or_train("a_net", Tied(), _train, "recipe")
    loaded = cache.load_or_train("a_net", Tied(), _never, "recipe")
    assert torch.equal(*(model.state_dict()["head.weight"] for model in (again, loaded)))
