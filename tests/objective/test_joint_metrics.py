"""Metrics of all rows together; the witnesses are the metric on all rows at once, and scikit-learn.

torchmetrics comes with lightning, scikit-learn with the tests' other witnesses.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.engines import Local, serialization
from landscope.engines.job import Job
from landscope.engines.plan import Plan
from landscope.errors import ObjectiveError
from landscope.objective import joint_metrics
from landscope.objective.joint_metrics import JointMetric, as_metric

CLASSES = 3
inputs = torch.randn(41, 6, generator=torch.Generator().manual_seed(1))
targets = torch.randint(CLASSES, (41,), generator=torch.Generator().manual_seed(2))


def make_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, CLASSES)).eval()


def make_objective(metrics: Any, **options: Any) -> ls.Objective:
    options = {"batch_size": 9, **options}
    loss = nn.CrossEntropyLoss()
    return ls.Objective(make_model(), loss, (inputs, targets), metrics=metrics, **options)


def macro_f1(outputs: Tensor, targets: Tensor) -> Tensor:
    guess, parts = outputs.argmax(1), []
    for k in range(CLASSES):
        hits = ((guess == k) & (targets == k)).sum()
        parts.append(2 * hits / ((guess == k).sum() + (targets == k).sum()).clamp(min=1))
    return torch.stack(parts).mean()


class F1:
    """A metric object as torcheval and torchmetrics have them, with the batches as its state."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []

    def reset(self) -> None:
        self.outputs, self.targets = [], []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.outputs.append(outputs)
        self.targets.append(targets)

    def compute(self) -> Tensor:
        return macro_f1(torch.cat(self.outputs), torch.cat(self.targets))


def expected_f1(params: Any = None) -> float:
    from sklearn.metrics import f1_score

    model = make_model()
    if params is not None:
        model.load_state_dict(dict(params))
    with torch.no_grad():
        guess = model(inputs).argmax(1)
    return float(f1_score(targets, guess, average="macro"))


def test_a_function_of_a_batch_is_called_once_with_all_rows() -> None:
    objective = make_objective({"f1": macro_f1, "accuracy": ls.losses.accuracy})
    parts = [
        float(macro_f1(o, t))
        for o, t in zip(objective.model(inputs).split(9), targets.split(9), strict=True)
    ]
    assert abs(np.mean(parts) - expected_f1()) > 0.01  # a mean over batches is another number
    assert objective.evaluate()["f1"] == pytest.approx(expected_f1(), rel=1e-6)
    assert objective.notes == ()


def test_an_object_is_updated_in_a_copy_and_left_as_it_was() -> None:
    metric = F1()
    metric.update(torch.eye(3), torch.arange(3))
    before = copy.deepcopy(metric)
    objective = make_objective({"f1": metric})
    for _ in range(2):
        assert objective.evaluate()["f1"] == pytest.approx(expected_f1(), rel=1e-6)
    assert len(metric.outputs) == 1
    torch.testing.assert_close(metric.outputs[0], before.outputs[0])
    assert float(metric.compute()) == 1.0


def test_metrics_of_torchmetrics_equal_those_of_scikit_learn() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    from sklearn.metrics import roc_auc_score

    make = functools.partial(torchmetrics.AUROC, task="multiclass", num_classes=CLASSES)
    f1 = torchmetrics.F1Score(task="multiclass", num_classes=CLASSES, average="macro")
    f1.update(torch.eye(3), torch.arange(3))
    found = make_objective({"f1": f1, "auc": make()}).evaluate()
    shares = make_model()(inputs).softmax(1).detach().numpy()
    auc = roc_auc_score(targets, shares, multi_class="ovr", average="macro")
    assert found["f1"] == pytest.approx(expected_f1(), rel=1e-6)
    assert found["auc"] == pytest.approx(float(auc), rel=1e-5)
    assert float(f1.compute()) == 1.0  # of the user's own three rows
    identities = [make_objective({"m": m}).problem.metrics["m"].identity for m in (f1, make())]
    f1.reset()
    assert identities[0] == make_objective({"m": f1}).problem.metrics["m"].identity
    assert identities[0] != identities[1]


def test_test_data_have_metrics_of_their_own() -> None:
    data = inputs[:17].flip(0), targets[:17].flip(0)
    found = make_objective({"f1": F1()}, test_data=data).evaluate()
    with torch.no_grad():
        expected = float(macro_f1(make_model()(data[0]), data[1]))
    assert found["train_f1"] == pytest.approx(expected_f1(), rel=1e-6)
    assert found["test_f1"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("metric", [macro_f1, F1()], ids=["function", "object"])
@pytest.mark.parametrize(
    "engine",
    [
        Local(workers=1),
        Local(workers=2),
        Local(plan=Plan(forward="fused", rows=7)),
        Local(plan=Plan(workers=2, threads=1, rows=4)),
    ],
    ids=["plain", "threads", "fused", "fused threads"],
)
def test_every_plan_gives_the_metric_of_all_rows(engine: Local, metric: Any) -> None:
    objective = make_objective({"f1": metric})
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])
    land = ls.scan(objective, line, ls.Grid(5), engine=engine)
    expected = [expected_f1(line.at((x,))) for x in land.data["x"].values]
    assert len(set(expected)) > 2
    np.testing.assert_allclose(land.data["f1"], expected, rtol=1e-6)


def test_a_vectorized_plan_is_refused() -> None:
    objective = make_objective({"f1": F1()})
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])
    with pytest.raises(RuntimeError, match="point by point"):
        ls.scan(objective, line, ls.Grid(5), engine=Local(plan=Plan(points=4)))


def test_a_worker_of_another_process_gives_the_metric_of_all_rows(tmp_path: Path) -> None:
    objective = make_objective({"f1": F1(), "function": macro_f1})
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])
    payload = serialization.pack(Job(objective, line), folder=tmp_path)
    job = serialization.unpack(payload)  # what a worker does with the file
    values = job.objective.evaluate(line.at((0.5,)))
    assert values["f1"] == pytest.approx(expected_f1(line.at((0.5,))), rel=1e-6)
    assert values["function"] == pytest.approx(values["f1"], rel=1e-6)


@pytest.mark.parametrize("metric", [macro_f1, F1()], ids=["function", "object"])
def test_drawn_samples_have_no_metric_of_all_rows(metric: Any) -> None:
    objective = make_objective({"f1": metric})
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])
    assert not objective.problem.can_be_sampled()
    assert make_objective({"a": ls.losses.accuracy}).problem.can_be_sampled()
    with pytest.raises(ObjectiveError, match="'f1' is one number for all samples together"):
        ls.scan(objective, line, ls.Grid(5), samples=ls.Calibrated(10, anchors=2))
    sampled = objective.problem.select_samples(range(20), torch.ones(2, 20))
    with sampled.session() as session, pytest.raises(ObjectiveError, match="'f1' is one number"):
        session.evaluate(None)


def test_functions_of_scikit_learn_are_refused_because_they_take_the_targets_first() -> None:
    from sklearn.metrics import f1_score, r2_score

    for function in (r2_score, functools.partial(f1_score, average="macro")):
        with pytest.raises(ObjectiveError, match="takes the targets first"):
            make_objective({"m": function})
    wrapped = make_objective({"r2": lambda o, t: r2_score(t, o.argmax(1))})
    expected = r2_score(targets, make_model()(inputs).argmax(1))
    assert wrapped.evaluate()["r2"] == pytest.approx(float(expected))


class Several(F1):
    def compute(self) -> Any:
        return {"a": torch.tensor(1.0)}


class Vector(F1):
    def compute(self) -> Any:
        return torch.ones(3)


class Demanding(F1):
    def update(self, *batch: Tensor) -> None:
        raise ValueError("expected probabilities")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Several(), r"several values \(\['a'\]\): pass each by itself"),
        (Vector(), "returned 3 values; expected one number: choose an average"),
        (Demanding(), r"outputs \(9, 3\) and targets \(9,\): expected probabilities"),
        (F1, r"metrics\['m'\] is the class F1; expected an object or a function: F1\(...\)"),
        (ls.losses.custom(lambda model, batch: batch[0]), "made by ls.losses.custom"),
        ("accuracy", r"metrics\['m'\]='accuracy' is a str; expected a function"),
    ],
    ids=["mapping", "vector", "update", "class", "custom", "text"],
)
def test_a_metric_that_gives_no_number_is_a_sentence(metric: Any, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        make_objective({"m": metric}).evaluate()


def test_outputs_that_cannot_be_kept_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    ragged = [(torch.ones(2, 4), torch.ones(2, 4)), (torch.ones(2, 5), torch.ones(2, 5))]
    metrics = {"m": lambda o, t: (o - t).square().mean().sqrt()}
    objective = ls.Objective(nn.PReLU(), nn.MSELoss(), ragged, metrics=metrics)
    with pytest.raises(ObjectiveError, match="the outputs of the batches cannot be joined"):
        objective.evaluate()
    monkeypatch.setattr(joint_metrics, "_MAX_BYTES", 200)
    with pytest.raises(ObjectiveError, match="outputs of all data, which take more than 2"):
        make_objective({"f1": macro_f1}).evaluate()


def test_a_metric_object_is_no_loss() -> None:
    with pytest.raises(ObjectiveError, match="loss is a F1, a metric of all data together"):
        ls.Objective(make_model(), F1(), (inputs, targets))


def test_values_that_are_not_those_of_samples_are_noted() -> None:
    objective = make_objective({"per_class": lambda o, t: macro_f1(o, t) * torch.ones(CLASSES)})
    objective.evaluate()
    assert "metric 'per_class' returned 3 values for 9 samples, and 3 and 3" in objective.notes[0]


def test_what_is_no_metric_object_is_a_function() -> None:
    loss = make_objective({}).problem.loss
    assert isinstance(as_metric(F1(), "f1", loss), JointMetric)
    assert as_metric(macro_f1, "f1", loss).name == "f1"
