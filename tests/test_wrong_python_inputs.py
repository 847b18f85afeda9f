"""Wrong inputs of the Python API, a table: each gives one sentence that names the cure.

Every case is an input that a user could have meant; the fragment is the part of the sentence that
says what to do. The commands are in ``test_wrong_inputs``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import landscope
from landscope import errors

ls: Any = landscope  # wrong types are the subject of these tests
Hessian, Local, Plan = ls.curvature.Hessian, ls.engines.Local, ls.engines.Plan


class Inputs:
    """Right inputs, some of which each case replaces by wrong ones."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.x, self.y = torch.randn(20, 4), torch.randint(3, (20,))
        self.model, self.loss = nn.Linear(4, 3), nn.CrossEntropyLoss()
        self.data = self.x, self.y
        self.objective = ls.Objective(self.model, self.loss, self.data)
        self.center = self.objective.center
        self.dx, self.dy = ls.directions.random(self.center)
        self.plane = ls.Plane(self.center, self.dx, self.dy)
        self.land = self.scan()

    def make(self, **options: Any) -> Any:
        """Return an objective with other arguments, evaluated once."""
        arguments = {"model": self.model, "loss": self.loss, "data": self.data, **options}
        return ls.Objective(**arguments).evaluate()

    def scan(self, slice_: Any = None, sampler: Any = 3, **options: Any) -> Any:
        options = {"engine": Local(plan=Plan()), **options}
        return ls.scan(self.objective, slice_ or self.plane, sampler, **options)


@pytest.fixture(scope="module")
def right() -> Inputs:
    return Inputs()


Case = tuple[str, Callable[[Inputs], Any], str]
CASES: list[Case] = [
    # Objective and losses
    ("loss and model swapped", lambda i: ls.Objective(i.loss, i.model, i.data), "the order is"),
    ("data for a loss", lambda i: i.make(loss=i.data), "nn.CrossEntropyLoss()"),
    ("a class for a model", lambda i: i.make(model=nn.Linear), "expected a torch.nn.Module"),
    ("a class for a loss", lambda i: i.make(loss=nn.MSELoss), "expected MSELoss()"),
    ("a name for a loss", lambda i: i.make(loss="mse"), "expected a torch loss"),
    ("a file for data", lambda i: i.make(data="a.csv"), "data"),
    ("a number for data", lambda i: i.make(data=5), "data"),
    ("rows that differ", lambda i: i.make(data=(i.x, i.y[:5])), "same number of rows"),
    ("labels out of range", lambda i: i.make(data=(i.x, i.y + 5)), "Target 7"),
    ("an unknown device", lambda i: i.make(device="gpu"), "'cuda:0'"),
    ("an unknown precision", lambda i: i.make(precision=32), "expected one of"),
    ("unknown buffers", lambda i: i.make(buffers="update"), "'keep' or 'recompute'"),
    ("metrics in a list", lambda i: i.make(metrics=["accuracy"]), "expected a dict"),
    ("a metric by name", lambda i: i.make(metrics={"a": "accuracy"}), "expected"),
    ("a metric named loss", lambda i: i.make(metrics={"loss": i.loss}), "choose another"),
    ("a number for a metric's name", lambda i: i.make(metrics={3: i.loss}), "expected texts"),
    ("a number for a penalty", lambda i: i.make(penalty=0.1), "ls.losses.weight_decay(5e-4)"),
    ("no batch", lambda i: i.make(batch_size=0), "1 or more"),
    ("half a batch", lambda i: i.make(batch_size=2.5), "a whole number"),
    ("a word for a cache", lambda i: i.make(cache="yes"), "True, False or 'auto'"),
    ("decay that is NaN", lambda i: ls.losses.weight_decay(float("nan")), "0 or more"),
    ("params of others", lambda i: i.objective.loss({"w": i.x}), "objective.center"),
    ("a vector for params", lambda i: i.objective.loss(torch.ones(15)), "expected a dict"),
    ("arrays for params", lambda i: i.objective.loss({n: t.numpy() for n, t in i.center.items()}),
     "expected a tensor"),
    # directions and slices
    ("a model for params", lambda i: ls.directions.random(i.model), "objective.center"),
    ("a text for a seed", lambda i: ls.directions.random(i.center, seed="a"), "a whole number"),
    ("half a direction", lambda i: ls.directions.random(i.center, 2.5), "a whole number"),
    ("an unknown norm", lambda i: ls.directions.random(i.center, normalize="l2"), "'filter'"),
    ("no such names", lambda i: ls.directions.random(i.center, select="conv*"), "there are weight"),
    ("a number for names", lambda i: ls.directions.random(i.center, select=3), "a pattern of"),
    ("seeded by weights", lambda i: ls.directions.seeded(i.center, normalize="weight"),
     "ls.directions.random"),
    ("between models", lambda i: ls.directions.between(i.model, i.model), "expected a dict"),
    ("arrays for vectors", lambda i: ls.directions.from_vectors(i.center, np.ones((2, 15))),
     "torch.as_tensor(vectors)"),
    ("short vectors", lambda i: ls.directions.from_vectors(i.center, torch.ones(2, 3)),
     "one entry per parameter"),
    ("pairs for a direction", lambda i: ls.Line(i.center, [i.dx, i.dy]), "expected a dict"),
    ("one direction twice", lambda i: ls.Plane(i.center, i.dx, i.dx), "independent directions"),
    ("a text for labels", lambda i: ls.Plane(i.center, i.dx, i.dy, labels="xy"), "a tuple of 2"),
    ("a curve of one node", lambda i: ls.Curve([i.center]), "nodes"),
    ("an unknown curve", lambda i: ls.Curve([i.center, i.dx], kind="spline"), '"bezier"'),
    ("one number on a plane", lambda i: i.plane.at((1,)), "one number for each axis"),
    ("a word for coordinates", lambda i: i.plane.at("ab"), "one number for each axis"),
    ("nothing to project", lambda i: i.plane.project(None), "expected a dict"),
    # samplers and scans
    ("no points", lambda i: ls.Grid(0), "1 or more"),
    ("a text for a span", lambda i: ls.Grid(5, "-1:1"), "expected a pair"),
    ("a span backwards", lambda i: ls.Grid(5, (1, -1)), "swap them"),
    ("too many axes", lambda i: i.scan(sampler=ls.Grid((3, 3, 3))), "one per axis"),
    ("no tolerance", lambda i: ls.Adaptive(tolerance=0), "tolerance=0"),
    ("an unknown scale", lambda i: ls.Adaptive(scale="ln"), "log"),
    ("no samples", lambda i: ls.Calibrated(0), "expected"),
    ("a number for samples", lambda i: i.scan(samples=600), "expected ls.Calibrated(600)"),
    ("a pair for a slice", lambda i: i.scan((i.dx, i.dy)), "expected an ls.Line, ls.Plane"),
    ("a pair for a sampler", lambda i: i.scan(sampler=(5, 5)), "such as ls.Grid(51, (-1, 1))"),
    ("center and directions swapped", lambda i: i.scan(ls.Plane(i.dx, i.dy, i.center)),
     "Plane(center, dx, dy)"),
    ("a name for an engine", lambda i: i.scan(engine="ray"), "ls.engines.Ray()"),
    ("a number for an engine", lambda i: ls.estimate(i.objective, i.plane, 3, engine=4),
     "ls.engines.Local(workers=2)"),
    ("words for workers", lambda i: Local(workers="two"), "1 or more"),
    ("a budget in words", lambda i: i.scan(budget="soon"), "5m"),
    ("a journal that is a number", lambda i: i.scan(journal=5), "the name of a file"),
    ("a word for progress", lambda i: i.scan(progress="yes"), "True for a bar"),
    ("quantities by name", lambda i: i.scan(quantities="accuracy"), "a tuple of functions"),
    ("one quantity, no tuple", lambda i: i.scan(quantities=ls.neighborhood_average(0.1)),
     "a tuple of functions"),
    ("a quantity that is no dict", lambda i: i.scan(quantities=(lambda o, p: 3,)), "a dict of"),
    ("a quantity of words", lambda i: i.scan(quantities=(lambda o, p: {"a": "b"},)), "numbers"),
    ("a model to estimate", lambda i: ls.estimate(i.model, i.plane), "expected an ls.Objective"),
    # files and pictures
    ("an unknown ending", lambda i: i.land.save("a.txt"), "choose one of these endings"),
    ("no name", lambda i: i.land.save(None), "the name of a file"),
    ("a file that is not there", lambda i: ls.load("gone.nc"), "check the name"),
    ("a number for a file", lambda i: ls.load(3), "the name of a file"),
    ("an array for a landscape", lambda i: ls.Landscape(np.ones((3, 3))), "xarray.Dataset"),
    ("a plane as a line", lambda i: ls.draw.line(i.land), "ls.draw."),
    ("an array for a picture", lambda i: ls.draw.surface(np.ones((3, 3))), "expected"),
    ("an unknown quantity", lambda i: ls.draw.contour(i.land, quantity="beauty"), "loss"),
    ("an unknown scale of a picture", lambda i: ls.draw.contour(i.land, scale="ln"), "linear"),
    ("words for levels", lambda i: ls.draw.contour(i.land, levels="a"), "the number of levels"),
    ("a picture that is none", lambda i: ls.draw.save(3, "a.png"), "ls.draw returned"),
    ("a page that is a PDF", lambda i: ls.draw.page(i.land, "p.pdf"), ".html"),
    ("a mesh of an array", lambda i: ls.formats.vtk.write(3, "a.vtp"), "ls.scan or ls.load"),
    ("a mesh of another format", lambda i: ls.formats.vtk.write(i.land, "a.obj"), ".vtp"),
    ("a checkpoint that is a dict", lambda i: ls.formats.checkpoint.load(i.model, {"a": i.x}),
     "the name of a file"),
    # curvature, analysis, training, zoo
    ("a model's Hessian", lambda i: Hessian(i.model), "ls.Objective"),
    ("a Hessian elsewhere", lambda i: Hessian(i.objective, {"a": i.x}), "objective.center"),
    ("an objective's spectrum", lambda i: ls.curvature.spectrum(i.objective), "ls.curvature.Hess"),
    ("extremes of a number", lambda i: ls.curvature.extremes(3), "ls.curvature.Hessian"),
    ("no eigenpairs", lambda i: ls.curvature.eigenpairs(Hessian(i.objective), 0), "expected 1 to"),
    ("unknown eigenpairs", lambda i: ls.curvature.eigenpairs(Hessian(i.objective), 1, "big"),
     "expected one of"),
    ("sharpness of a model", lambda i: ls.curvature.sharpness(i.model), "expected an ls.Obj"),
    ("one random plane", lambda i: ls.representativeness(i.objective, num_planes=1), "2 or more"),
    ("planes of a model", lambda i: ls.representativeness(i.model), "expected an ls.Objective"),
    ("an ensemble of a model", lambda i: ls.ensemble(i.model), "expected an ls.Objective"),
    ("an average of a model", lambda i: ls.neighborhood_average(i.model), "a sigma above 0"),
    ("a trajectory that is not there", lambda i: ls.Trajectory.open("gone"), "gone"),
    ("an unknown network", lambda i: ls.zoo.objective("resnet57"), "resnet57"),
]  # fmt: skip


def test_there_are_more_than_fifty_cases_with_a_name_each() -> None:
    names = [name for name, _, _ in CASES]
    assert len(set(names)) == len(names) > 50


@pytest.mark.parametrize(("give", "cure"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_a_wrong_input_gets_one_sentence_that_names_the_cure(
    right: Inputs, give: Callable[[Inputs], Any], cure: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.LandscopeError) as caught:
        give(right)
    sentence = str(caught.value)
    assert cure in sentence
    assert "\n" not in sentence
    assert sentence[-1] in ".)"
    assert len(sentence) < 500
    assert not list(tmp_path.iterdir())
