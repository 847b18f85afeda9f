"""Training: what is recorded, what is resumed, what is refused.

Witnesses: plain torch loops and losses over the same rows; training that was stopped, also by a
signal that no process survives, is compared bit for bit with training that was not.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import landscope as ls
from landscope.errors import FormatError, NumericsError, RecorderError, TrainingError
from landscope.progress import Progress
from landscope.training.checkpoint_buffer import CheckpointBuffer
from landscope.training.loop import Trained, train
from landscope.training.optimizers import Course
from landscope.training.trajectory import Trajectory

ROWS, SIZE = 50, 16  # 4 steps an epoch, the last of 2 rows
SHORT = Course(batch_size=SIZE, epochs=4, drops=(2,))


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
        ).eval()


def data(seed: int = 0, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 4, generator=draws)
    return inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 1).long()


def problem(model: nn.Module | None = None, **more: Any) -> ls.Objective:
    return ls.Objective(
        net() if model is None else model, nn.CrossEntropyLoss(), data(),
        metrics={"accuracy": ls.losses.accuracy}, test_data=data(1), **more,
    )  # fmt: skip


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(m == n and torch.equal(s, t) for (m, s), (n, t) in pairs)


def test_the_network_learns_and_nothing_of_the_users_is_changed() -> None:
    objective = problem()
    before = {n: t.clone() for n, t in objective.model.state_dict().items()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    trained = train(objective, Course(batch_size=SIZE, epochs=20))
    assert trained.history[-1]["loss"] < 0.5 * trained.history[0]["loss"]
    assert trained.history[-1]["accuracy"] > 80
    assert not trained.model.training
    assert not objective.model.training
    assert all(torch.equal(objective.model.state_dict()[n], t) for n, t in before.items())
    assert all(p.grad is None for p in objective.model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), trained.folder) == (threads, None)


def test_history_is_the_loss_of_the_weights_in_evaluation_mode(tmp_path: Path) -> None:
    trained = train(problem(), SHORT, record=tmp_path)
    assert [entry["epoch"] for entry in trained.history] == [0, 1, 2, 3, 4]
    assert [entry["step"] for entry in trained.history] == [0, 4, 8, 12, 16]
    rates = [entry["learning_rate"] for entry in trained.history]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01])
    for entry in trained.history:
        model = net(seed=9)
        kept = load_file(tmp_path / f"{int(entry['step']):09d}.safetensors")
        model.load_state_dict(kept, strict=False)
        with torch.no_grad():
            for prefix, (inputs, targets) in (("", data()), ("test_", data(1))):
                outputs = model(inputs)
                loss = float(F.cross_entropy(outputs, targets))
                right = 100 * float((outputs.argmax(1) == targets).float().mean())
                assert entry[f"{prefix}loss"] == pytest.approx(loss, rel=1e-5)
                assert entry[f"{prefix}accuracy"] == pytest.approx(right, rel=1e-5)
    last = load_file(tmp_path / "000000016.safetensors")
    assert all(torch.equal(trained.model.state_dict()[n], t) for n, t in last.items())


def test_the_folder_is_a_trajectory_that_begins_with_the_initial_weights(tmp_path: Path) -> None:
    trained = train(problem(), SHORT, record=tmp_path, asked={"target": "zoo:x", "set": {}})
    path = Trajectory.open(tmp_path)
    assert [c.step for c in path] == [0, 4, 8, 12, 16]
    assert [c.epoch for c in path] == [0, 1, 2, 3, 4]
    assert path.drops == [2]  # where the path turns
    states, initial = path[0].states(), net().state_dict()
    assert all(torch.equal(initial[n], t) for n, t in states.items())
    assert list(path[0].params()) == [n for n, _ in net().named_parameters()]
    values = {n: trained.history[3][n] for n in ("loss", "accuracy", "test_loss", "test_accuracy")}
    assert path[3].values == values
    told = json.loads((tmp_path / "training.json").read_text())
    assert {**told, "target": "zoo:x", "set": {}, "optimizer": "sgd", "drops": [2]} == told
    assert (told["batch_size"], told["epochs"], told["every"]) == (SIZE, 4, "epoch")


def test_checkpoints_may_be_taken_in_steps_and_thinned(tmp_path: Path) -> None:
    train(problem(), SHORT, record=tmp_path / "a", every=3)
    path = Trajectory.open(tmp_path / "a")
    assert [c.step for c in path] == [0, 3, 6, 9, 12, 15]
    assert [c.epoch for c in path] == [0, 0.75, 1.5, 2.25, 3, 3.75]
    assert set(path[1].values) == {"batch_loss"}
    assert "test_loss" in path[4].values  # an epoch ends there
    train(problem(), SHORT, record=tmp_path / "b", every=1, keep=6)
    kept = [c.step for c in Trajectory.open(tmp_path / "b")]
    assert (len(kept) <= 6, kept[0], kept[-1]) == (True, 0, 16)


def test_each_epoch_shows_every_row_once_in_an_order_of_its_own() -> None:
    seen: list[Tensor] = []

    def look(inputs: Tensor) -> Tensor:
        seen.append(inputs)
        return inputs

    train(problem(), SHORT, augment=look)
    assert [len(part) for part in seen] == [16, 16, 16, 2] * 4
    orders = [torch.cat(seen[4 * epoch : 4 * epoch + 4]) for epoch in range(4)]
    for shown in orders:
        assert torch.equal(shown[:, 0].sort().values, data()[0][:, 0].sort().values)
    assert not torch.equal(orders[0], orders[1])


def test_what_the_network_is_shown_is_augmented_and_what_is_evaluated_is_not() -> None:
    course = Course(batch_size=ROWS, epochs=1, learning_rate=0.5, weight_decay=0.0, momentum=0.0)
    model = nn.Linear(4, 3)
    trained = train(problem(model), course, augment=lambda inputs: -inputs)
    inputs, targets = data()
    loss = F.cross_entropy(model(-inputs), targets)
    gradient = torch.autograd.grad(loss, model.weight)[0]
    expected = model.weight.detach() - 0.5 * gradient
    torch.testing.assert_close(next(trained.model.parameters()).detach(), expected)
    with torch.no_grad():
        after = F.cross_entropy(trained.model(inputs), targets)
    assert trained.history[1]["loss"] == pytest.approx(float(after), rel=1e-5)


def test_the_same_course_gives_the_same_weights_and_another_seed_others() -> None:
    a = train(problem(), SHORT).model
    with torch.no_grad():  # of the caller's, which is no concern of training
        b = train(problem(), SHORT).model
    assert same(a, b)
    assert not same(
        a, train(problem(), Course(batch_size=SIZE, epochs=4, drops=(2,), seed=1)).model
    )


def test_it_is_trained_in_training_mode() -> None:
    model, (inputs, _) = net(), data()
    trained = train(problem(model), Course(batch_size=ROWS, epochs=1)).model
    with torch.no_grad():
        mean = model.get_submodule("0")(inputs).mean(dim=0)
    torch.testing.assert_close(trained.get_buffer("1.running_mean"), 0.1 * mean)
    assert int(trained.get_buffer("1.num_batches_tracked")) == 1


def test_a_penalty_counts_as_the_weight_decay_that_it_is() -> None:
    model, course = nn.Linear(4, 3), Course(batch_size=SIZE, epochs=2, weight_decay=0.1)
    one = train(problem(model), course)
    penalized = problem(model, penalty=ls.losses.weight_decay(0.1))
    other = train(penalized, dataclasses.replace(course, weight_decay=0.0))
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_tokens_count_and_padding_does_not() -> None:
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 7))
    tokens = torch.randint(1, 7, (10, 6))
    targets = tokens.roll(-1, dims=1)
    for row in range(10):
        targets[row, 1 + row % 5 :] = 0
    course = Course(learning_rate=0.5, momentum=0.0, weight_decay=0.0, epochs=1, batch_size=10)
    for given in ((tokens, targets), [{"input_ids": tokens, "labels": targets}]):
        objective = ls.Objective(model, ls.losses.tokens(padding=0), given)
        trained = train(objective, course).model
        loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=0)
        slopes = torch.autograd.grad(loss, list(model.parameters()))
        for after, before, slope in zip(
            trained.parameters(), model.parameters(), slopes, strict=True
        ):
            torch.testing.assert_close(after.detach(), before.detach() - 0.5 * slope)


def test_terms_of_ones_own_and_loaders_train_as_tensors_do() -> None:
    inputs, targets = data()

    def terms(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(inputs, targets), batch_size=7, shuffle=True
    )
    model, course = nn.Linear(4, 3), Course(batch_size=SIZE, epochs=2)
    expected = train(ls.Objective(model, nn.CrossEntropyLoss(), data()), course).model
    custom = ls.Objective(model, ls.losses.custom(terms), data())
    loaded = ls.Objective(model, nn.CrossEntropyLoss(), loader)
    for objective in (custom, loaded):
        found = train(objective, course).model
        for a, b in zip(found.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_tied_weights_stay_tied_and_are_recorded_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Any:
            return self.head(self.embedding(tokens))

    tokens = torch.randint(6, (20, 5))
    objective = ls.Objective(Tied(), ls.losses.tokens(shift=True), (tokens, tokens))
    course = Course("adam", batch_size=5, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train(objective, course, record=tmp_path, progress=stopping(6))
    resumed = train(objective, course, record=tmp_path).model
    assert resumed.get_parameter("head.weight") is resumed.get_parameter("embedding.weight")
    assert same(resumed, train(objective, course).model)


def test_one_row_that_is_left_over_joins_the_batch_before() -> None:
    sizes: list[int] = []

    def look(inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        return inputs

    objective = ls.Objective(net(), nn.CrossEntropyLoss(), data(rows=33))
    trained = train(objective, Course(batch_size=SIZE, epochs=1), augment=look)
    assert sizes == [16, 17]
    assert trained.history[-1]["step"] == 2
    sizes.clear()
    line = ls.Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), data(rows=33))
    train(line, Course(batch_size=1, epochs=1), augment=look)
    assert sizes == [1] * 33  # where one at a time is what was asked for


def stopping(step: int) -> Callable[[Progress], None]:
    """A progress in which someone presses Ctrl-C."""

    def tell(now: Progress) -> None:
        if now.done == step:
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "sam"])
@pytest.mark.parametrize("step", [0, 3, 4, 9, 16])
def test_training_that_was_stopped_goes_on_bit_for_bit(
    tmp_path: Path, optimizer: str, step: int
) -> None:
    course = Course(optimizer, batch_size=SIZE, epochs=4, drops=(2,))
    expected = train(problem(), course, record=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(problem(), course, record=tmp_path / "run", progress=stopping(step))
    resumed = train(problem(), course, record=tmp_path / "run")
    assert same(resumed.model, expected.model)
    assert resumed.history == expected.history
    for file in (tmp_path / "whole").glob("0*.safetensors"):
        assert file.read_bytes() == (tmp_path / "run" / file.name).read_bytes()


def test_it_can_be_stopped_again_and_again(tmp_path: Path) -> None:
    expected = train(problem(), SHORT)
    for step in (3, 6, 9, 11):
        with pytest.raises(KeyboardInterrupt):
            train(problem(), SHORT, record=tmp_path, every=2, progress=stopping(step))
    resumed = train(problem(), SHORT, record=tmp_path, every=2)
    assert same(resumed.model, expected.model)
    assert [c.step for c in Trajectory.open(tmp_path)] == [0, 2, 4, 6, 8, 10, 12, 14, 16]


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.training.test_loop import SHORT, problem
from landscope.training import train

def tell(now):
    if now.done == 10:
        os.kill(os.getpid(), signal.SIGKILL)

train(problem(), SHORT, record={folder!r}, progress=tell)
"""


def test_a_process_that_is_killed_leaves_what_is_needed_to_go_on(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    program = KILLED.format(root=root, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    steps = [c.step for c in Trajectory.open(tmp_path)]
    assert steps == [0, 4, 8]
    (tmp_path / ".training-state-x1.safetensors").touch()  # as a kill in the middle of writing does
    resumed = train(problem(), SHORT, record=tmp_path)
    assert same(resumed.model, train(problem(), SHORT).model)
    assert [c.step for c in Trajectory.open(tmp_path)] == [0, 4, 8, 12, 16]
    assert not list(tmp_path.glob(".training-state*"))


def test_what_is_needed_to_go_on_is_kept_after_the_checkpoints_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = CheckpointBuffer.write

    def slowly(self: CheckpointBuffer, *rest: Any) -> None:
        time.sleep(0.1)
        write(self, *rest)

    def look(now: Progress) -> None:
        if now.done in (5, 9, 13):
            assert (tmp_path / "training-state.safetensors").is_file()
            assert (tmp_path / f"{now.done - 1:09d}.safetensors").is_file()

    monkeypatch.setattr(CheckpointBuffer, "write", slowly)
    train(problem(), SHORT, record=tmp_path, progress=look)


def test_training_that_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(problem(), SHORT, record=tmp_path)
    kept = load_file(tmp_path / "training-state.safetensors")
    assert {name.partition("/")[0] for name in kept} == {"model"}  # no momenta any more
    monkeypatch.setattr(torch.optim.SGD, "step", None)
    again = train(problem(), SHORT, record=tmp_path)
    assert same(again.model, first.model)
    assert (again.history, again.seconds) == (first.history, first.seconds)


def differing(**more: Any) -> dict[str, Any]:
    return {"objective": problem(), "course": SHORT, **more}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"course": Course(learning_rate=0.2, batch_size=SIZE, epochs=4, drops=(3,))},
            r"learning_rate was 0\.1, now 0\.2; drops was \[2\], now \[3\]\. Nothing was mixed in",
        ),
        ({"objective": problem(net(seed=5))}, "weights was [0-9a-f]+, now [0-9a-f]+"),
        ({"every": 3}, "every was epoch, now 3"),
        ({"augment": torch.neg}, r"augment was None, now \w+\.neg"),
    ],
)
def test_another_training_is_not_mixed_in(
    tmp_path: Path, asked: dict[str, Any], sentence: str
) -> None:
    train(problem(), SHORT, record=tmp_path)
    with pytest.raises(RecorderError, match=sentence):
        train(record=tmp_path, **differing(**asked))


def test_a_folder_of_other_checkpoints_or_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_3.t7").touch()
    with pytest.raises(RecorderError, match="holds checkpoints of something else"):
        train(problem(), SHORT, record=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RecorderError, match="file cannot be written to"):
        train(problem(), SHORT, record=tmp_path / "file")
    with pytest.raises(RecorderError, match="every=0"):
        train(problem(), SHORT, record=tmp_path / "new", every=0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["training.json", "training-state.safetensors"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    train(problem(), SHORT, record=tmp_path)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(FormatError, match=rf"{name} is damaged"):
        train(problem(), SHORT, record=tmp_path)


def test_training_that_diverges_says_where_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    course = Course(learning_rate=1e25, momentum=0.0, batch_size=SIZE, epochs=4, drops=())
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(NumericsError, match=r"diverged: after 1 steps \(epoch 1 of 4\) the loss"):
        train(problem(model), course, record=tmp_path)
    last = dataclasses.replace(course, batch_size=ROWS, epochs=1)
    with pytest.raises(NumericsError, match=r"diverged: after 1 steps \(epoch 1 of 1\) the loss"):
        train(problem(model), last)
    states = Trajectory.open(tmp_path)[0].states()
    assert all(torch.equal(model.state_dict()[n], t) for n, t in states.items())


def test_data_whose_rows_cannot_be_drawn_are_refused() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=7)
    streamed = ls.Objective(net(), nn.CrossEntropyLoss(), loader, cache=False)
    ragged = [
        (torch.zeros(3, 4), torch.zeros(3).long()),
        (torch.zeros(3, 5), torch.zeros(3).long()),
    ]
    for objective in (streamed, ls.Objective(net(), nn.CrossEntropyLoss(), ragged)):
        with pytest.raises(TrainingError, match="rows cannot be drawn in random order"):
            train(objective, SHORT)
    with pytest.raises(TrainingError, match=r"computes in torch\.bfloat16"):
        train(problem(precision="bfloat16"), SHORT)


def test_progress_counts_steps_and_tells_the_loss() -> None:
    told: list[Progress] = []
    trained: Trained = train(problem(), SHORT, progress=told.append)
    assert [now.done for now in told] == list(range(17))
    assert {now.total for now in told} == {16}
    assert not told[0].values
    assert all(now.values["loss"] > 0 for now in told[1:])
    assert trained.seconds > 0


def test_a_bar_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    train(problem(), SHORT, progress=True)
    assert "16/16 steps" in capsys.readouterr().err
