"""Checkpoints of the 2018 scripts, of old and new torch, and of safetensors; nothing is unpickled.

Witnesses: the real file of the 2018 scripts is opened as the zip archive that it is and its bytes
are compared; a file written by Python 2.7 with torch 1.0 holds values that are known; everything
else is saved here from tensors that are known.
"""

from __future__ import annotations

import base64
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from landscope.errors import FormatError
from landscope.formats import checkpoint
from landscope.zoo import cifar_networks

REAL = Path(__file__).parents[1] / "data" / "reference" / "tiny_a" / "model_10.t7"
PYTHON_2_FILE = (  # {"acc": 62.5, "epoch": 300, "state_dict": DataParallel(Linear, BatchNorm1d)}
    "eNqFk0tv00AQxxM7j9bQB9AC5VneC5RgN86LV3JA5WCVQtEeI8u1V7GRa2e86yCQLOXSCvoZOHDkq/ERkDgwaeoG6k"
    "hdaSx7Zva3//HMDqUDxf/zfeP36sef71YqQ2nzl4zPBPKELvajUIR26JsDFnEvDGAUpYr43Gcm974wDnICBUJlLxBQ"
    "NAq0yN0wElAyJFrww6AHZaMQ0znfE8JnJgsczwpg5mucniBbtg3Sm85WJzdatMj6oe2CvLmWpwoXlmCm49kCCjaq8J"
    "ktUARXtiKHRcx5jREFil0okS6UCV3YDZ3YZxW18ol5PVfAjC3CyHYrZiw8nytmxHZiz3dMwQIeRuZgXYFZQmiZY5rV"
    "Y6CM85UNP7TEh7FTgTN0vqVrer3eqLWqzbquwlkq2/0Y5g7ypbfivZEzZEPaNyQjv//NRTnze9uwILZhkXXhHKFzx7"
    "J2PIvDeRfPdBX3H2yj2aqpOlxwkSgfEfeM/N4hbQlpy0i7iLRLkyK1tMjLJ3k1vaWqqt6Elam8K8i7irxryLs+UaeN"
    "1d3IqmvqerVah5tTaatIu4W020i7Q+jyMS2Kg8ALeuYuw47fzVJ1TdW0dbg3lXofqQ+QSpD6kNClDHVgRfBoKrRVV+"
    "HxVOgaQp8gtMIYvj1NQKWzKE9YjiUs0EYp6zhIVUJzCei0nM58zchz1FEntDTWAY0Emu6Ru0XoTNpgeJbA8zTwYhLQ"
    "4GUCrzAg8cOz23xndAO6oxtwsmlS5hfJmfoKmdEpZtpVykxtmVXkXLqG7dQmvsk6Ja+d2rS9pf++RntzeLk7aEO0H5"
    "2/AT0u4g=="
)


def model() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def assert_same(given: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(given) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(given[name], value.detach(), rtol=0, atol=0)


def test_a_checkpoint_of_the_2018_scripts_loads_bit_for_bit() -> None:
    network = cifar_networks.build_tiny()
    checkpoint.load(network, REAL)
    stored = {}
    with zipfile.ZipFile(REAL) as file:
        for name in file.namelist():
            if "/data/" in name:
                stored[int(name.rpartition("/")[2])] = file.read(name)
    state = network.state_dict()
    assert len(stored) == len(state) == 15
    for index, value in enumerate(state.values()):
        assert np.asarray(value).tobytes() == stored[index]
    assert state["bn1.num_batches_tracked"] > 0


def test_a_file_that_python_2_and_torch_1_wrote_loads(tmp_path: Path) -> None:
    path = tmp_path / "model_300.t7"
    path.write_bytes(zlib.decompress(base64.b64decode(PYTHON_2_FILE)))
    network = model()
    checkpoint.load(network, path)
    state = network.state_dict()
    assert state["0.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert state["0.bias"].tolist() == [0.5] * 3
    assert state["1.num_batches_tracked"] == 0


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model", "net"])
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found_where_people_keep_them(
    tmp_path: Path, key: str | None, *, zipped: bool
) -> None:
    state = model().state_dict()
    content = state if key is None else {"epoch": 3, "optimizer": {"lr": 0.1}, key: state}
    path = saved(tmp_path / "a.pth", content, _use_new_zipfile_serialization=zipped)
    assert_same(checkpoint.read(path), state)


def test_safetensors_are_read(tmp_path: Path) -> None:
    state = model().state_dict()
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    given = checkpoint.read(tmp_path / "a.safetensors")
    assert_same(dict(sorted(given.items())), dict(sorted(state.items())))


def test_the_prefix_of_data_parallel_goes_when_every_name_has_it(tmp_path: Path) -> None:
    state = model().state_dict()
    parallel = {f"module.{name}": value for name, value in state.items()}
    assert_same(checkpoint.read(saved(tmp_path / "a.pt", parallel)), state)
    mixed = {**parallel, "head": torch.ones(1)}
    assert_same(checkpoint.read(saved(tmp_path / "b.pt", mixed)), mixed)


def test_parameters_come_without_gradients_and_other_entries_are_left_out(tmp_path: Path) -> None:
    content = {"weight": nn.Parameter(torch.ones(2)), "epoch": 3, "note": "best"}
    given = checkpoint.read(saved(tmp_path / "a.pt", content))
    assert list(given) == ["weight"]
    assert type(given["weight"]) is Tensor
    assert not given["weight"].requires_grad


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"epoch": 3},
            r"holds no tensors .* \(it has the entries 'epoch'\): save model\.state_dict",
        ),
        ({}, r"holds no tensors .* \(it has the entries none\)"),
        ({"state_dict": {}}, r"holds no tensors"),
        (torch.ones(3), r"holds a Tensor; expected a state dict: save model\.state_dict"),
        ([1, 2], r"holds a list; expected a state dict"),
    ],
)
def test_a_file_without_a_state_dict_is_a_sentence(
    tmp_path: Path, content: object, sentence: str
) -> None:
    with pytest.raises(FormatError, match=sentence):
        checkpoint.read(saved(tmp_path / "a.pt", content))


class MakesFolder:
    """Makes a folder when it is unpickled by whoever trusts pickles."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_wants_to_run_something_is_refused_and_does_not_run(
    tmp_path: Path, *, zipped: bool
) -> None:
    marker = tmp_path / "ran"
    content = {"state_dict": model().state_dict(), "more": MakesFolder(marker)}
    path = saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped)
    torch.load(path, weights_only=False)
    assert marker.exists()  # the attack works where pickles are trusted
    marker.rmdir()
    with pytest.raises(FormatError, match=r"without unpickling \w+\.mkdir, and landscope does not"):
        checkpoint.read(path)
    assert not marker.exists()


def test_a_whole_pickled_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", model())
    with pytest.raises(FormatError, match=r"unpickling torch\.nn\.modules.*save model\.state_dict"):
        checkpoint.read(path)


def test_a_file_of_another_pickle_protocol_is_a_sentence(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", model().state_dict(), pickle_protocol=4)
    with pytest.raises(FormatError, match=r"torch can read.* landscope does not unpickle"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pt", b""),
        ("a.t7", b"not a checkpoint at all"),
        ("a.pth", REAL.read_bytes()[:2000]),
        ("a.safetensors", b"not a checkpoint at all"),
        ("b.safetensors", b""),
    ],
)
def test_a_damaged_file_is_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        FormatError, match=rf"{name} is not a (checkpoint|whole safetensors file)"
    ) as told:
        checkpoint.read(tmp_path / name)
    assert "weights_only=False" not in str(told.value)
    assert "\n" not in str(told.value)


def test_of_a_long_text_of_torch_the_first_line_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("bad record\nC++ trace of many lines")

    (tmp_path / "a.pt").write_bytes(b"anything")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(FormatError, match=r"torch can read \(bad record\)\. It may be damaged"):
        checkpoint.read(tmp_path / "a.pt")


@pytest.mark.parametrize(("make", "found"), [(True, "is a folder"), (False, "does not exist")])
def test_a_path_that_is_no_file_is_a_sentence(tmp_path: Path, found: str, *, make: bool) -> None:
    path = tmp_path / "model.pt"
    if make:
        path.mkdir()
    with pytest.raises(FormatError, match=rf"model\.pt {found}: give the checkpoint file"):
        checkpoint.read(path)


def test_loading_keeps_the_parameters_their_type_and_their_flags(tmp_path: Path) -> None:
    other = model().double()
    other[0].weight.requires_grad_(False)
    parameters = list(other.parameters())
    state = {name: value + 1 for name, value in model().state_dict().items()}
    checkpoint.load(other, saved(tmp_path / "a.pt", state))
    assert all(a is b for a, b in zip(parameters, other.parameters(), strict=True))
    assert [p.requires_grad for p in parameters] == [False, True, True, True]
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, state[name].to(value.dtype), rtol=0, atol=0)
    assert other[0].weight.dtype == torch.float64


def test_counters_that_old_files_do_not_have_stay_as_they_are(tmp_path: Path) -> None:
    state = model().state_dict()
    del state["1.num_batches_tracked"]
    other = model()
    other[1].get_buffer("num_batches_tracked").fill_(17)
    checkpoint.load(other, saved(tmp_path / "a.pt", dict(state)))
    assert other[1].get_buffer("num_batches_tracked") == 17


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.embed.weight


def test_one_name_of_tied_weights_is_enough(tmp_path: Path) -> None:
    source, target = Tied(), Tied()
    safetensors.torch.save_model(source, str(tmp_path / "a.safetensors"))
    names = set(checkpoint.read(tmp_path / "a.safetensors"))
    assert len(names & {"embed.weight", "head.weight"}) == 1
    checkpoint.load(target, tmp_path / "a.safetensors")
    assert torch.equal(target.head.weight, source.embed.weight)
    assert target.head.weight is target.embed.weight


def test_tied_weights_under_no_name_are_missing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"head.bias": torch.zeros(5)})
    with pytest.raises(FormatError, match=r"embed\.weight is missing .*; head\.weight is missing"):
        checkpoint.load(Tied(), path)


def test_misfits_are_named_with_their_shapes_and_change_nothing(tmp_path: Path) -> None:
    state = {name: value + 1 for name, value in model().state_dict().items()}
    state["0.weight"] = torch.zeros(3, 4)
    del state["1.running_mean"]
    state["2.extra"] = torch.zeros(1)
    network = model()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(FormatError) as told:
        checkpoint.load(network, saved(tmp_path / "a.pt", state))
    assert str(told.value).split(" does not fit ")[1] == (
        "Sequential: 0.weight has the shape (3, 4) in the file and (3, 2) in the model;"
        " 1.running_mean is missing in the file; 2.extra is not in the model."
        " Build the model that the file was saved from."
    )
    assert_same(dict(network.state_dict()), before)


def test_of_many_misfits_three_are_named_and_the_others_counted(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"other": torch.ones(1)})
    with pytest.raises(FormatError) as told:
        checkpoint.load(model(), path)
    assert str(told.value).count("missing") == 3
    assert "1.weight is missing in the file; and 4 more." in str(told.value)


def test_a_reason_without_words_is_not_passed_on(tmp_path: Path) -> None:
    """Torch looks the first bytes of a text up, and raises their number."""
    path = tmp_path / "junk.pt"
    path.write_text("junk\n")
    with pytest.raises(FormatError) as caught:
        checkpoint.read(path)
    assert not re.search(r"\(\W*\d+\W*\)", str(caught.value)), caught.value
    assert "It may be damaged" in str(caught.value)
