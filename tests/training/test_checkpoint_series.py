"""Folders of checkpoints as other tools name them are trajectories, in the order of numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch

import landscope as ls
from landscope.errors import FormatError
from landscope.training.checkpoint_series import find_series

FORMS = [
    "epoch_{}.pth", "epoch{}.pt", "my_model{}.pth", "net-{}.pt", "checkpoint_{}.pt",
    "checkpoint-{}.pth.tar", "checkpoint{:04d}.pth", "ckpt.{}.pt", "{}.pt", "{:05d}.ckpt",
    "epoch={}-step=100.ckpt", "resnet18_epoch_{}.pth", "vgg16-v2_{}.t7", "model_{}.bin",
    "step_{}.safetensors", "iter_{}00.pth", "global_step{}.pt", "run3_model_{}.pt",
    "epoch={}-val_loss=0.32.ckpt", "model_epoch{}_seed7.pt", "weights.{}-0.5.pt",
]  # fmt: skip
FOLDERS = [
    ("checkpoint-{}00", "model.safetensors"), ("epoch_{}", "pytorch_model.bin"),
    ("step_{}", "adapter_model.safetensors"),
]  # fmt: skip


def write(path: Path, value: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"layer.weight": value * torch.ones(2, 3), "layer.bias": value * torch.ones(2)}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": value}, path)


def values(trajectory: ls.Trajectory) -> list[float]:
    return [float(checkpoint.params()["layer.bias"][0]) for checkpoint in trajectory]


@pytest.mark.parametrize("form", FORMS)
def test_files_are_in_the_order_of_their_numbers(tmp_path: Path, form: str) -> None:
    for number in (10, 2, 1):
        write(tmp_path / form.format(number), number)
    write(tmp_path / "best.pth", 99)
    write(tmp_path / "optimizer_3.pt", 98)
    (tmp_path / "log_3.txt").write_text("")
    trajectory = ls.Trajectory.open(tmp_path)
    assert values(trajectory) == [1, 2, 10]
    assert trajectory.notes == ()
    assert "3 checkpoints" in trajectory.reading
    assert "left out: best.pth" in trajectory.reading
    assert "optimizer" not in trajectory.reading


@pytest.mark.parametrize(("form", "file"), FOLDERS)
def test_folders_of_save_pretrained_are_checkpoints(tmp_path: Path, form: str, file: str) -> None:
    for number in (10, 2, 1):
        write(tmp_path / form.format(number) / file, number)
    (tmp_path / form.format(5)).mkdir()  # without weights
    assert values(ls.Trajectory.open(tmp_path)) == [1, 2, 10]


def test_checkpoints_in_shards_are_read(tmp_path: Path) -> None:
    for number in (2, 1):
        folder = tmp_path / f"checkpoint-{number}"
        write(folder / "model-00001-of-00001.safetensors", number)
        places = dict.fromkeys(("layer.weight", "layer.bias"), "model-00001-of-00001.safetensors")
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": places}))
    trajectory = ls.Trajectory.open(tmp_path)
    assert values(trajectory) == [1, 2]
    assert ls.directions.pca(trajectory, 1).explained_variance_ratio[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("names", "steps", "epochs", "counted"),
    [
        (["epoch=0-step=50.ckpt", "epoch=1-step=9.ckpt"], [9, 50], [1, 0], "steps"),
        (["epoch_2.pt", "epoch_11.pt"], [2, 11], [2, 11], "epochs"),
        (["model_v2_7.pth", "model_v2_30.pth"], [7, 30], [None, None], "numbers"),
        (["checkpoint-500.pt", "checkpoint-1000.pt"], [500, 1000], [None, None], "numbers"),
    ],
)
def test_words_before_the_numbers_say_what_is_counted(
    tmp_path: Path, names: list[str], steps: list[int], epochs: list[float | None], counted: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    files, note = find_series(tmp_path)
    assert [file.number for file in files] == steps
    assert [file.epoch for file in files] == epochs
    assert f"in the order of their {counted}" in note


def touch(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).touch()


def test_of_two_series_the_larger_one_is_read_and_copies_come_second(tmp_path: Path) -> None:
    touch(tmp_path, ["model_ema_1.pt", "model_ema_2.pt", "model-1.pt", "model-2.pt", "a1.pt"])
    files, note = find_series(tmp_path)
    assert [file.path.name for file in files] == ["model-1.pt", "model-2.pt"]
    assert "left out: a1.pt, model_ema_1.pt, model_ema_2.pt" in note


def test_equal_series_need_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, ["1_net_D.pth", "2_net_D.pth", "1_net_G.pth", "2_net_G.pth"])
    with pytest.raises(FormatError, match=r"2 series of checkpoints, \*_net_D\.pth, \*_net_G\.pth"):
        find_series(tmp_path)
    files, _ = find_series(tmp_path, "*_net_G.pth")
    assert [file.path.name for file in files] == ["1_net_G.pth", "2_net_G.pth"]


def test_unclear_numbers_get_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, ["a1_b2.pt", "a2_b1.pt"])
    with pytest.raises(FormatError, match=r"not clear what .* are counted by: name them epoch"):
        find_series(tmp_path)


def test_names_with_prefixes_are_read_under_those_of_the_center(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.BatchNorm1d(3))
    for number in range(3):
        state = {n: t + (t * 0 + number).to(t) for n, t in model.state_dict().items()}
        saved = {f"model.{n}": t for n, t in state.items()} | {"loss.scale": torch.ones(1)}
        torch.save({"state_dict": saved}, tmp_path / f"epoch={number}-step={number}.ckpt")
        safetensors.torch.save_file(saved, tmp_path / f"step-{number}.safetensors")
    data = torch.randn(20, 6), torch.randint(3, (20,))
    objective = ls.Objective(model.eval(), torch.nn.CrossEntropyLoss(), data)
    for pattern in ("*.ckpt", "*.safetensors"):
        trajectory = ls.Trajectory.open(tmp_path, like=objective.center, pattern=pattern)
        assert list(trajectory[1].params()) == list(objective.center)
        assert set(trajectory[1].states()) == set(objective.states)
        line = ls.Line(trajectory[0].params(), ls.directions.pca(trajectory, 1).directions[0])
        path = ls.paths.project(trajectory, line, objective)
        assert path.data["distance"].values == pytest.approx([0, 0, 0], abs=1e-5)
        assert path.data["loss"].values[0] == pytest.approx(objective.loss(), rel=1e-5)
