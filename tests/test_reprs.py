"""What an object says of itself in a notebook: short, in three digits, never a whole tensor."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope import fingerprint
from landscope.objective.loss_terms import Terms
from tests import cases

DEEP = nn.Sequential(*(nn.Linear(3, 3) for _ in range(40)))


def record_path(folder: Path) -> ls.Trajectory:
    model = nn.Linear(4, 3)
    with ls.Recorder(folder) as recorder:
        for epoch in range(3):
            recorder(model, epoch=epoch)
            model.weight.data += torch.arange(12.0).reshape(3, 4) ** epoch
    return ls.Trajectory.open(folder)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.manual_seed(0)
    data = torch.randn(20, 4), torch.randint(3, (20,))
    objective = ls.Objective(
        nn.Linear(4, 3), nn.CrossEntropyLoss(), data, metrics={"accuracy": ls.losses.accuracy}
    )
    plane, center = cases.plane(objective), objective.center
    hessian = ls.curvature.Hessian(objective)
    trajectory = record_path(tmp_path_factory.mktemp("path") / "run")
    return {
        "objective": objective,
        "params": center,
        "deep params": ls.params.parameters(DEEP),
        "line": ls.Line(center, plane.dx, labels=("to b",)),
        "plane": plane,
        "curve": ls.Curve([center, center]),
        "seeded": ls.directions.seeded(center)[1],
        "cost": ls.estimate(objective, plane, ls.Grid(3)),
        "journal": ls.Journal(),
        "hessian": hessian,
        "extremes": ls.curvature.extremes(hessian),
        "eigenpairs": ls.curvature.eigenpairs(hessian, 2),
        "trace": ls.curvature.trace(hessian),
        "spectrum": ls.curvature.spectrum(hessian),
        "sharpness": ls.curvature.sharpness(objective),
        "representativeness": ls.representativeness(objective, num_planes=2, resolution=3),
        "landscape": ls.scan(objective, plane, ls.Grid(3)),
        "trajectory": trajectory,
        "checkpoint": trajectory.checkpoints[0],
        "pca": ls.directions.pca(trajectory),
        "recorder": ls.Recorder("runs/a", 10),
        "terms": Terms.from_values(torch.tensor([1.0, 2.5])),
    }


def test_no_object_prints_an_address_or_a_tensor_or_many_digits(objects: dict[str, Any]) -> None:
    for name, thing in objects.items():
        text = repr(thing)
        assert text.isprintable() or "\n" in text, name
        assert " at 0x" not in text, name
        assert "tensor(" not in text, name
        assert len(text) < 1600, name
        longest = max(map(len, re.findall(r"\d+\.\d+", text)), default=0)
        assert longest <= 6, (name, text)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("objective", ("CrossEntropy", "trainable parameters", "samples", "metrics: accuracy")),
        ("params", ("<Params: ", "2 tensors, 15 numbers\n  weight  (3, 4)\n")),
        ("deep params", ("80 tensors, 480 numbers", "5.bias  (3,)\n  and 68 more>")),
        ("line", ("<Line along x (to b), around ",)),
        ("plane", ("<Plane along x, y, around ",)),
        ("curve", ("<Curve: bezier through 2 nodes of ",)),
        ("seeded", ("<Seeded: direction 1 of seed 0, ",)),
        ("cost", ("<Cost of a scan>\n  time ", "plain loop")),
        ("hessian", ("<Hessian: ", "CrossEntropy, all samples; ", " products so far>")),
        ("extremes", (" (+- ", " to ", "; converged after ")),
        ("spectrum", (" eigenvalues from ", "smoothing width ")),
        ("representativeness", ("of 2 random planes>\nA random plane shows 2 of ",)),
        ("trajectory", ("<Trajectory 'run': 3 checkpoints in ",)),
        ("pca", ("<PCA of 3 checkpoints: components with ", "% of the variance>")),
        ("recorder", ("<Recorder: every 10 into ", "runs/a>")),
        ("terms", ("<Terms: 2 terms of mean 1.75>",)),
    ],
)
def test_an_object_says_what_it_is(
    name: str, words: tuple[str, ...], objects: dict[str, Any]
) -> None:
    text = repr(objects[name])
    assert all(word in text for word in words), text


def test_data_are_not_read_for_a_text() -> None:
    objective = cases.mlp().objective()
    assert "data that were not read yet" in repr(objective)
    objective.loss()
    assert f"data of {objective.problem.rows:,} samples" in repr(objective)


def test_a_function_that_holds_an_object_is_identified_by_its_values_and_not_by_its_text(
    objects: dict[str, Any],
) -> None:
    """The text of a slice says nothing about its weights, so two slices have the same."""

    def hold(slice_: ls.Plane) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda outputs, _: outputs.sum() * len(slice_.dims)

    plane: ls.Plane = objects["plane"]
    other = copy.deepcopy(plane)
    next(iter(other.dx.values())).add_(1)
    assert repr(other) == repr(plane)
    assert fingerprint.of_function(hold(plane)) == fingerprint.of_function(hold(plane))
    assert fingerprint.of_function(hold(other)) != fingerprint.of_function(hold(plane))
