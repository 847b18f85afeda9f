"""The Lightning callback in a real Trainer; callbacks of Lightning itself are the witness.

A second callback, written here against Lightning alone, copies the weights with ``state_dict`` at
the same hooks; metrics and learning rates are computed by hand.
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from landscope.errors import MissingExtraError
from landscope.integrations.lightning import callback
from landscope.training.recorder import Recorder

with warnings.catch_warnings(action="ignore"):  # of its dependencies, while they are imported
    import lightning.pytorch as lightning

pytestmark = [  # both come from within Lightning, and no setting turns them off
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]
ROWS, BATCH, EPOCHS = 24, 6, 3


class Net(lightning.LightningModule):
    """Linear regression that logs its loss; the rate falls tenfold after the second epoch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.mse_loss(self.body(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("epoch", 7.0)  # a name that calls of the recorder have for themselves
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class Witness(lightning.Callback):
    """Copies of the weights, by step."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.losses: list[float] = []

    def keep(self, trainer: Any, module: nn.Module) -> None:
        state = module.state_dict().items()
        self.weights[trainer.global_step] = {n: t.clone() for n, t in state}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.keep(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))
        self.keep(trainer, pl_module)


def data() -> DataLoader[Any]:
    draws = torch.Generator().manual_seed(1)
    rows = TensorDataset(*(torch.randn(ROWS, n, generator=draws) for n in (3, 1)))
    return DataLoader(rows, batch_size=BATCH)


def trainer(*callbacks: Any, library: Any = lightning, **settings: Any) -> Any:
    return library.Trainer(
        callbacks=list(callbacks), max_epochs=EPOCHS, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        log_every_n_steps=1,
        **settings,
    )  # fmt: skip


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["landscope"])
        return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def steps(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.safetensors"))


def assert_same_weights(folder: Path, witness: Witness) -> None:
    for step in steps(folder):
        _, tensors = read(folder / f"{step:09d}.safetensors")
        for name, tensor in tensors.items():
            assert torch.equal(tensor, witness.weights[step][name]), (step, name)


def test_each_epoch_is_recorded_with_its_metrics_and_rate(tmp_path: Path) -> None:
    witness = Witness()
    trainer(callback(Recorder(tmp_path)), witness).fit(Net(), data())
    batches = ROWS // BATCH
    assert steps(tmp_path) == [0, 4, 8, 12]
    assert_same_weights(tmp_path, witness)
    headers = [read(tmp_path / f"{step:09d}.safetensors")[0] for step in steps(tmp_path)]
    assert [notes["epoch"] for notes in headers] == [0, 1, 2, 3]
    # The schedule has been moved on already: the rate of the epoch that comes.
    assert [notes["learning_rate"] for notes in headers] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    means = [sum(witness.losses[k : k + batches]) / batches for k in (0, 4, 8)]
    assert [notes["values"]["loss_epoch"] for notes in headers[1:]] == pytest.approx(means)
    assert headers[0]["values"] == {}
    assert {"0.weight", "0.bias"} <= {
        name.removeprefix("body.") for name in headers[0]["parameters"]
    }


def test_every_few_steps_are_recorded_once_though_gradients_are_accumulated(tmp_path: Path) -> None:
    witness = Witness()
    recorder = Recorder(tmp_path, every=2)
    trainer(callback(recorder), witness, accumulate_grad_batches=2).fit(Net(), data())
    assert steps(tmp_path) == [0, 2, 4, 6]  # two optimizer steps an epoch
    assert not list(tmp_path.glob("abandoned-*"))
    headers = [read(tmp_path / f"{step:09d}.safetensors")[0] for step in steps(tmp_path)]
    assert [notes["epoch"] for notes in headers] == [0, 1, 2, 3]


def test_metrics_are_gathered_only_for_steps_that_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, call = [], Recorder.__call__

    def counted(*words: Any, **names: Any) -> bool:
        calls.append(names["step"])
        return call(*words, **names)

    monkeypatch.setattr(Recorder, "__call__", counted)
    trainer(callback(Recorder(tmp_path, every=3))).fit(Net(), data())
    assert calls == steps(tmp_path) == [0, 3, 6, 9, 12]


def test_steps_within_an_epoch_have_a_fraction_of_it(tmp_path: Path) -> None:
    trainer(callback(Recorder(tmp_path, every=3))).fit(Net(), data())
    headers = [read(tmp_path / f"{step:09d}.safetensors")[0] for step in (0, 3, 6, 9, 12)]
    assert [notes["epoch"] for notes in headers] == [0, 0.75, 1.5, 2.25, 3]


def test_a_resumed_fit_continues_the_path(tmp_path: Path) -> None:
    recording = callback(Recorder(tmp_path / "run"))
    first = trainer(recording)
    first.fit_loop.max_epochs = 2
    first.fit(Net(), data())
    first.save_checkpoint(tmp_path / "two.ckpt")
    trainer(recording).fit(Net(), data(), ckpt_path=tmp_path / "two.ckpt", weights_only=False)
    assert steps(tmp_path / "run") == [0, 4, 8, 12]
    assert not list((tmp_path / "run").glob("abandoned-*"))  # step 8 was there, bit for bit


class Interruption(lightning.Callback):
    """An exception in the first fit."""

    step: int | None = 5

    def on_train_batch_start(self, trainer: Any, *about: Any) -> None:
        if trainer.global_step == self.step:
            self.step = None
            raise RuntimeError("interrupted")


def test_a_fit_that_was_interrupted_may_begin_again(tmp_path: Path) -> None:
    callbacks, net = (callback(Recorder(tmp_path, every=2)), Interruption()), Net()
    with pytest.raises(RuntimeError, match="interrupted"):
        trainer(*callbacks).fit(net, data())
    witness = Witness()
    trainer(*callbacks, witness).fit(net, data())
    assert steps(tmp_path) == [0, 2, 4, 6, 8, 10, 12]
    assert_same_weights(tmp_path, witness)
    assert steps(tmp_path / "abandoned-1") == [0, 2, 4]


def test_the_training_is_the_same_with_the_callback_and_without(tmp_path: Path) -> None:
    states = []
    for callbacks in ([], [callback(Recorder(tmp_path, every=1))]):
        net = Net()
        trainer(*callbacks).fit(net, data())
        states.append((net.state_dict(), torch.get_rng_state()))
    for name, tensor in states[0][0].items():
        assert torch.equal(tensor, states[1][0][name])
    assert torch.equal(states[0][1], states[1][1])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_of_the_callback_records_into_the_same_folder(copied: Any, tmp_path: Path) -> None:
    trainer(copied(callback(Recorder(tmp_path, every=4, keep=3)))).fit(Net(), data())
    assert steps(tmp_path) == [0, 8, 12]  # thinned: 0, 8 and the last


def test_pytorch_lightning_takes_it_too(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        other = pytest.importorskip("pytorch_lightning")
    recording = callback(Recorder(tmp_path))
    assert isinstance(recording, lightning.Callback)
    assert isinstance(recording, other.Callback)

    class Plain(other.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 1)

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return nn.functional.mse_loss(self.body(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    trainer(recording, library=other).fit(Plain(), data())
    assert steps(tmp_path) == [0, 4, 8, 12]


def test_without_lightning_the_error_has_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(MissingExtraError, match=r"landscope\[lightning\]"):
        callback(Recorder(tmp_path))
