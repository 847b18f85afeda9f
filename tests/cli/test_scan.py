"""The commands scan and cost: from words to a run.

Witness: the loss at a corner is computed by hand from the directions that the run kept.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

import landscope as ls

Command = Callable[..., Any]  # words -> code, out, err
TARGET = (Path(__file__).parents[1] / "toy_target.py").read_text()
SMALL = ("--x=-1:1:5", "--y=-1:1:5")


def _toy() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(TARGET, names)
    return names


def _model(seed: int = 0) -> nn.Module:
    made = _toy()["model"](seed=seed)
    assert isinstance(made, nn.Module)
    return made


def _loss(model: nn.Module, weights: dict[str, Tensor]) -> float:
    inputs, targets = _toy()["data"]()
    with torch.no_grad():
        return float(F.cross_entropy(functional_call(model, weights, (inputs,)), targets))


def _moved(model: nn.Module, run: Path, **at: float) -> dict[str, Tensor]:
    """The weights at coordinates, by hand, from the directions that the run kept."""
    kept = load_file(run / "directions.safetensors")
    weights = {n: t.detach().clone() for n, t in model.state_dict().items()}
    for name, tensor in kept.items():
        axis, _, parameter = name.partition("/")
        weights[parameter] = weights[parameter] + at[axis] * tensor
    return weights


def _files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_a_plane_is_scanned_recorded_and_drawn(command: Command, plane: Path) -> None:
    land, model = ls.load(plane), _model()
    assert land.data["loss"].dims == ("y", "x")
    assert land.data["loss"].shape == (5, 5)
    for x, y in ((-1.0, -1.0), (1.0, -0.5), (0.0, 0.0)):
        there = float(land.data["loss"].sel(x=x, y=y))
        assert there == pytest.approx(_loss(model, _moved(model, plane, x=x, y=y)), rel=1e-5)
    assert _files(plane) == {
        "journal.sqlite", "directions.safetensors", "landscape.nc", "run.json",
        "surface.png", "contour.png", "filled.png", "heatmap.png",
    }  # fmt: skip


def test_a_run_records_the_request(plane: Path, target: str) -> None:
    noted = json.loads((plane / "run.json").read_text())
    assert noted["asked"]["target"] == target
    assert noted["asked"]["spans"] == [[-1.0, 1.0, 5]] * 2
    assert noted["asked"]["seed"] == 0
    assert noted["landscope"] == ls.__version__
    assert noted["torch"] == torch.__version__


def test_every_option_of_the_request_is_recorded(
    command: Command, target: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = (
        "--x=-1:1:2", "--same", "--normalize", "none", "--ignore", "none", "--no-orthogonal",
        "--select", "0.*", "--select", "3.*", "--over", "states", "--seed", 4, "--set", "width=5",
        "--adaptive", "--tolerance", 0.5, "--budget", "60s", "--average", 0.1, "--error-bars",
    )  # fmt: skip
    answer = command("scan", target, *words, "--out", run)
    assert answer.code == 0, answer.err
    assert json.loads((run / "run.json").read_text())["asked"] == {
        "command": "scan", "target": target, "checkpoint": None, "spans": [[-1.0, 1.0, 2]],
        "toward": None, "directions": None, "same": True, "normalize": "none", "ignore": "none",
        "orthogonal": False, "select": ["0.*", "3.*"], "over": "states", "seed": 4,
        "set": ["width=5"], "adaptive": True, "tolerance": 0.5, "samples": None, "budget": "60s",
        "average": 0.1, "error_bars": True,
    }  # fmt: skip


def test_the_same_command_again_computes_nothing_and_gives_the_same_file(
    command: Command, plane: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (plane / "landscape.nc").read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("a point was computed again")

    monkeypatch.setattr("landscope.objective.evaluation.Session.evaluate", never)
    assert command("scan", target, *SMALL, "--out", plane).code == 0
    assert (plane / "landscape.nc").read_bytes() == before


def test_a_line_is_scanned_recorded_and_drawn(line: Path) -> None:
    land = ls.load(line)
    assert land.data["loss"].dims == ("x",)
    assert {"line_linear.png", "line_log.png"} <= _files(line)
    model = _model()
    for x, value in zip(np.linspace(-1, 1, 5), land.data["loss"].values, strict=True):
        assert value == pytest.approx(_loss(model, _moved(model, line, x=float(x))), rel=1e-5)


def test_a_volume_is_scanned_and_recorded(command: Command, target: str, tmp_path: Path) -> None:
    run = tmp_path / "volume"
    answer = command("scan", target, "--x=-1:1:3", "--y=-1:0:2", "--z=0:1:2", "--out", run)
    assert answer.code == 0
    land, model = ls.load(run), _model()
    assert land.data["loss"].dims == ("z", "y", "x")
    assert land.data["loss"].shape == (2, 2, 3)
    corner = _loss(model, _moved(model, run, x=1.0, y=-1.0, z=1.0))
    assert float(land.data["loss"].sel(x=1, y=-1, z=1)) == pytest.approx(corner, rel=1e-5)


def test_toward_another_model_is_1_at_that_model(
    command: Command, target: str, tmp_path: Path
) -> None:
    paths = [tmp_path / "b.pt", tmp_path / "c.safetensors"]
    other, third = _model(seed=5), _model(seed=6)
    torch.save(other.state_dict(), paths[0])
    save_file(third.state_dict(), paths[1])
    run = tmp_path / "toward"
    answer = command(
        "scan", target, "--x=0:1:3", "--y=0:1:3", "--toward", paths[0], "--toward", paths[1],
        "--out", run,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    loss = ls.load(run).data["loss"]
    for model, x, y in ((_model(), 0, 0), (other, 1, 0), (third, 0, 1)):
        expected = _loss(model, dict(model.state_dict()))
        assert float(loss.sel(x=x, y=y)) == pytest.approx(expected, rel=1e-5)
    assert any("running_mean" in name for name in load_file(run / "directions.safetensors"))


def test_directions_of_a_run_are_used_again(
    command: Command, plane: Path, target: str, tmp_path: Path
) -> None:
    run = tmp_path / "finer"
    answer = command("scan", target, "--x=-1:1:3", "--y=-1:1:3", "--directions", plane,
                     "--seed", 9, "--out", run)  # fmt: skip
    assert answer.code == 0, answer.err
    coarse, fine = ls.load(run).data["loss"], ls.load(plane).data["loss"]
    np.testing.assert_array_equal(coarse, fine.sel(x=coarse["x"], y=coarse["y"]))


def test_directions_of_a_2018_file_are_used(command: Command, target: str, tmp_path: Path) -> None:
    weights = [torch.full_like(p, k + 1.0) for k, p in enumerate(_model().parameters())]
    with h5py.File(tmp_path / "d.h5", "w") as file:
        for k, tensor in enumerate(weights):
            file[f"xdirection/{k}"] = tensor.numpy()
    run = tmp_path / "run"
    answer = command("scan", target, "--x=0:1:2", "--directions", tmp_path / "d.h5", "--out", run)
    assert answer.code == 0, answer.err
    model = _model()
    moved = {n: p + k + 1.0 for k, (n, p) in enumerate(model.named_parameters())}
    there = float(ls.load(run).data["loss"].sel(x=1))
    assert there == pytest.approx(_loss(model, moved), rel=1e-5)


def test_same_uses_one_direction_twice(command: Command, target: str, tmp_path: Path) -> None:
    run = tmp_path / "same"
    assert command("scan", target, *SMALL, "--same", "--out", run).code == 0
    kept = load_file(run / "directions.safetensors")
    assert all(torch.equal(t, kept["y" + n[1:]]) for n, t in kept.items() if n[0] == "x")
    loss = ls.load(run).data["loss"]
    np.testing.assert_allclose(loss, loss.T, rtol=1e-5)


def test_over_states_moves_the_statistics_of_batch_norm(
    command: Command, target: str, tmp_path: Path
) -> None:
    run = tmp_path / "states"
    words = ("--x=0:0.1:2", "--over", "states", "--ignore", "none", "--normalize", "layer")
    assert command("scan", target, *words, "--out", run).code == 0
    kept = load_file(run / "directions.safetensors")
    assert float(kept["x/1.running_var"].abs().sum()) > 0
    model = _model()
    there = float(ls.load(run).data["loss"].sel(x=0.1))
    assert there == pytest.approx(_loss(model, _moved(model, run, x=0.1)), rel=1e-5)


@pytest.mark.parametrize("normalize", ["filter", "layer", "weight", "dfilter", "dlayer", "none"])
def test_every_normalization_is_a_word_of_the_command(
    command: Command, target: str, tmp_path: Path, normalize: str
) -> None:
    words = ("--x=0:1:2", "--normalize", normalize, "--seed", 3, "--no-orthogonal")
    assert command("scan", target, *words, "--out", tmp_path / "run").code == 0
    wanted = ls.directions.random(
        _center(), 1,
        normalize=None if normalize == "none" else normalize,  # type: ignore[arg-type]
        orthogonal=False, seed=3,
    )[0]  # fmt: skip
    kept = load_file(tmp_path / "run" / "directions.safetensors")
    assert all(torch.equal(kept[f"x/{n}"], t) for n, t in wanted.items())


def _center() -> dict[str, Tensor]:
    return {n: p.detach() for n, p in _model().named_parameters()}


def test_set_passes_arguments_and_title_names_the_pictures(
    command: Command, target: str, tmp_path: Path
) -> None:
    run = tmp_path / "wide"
    words = ("--x=0:1:2", "--set", "width=9", "--set", "seed=5", "--title", "wide one")
    assert command("scan", target, *words, "--out", run).code == 0
    assert load_file(run / "directions.safetensors")["x/0.weight"].shape == (9, 4)
    assert ls.load(run).data.attrs["title"] == "wide one"


def test_a_checkpoint_is_loaded_first(command: Command, target: str, tmp_path: Path) -> None:
    other = _model(seed=5)
    torch.save({"state_dict": other.state_dict(), "epoch": 3}, tmp_path / "b.t7")
    run = tmp_path / "run"
    words = ("--x=-1:1:3", "--checkpoint", tmp_path / "b.t7")
    assert command("scan", target, *words, "--out", run).code == 0
    expected = _loss(other, dict(other.state_dict()))
    assert float(ls.load(run).data["loss"].sel(x=0)) == pytest.approx(expected, rel=1e-5)


def test_ctrl_c_gives_130_says_how_to_go_on_and_the_same_command_goes_on(
    command: Command, tmp_path: Path
) -> None:
    text = TARGET + (
        "\n\nclass Stops(nn.CrossEntropyLoss):\n    def forward(self, outputs, targets):\n"
        f"        import pathlib; flag = pathlib.Path({str(tmp_path / 'go')!r})\n"
        "        CALLS.append(1)\n        if len(CALLS) > 12 and not flag.exists():\n"
        "            raise KeyboardInterrupt\n        return super().forward(outputs, targets)\n"
        "\n\ndef stops():\n    return ls.Objective(model(), Stops(), data())\n"
    )
    (tmp_path / "stops.py").write_text(text)
    words = ("scan", f"{tmp_path / 'stops.py'}:stops", *SMALL, "--out", tmp_path / "run")
    stopped = command(*words)
    assert stopped.code == 130
    warning = next(line for line in stopped.err.splitlines() if line.startswith("landscope: "))
    assert str(tmp_path / "run") in warning
    assert "the same command goes on" in warning
    assert "Traceback" not in stopped.err
    kept = _points(tmp_path / "run")
    assert 0 < kept < 25
    waiting = command("info", tmp_path / "run")
    assert waiting.code == 0, waiting.err
    assert f"is not finished: {kept} of 25 points ({kept / 25:.0%})" in waiting.err
    (tmp_path / "go").touch()
    assert command(*words).code == 0
    assert _points(tmp_path / "run") == 25
    assert not ls.load(tmp_path / "run").data["loss"].isnull().any()


def _points(run: Path) -> int:
    with sqlite3.connect(run / "journal.sqlite") as db:
        count = int(db.execute("SELECT COUNT(*) FROM point").fetchone()[0])
    db.close()
    return count


# --- cheap scans --------------------------------------------------------------------------------


def test_adaptive_evaluates_some_points_and_draws_the_error(
    command: Command, target: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    answer = command("scan", target, "--x=-1:1:21", "--y=-1:1:21", "--adaptive", "--out", run)
    assert answer.code == 0, answer.err
    land = ls.load(run)
    done = int(land.data["evaluated"].sum())
    assert done < 441
    assert f"{done} of 441 points" in answer.out
    assert "the plain loop: about" in answer.out
    assert (run / "error.png").read_bytes().startswith(b"\x89PNG")


def test_the_number_of_samples_is_an_option(command: Command, target: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    answer = command("scan", target, "--x=-1:1:5", "--y=-1:1:5", "--samples", "20", "--out", run)
    assert answer.code == 1
    assert "--samples 20; expected 72 or more" in answer.err


def test_a_budget_is_printed(command: Command, target: str, tmp_path: Path) -> None:
    answer = command("scan", target, "--x=-1:1:5", "--budget", "10s", "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert "budget of 9." in answer.out.replace("budget of 10 s", "budget of 9.99")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--x=auto:5",), "x from -"),
        (("--x=auto:5", "--y=auto:3"), "y from -"),
    ],
)
def test_auto_finds_the_span(
    command: Command, target: str, tmp_path: Path, words: tuple[str, ...], text: str
) -> None:
    answer = command("scan", target, *words, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert text in answer.out
    axis = ls.load(tmp_path / "run").data["x"].values
    assert axis[0] < 0 < axis[-1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--x=auto", "--y=-1:1:5"), "one axis is auto and another is not"),
        (("--x=auto:few",), "axis 'auto:few'; expected first:last:points"),
        (("--x=-1:1:5", "--budget", "soon"), "--budget soon; expected a time"),
        (("--x=-1:1:5", "--workers", "0"), "--workers 0; expected 1 or more"),
        (("--x=-1:1:5", "--address", "here:1"), "add --engine ray"),
        (("--x=-1:1:5", "--adaptive", "--tolerance", "-1"), "--tolerance -1; expected more than 0"),
    ],
)
def test_wrong_options_of_cheap_scans_get_a_sentence(
    command: Command, target: str, tmp_path: Path, words: tuple[str, ...], text: str
) -> None:
    answer = command("scan", target, *words, "--out", tmp_path / "run")
    assert answer.code == 1
    assert text in answer.err
    assert "Traceback" not in answer.err


def test_cost_prints_the_price_before_the_scan(command: Command, target: str) -> None:
    answer = command("cost", target, "--x=-1:1:21", "--y=-1:1:21", "--adaptive")
    assert answer.code == 0, answer.err
    for text in ("21 x 21 points", "time", "plain loop", "441", "FLOP", "besides the data", "how"):
        assert text in answer.out
