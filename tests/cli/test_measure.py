"""The commands curvature, convexity and whole: from words to files.

Witnesses: the toy network is small enough for a dense float64 Hessian; what was written is opened
again by the libraries that it is meant for.
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
from safetensors.torch import load_file, save_file
from torch import Tensor

import landscope as ls
from tests import toy_target

Command = Callable[..., Any]
REFERENCE = Path(__file__).parents[1] / "data" / "reference" / "tiny_a"
HESSIAN = next(REFERENCE.glob("*5]x[[]-1.0,1.0,5].h5"))


def dense() -> Tensor:
    """The Hessian of the toy, row by row, in float64."""
    model = toy_target.model().double()
    inputs, targets = toy_target.data()
    leaves = list(model.parameters())
    loss = F.cross_entropy(model(inputs.double()), targets)
    slopes = torch.autograd.grad(loss, leaves, create_graph=True)
    rows = [
        torch.autograd.grad(s, leaves, retain_graph=True, materialize_grads=True)
        for g in slopes
        for s in g.flatten()
    ]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def test_curvature_writes_what_the_hessian_is(
    command: Command, target: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    answer = command("curvature", target, "--count", 4, "--vectors", 2, "--out", run)
    assert answer.code == 0, answer.err
    numbers = json.loads((run / "curvature.json").read_text())
    values = torch.linalg.eigvalsh(dense())
    expected = [values[-1], values[0], values[-2], values[1]]
    assert numbers["eigenvalues"] == pytest.approx([float(v) for v in expected], rel=1e-3, abs=1e-5)
    assert numbers["trace"] == pytest.approx(
        float(values.sum()), abs=4 * numbers["trace_stderr"] + 1e-5
    )
    assert numbers["converged"]
    assert numbers["route"] == "double backward"
    assert sum(numbers["spectrum"]["weights"]) == pytest.approx(1.0)
    assert (run / "spectrum.png").stat().st_size > 10_000
    assert f"{numbers['eigenvalues'][0]:.6g}" in answer.out
    assert "double backward" in answer.out


def test_its_eigenvectors_are_directions_of_a_scan(
    command: Command, target: str, tmp_path: Path
) -> None:
    command("curvature", target, "--vectors", 1, "--out", tmp_path / "run")
    kept = load_file(tmp_path / "run" / "directions.safetensors")
    assert {name.partition("/")[0] for name in kept} == {"x", "y"}
    numbers = json.loads((tmp_path / "run" / "curvature.json").read_text())
    words = ("--x=-0.02:0.02:3", "--y=-0.02:0.02:3", "--directions", tmp_path / "run")
    answer = command("scan", target, *words, "--out", tmp_path / "plane")
    assert answer.code == 0, answer.err
    loss = ls.load(tmp_path / "plane" / "landscape.nc").data["loss"].values
    along = (loss[1, 2] - 2 * loss[1, 1] + loss[1, 0]) / 0.02**2
    assert along == pytest.approx(numbers["eigenvalues"][0], rel=0.05)  # float32, and a finite step


def test_convexity_maps_a_plane_and_goes_on_where_it_stopped(
    command: Command, target: str, tmp_path: Path
) -> None:
    words = ("convexity", target, "--x=-1:1:3", "--y=-1:1:5", "--out", tmp_path / "run")
    answer = command(*words)
    assert answer.code == 0, answer.err
    first = (tmp_path / "run" / "landscape.nc").read_bytes()
    data = ls.load(tmp_path / "run" / "landscape.nc").data
    values = torch.linalg.eigvalsh(dense())
    assert data["hessian_max"].shape == (5, 3)
    assert float(data["hessian_max"][2, 1]) == pytest.approx(float(values[-1]), rel=0.01)
    assert float(data["hessian_min"][2, 1]) == pytest.approx(float(values[0]), rel=0.01)
    assert {p.name for p in (tmp_path / "run").glob("*.png")} == {
        "convexity.png", "convexity_beside.png",
    }  # fmt: skip
    assert command(*words).code == 0
    assert (tmp_path / "run" / "landscape.nc").read_bytes() == first


def test_whole_gives_a_verdict_in_words_and_numbers(
    command: Command, target: str, tmp_path: Path
) -> None:
    run, start = tmp_path / "run", tmp_path / "start.safetensors"
    save_file(toy_target.model(seed=5).state_dict(), start)
    words = ("--planes", 2, "--resolution", 5, "--initialization", start, "--out", run)
    answer = command("whole", target, *words)
    assert answer.code == 0, answer.err
    numbers = json.loads((run / "whole.json").read_text())
    values = torch.linalg.eigvalsh(dense())
    assert numbers["hessian_max"] == pytest.approx(float(values[-1]), rel=0.01)
    assert np.shape(numbers["random"]) == (4, 5)
    assert len(numbers["initialization"]) == 5
    assert numbers["initialization_distance"] < 0
    assert numbers["verdict"][0] in answer.out
    assert (run / "whole.png").stat().st_size > 10_000
    assert command("whole", target, *words).code == 0  # from its journals


def test_whole_knows_where_training_of_the_zoo_began() -> None:
    from landscope.cli import targets

    objective = targets.load_objective("zoo:digits_mlp", arguments=("epochs=1", "seed=3"))
    arguments = ("epochs=1", "seed=3")
    start = targets.find_initialization("zoo:digits_mlp", objective, arguments, None, None)
    assert start is not None
    again = ls.zoo.initial("digits_mlp", seed=3)
    assert again is not None
    assert all(torch.equal(start[n], p) for n, p in again.named_parameters())
    path = ls.directions.between(start, objective.center)
    assert 0 < ls.params.norm(path) < 2 * ls.params.norm(start)
    assert targets.find_initialization("file.py:make", objective, (), None, None) is None
    assert ls.zoo.initial("resnet56") is None


def test_eigenvalues_of_2018_are_divided_on_request(command: Command, tmp_path: Path) -> None:
    for words, divisor in (((), 1), (("--batches", 4), 4)):
        run = tmp_path / f"run{divisor}"
        assert command("import", HESSIAN, run, *words).code == 0
        data = ls.load(run / "landscape.nc").data
        assert float(data["hessian_max"][2, 2]) == pytest.approx(
            10.84882966 * 4 / divisor, rel=1e-4
        )
        name = data["hessian_max"].attrs["long_name"]
        assert ("of the mean loss" if divisor > 1 else "read it with batches=") in name
        assert float(data["convexity"][0, 0]) == pytest.approx(13.16106 / 109.16650, rel=1e-3)
    answer = command("import", HESSIAN, tmp_path / "odd", "--batches", 0)
    assert (answer.code, "--batches 0; expected 1 or more" in answer.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("curvature", "--select", "nothing.*"), "matches no name"),
        (("curvature", "--samples", 0), "--samples 0; expected how many"),
        (("convexity", "--x", "oops"), "axis 'oops'; expected first:last:points"),
        (("whole", "--radius", "-1"), "--radius -1; expected a distance above 0"),
    ],
)
def test_wrong_options_get_a_sentence(
    command: Command, target: str, tmp_path: Path, words: tuple[Any, ...], sentence: str
) -> None:
    answer = command(words[0], target, *words[1:], "--out", tmp_path / "run")
    assert answer.code == 1
    assert sentence in answer.err
    assert "Traceback" not in answer.err


def test_a_scan_with_averages_and_error_bars_draws_them(
    command: Command, target: str, tmp_path: Path
) -> None:
    words = ("--average", 0.1, "--error-bars", "--out", tmp_path / "run")
    answer = command("scan", target, "--x=-1:1:5", *words)
    assert answer.code == 0, answer.err
    data = ls.load(tmp_path / "run" / "landscape.nc").data
    assert {"averaged_loss", "averaged_loss_stderr", "loss_stderr"} <= set(data)
    assert data["averaged_loss"].attrs["units"] == data["loss"].attrs["units"] == "nat"
    assert (tmp_path / "run" / "averaged.png").is_file()


def test_whole_scans_planes_as_small_multiples(
    command: Command, target: str, tmp_path: Path
) -> None:
    words = ("--planes", 2, "--resolution", 5, "--surfaces", 2, "--out", tmp_path / "run")
    answer = command("whole", target, *words)
    assert answer.code == 0, answer.err
    assert (tmp_path / "run" / "surfaces.png").is_file()


def test_info_prints_the_measurements(command: Command, target: str, tmp_path: Path) -> None:
    command("curvature", target, "--vectors", 1, "--out", tmp_path / "c")
    command("whole", target, "--planes", 2, "--resolution", 5, "--out", tmp_path / "w")
    answer = command("info", tmp_path / "c")
    numbers = json.loads((tmp_path / "c" / "curvature.json").read_text())
    assert answer.code == 0, answer.err
    assert f"{numbers['trace']:.6g}" in answer.out
    assert f"{numbers['eigenvalues'][0]:.6g}" in answer.out
    answer = command("info", tmp_path / "w")
    assert json.loads((tmp_path / "w" / "whole.json").read_text())["verdict"][0] in answer.out
    assert json.loads((tmp_path / "w" / "run.json").read_text())["asked"]["planes"] == 2
