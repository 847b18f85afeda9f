"""A Trainer that is recorded: what the Trainer itself logs and holds is the witness."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from landscope.integrations.transformers import callback
from landscope.training.recorder import Recorder
from landscope.training.trajectory import Trajectory
from tests.integrations import cases
from tests.integrations.cases import TEXT, Model


def _trainer(model: Model, folder: Path, recorder: Any, **given: Any) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=4,
        num_train_epochs=2,
        learning_rate=0.01,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        dataloader_pin_memory=False,
        **given,
    )
    rows = [{**row, "labels": row["input_ids"]} for row in TEXT[:1] * 11]
    return Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[callback(recorder)])


@pytest.fixture
def quiet(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The Trainer prints what it logs."""
    yield
    capsys.readouterr()


@pytest.mark.usefixtures("quiet")
def test_a_trainer_is_recorded_step_by_step(tmp_path: Path) -> None:
    model = cases.gpt2()
    first = model.transformer.wte.weight.detach().clone()
    trainer = _trainer(model, tmp_path, Recorder(tmp_path / "run", every=2), logging_steps=1)
    trainer.train()
    path = Trajectory.open(tmp_path / "run")
    assert [c.step for c in path] == [0, 2, 4, 6]
    assert [c.epoch for c in path] == pytest.approx([0, 2 / 3, 4 / 3, 2])
    logged = {entry["step"]: entry for entry in trainer.state.log_history if "loss" in entry}
    for c in list(path)[1:]:
        assert c.values["loss"] == logged[c.step]["loss"]
        assert c.learning_rate == pytest.approx(logged[c.step]["learning_rate"])
    assert path[0].values == {}
    assert path[0].learning_rate == pytest.approx(0.01)
    assert torch.equal(path[0].params()["transformer.wte.weight"], first)
    last = path[-1].params()
    assert all(torch.equal(last[n], p) for n, p in model.named_parameters())


@pytest.mark.usefixtures("quiet")
def test_a_trainer_is_recorded_epoch_by_epoch_with_the_loss_of_each(tmp_path: Path) -> None:
    trainer = _trainer(cases.gpt2(), tmp_path, Recorder(tmp_path / "run"), logging_strategy="epoch")
    trainer.train()
    path = Trajectory.open(tmp_path / "run")
    assert [c.epoch for c in path] == [0, 1, 2]
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [c.values.get("loss") for c in path] == [None, *logged]


@pytest.mark.usefixtures("quiet")
def test_steps_that_a_trainer_does_not_log_are_recorded_without_a_loss(tmp_path: Path) -> None:
    model = cases.gpt2()
    _trainer(model, tmp_path, Recorder(tmp_path / "run", every=3), logging_strategy="no").train()
    path = Trajectory.open(tmp_path / "run")
    assert [c.step for c in path] == [0, 3, 6]
    assert [c.values for c in path] == [{}, {}, {}]
    last = path[-1].params()
    assert all(torch.equal(last[n], p) for n, p in model.named_parameters())


class Interruption(TrainerCallback):
    """The user's, once."""

    def __init__(self) -> None:
        self.step: int | None = 4

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.step:
            self.step = None
            raise KeyboardInterrupt


@pytest.mark.usefixtures("quiet")
def test_a_training_that_was_interrupted_may_begin_again(tmp_path: Path) -> None:
    model, folder = cases.gpt2(), tmp_path / "run"
    trainer = _trainer(model, tmp_path, Recorder(folder, every=1), logging_steps=1)
    trainer.add_callback(Interruption())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    second = model.transformer.wte.weight.detach().clone()
    trainer.train()
    path = Trajectory.open(folder)
    assert [c.step for c in path] == [0, 1, 2, 3, 4, 5, 6]
    assert torch.equal(path[0].params()["transformer.wte.weight"], second)
    assert [set(c.values) for c in path] == [set(), *[{"loss"}] * 6]
    assert [c.step for c in Trajectory.open(folder / "abandoned-1")] == [0, 1, 2, 3, 4]


def test_a_callback_can_be_sent_to_another_process(tmp_path: Path) -> None:
    copied = pickle.loads(pickle.dumps(callback(Recorder(tmp_path / "run", every=3))))
    assert isinstance(copied, TrainerCallback)
    recorder: Recorder = vars(copied)["recorder"]
    assert (recorder.folder, recorder.every) == (tmp_path / "run", 3)
