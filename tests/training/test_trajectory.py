"""Trajectories: folders of checkpoints, opened by their heads and read when they are asked for.

The witness is what was written by safetensors, torch and json (``walks``), and for old folders the
real files of the 2018 scripts, read by torch alone.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import landscope as ls
from landscope.errors import FormatError, ParamsError
from landscope.training import trajectory as trajectories_
from landscope.training.recorder import Recorder
from landscope.training.trajectory import Trajectory, drops
from tests import cases, walks

REFERENCE = Path(__file__).parents[1] / "data" / "reference" / "tiny_a"


def _equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(expected) and all(
        found[n].dtype == t.dtype and torch.equal(found[n], t) for n, t in expected.items()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_every_checkpoint_is_read_bit_for_bit_in_the_order_of_the_model(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    rows = walks.rows(3, dtype=dtype)
    trajectory = Trajectory.open(walks.write(tmp_path / "sgd", rows))
    assert (len(trajectory), trajectory.name) == (3, "sgd")
    for checkpoint, row in zip(trajectory, rows, strict=True):
        assert _equal(checkpoint.params(), row)
    layouts = {n: trajectory[0].params().layout(n).vector for n in rows[0]}
    assert layouts == {"b.weight": False, "a.weight": False, "a.bias": True, "scale": True}


def test_what_was_noted_is_told_and_steps_are_in_order(tmp_path: Path) -> None:
    about: list[dict[str, Any]] = [
        {"step": 9, "epoch": 3, "learning_rate": 0.1, "values": {"loss": 0.5, "accuracy": 80}},
        {"step": 2, "epoch": None, "learning_rate": None, "values": {"loss": None}},
    ]
    trajectory = Trajectory.open(walks.write(tmp_path, walks.rows(2), about=about), "mine")
    assert trajectory.name == "mine"
    assert [c.step for c in trajectory] == [2, 9]
    assert [c.epoch for c in trajectory] == [None, 3.0]
    assert [c.learning_rate for c in trajectory] == [None, 0.1]
    assert trajectory[-1].values == {"loss": 0.5, "accuracy": 80.0}
    assert math.isnan(trajectory[0].values["loss"])


def test_buffers_are_states_and_no_parameters(tmp_path: Path) -> None:
    rows = walks.rows(1)
    buffers = [{"bn.running_mean": torch.ones(7), "ids": torch.arange(3)}]
    (checkpoint,) = Trajectory.open(walks.write(tmp_path, rows, buffers=buffers))
    assert set(checkpoint.params()) == set(rows[0])
    assert set(checkpoint.states()) == {*rows[0], "bn.running_mean"}  # integers count, not measure


def test_what_a_recorder_wrote_is_what_the_model_was(tmp_path: Path) -> None:
    model = cases.batch_norm_cnn().model
    expected = []
    with Recorder(tmp_path / "run", every=1) as recorder:
        for step in range(3):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.01)
            recorder(model, step=step, epoch=step / 2, learning_rate=0.1, loss=1.0 - step)
            expected.append({n: t.clone() for n, t in model.state_dict().items()})
    trajectory = Trajectory.open(tmp_path / "run")
    names = [name for name, _ in model.named_parameters()]
    for checkpoint, state in zip(trajectory, expected, strict=True):
        assert _equal(checkpoint.params(), {n: state[n] for n in names})
        floats = {n for n, t in state.items() if t.is_floating_point()}
        assert set(checkpoint.states()) == floats
        assert torch.equal(checkpoint.states()["1.running_var"], state["1.running_var"])
    assert [c.values["loss"] for c in trajectory] == [1.0, 0.0, -1.0]
    layouts = trajectory[0].params()
    assert {n for n in names if layouts.layout(n).vector} == {
        n for n in names if n.endswith("bias") or n.startswith(("1.", "6."))
    }


def test_parts_of_files_and_abandoned_paths_are_not_part_of_it(tmp_path: Path) -> None:
    walks.write(tmp_path, walks.rows(2))
    walks.write(tmp_path / "abandoned-1", walks.rows(4), first=2)
    whole = (tmp_path / "000000001.safetensors").read_bytes()
    (tmp_path / ".000000002-abc.safetensors").write_bytes(whole[:50])
    (tmp_path / "training-state.safetensors").write_bytes(whole)
    (tmp_path / "training.json").write_text("{}")
    trajectory = Trajectory.open(tmp_path)
    assert len(trajectory) == 2
    assert trajectory.notes == ()


@pytest.mark.parametrize("cut", [0, 5, 60, -1])
def test_a_damaged_checkpoint_is_passed_over_with_a_note(tmp_path: Path, cut: int) -> None:
    walks.write(tmp_path, walks.rows(3))
    file = tmp_path / "000000001.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    trajectory = Trajectory.open(tmp_path)
    assert [c.step for c in trajectory] == [0, 2]
    (note,) = trajectory.notes
    assert "000000001.safetensors is not a whole checkpoint" in note


def test_a_head_that_lies_about_shapes_is_not_believed(tmp_path: Path) -> None:
    walks.write(tmp_path, walks.rows(2))
    file = tmp_path / "000000001.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"shape":[7,5]', b'"shape":[9,9]'))
    assert "does not take" in Trajectory.open(tmp_path).notes[0]


def test_a_file_of_a_newer_landscope_is_passed_over(tmp_path: Path) -> None:
    walks.write(tmp_path, walks.rows(2), about=[{}, {"version": 2}])
    assert "a newer landscope" in Trajectory.open(tmp_path).notes[0]


def test_folders_without_checkpoints_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not exist"):
        Trajectory.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="is a file"):
        Trajectory.open(tmp_path / "file")
    with pytest.raises(FormatError, match="holds no checkpoints"):
        Trajectory.open(tmp_path)
    (tmp_path / "000000001.safetensors").write_bytes(b"")
    with pytest.raises(FormatError, match="none of 1 checkpoints is complete"):
        Trajectory.open(tmp_path)


def test_a_checkpoint_that_is_gone_or_changed_since_gets_a_sentence(tmp_path: Path) -> None:
    first, second = Trajectory.open(walks.write(tmp_path, walks.rows(2)))
    first.path.unlink()
    for ask in (first.params, first.locate_parameters, lambda: first.identity):
        with pytest.raises(FormatError, match="is gone"):
            ask()
    second.path.write_bytes(second.path.read_bytes()[:-9])
    with pytest.raises(FormatError, match="not a whole checkpoint"):
        second.params()


def test_a_parameter_that_a_checkpoint_lacks_is_named(tmp_path: Path) -> None:
    given = {**walks.rows(1)[0], "more": torch.zeros(2)}
    (checkpoint,) = Trajectory.open(walks.write(tmp_path, walks.rows(1)), like=given)
    with pytest.raises(ParamsError, match="has no 'more'"):
        checkpoint.params()


def test_like_chooses_parameters_their_order_and_their_layouts(tmp_path: Path) -> None:
    rows = walks.rows(2)
    like = ls.params.Params(
        {n: rows[0][n] for n in ("scale", "b.weight")}, {"b.weight": ls.params.Layout(axis=1)}
    )
    (found, _) = Trajectory.open(walks.write(tmp_path, rows), like=like)
    assert list(found.params()) == ["scale", "b.weight"]
    assert found.params().layout("b.weight").axis == 1
    assert set(found.states()) == set(rows[0])


# --- old folders --------------------------------------------------------------------------------


def test_a_folder_of_2018_is_a_trajectory() -> None:
    trajectory = Trajectory.open(REFERENCE)
    assert [c.step for c in trajectory] == list(range(11))  # model_10 is after model_9
    assert [c.epoch for c in trajectory] == [float(k) for k in range(11)]
    for k, checkpoint in enumerate(trajectory):
        stored = torch.load(REFERENCE / f"model_{k}.t7", weights_only=True)["state_dict"]
        floats = {n: t for n, t in stored.items() if t.is_floating_point()}
        assert _equal(checkpoint.states(), floats)
        assert _equal(checkpoint.params(), {n: t for n, t in floats.items() if "running" not in n})


def test_like_tells_what_old_files_do_not(tmp_path: Path) -> None:
    state = {"w": torch.ones(3, 2), "mask": torch.ones(3), "n.running_mean": torch.zeros(3)}
    torch.save({"epoch": 4, "state_dict": state}, tmp_path / "model_4.t7")
    (guessed,) = Trajectory.open(tmp_path)
    assert list(guessed.params()) == ["w", "mask"]
    (told,) = Trajectory.open(tmp_path, like={"w": state["w"]})
    assert list(told.params()) == ["w"]
    assert list(told.states()) == list(state)


def test_tied_weights_of_old_files_count_once(tmp_path: Path) -> None:
    weight = torch.randn(3, 2)
    torch.save({"in.weight": weight, "out.weight": weight}, tmp_path / "model_0.t7")
    (checkpoint,) = Trajectory.open(tmp_path)
    assert list(checkpoint.params()) == ["in.weight"]


def test_an_old_file_that_is_half_written_is_passed_over(tmp_path: Path) -> None:
    for k in range(2):
        torch.save({"w": torch.ones(300)}, tmp_path / f"model_{k}.t7")
    file = tmp_path / "model_1.t7"
    file.write_bytes(file.read_bytes()[:500])
    trajectory = Trajectory.open(tmp_path)
    assert [c.step for c in trajectory] == [0]
    assert "model_1.t7" in trajectory.notes[0]


def test_an_old_file_that_cannot_be_opened_is_passed_over(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "model_0.t7")
    (tmp_path / "model_1.t7").mkdir()
    (tmp_path / "model_2.t7").symlink_to(tmp_path / "elsewhere")
    trajectory = Trajectory.open(tmp_path)
    assert [c.step for c in trajectory] == [0]
    assert [note.split()[0][-10:] for note in trajectory.notes] == ["model_1.t7", "model_2.t7"]


def test_recorded_files_come_before_old_ones(tmp_path: Path) -> None:
    walks.write(tmp_path, walks.rows(2))
    shutil.copy(REFERENCE / "model_3.t7", tmp_path)
    assert {c.path.suffix for c in Trajectory.open(tmp_path)} == {".safetensors"}


def test_files_of_safetensors_without_notes_are_read_as_old_ones_are(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(3, 2), "n.running_var": torch.ones(3), "n.num_batches_tracked":
               torch.tensor(3)}  # fmt: skip
    save_file(tensors, tmp_path / "12.safetensors")
    (checkpoint,) = Trajectory.open(tmp_path)
    assert checkpoint.step == 12
    assert list(checkpoint.params()) == ["w"]


# --- drops of the learning rate -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.1, 0.1, 0.01, 0.01, 0.001], [2, 4]),
        ([0.1, 0.1, 0.01, 0.001], [2, 3]),  # thinned
        ([0.1, None, 0.01, float("nan"), 0.01], [2]),
        ([0.01, 0.05, 0.1, 0.1], []),  # warmup
        ([1.0, 0.9, 0.7, 0.4, 0.1, 0.0], []),  # it glides
        ([0.1, 0.1, 0.01, 0.001, 0.0001], [2, 3, 4]),
        ([0.1, 0.1 - 1e-9, 0.1], []),
        ([0.1], []),
        ([], []),
    ],
)
def test_drops_of_the_learning_rate_are_found(
    rates: list[float | None], expected: list[int]
) -> None:
    assert drops(rates) == expected


def test_a_cosine_has_no_drops_though_its_end_falls_fast() -> None:
    rates = torch.cos(torch.linspace(0, torch.pi, 100)).add(1).tolist()
    assert drops(rates) == []


def test_a_trajectory_knows_its_drops(tmp_path: Path) -> None:
    about = [{"learning_rate": rate} for rate in (0.1, 0.1, 0.02)]
    assert Trajectory.open(walks.write(tmp_path, walks.rows(3), about=about)).drops == [2]


# --- cost ---------------------------------------------------------------------------------------


def test_opening_reads_the_heads_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = walks.rows(1, shapes={f"layer{k}.weight": (20, 20) for k in range(40)})
    (file,) = walks.write(tmp_path, rows).iterdir()
    for k in range(1, 400):
        (tmp_path / f"{k:09d}.safetensors").hardlink_to(file)
    monkeypatch.setattr(trajectories_, "read_tensors", lambda *_: pytest.fail("weights were read"))
    began = time.perf_counter()
    assert len(Trajectory.open(tmp_path)) == 400
    assert time.perf_counter() - began < 5.0  # 0.05 s on a quiet machine
