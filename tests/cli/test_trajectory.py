"""The command trajectory: from folders of checkpoints to a plane, paths and pictures.

Witnesses: paths are computed again with NumPy from the checkpoints that the test wrote; losses by a
plain forward pass; what was written is opened by the libraries that it is meant for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import landscope as ls
from landscope.cli import path_folder, pictures
from landscope.formats import reference_h5
from landscope.params import Params
from landscope.progress import Progress
from tests import toy_target, walks

Command = Callable[..., Any]
State = dict[str, Tensor]
GRID = ("--grid", 5)


def train(folder: Path, *, steps: int = 7, rate: float = 0.5, seed: int = 0) -> list[State]:
    """Train the toy and write its checkpoints; return the state dicts."""
    model = toy_target.model(seed=seed).train()
    optimizer = torch.optim.SGD(model.parameters(), rate)
    inputs, targets = toy_target.data()
    names = [name for name, _ in model.named_parameters()]
    states = []
    for _ in range(steps):
        states.append({n: t.clone() for n, t in model.state_dict().items()})
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    rows = [{n: state[n] for n in names} for state in states]
    buffers = [{n: t for n, t in state.items() if "running" in n} for state in states]
    about = [{"epoch": float(k), "learning_rate": rate} for k in range(steps)]
    walks.write(folder, rows, about=about, buffers=buffers)
    return states


def loss(state: State) -> float:
    model = toy_target.model()
    model.load_state_dict(state)
    inputs, targets = toy_target.data()
    with torch.no_grad():
        return float(F.cross_entropy(model.eval()(inputs), targets))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out, which take longer than all else."""
    monkeypatch.setattr("landscope.cli.pictures.draw_pictures", lambda *_, **__: [])
    monkeypatch.setattr("landscope.cli.pictures.draw_path_pictures", lambda *_, **__: [])
    monkeypatch.setattr("landscope.draw.page", lambda _, path, **__: path)


@pytest.mark.usefixtures("undrawn")
def test_a_folder_becomes_a_plane_with_a_path(
    command: Command, target: str, tmp_path: Path
) -> None:
    states, run = train(tmp_path / "sgd"), tmp_path / "run"
    answer = command("trajectory", tmp_path / "sgd", "--target", target, "--out", run, *GRID)
    assert answer.code == 0, answer.err
    names = [name for name, _ in toy_target.model().named_parameters()]
    matrix = walks.matrix([{n: state[n] for n in names} for state in states])
    values = np.linalg.svd(matrix - matrix.mean(axis=0))[1] ** 2
    numbers = json.loads((run / "trajectory.json").read_text())
    shares = values[:2] / values.sum()
    np.testing.assert_allclose(numbers["explained_variance_ratio"], shares, rtol=1e-6)
    assert f"PC 1 ({100 * shares[0]:.1f}% of the variation)" in answer.out
    (path,) = path_folder.read_paths(run)
    kept = load_file(run / "directions.safetensors")
    basis = np.stack([walks.flat(kept, [f"{dim}/{n}" for n in names]) for dim in "xy"])
    places = (matrix - matrix[-1]) @ basis.T
    np.testing.assert_allclose(np.stack([path.data["x"], path.data["y"]], 1), places, atol=1e-5)
    np.testing.assert_allclose(path.data["loss"], [loss(state) for state in states], rtol=1e-5)
    assert numbers["paths"][0]["last_loss"] == pytest.approx(loss(states[-1]), rel=1e-5)
    assert "sgd: 7 checkpoints" in answer.out


def test_the_grid_holds_the_path_and_the_pictures_are_there(
    command: Command, target: str, tmp_path: Path
) -> None:
    train(tmp_path / "sgd")
    run = tmp_path / "run"
    words = ("--target", target, "--out", run, *GRID, "--margin", 0.1, "--animate", "gif")
    answer = command("trajectory", tmp_path / "sgd", *words)
    assert answer.code == 0, answer.err
    land, (path,) = ls.load(run), path_folder.read_paths(run)
    for dim in "xy":
        axis, values = land.data[dim].values, path.data[dim].values
        assert axis[0] < values.min()
        assert values.max() < axis[-1]
        assert len(axis) == 5
    assert land.data["x"].attrs["long_name"].startswith("PC 1 (")
    assert land.data.attrs["title"] == "sgd"
    assert json.loads(land.data.attrs["fingerprints"])["slice"] == path.data.attrs["slice"]
    for name in ("path", "path_errors", "path_surface", "contour"):
        assert (run / f"{name}.png").stat().st_size > 5_000
    assert (run / "walk.gif").read_bytes()[:4] == b"GIF8"
    assert "sgd" in (run / "page.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_surface_has_the_statistics_of_the_last_checkpoint(
    command: Command, target: str, tmp_path: Path
) -> None:
    states, run = train(tmp_path / "sgd"), tmp_path / "run"
    command("trajectory", tmp_path / "sgd", "--target", target, "--out", run, *GRID)
    (path,) = path_folder.read_paths(run)
    assert float(path.data["projected_loss"][-1]) == pytest.approx(loss(states[-1]), rel=1e-6)
    assert float(path.data["distance"][-1]) == 0.0
    assert path.data.attrs["buffers"] == "of the checkpoint"


@pytest.mark.usefixtures("undrawn")
def test_several_folders_share_a_plane_through_their_mean(
    command: Command, target: str, tmp_path: Path
) -> None:
    both = train(tmp_path / "fast"), train(tmp_path / "a slow one", rate=0.1, steps=4)
    run = tmp_path / "run"
    folders = (tmp_path / "fast", tmp_path / "a slow one")
    answer = command("trajectory", *folders, "--target", target, "--out", run, *GRID)
    assert answer.code == 0, answer.err
    paths = path_folder.read_paths(run)
    assert [path.name for path in paths] == ["fast", "a slow one"]  # as they were given
    assert [path.data.sizes["checkpoint"] for path in paths] == [7, 4]
    for dim in "xy":  # coordinates are from the mean of all checkpoints
        total = sum(float(path.data[dim].sum()) for path in paths)
        assert total == pytest.approx(0.0, abs=1e-4)
    assert {path.data.attrs["buffers"] for path in paths} == {"recomputed"}
    numbers = json.loads((run / "trajectory.json").read_text())
    assert numbers["checkpoints"] == 11
    assert json.loads((run / "run.json").read_text())["asked"]["buffers"] == "recompute"
    assert len(both[0]) + len(both[1]) == 11


@pytest.mark.usefixtures("undrawn")
def test_folders_of_the_same_name_get_different_names(
    command: Command, target: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        train(tmp_path / name / "path", rate=0.5 if name == "a" else 0.2, steps=4)
    folders = (tmp_path / "a" / "path", tmp_path / "b" / "path")
    answer = command("trajectory", *folders, "--target", target, "--out", tmp_path / "run", *GRID)
    assert answer.code == 0, answer.err
    assert [path.name for path in path_folder.read_paths(tmp_path / "run")] == ["a/path", "b/path"]
    answer = command(
        "trajectory", folders[0], folders[0], "--target", target, "--out", tmp_path / "other"
    )
    assert answer.code == 1
    assert "a DIR is given twice" in answer.err


@pytest.mark.usefixtures("undrawn")
def test_names_that_are_no_file_names_do_not_take_the_place_of_each_other(
    command: Command, target: str, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("a run", "a_run", ".run")]
    for k, folder in enumerate(folders):
        train(folder, rate=0.1 + 0.2 * k, steps=4)
    answer = command("trajectory", *folders, "--target", target, "--out", tmp_path / "run", *GRID)
    assert answer.code == 0, answer.err
    names = [path.name for path in path_folder.read_paths(tmp_path / "run")]
    assert names == ["a run", "a_run", ".run"]


@pytest.mark.usefixtures("undrawn")
def test_it_goes_on_where_it_stopped(
    command: Command, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "sgd")
    run = tmp_path / "run"
    words = ("trajectory", tmp_path / "sgd", "--target", target, "--out", run, *GRID)
    counts: list[int] = []
    end = [9]

    class Bar:
        def __enter__(self) -> Callable[[Progress], None]:
            return self.tell

        def __exit__(self, *_: object) -> None:
            pass

        def tell(self, now: Progress) -> None:
            counts.append(now.done)
            if now.done == end[0]:
                raise KeyboardInterrupt

    monkeypatch.setattr("landscope.progress.show_bar", lambda *_, **__: Bar())
    answer = command(*words)
    assert answer.code == 130
    assert "the same command goes on from there" in answer.err
    with ls.Journal(run / "journal.sqlite") as journal:
        assert len(journal.values()) == 9
    counts.clear()
    end[0] = -1
    monkeypatch.setattr(
        "landscope.analysis.path_projection.project", _never
    )  # the path is kept too
    answer = command(*words)
    assert answer.code == 0, answer.err
    assert counts == list(range(9, 26))
    fresh = command(*words[:-3], tmp_path / "fresh", *GRID)
    assert fresh.code == 1
    assert "the path was there already" in fresh.err  # so it would have been called


def _never(*_: object, **__: object) -> object:
    raise AssertionError("the path was there already")


@pytest.mark.usefixtures("undrawn")
def test_more_checkpoints_are_another_question(
    command: Command, target: str, tmp_path: Path
) -> None:
    train(tmp_path / "sgd", steps=5)
    words = ("trajectory", tmp_path / "sgd", "--target", target, "--out", tmp_path / "run", *GRID)
    assert command(*words).code == 0
    kept = (tmp_path / "run" / "paths" / "0-sgd.nc").read_bytes()
    train(tmp_path / "sgd", steps=6)
    for other in (words, (words[0], tmp_path / "adam", *words[1:])):
        train(tmp_path / "adam", steps=4)
        answer = command(*other)
        assert answer.code == 1
        assert "holds the path of another question (sgd:" in answer.err
    assert [f.name for f in (tmp_path / "run" / "paths").iterdir()] == ["0-sgd.nc"]
    assert (tmp_path / "run" / "paths" / "0-sgd.nc").read_bytes() == kept


@pytest.mark.usefixtures("undrawn")
def test_paths_without_a_surface_make_way_for_those_of_another_question(
    command: Command, target: str, tmp_path: Path
) -> None:
    for name in ("sgd", "adam"):
        train(tmp_path / name, steps=4, rate=0.1 * len(name))
    words = ("--target", target, "--out", tmp_path / "run", *GRID)
    assert command("trajectory", tmp_path / "sgd", tmp_path / "adam", *words).code == 0
    (tmp_path / "run" / "journal.sqlite").unlink()
    answer = command("trajectory", tmp_path / "sgd", *words)
    assert answer.code == 0, answer.err
    assert [path.name for path in path_folder.read_paths(tmp_path / "run")] == ["sgd"]


@pytest.mark.usefixtures("undrawn")
def test_what_landscope_train_recorded_is_the_target(
    command: Command, target: str, tmp_path: Path
) -> None:
    train(tmp_path / "sgd")
    record = {"target": target, "set": {"width": "6"}, "label_noise": 0.0, "seed": 0}
    (tmp_path / "sgd" / "training.json").write_text(json.dumps(record))
    answer = command("trajectory", tmp_path / "sgd", "--out", tmp_path / "run", *GRID)
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["asked"]["target"] == target
    answer = command(
        "trajectory", tmp_path / "sgd", "--out", tmp_path / "other", "--set", "width=5", *GRID
    )
    assert answer.code == 1  # what is set on the command line comes last
    assert "shape" in answer.err


@pytest.mark.usefixtures("undrawn")
def test_the_losses_are_those_of_landscope_train(command: Command, tmp_path: Path) -> None:
    lines = (
        "import torch, landscope as ls",
        "from torch import nn",
        "def made():",
        "    inputs = torch.linspace(-1, 1, 40)[:, None]",
        "    targets = (inputs[:, 0] > 0).long()",
        "    body = nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)",
        "    return ls.Objective(nn.Sequential(*body), nn.CrossEntropyLoss(), (inputs, targets))",
    )
    (tmp_path / "mine.py").write_text("\n".join(lines))
    words = (f"{tmp_path / 'mine.py'}:made", "--record", tmp_path / "sgd", "--epochs", 3)
    assert command("train", *words).code == 0
    trained = [c.values["loss"] for c in ls.Trajectory.open(tmp_path / "sgd")]
    answer = command("trajectory", tmp_path / "sgd", "--out", tmp_path / "run", *GRID)
    assert answer.code == 0, answer.err
    (path,) = path_folder.read_paths(tmp_path / "run")
    np.testing.assert_allclose(path.data["loss"], trained, rtol=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_a_warning_names_trainings_with_other_data(
    command: Command, target: str, tmp_path: Path
) -> None:
    record = {"target": target, "data": "1", "loss": "CrossEntropy", "penalty": "none", "seed": 0}
    for name, data in (("first", "1"), ("same", "1"), ("other", "2")):
        train(tmp_path / name, steps=4, rate=0.1 * len(name))
        file = tmp_path / name / "training.json"
        file.write_text(json.dumps({**record, "data": data, "seed": len(name)}))
    folders = [tmp_path / name for name in ("first", "same", "other")]
    answer = command("trajectory", *folders, "--out", tmp_path / "run", *GRID)
    assert answer.code == 0, answer.err
    assert answer.err.count("differ in the") == 1
    assert f"{folders[2]} and {folders[0]} differ in the data" in " ".join(answer.err.split())


@pytest.mark.usefixtures("undrawn")
def test_noise_in_the_labels_is_part_of_the_loss_that_was_trained(
    command: Command, target: str, tmp_path: Path
) -> None:
    states = train(tmp_path / "sgd")
    record = {"target": target, "set": {}, "label_noise": 0.5, "seed": 3}
    (tmp_path / "sgd" / "training.json").write_text(json.dumps(record))
    answer = command("trajectory", tmp_path / "sgd", "--out", tmp_path / "run", *GRID)
    assert answer.code == 0, answer.err
    (path,) = path_folder.read_paths(tmp_path / "run")
    assert abs(float(path.data["loss"][-1]) - loss(states[-1])) > 0.05
    named = command(
        "trajectory", tmp_path / "sgd", "--target", f"{target[:-5]}:model", "--out",
        tmp_path / "other",
    )  # fmt: skip
    assert named.code == 1  # another target than the one that was trained, without its noise
    assert "returned a Sequential" in named.err


@pytest.mark.usefixtures("undrawn")
def test_directions_of_a_file_take_the_place_of_components(
    command: Command, target: str, tmp_path: Path
) -> None:
    states = train(tmp_path / "sgd")
    names = [name for name, _ in toy_target.model().named_parameters()]
    center = Params({n: states[-1][n] for n in names})
    given = ls.directions.random(center, seed=4)
    reference_h5.write_directions(given, tmp_path / "plane.h5")
    run = tmp_path / "run"
    answer = command(
        "trajectory", tmp_path / "sgd", "--target", target, "--out", run, *GRID,
        "--directions", tmp_path / "plane.h5",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (path,) = path_folder.read_paths(run)
    basis = np.stack([walks.flat(d) for d in given], axis=1)
    offsets = walks.matrix([{n: s[n] for n in names} for s in states]) - walks.flat(center)
    expected = np.linalg.lstsq(basis, offsets.T)[0]
    np.testing.assert_allclose(np.stack([path.data["x"], path.data["y"]]), expected, atol=1e-5)
    assert "explained_variance_ratio" not in json.loads((run / "trajectory.json").read_text())


@pytest.mark.usefixtures("undrawn")
def test_old_files_are_drawn_too(command: Command, target: str, tmp_path: Path) -> None:
    states = train(tmp_path / "sgd")
    (tmp_path / "old").mkdir()
    for k, state in enumerate(states):
        torch.save({"epoch": k, "state_dict": state}, tmp_path / "old" / f"model_{k}.t7")
    for name in ("sgd", "old"):
        answer = command(
            "trajectory", tmp_path / name, "--target", target, "--out", tmp_path / f"{name}-run",
            *GRID,
        )  # fmt: skip
        assert answer.code == 0, answer.err
    (one,), (other,) = (path_folder.read_paths(tmp_path / f"{n}-run") for n in ("sgd", "old"))
    for name in ("x", "y", "loss", "projected_loss"):
        np.testing.assert_allclose(one.data[name], other.data[name], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_files_of_lightning_are_drawn_too(command: Command, target: str, tmp_path: Path) -> None:
    states = train(tmp_path / "sgd")
    (tmp_path / "other").mkdir()
    for k, state in enumerate(states):
        saved = {"state_dict": {f"model.{n}": t for n, t in state.items()}, "epoch": k}
        torch.save(saved, tmp_path / "other" / f"epoch={k}-step={9 * k}.ckpt")
    for name in ("sgd", "other"):
        answer = command(
            "trajectory", tmp_path / name, "--target", target, "--out", tmp_path / f"{name}-run",
            *GRID,
        )  # fmt: skip
        assert answer.code == 0, answer.err
    assert "7 checkpoints epoch=*-step=*.ckpt were read in the order of their steps" in answer.err
    (one,), (other,) = (path_folder.read_paths(tmp_path / f"{n}-run") for n in ("sgd", "other"))
    for name in ("x", "y", "loss", "projected_loss"):
        np.testing.assert_allclose(one.data[name], other.data[name], rtol=1e-5, atol=1e-6)
    assert other.data["step"].values.tolist() == [9 * k for k in range(7)]


DRIFTING = """
import torch, landscope as ls

class Drifting(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.register_buffer("average", torch.zeros(3))

    def forward(self, rows):
        return self.layer(rows) + self.average

def make():
    data = torch.ones(6, 4), torch.zeros(6, dtype=torch.long)
    return ls.Objective(Drifting(), torch.nn.CrossEntropyLoss(), data)
"""


@pytest.mark.usefixtures("undrawn")
def test_buffers_of_old_files_are_no_part_of_the_plane(command: Command, tmp_path: Path) -> None:
    (tmp_path / "drifting_target.py").write_text(DRIFTING)
    rows = walks.rows(6, shapes={"layer.weight": (3, 4), "layer.bias": (3,)}, dtype=torch.float32)
    (tmp_path / "old").mkdir()
    for k, row in enumerate(rows):
        torch.save({**row, "average": torch.full((3,), 2.0**k)}, tmp_path / "old" / f"model_{k}.t7")
    words = ("--target", f"{tmp_path / 'drifting_target.py'}:make", "--out", tmp_path / "run")
    answer = command("trajectory", tmp_path / "old", *words, *GRID)
    assert answer.code == 0, answer.err
    matrix = walks.matrix(rows)
    values = np.linalg.svd(matrix - matrix.mean(axis=0))[1]
    numbers = json.loads((tmp_path / "run" / "trajectory.json").read_text())
    np.testing.assert_allclose(numbers["singular_values"], values[:2], rtol=1e-6)


def test_plots_and_pages_of_a_run_find_its_paths_again(
    command: Command, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "sgd")
    train(tmp_path / "slow", rate=0.1)
    run = tmp_path / "run"
    folders = (tmp_path / "sgd", tmp_path / "slow")
    answer = command("trajectory", *folders, "--target", target, "--out", run, *GRID)
    assert answer.code == 0, answer.err
    assert all(name in (run / "page.html").read_text() for name in ("sgd", "slow"))
    monkeypatch.setattr("landscope.cli.pictures.draw_pictures", lambda *_, **__: [])
    answer = command("plot", run, "--out", tmp_path / "drawn", "--format", "svg")
    assert answer.code == 0, answer.err
    for name in ("path", "path_errors", "path_surface"):
        assert (tmp_path / "drawn" / f"{name}.svg").read_text().startswith("<?xml")
    answer = command("page", run, "--out", tmp_path / "page.html")
    assert answer.code == 0, answer.err
    assert "slow" in (tmp_path / "page.html").read_text()


def test_a_run_without_paths_is_drawn_without_them(
    command: Command, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert command("scan", target, "--x=-1:1:3", "--y=-1:1:3", "--out", run).code == 0
    assert path_folder.read_paths(run) == []
    assert path_folder.read_paths(run / "landscape.nc") == []
    assert pictures.draw_path_pictures(ls.load(run), [], tmp_path) == []
    monkeypatch.setattr("landscope.cli.pictures.draw_pictures", lambda *_, **__: [])
    assert command("plot", run).code == 0
    assert command("page", run).code == 0


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_checkpoint_gets_a_warning_and_is_skipped(
    command: Command, target: str, tmp_path: Path
) -> None:
    train(tmp_path / "sgd")
    file = tmp_path / "sgd" / "000000003.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    answer = command(
        "trajectory", tmp_path / "sgd", "--target", target, "--out", tmp_path / "run", *GRID
    )
    assert answer.code == 0, answer.err
    assert "skipped: " in answer.err
    assert "sgd: 6 checkpoints" in answer.out


def test_wrong_inputs_get_a_sentence(command: Command, target: str, tmp_path: Path) -> None:
    train(tmp_path / "sgd")
    run = tmp_path / "run"

    def complaint(*words: object) -> str:
        answer = command("trajectory", *words, "--out", run, *GRID)
        assert answer.code == 1, answer.out
        return str(answer.err)

    assert "pass --target" in complaint(tmp_path / "sgd")
    assert "does not exist" in complaint(tmp_path / "nowhere", "--target", target)
    (tmp_path / "sgd" / "training.json").write_text("{")
    assert "training.json is damaged" in complaint(tmp_path / "sgd")
    walks.write(tmp_path / "other", walks.rows(4))
    assert "the --target that was trained" in complaint(tmp_path / "other", "--target", target)
    walks.write(tmp_path / "more", [{**r, **_weights()} for r in walks.rows(4)])
    assert "model of the target has no" in complaint(tmp_path / "more", "--target", target)


def _weights() -> State:
    return dict(toy_target.model().named_parameters())
