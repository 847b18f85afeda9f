"""The command train: from words to a network and the folder of its path.

Witnesses: the library called with the same values; files are opened again by torch and by the
reader of trajectories; CIFAR-10 is a folder of 20 images that the tests of its reader write.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import landscope as ls
from landscope.training.augmentation import corrupt_labels
from landscope.training.loop import train
from landscope.training.optimizers import Course
from landscope.training.trajectory import Trajectory
from landscope.zoo import cifar_data, cifar_networks, digits
from tests.zoo.test_cifar_data import extracted, python_batches

Command = Callable[..., Any]
MLP = "zoo:digits_mlp"
SHORT = ("--epochs", 3, "--batch-size", 400)


def test_it_trains_a_network_of_the_zoo_and_writes_its_path(
    command: Command, tmp_path: Path
) -> None:
    words = ("--drops", "1,2", "--factor", 0.5, "--seed", 3, "--record", tmp_path / "run")
    answer = command("train", MLP, *SHORT, *words)
    assert answer.code == 0, answer.err
    assert f"{MLP}: sgd, 3 epochs" in answer.out
    assert f"landscope trajectory {tmp_path / 'run'} --out" in answer.out
    path = Trajectory.open(tmp_path / "run")
    assert [c.step for c in path] == [0, 4, 8, 12]
    assert path.drops == [1, 2]
    initial = digits.initial("digits_mlp", seed=3)
    assert all(torch.equal(path[0].states()[n], p) for n, p in initial.named_parameters())
    objective = ls.Objective(initial, torch.nn.CrossEntropyLoss(), digits.load_data())
    course = Course(epochs=3, batch_size=400, drops=(1, 2), factor=0.5, seed=3)
    expected = train(objective, course).model
    assert all(torch.equal(path[3].states()[n], p) for n, p in expected.named_parameters())
    values = path[3].values
    inputs, targets = digits.load_data(train=False)
    with torch.no_grad():
        loss = F.cross_entropy(expected(inputs), targets)
    assert values["test_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert f"{values['test_loss']:.4g}" in answer.out
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (record["target"], record["set"], record["label_noise"]) == (MLP, {"seed": "3"}, 0.0)
    assert (record["optimizer"], record["factor"], record["drops"]) == ("sgd", 0.5, [1, 2])


def test_the_same_command_goes_on_and_another_one_is_refused(
    command: Command, tmp_path: Path
) -> None:
    words = ("train", MLP, *SHORT, "--record", tmp_path / "run")
    first, second = command(*words), command(*words)
    assert (first.code, second.code) == (0, 0)
    assert second.out == first.out
    other = command(*words, "--optimizer", "adam", "--label-noise", 0.1)
    assert other.code == 1
    assert "label_noise was 0.0, now 0.1; optimizer was sgd, now adam" in other.err


def test_trained_weights_are_written_and_taken_again(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "mlp.safetensors"
    answer = command("train", MLP, *SHORT, "--optimizer", "sam", "--out", file)
    assert answer.code == 0, answer.err
    assert f"landscope scan {MLP} --set seed=0 --checkpoint {file} --out" in answer.out
    first = ls.zoo.objective("digits_mlp", checkpoint=file)
    answer = command(
        "train", MLP, *SHORT, "--optimizer", "adam", "--checkpoint", file, "--record",
        tmp_path / "more", "--every", 6, "--keep", 2,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    path = Trajectory.open(tmp_path / "more")
    assert [c.step for c in path] == [0, 12]
    assert all(torch.equal(path[0].params()[n], t) for n, t in first.center.items())


def test_a_share_of_the_labels_may_be_wrong(command: Command, tmp_path: Path) -> None:
    words = ("--label-noise", 0.5, "--seed", 2, "--record", tmp_path / "run")
    answer = command("train", MLP, *SHORT, *words)
    assert answer.code == 0, answer.err
    clean = ls.Objective(
        digits.initial("digits_mlp", seed=2), torch.nn.CrossEntropyLoss(), digits.load_data()
    )
    expected = train(
        corrupt_labels(clean, 0.5, seed=2), Course(epochs=3, batch_size=400, seed=2)
    ).model
    states = Trajectory.open(tmp_path / "run")[-1].states()
    assert all(torch.equal(states[n], p) for n, p in expected.named_parameters())
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert record["label_noise"] == 0.5


def test_cifar_10_is_shifted_mirrored_and_read_from_its_files(
    command: Command, tmp_path: Path
) -> None:
    folder = extracted(tmp_path / "data", python_batches())
    words = ("train", "zoo:resnet20", "--set", f"data={folder}", "--batch-size", 10, "--epochs", 1)
    answer = command(*words, "--record", tmp_path / "run")
    assert answer.code == 0, answer.err
    path = Trajectory.open(tmp_path / "run")
    assert [c.step for c in path] == [0, 2]
    model = cifar_networks.NETWORKS["resnet20"]().eval()
    model.load_state_dict(path[1].states(), strict=False)
    for prefix, is_train in (("", True), ("test_", False)):
        inputs, targets = cifar_data.load_tensors(folder, train=is_train)
        with torch.no_grad():
            loss = F.cross_entropy(model(inputs), targets)
        assert path[1].values[f"{prefix}loss"] == pytest.approx(float(loss), rel=1e-4)
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert "crop_and_flip" in record["augment"]
    assert record["set"] == {"seed": "0", "data": str(folder)}
    plain = command(*words, "--no-augment", "--record", tmp_path / "plain")
    assert plain.code == 0, plain.err
    last = (Trajectory.open(tmp_path / run)[1].states() for run in ("run", "plain"))
    assert not torch.equal(*(states["conv1.weight"] for states in last))


def test_edges_of_cifar_10_are_black() -> None:
    from landscope.cli import train as train_

    dark = cifar_data.preprocess(torch.zeros(1, 32, 32, 3, dtype=torch.uint8).numpy())
    for given, black in (({}, dark), ({"normalize": "False"}, torch.zeros_like(dark))):
        shown = train_._choose_augmentation("zoo:resnet20", given, None)
        assert shown is not None
        torch.testing.assert_close(shown(black), black, rtol=1e-6, atol=0)


def test_text_is_trained_on_whole_and_by_adamw(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from landscope.zoo import text_networks

    whole = text_networks.load_data

    def fewer(name: str, *, train: bool = True, count: int | None = None) -> Any:
        return whole(name, train=train, count=96 if count is None else count)

    monkeypatch.setattr(text_networks, "load_data", fewer)
    words = ("--epochs", 1, "--batch-size", 32, "--record", tmp_path / "run")
    answer = command("train", "zoo:text_gpt", *words)
    assert answer.code == 0, answer.err
    path = Trajectory.open(tmp_path / "run")
    assert path[-1].step == 3  # of 96 windows, and not of the 64 that surfaces are made of
    assert path[1].values["loss"] < path[0].values["loss"]
    assert path[1].values["test_perplexity"] > 1
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (record["optimizer"], record["learning_rate"]) == ("adamw", 0.001)


def test_a_target_of_ones_own_begins_where_its_function_says(
    command: Command, target: str, tmp_path: Path
) -> None:
    words = ("--set", "width=5", "--epochs", 2, "--record", tmp_path / "run")
    answer = command("train", target, *words, "--out", tmp_path / "w.safetensors")
    assert answer.code == 0, answer.err
    path = Trajectory.open(tmp_path / "run")
    assert path[0].params()["0.weight"].shape == (5, 4)
    weights = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(weights[n], t) for n, t in path[-1].states().items())


def test_networks_of_cifar_10_train_as_long_as_in_2018() -> None:
    from landscope.cli import train as train_

    assert train_._choose_epochs("zoo:resnet56", None) == 300
    assert train_._choose_epochs("zoo:resnet56", 7) == 7
    assert train_._choose_epochs(MLP, None) is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("zoo:digits_nope",), "zoo:digits_nope is not in the zoo"),
        (("zoo:resnet56",), "zoo:resnet56 needs CIFAR-10: pass --set data="),
        ((MLP, "--learning-rate=-1"), "--learning-rate -1.0; expected more than 0"),
        ((MLP, "--epochs", 0), "--epochs 0; expected a whole number of 1 or more"),
        ((MLP, "--drops", "20,10"), "--drops (20, 10) are out of order"),
        ((MLP, "--drops", "10,30"), "cannot drop after epoch 30 of 30"),
        ((MLP, "--drops", "soon"), "--drops soon; expected epochs such as 15,22,27, or none"),
        ((MLP, "--every", "day"), "--every day; expected epoch, or a number of steps"),
        ((MLP, "--every", 0), "--every 0"),
        ((MLP, "--keep", 1), "--keep 1"),
        ((MLP, "--label-noise", 2), "random labels (--label-noise) is 2.0; expected"),
        ((MLP, "--augment"), "--augment shifts and mirrors images of CIFAR-10"),
        ((MLP, "--learning-rate", 1e30, "--batch-size", 400), "training diverged: after"),
        ((MLP, "--out", "w.pt"), "--out w.pt; expected a file that ends in .safetensors"),
        ((MLP, "--set", "widht=3"), "--set widht=...: zoo:digits_mlp has no such argument"),
    ],
)
def test_wrong_options_get_a_sentence(
    command: Command, tmp_path: Path, words: tuple[Any, ...], sentence: str
) -> None:
    answer = command("train", *words, "--record", tmp_path / "run")
    assert answer.code == 1
    assert sentence in answer.err
    assert "Traceback" not in answer.err


def test_an_output_is_needed_and_must_be_writable(command: Command, tmp_path: Path) -> None:
    answer = command("train", MLP)
    assert (answer.code, "nothing would be saved: add --record" in answer.err) == (1, True)
    (tmp_path / "file").touch()
    answer = command("train", MLP, *SHORT, "--record", tmp_path / "file")
    assert (answer.code, "file cannot be written to" in answer.err) == (1, True)
    lost = tmp_path / "nowhere" / "w.safetensors"
    answer = command("train", MLP, "--epochs", 1000, "--out", lost)
    assert (answer.code, "nowhere does not exist" in answer.err) == (1, True)


def test_drops_may_be_none(command: Command, tmp_path: Path) -> None:
    answer = command("train", MLP, *SHORT, "--drops", "none", "--record", tmp_path)
    assert answer.code == 0, answer.err
    assert Trajectory.open(tmp_path).drops == []


def test_ctrl_c_leaves_a_sentence_and_the_epochs_that_were_done(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = torch.optim.SGD.step, [0]

    def stopped(self: torch.optim.SGD) -> None:
        calls[0] += 1
        if calls[0] == 7:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", stopped)
    answer = command("train", MLP, *SHORT, "--record", tmp_path / "run")
    assert answer.code == 130
    assert "the same command goes on from there" in answer.err
    assert [c.step for c in Trajectory.open(tmp_path / "run")] == [0, 4]
