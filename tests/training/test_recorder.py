"""The recorder: which checkpoints it takes, what is in them, and what it leaves alone.

safetensors reads the files without landscope, ``state_dict`` and values that the tests put into
the weights say what must be in them, and plain arithmetic says which steps are there.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import os
import pickle
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from landscope.errors import FormatError, ParamsError, RecorderError
from landscope.training.recorder import Recorder
from landscope.training.trajectory import Trajectory

KILLS = 10


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def put(model: nn.Module, value: float) -> nn.Module:
    """Let every parameter be this number."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["landscope"])
        return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def steps(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("0*.safetensors"))


def value(folder: Path, step: int) -> float:
    """The number that was put into the weights."""
    tensors = read(folder / f"{step:09d}.safetensors")[1]
    found = {float(x) for name, t in tensors.items() if "running" not in name for x in t.flatten()}
    assert len(found) == 1
    return found.pop()


def record(recorder: Recorder, asked: Iterable[int], **constant: Any) -> list[int]:
    """Steps that were taken of those that were asked for; the weights are the step."""
    model = network()
    return [s for s in asked if recorder(put(model, s), step=s, **constant)]


class Unlike(nn.Module):
    """Tied, frozen, transposed, scalar, half-precision tensors; counters and buffers of two kinds.

    A buffer that is not persistent is no part of the state of a model.
    """

    counter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.frozen = nn.Parameter(torch.randn(4, 2).T, requires_grad=False)
        self.short = nn.Linear(3, 3, dtype=torch.bfloat16)
        self.long = nn.Parameter(torch.randn(2, dtype=torch.float64))
        self.empty = nn.Parameter(torch.empty(0, 4))
        self.register_buffer("counter", torch.tensor(3))
        self.register_buffer("angles", torch.randn(2), persistent=False)


def test_a_checkpoint_holds_every_tensor_once_and_bit_for_bit(tmp_path: Path) -> None:
    model = Unlike()
    with Recorder(tmp_path) as recorder:
        assert recorder(model, step=7, epoch=1.5, learning_rate=0.1, loss=2.0)
    about, tensors = read(tmp_path / "000000007.safetensors")
    state = model.state_dict()
    expected = {*state} - {"head.weight", "counter", "norm.num_batches_tracked"}
    assert set(tensors) == expected
    for name, tensor in tensors.items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, state[name]), name
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert set(about.pop("parameters")) == trainable
    assert set(about.pop("vectors")) == expected - {
        "embedding.weight", "frozen", "short.weight", "empty",
    }  # fmt: skip
    assert about == {
        "version": 1, "step": 7, "epoch": 1.5, "learning_rate": 0.1, "values": {"loss": 2.0},
        "number": 0, "stride": 1,
    }  # fmt: skip


def test_names_of_parameters_are_in_the_order_of_the_model(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path) as recorder:
        recorder(model)
    about, _ = read(tmp_path / "000000000.safetensors")
    assert about["parameters"] == [name for name, _ in model.named_parameters()]


def test_without_buffers_only_parameters_are_recorded(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path, buffers=False) as recorder:
        recorder(model)
    assert set(read(tmp_path / "000000000.safetensors")[1]) == dict(model.named_parameters()).keys()


def test_values_are_numbers_or_tensors_and_the_optimizer_tells_its_rate(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), torch.tensor(0.25))
    loss = model(torch.randn(5, 3)).square().mean()
    with Recorder(tmp_path) as recorder:
        recorder(
            model,
            optimizer=optimizer,
            loss=loss,
            odd=float("nan"),
            best=np.float32(3),
            n=torch.ones(1),
        )
        recorder(model, optimizer=optimizer, learning_rate=0.5)
    first, second = (read(tmp_path / f"{k:09d}.safetensors")[0] for k in (0, 1))
    assert first["learning_rate"] == 0.25
    assert second["learning_rate"] == 0.5
    assert first["values"].pop("odd") != first["values"]["loss"]
    assert first["values"] == {"loss": float(loss.detach()), "best": 3.0, "n": 1.0}


def test_what_is_recorded_is_what_the_model_was_at_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_disk(monkeypatch, 0.05)
    model = network()
    with Recorder(tmp_path, every=1) as recorder:
        for step in range(5):
            recorder(put(model, step), step=step)
            put(model, -1.0)  # before it can have been written
    assert [value(tmp_path, step) for step in range(5)] == [0, 1, 2, 3, 4]


def written(recorder: Recorder) -> None:
    """Wait until the thread has nothing left to do."""
    assert recorder._open is not None
    recorder._open[0].wait()


def slow_disk(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    sync = os.fsync

    def slowly(handle: int) -> None:
        time.sleep(seconds)
        sync(handle)

    monkeypatch.setattr(os, "fsync", slowly)


def test_the_library_opens_what_was_recorded_as_a_trajectory(tmp_path: Path) -> None:
    with Recorder(tmp_path, every=5) as recorder:
        record(recorder, range(21), learning_rate=0.1, loss=1.0)
    trajectory = Trajectory.open(tmp_path)
    assert [checkpoint.step for checkpoint in trajectory] == [0, 5, 10, 15, 20]
    assert all(float(t.min()) == float(t.max()) == 20 for t in trajectory[-1].params().values())


# which calls take a checkpoint


def test_steps_are_taken_that_the_interval_divides_and_the_first_in_any_case(
    tmp_path: Path,
) -> None:
    with Recorder(tmp_path / "a", every=10) as recorder:
        assert record(recorder, range(35)) == [0, 10, 20, 30]
    with Recorder(tmp_path / "b", every=10) as recorder:
        assert record(recorder, range(3, 35)) == [3, 10, 20, 30]
    assert steps(tmp_path / "b") == [3, 10, 20, 30]


def test_steps_are_counted_by_calls_where_they_are_not_told(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path, every=3) as recorder:
        assert [recorder(put(model, k)) for k in range(8)] == [k % 3 == 0 for k in range(8)]
    with Recorder(tmp_path, every=3) as recorder:  # goes on after the last one
        assert [recorder(put(model, 10 + k)) for k in range(4)] == [True, False, False, True]
    assert steps(tmp_path) == [0, 3, 6, 9, 12]
    assert value(tmp_path, 9) == 10


def test_a_resumed_count_does_not_take_the_last_weights_twice(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path, every=3) as recorder:
        for k in range(7):
            recorder(put(model, k))
    with Recorder(tmp_path, every=3) as recorder:  # the weights are those of step 6
        assert [recorder(put(model, 6 + k)) for k in range(4)] == [False, False, False, True]
    assert steps(tmp_path) == [0, 3, 6, 9]


def test_each_epoch_is_taken_at_its_first_call(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path) as recorder:
        taken = [
            (step, step / 4) for step in range(11) if recorder(model, step=step, epoch=step / 4)
        ]
    assert taken == [(0, 0.0), (4, 1.0), (8, 2.0)]


def test_without_epochs_each_call_is_one(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path) as recorder:
        assert all(recorder(model) for _ in range(3))
        assert recorder(model, step=10)
        assert not recorder(model, step=10)
    assert steps(tmp_path) == [0, 1, 2, 10]


def test_due_says_beforehand_what_a_call_will_do(tmp_path: Path) -> None:
    model = network()
    for every in ("epoch", 3):
        with Recorder(tmp_path / str(every), every) as recorder:
            for step in range(12):
                due = recorder.due(step=step, epoch=step / 5)
                assert recorder(model, step=step, epoch=step / 5) == due
    with Recorder(tmp_path / "counted", 3) as recorder:
        for _ in range(7):
            due = recorder.due()
            assert recorder(model) == due


def test_a_call_that_takes_nothing_costs_microseconds_and_looks_at_nothing(tmp_path: Path) -> None:
    class Costly:
        def __float__(self) -> float:
            raise AssertionError("looked at")

    big = nn.Linear(1000, 1000)
    with Recorder(tmp_path, every=10**9) as recorder:
        recorder(big, step=0)
        seconds = []
        for step in range(1, 2001):
            began = time.perf_counter()
            recorder(big, step=step, optimizer=Costly(), loss=Costly())
            seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < 1e-4  # a copy of the model takes ten times as long


# resuming


def test_a_training_resumed_where_it_stopped_goes_on_in_the_folder(tmp_path: Path) -> None:
    with Recorder(tmp_path, every=10) as recorder:
        record(recorder, range(26))
    with Recorder(tmp_path, every=10) as recorder:
        assert record(recorder, range(26, 50)) == [30, 40]
    assert [value(tmp_path, s) for s in steps(tmp_path)] == [0, 10, 20, 30, 40]
    assert not list(tmp_path.glob("abandoned*"))


def test_steps_after_the_point_of_resuming_are_moved_away_with_nothing_lost(tmp_path: Path) -> None:
    for again, start in enumerate((0, 25, 15, 15)):
        model = network()
        with Recorder(tmp_path, every=10) as recorder:
            for step in range(start, 51):
                recorder(put(model, 1000 * again + step), step=step)
    assert steps(tmp_path) == [0, 10, 20, 30, 40, 50]
    assert [value(tmp_path, s) for s in steps(tmp_path)] == [0, 10, 3020, 3030, 3040, 3050]
    places = sorted(p.name for p in tmp_path.glob("abandoned-*"))
    assert places == ["abandoned-1", "abandoned-2", "abandoned-3"]
    assert steps(tmp_path / "abandoned-1") == [30, 40, 50]
    assert steps(tmp_path / "abandoned-2") == [20, 30, 40, 50]
    assert value(tmp_path / "abandoned-2", 20) == 20
    assert value(tmp_path / "abandoned-2", 30) == 1030
    assert value(tmp_path / "abandoned-3", 20) == 2020


def test_epochs_after_the_point_of_resuming_are_moved_away_though_steps_are_not_told(
    tmp_path: Path,
) -> None:
    model = network()
    with Recorder(tmp_path) as recorder:
        for epoch in range(6):
            recorder(put(model, epoch), epoch=epoch)
    with Recorder(tmp_path) as recorder:
        assert not recorder(put(model, 3), epoch=3)  # the weights that training is resumed from
        assert recorder(put(model, 104), epoch=4)
    assert [value(tmp_path, s) for s in steps(tmp_path)] == [0, 1, 2, 3, 104]
    assert steps(tmp_path / "abandoned-1") == [4, 5]


def test_an_epoch_that_was_begun_is_not_taken_again_when_resumed_in_its_middle(
    tmp_path: Path,
) -> None:
    model = network()
    with Recorder(tmp_path) as recorder:
        for step in range(25):
            recorder(put(model, step), step=step, epoch=step / 10)
    with Recorder(tmp_path) as recorder:
        taken = [s for s in range(23, 35) if recorder(put(model, s), step=s, epoch=s / 10)]
    assert taken == [30]
    assert steps(tmp_path) == [0, 10, 20, 30]


def test_the_same_training_again_leaves_what_is_the_same(tmp_path: Path) -> None:
    for value_at_ten in (10.0, 11.0):
        with Recorder(tmp_path, every=10) as recorder:
            model = network()
            assert recorder(put(model, 0), step=0) == (value_at_ten == 10.0)
            recorder(put(model, value_at_ten), step=10)
    assert [value(tmp_path, s) for s in steps(tmp_path)] == [0, 11]
    assert steps(tmp_path / "abandoned-1") == [10]


def test_a_recorder_that_was_closed_resumes_like_a_new_one(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, every=10)
    record(recorder, range(31))
    recorder.close()
    recorder.close()
    assert record(recorder, range(15, 31)) == [20, 30] or steps(tmp_path) == [0, 10, 20, 30]
    recorder.close()
    assert steps(tmp_path) == [0, 10, 20, 30]


def test_a_folder_of_another_model_is_refused_and_left_alone(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder(network())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    wide = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
    with pytest.raises(RecorderError, match=r"'0.weight' has the shape \(4, 3\) in 0+.safetensors"):
        Recorder(tmp_path)(wide)
    with pytest.raises(RecorderError, match=r"another model: '1.weight' .* is not there in this"):
        Recorder(tmp_path)(nn.Sequential(nn.Linear(3, 4)))
    with pytest.raises(RecorderError, match=r"running_mean.*same buffers="):
        Recorder(tmp_path, buffers=False)(network())
    other = Recorder(tmp_path)
    with pytest.raises(RecorderError):
        other(wide)
    assert other(put(network(), 5))  # the right one is still taken
    other.close()
    assert {path: path.read_bytes() for path in before} == before


def test_a_model_that_changes_is_refused(tmp_path: Path) -> None:
    model = network()
    recorder = Recorder(tmp_path)
    recorder(model)
    with pytest.raises(RecorderError, match=r"'0.weight' is F32 \[7, 3\] now and was F32 \[4, 3\]"):
        recorder(nn.Sequential(nn.Linear(3, 7), nn.BatchNorm1d(7), nn.Linear(7, 1)))
    with pytest.raises(RecorderError, match=r"'0.weight' is F64"):
        recorder(network().double())
    with pytest.raises(RecorderError, match=r"Linear has no '0.weight'"):
        recorder(nn.Linear(2, 2))
    with pytest.raises(RecorderError, match=r"has '3.weight' now, which was not there"):
        recorder(nn.Sequential(*network(), nn.Linear(1, 1)))
    assert recorder(model)
    recorder.close()


def test_a_file_that_is_not_whole_is_named(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder(network())
    path = tmp_path / "000000000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"0+\.safetensors is not a whole checkpoint"):
        Recorder(tmp_path)(network())


# thinning


@pytest.mark.parametrize("keep", [2, 3, 8, 13])
def test_never_more_stay_than_asked_nor_less_than_half(keep: int, tmp_path: Path) -> None:
    model = network()
    for count in (1, keep, keep + 1, 3 * keep, 5 * keep + 1):
        folder = tmp_path / str(count)
        with Recorder(folder, every=1, keep=keep) as recorder:
            for step in range(count):
                recorder(put(model, step), step=step)
        found = steps(folder)
        assert len(found) <= keep
        assert len(found) >= min(count, keep / 2)
        assert found[0] == 0
        assert found[-1] == count - 1
        assert [value(folder, s) for s in found] == found
        gaps = {b - a for a, b in itertools.pairwise(found[:-1])}
        assert len(gaps) <= 1  # evenly, but for the last
        assert all(gap & (gap - 1) == 0 for gap in gaps)


def test_thinning_goes_on_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    model = network()
    for step in range(0, 300, 10):
        with Recorder(tmp_path, every=10, keep=5) as recorder:
            recorder(put(model, step), step=step)
        stride = 10  # the smallest at which there are few enough
        while len({*range(0, step + 1, stride), step}) > 5:
            stride *= 2
        assert steps(tmp_path) == sorted({*range(0, step + 1, stride), step})


def test_a_path_that_begins_again_is_thinned_as_a_new_one(tmp_path: Path) -> None:
    with Recorder(tmp_path, every=1, keep=10) as recorder:
        record(recorder, range(160))
    with Recorder(tmp_path, every=1, keep=10) as recorder:
        recorder(put(network(), -1), step=0)
        record(recorder, range(1, 20))
    assert steps(tmp_path) == [0, 4, 8, 12, 16, 19]


def test_the_two_checkpoints_at_a_drop_of_the_rate_stay(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path, every=1, keep=12) as recorder:
        for step in range(100):
            recorder(model, step=step, learning_rate=0.1 if step < 37 else 0.01)
    assert {0, 36, 37, 99} <= set(steps(tmp_path))
    assert 6 <= len(steps(tmp_path)) <= 12


def test_a_rate_that_falls_all_the_time_protects_nothing(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path, every=1, keep=12) as recorder:
        for step in range(100):
            recorder(model, step=step, learning_rate=0.9**step)
    assert steps(tmp_path) == [*range(0, 97, 16), 99]


# what goes wrong


def test_a_disk_that_is_full_is_told_at_the_next_call_and_later_ones_try_again(
    tmp_path: Path,
) -> None:
    model = nn.Linear(100, 100)
    recorder = Recorder(tmp_path, every=10)
    recorder(put(model, 0), step=0)
    recorder.close()
    recorder(put(model, 10), step=10)
    written(recorder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # a file cannot be larger
    try:
        recorder(put(model, 20), step=20)
        written(recorder)
        with pytest.raises(
            RecorderError, match=r"20.safetensors could not be written \(.*too large"
        ):
            recorder(model, step=21)  # a call that takes nothing tells it as well
        assert not recorder(model, step=22)
        recorder(put(model, 30), step=30)
        with pytest.raises(RecorderError, match=r"30.safetensors could not be written"):
            recorder.close()
        recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert steps(tmp_path) == [0, 10]
    with recorder:
        recorder(put(model, 40), step=40)
    assert [value(tmp_path, s) for s in steps(tmp_path)] == [0, 10, 40]
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".0")] == []


def test_thinning_takes_nothing_away_for_a_checkpoint_that_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    recorder = Recorder(tmp_path, every=1, keep=4)
    record(recorder, range(4))
    recorder.close()
    recorder = Recorder(tmp_path, every=1, keep=4)
    broken = monkeypatch.context()
    with broken as patch:
        patch.setattr(os, "fsync", lambda handle: 1 / 0)
        recorder(put(model, 4), step=4)
        with pytest.raises(RecorderError, match="division by zero"):
            recorder.close()
    assert steps(tmp_path) == [0, 1, 2, 3]
    record(recorder, [5])
    recorder.close()
    assert steps(tmp_path) == [0, 2, 5]


def test_a_folder_that_is_gone_is_told_and_made_again(tmp_path: Path) -> None:
    model = network()
    recorder = Recorder(tmp_path / "run", every=1)
    recorder(model, step=0)
    recorder.close()
    recorder(model, step=1)
    written(recorder)
    shutil.rmtree(tmp_path / "run")
    recorder(model, step=2)
    with pytest.raises(RecorderError, match=r"could not be written \(.*No such file"):
        recorder.close()
    recorder(model, step=3)
    recorder.close()
    assert steps(tmp_path / "run") == [3]


def test_a_folder_that_cannot_be_made_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecorderError, match=r"folder='.*file/run' cannot be written"):
        Recorder(tmp_path / "file" / "run")(network())


def test_a_folder_into_which_another_process_records_is_refused(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path) as recorder:
        recorder(model)
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'ab'); fcntl.lockf(file, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, str(tmp_path / ".lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RecorderError, match="being recorded into by another process"):
            recorder(model)
        other.kill()
    assert recorder(put(model, 2))
    recorder.close()


def test_of_two_recorders_of_a_folder_the_later_one_has_it_and_nothing_is_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_disk(monkeypatch, 0.1)
    (tmp_path / "link").symlink_to(tmp_path / "run", target_is_directory=True)
    first, second = Recorder(tmp_path / "run", every=1), Recorder(tmp_path / "link", every=1)
    model = network()
    first(put(model, 1), step=0)
    first(put(model, 2), step=1)
    second(put(model, 3), step=0)  # it has waited for what the first was given
    assert steps(tmp_path / "run" / "abandoned-1") == [0, 1]
    with pytest.raises(RecorderError, match="recorded into by another recorder of this program"):
        first(put(model, 4), step=2)
    second(put(model, 5), step=1)
    second.close()
    first.close()
    assert first(put(model, 6), step=2)
    first.close()
    assert [value(tmp_path / "run", s) for s in steps(tmp_path / "run")] == [3, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"every": 0}, "every=0; expected 'epoch' or a number of steps"),
        ({"every": "step"}, "every='step'; expected"),
        ({"every": 1.5}, "every=1.5; expected"),
        ({"keep": 1}, "keep=1; expected 2 or more"),
        ({"keep": 10.0}, "keep=10.0; expected"),
    ],
)
def test_wrong_settings_get_a_sentence(arguments: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match=sentence):
        Recorder(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"step": -1}, "step=-1; expected a whole number"),
        ({"step": 1.0}, "step=1.0; expected"),
        ({"step": "3"}, "step='3'; expected"),
        ({"epoch": "last"}, "epoch='last'; expected a number"),
        ({"epoch": float("nan")}, "epoch=nan; expected"),
        ({"loss": "low"}, "loss='low' in a call of the recorder; expected a number"),
        ({"loss": torch.ones(3)}, r"loss=\[3\] in a call"),
        ({"loss": 10**400}, "loss=1000.* in a call"),
        ({"learning_rate": "high"}, "learning_rate='high' in a call"),
        ({"optimizer": "SGD"}, r"optimizer=str has no param_groups\[0\]\['lr'\]"),
    ],
)
def test_wrong_calls_get_a_sentence(arguments: Any, sentence: str, tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        with pytest.raises(RecorderError, match=sentence):
            recorder(network(), **arguments)
        assert recorder(network(), step=0)
        with pytest.raises(RecorderError, match=sentence):
            recorder(network(), **{"step": 1, "epoch": 1, **arguments})
    assert steps(tmp_path) == [0]


def test_models_without_numbers_or_with_odd_ones_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match="ReLU has no floating-point parameters"):
        Recorder(tmp_path)(nn.ReLU())
    with pytest.raises(RecorderError, match="'weight' lies on the meta device"):
        Recorder(tmp_path)(nn.Linear(2, 2, device="meta"))
    with pytest.raises(RecorderError, match=r"'weight' has the dtype torch.float8_e4m3fn"):
        Recorder(tmp_path)(nn.Linear(2, 2).to(torch.float8_e4m3fn))
    assert steps(tmp_path) == []


def test_steps_and_epochs_that_run_backwards_get_a_sentence(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path, every=10) as recorder:
        record(recorder, range(25))
        with pytest.raises(RecorderError, match="step=0 after step=24: steps count through"):
            recorder(model, step=0)
    with Recorder(tmp_path / "epochs") as recorder:
        recorder(model, epoch=4)
        with pytest.raises(RecorderError, match="epoch=3 after epoch=4"):
            recorder(model, epoch=3)


# what it leaves alone


def test_model_gradients_flags_and_random_states_are_as_before(tmp_path: Path) -> None:
    model = network()
    model(torch.randn(6, 3)).sum().backward()
    model[0].weight.requires_grad_(False)
    model[1].eval()

    def all_of_it() -> list[Any]:
        tensors = [*model.parameters(), *model.buffers()]
        gradients = [p.grad for p in model.parameters()]
        return [
            [t.clone() for t in tensors], [t.data_ptr() for t in tensors],
            [t._version for t in tensors], [t.requires_grad for t in tensors],
            [None if g is None else g.clone() for g in gradients],
            [m.training for m in model.modules()],
            torch.get_rng_state(), torch.tensor(random.getstate()[1]),
            torch.from_numpy(np.random.get_state()[1]),  # type: ignore[index]  # noqa: NPY002
            torch.get_num_threads(),
        ]  # fmt: skip

    before = all_of_it()
    with Recorder(tmp_path, every=1) as recorder:
        record_one = [recorder(model, step=step) for step in range(3)]
    torch.testing.assert_close(all_of_it(), before, rtol=0, atol=0)
    assert record_one == [True] * 3


def test_calls_in_inference_mode_and_outside_of_it_can_be_mixed(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path) as recorder:
        with torch.inference_mode():
            recorder(model)
        recorder(model)
        with torch.no_grad():
            recorder(model)
    assert steps(tmp_path) == [0, 1, 2]


def test_wrappers_of_torch_do_not_change_the_names(tmp_path: Path) -> None:
    model = network()
    with Recorder(tmp_path) as recorder:
        recorder(model)
        assert recorder(nn.DataParallel(model))
        with warnings.catch_warnings(action="ignore"):  # torch's own, while it loads its compiler
            compiled: Any = torch.compile(model)
        assert recorder(compiled)
    assert steps(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))]
)
def test_a_copy_continues_what_is_in_the_folder(again: Any, tmp_path: Path) -> None:
    first = Recorder(tmp_path, every=10, keep=50, buffers=False)
    record(first, range(15))
    first.close()
    other = again(first)
    assert (other.folder, other.every, other.keep, other.buffers) == (tmp_path, 10, 50, False)
    assert record(other, range(15, 31)) == [20, 30]
    other.close()
    assert steps(tmp_path) == [0, 10, 20, 30]


def test_a_recorder_that_nobody_holds_writes_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_disk(monkeypatch, 0.1)
    recorder = Recorder(tmp_path)
    recorder(network())
    recorder(network())
    del recorder
    assert steps(tmp_path) == [0, 1]


def test_what_is_left_is_written_though_closing_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_disk(monkeypatch, 0.2)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C does
    try:
        recorder = Recorder(tmp_path)
        recorder(network())
        recorder(network())
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            recorder.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    del recorder  # as at the end of the program
    assert steps(tmp_path) == [0, 1]


# other processes

NURSERY = """
import json, os, sys
import torch
import landscope.training.recorder

torch.set_num_threads(1)
for line in sys.stdin:
    program, words = json.loads(line)
    child = os.fork()
    if not child:
        exec(program, {"words": words})
        sys.exit()
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Nursery:
    """Programs in processes of their own, forked off one that has imported torch already."""

    def __init__(self) -> None:
        words = [sys.executable, "-c", NURSERY]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, program: str, *words: object) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([program, [str(word) for word in words]]) + "\n")
        return self._told()

    def ended(self) -> int:
        """Wait for the end of what was started last, and return its status."""
        return self._told()

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _told(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


TRAINING = """
import torch
from torch import nn
from landscope.training.recorder import Recorder

folder, step, keep = words[0], int(words[1]), int(words[2])
model = nn.Sequential(nn.Linear(100, 300), nn.BatchNorm1d(300), nn.Linear(300, 9))
recorder = Recorder(folder, every=1, keep=keep or None)
while True:
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(step)
    recorder(model, step=step, epoch=step / 10, loss=step)
    step += 1
"""


# In a process of its own: here, memory that earlier tests gave back would be used again.
RECORDING = """
import os, pathlib, resource, time
import torch
from torch import nn
from landscope.training.recorder import Recorder

def resident():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()

def slowly(handle):
    time.sleep(0.03)

os.fsync = slowly
model = nn.Linear(4096, 2048, bias=False)  # 32 MiB
size = model.weight.numel() * 4
recorder = Recorder(words[0], every=1, keep=2)
recorder(nn.Linear(4096, 2048, bias=False).requires_grad_(False), step=0)  # code is loaded
recorder.close()
before, most = resident(), 0
for step in range(1, 9):
    recorder(model, step=step)
    most = max(most, resident() - before)
recorder.close()
left = resident() - before
pathlib.Path(words[1]).write_text(f"{most / size} {left / size}")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_two_checkpoints_however_slow_the_disk(nursery: Nursery, tmp_path: Path) -> None:
    nursery.start(RECORDING, tmp_path / "run", tmp_path / "memory")
    assert nursery.ended() == 0
    most, left = map(float, (tmp_path / "memory").read_text().split())
    assert 0.9 < most < 2.3  # checkpoints
    assert left < 0.3


def assert_whole(folder: Path, step: int) -> None:
    about, tensors = read(folder / f"{step:09d}.safetensors")
    assert about["step"] == step
    assert about["values"] == {"loss": step}
    assert len(tensors) == 4 + 4  # of two linear layers, and of batch norm
    for tensor in tensors.values():
        assert float(tensor.min()) == float(tensor.max()) == step


def wait_for_more(folder: Path, before: set[int]) -> None:
    give_up = time.monotonic() + 30
    while set(steps(folder)) <= before:
        assert time.monotonic() < give_up, "nothing was recorded for 30 seconds"
        time.sleep(0.001)


@pytest.mark.parametrize("keep", [0, 12])
def test_trainings_killed_at_ten_moments_leave_whole_checkpoints(
    keep: int, nursery: Nursery, tmp_path: Path
) -> None:
    folder, draw = tmp_path / "run", random.Random(keep)
    start, in_the_middle = 0, 0
    for kill in range(KILLS):
        before = set(steps(folder))
        training = nursery.start(TRAINING, folder, start, keep)
        try:
            wait_for_more(folder, before)
            time.sleep(draw.uniform(0, 0.06))
        finally:
            os.kill(training, signal.SIGKILL)
            status = nursery.ended()
        assert status == signal.SIGKILL
        found = steps(folder)
        in_the_middle += len(list(folder.glob(".0*.safetensors")))
        for place in (folder, *folder.glob("abandoned-*")):
            for step in steps(place):
                assert_whole(place, step)
        assert [checkpoint.step for checkpoint in Trajectory.open(folder)] == found
        assert found[0] == 0
        if keep:  # what a kill left to be removed goes when training goes on
            assert len(found) <= keep + 1 + keep / 2
        else:
            assert found == list(range(len(found)))
        # Every other time training goes on from an earlier checkpoint of its own.
        start = found[-1] + 1 if kill % 2 else max(1, found[-1] - 3)
    assert list(folder.glob("abandoned-*"))
    assert len(list(folder.glob(".0*.safetensors"))) <= 1  # earlier ones were swept away
    print(f"\n{in_the_middle} of {KILLS} kills fell into the writing of a file")  # noqa: T201


UNCLOSED = """
import os, sys, time
from torch import nn
from landscope.training.recorder import Recorder

real = os.fsync

def slowly(handle):
    time.sleep(0.1)
    real(handle)

os.fsync = slowly
recorder = Recorder(words[0])
model = nn.Linear(2, 2)
recorder(model)
recorder(model)
if not os.fork():
    try:
        recorder(model)
    except Exception as error:
        open(words[1], "w").write(str(error))
    sys.exit()  # must neither hang nor write
os.wait()
recorder(model)
"""


def test_a_program_that_ends_without_closing_loses_nothing_and_its_forks_do_no_harm(
    nursery: Nursery, tmp_path: Path
) -> None:
    nursery.start(UNCLOSED, tmp_path, tmp_path / "told")
    assert nursery.ended() == 0
    assert "is being recorded into by another process" in (tmp_path / "told").read_text()
    assert steps(tmp_path) == [0, 1, 2]


RANKS = """
import os
import torch
from torch import nn
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from landscope.training.recorder import Recorder

folder, meeting, told = words
rank = 1 if os.fork() else 0
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
model[0].weight = nn.Parameter(distribute_tensor(model[0].weight.detach(), mesh, [Shard(0)]))
with Recorder(folder, every=2) as recorder:
    taken = [recorder(model, step=step) for step in range(4)]
dist.destroy_process_group()
open(f"{told}{rank}", "w").write(str(taken))
if rank:
    os.wait()
"""


def test_of_several_ranks_the_first_writes_sharded_tensors_whole(
    nursery: Nursery, tmp_path: Path
) -> None:
    nursery.start(RANKS, tmp_path / "run", tmp_path / "meeting", tmp_path / "rank")
    assert nursery.ended() == 0
    assert (tmp_path / "rank0").read_text() == "[True, False, True, False]"
    assert (tmp_path / "rank1").read_text() == "[False, False, False, False]"
    torch.manual_seed(0)
    same = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).state_dict()
    for step in (0, 2):
        tensors = read(tmp_path / "run" / f"{step:09d}.safetensors")[1]
        assert set(tensors) == set(same)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in same.items())


def test_what_is_no_model_is_a_sentence(tmp_path: Path) -> None:
    odd: Any = torch.zeros(3)
    with pytest.raises(RecorderError, match=r"called with a Tensor; expected the model"):
        Recorder(tmp_path)(odd)


def test_complex_parameters_are_refused_and_not_left_out(tmp_path: Path) -> None:
    model = network()
    model.register_parameter("phase", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    with pytest.raises(ParamsError, match=r"'phase' holds complex numbers"):
        Recorder(tmp_path)(model)
    assert not steps(tmp_path)


@pytest.mark.parametrize("kind", ["transformers", "lightning"])
def test_a_callback_wants_a_recorder(kind: str) -> None:
    pytest.importorskip(kind)
    integration: Any = importlib.import_module(f"landscope.integrations.{kind}")
    with pytest.raises(RecorderError, match=r"recorder='run' is a str; expected ls\.Recorder"):
        integration.callback("run")
