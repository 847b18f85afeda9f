"""Statistics of the whole data, layer by layer, whatever the batches are.

The witness evaluates one layer after the other on all rows at once, in numpy's definitions of mean
and variance: a norm, then what follows it up to the next norm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import landscope as ls
from landscope.errors import ObjectiveError
from landscope.objective import running_statistics
from landscope.objective.problem import Problem
from landscope.objective.running_statistics import RunningStatistics

ROWS = 60
BATCHES = (60, 17, 7, 1)  # 60 = 8 x 7 + 4


@pytest.fixture(params=["at once", "call by call"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Memory for all rows at once, or for one batch."""
    if request.param == "call by call":
        monkeypatch.setattr(running_statistics, "free_memory", lambda _: 0.0)
    return str(request.param)


def sorted_data(*shape: int) -> tuple[Tensor, Tensor]:
    """Rows sorted by class, each class in another place."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(ROWS) * 3 // ROWS
    places = 3 * torch.randn(3, *shape, generator=generator)
    rows = torch.randn(ROWS, *shape, generator=generator) + places[classes]
    return rows.double(), classes


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(),
        nn.Linear(6, 5), nn.BatchNorm1d(5, affine=False, momentum=None), nn.Tanh(),
        nn.Linear(5, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.SyncBatchNorm(5),
        nn.Linear(5, 3),
    )  # fmt: skip


def cnn() -> nn.Sequential:
    lazy = nn.LazyBatchNorm2d()
    lazy(torch.ones(1, 4, 2, 2))
    frozen = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)).requires_grad_(False)
    return nn.Sequential(
        frozen, nn.ReLU(), nn.Conv2d(4, 4, 3), lazy,
        nn.InstanceNorm2d(4, track_running_stats=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip


class OtherNorm(nn.Module):
    """A norm of another library: channels last, its variance is biased."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))

    def forward(self, rows: Tensor) -> Tensor:
        if self.training:
            axes = tuple(range(rows.ndim - 1))
            self.running_mean.lerp_(rows.mean(axes), 0.2)
            self.running_var.lerp_(rows.var(axes, correction=0), 0.2)
        return (rows - self.running_mean) / (self.running_var + 1e-5).sqrt()


class FrozenNorm(OtherNorm):
    """A norm that keeps the statistics that it was made with."""

    def forward(self, rows: Tensor) -> Tensor:
        return (rows - self.running_mean) / (self.running_var + 1e-5).sqrt()


def others() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), OtherNorm(6), FrozenNorm(6), nn.Linear(6, 3))


MODELS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "mlp": (mlp, (4,)),
    "cnn": (cnn, (2, 7, 7)),
    "other norms": (others, (4,)),
}


def make(name: str) -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    factory, shape = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return factory().double(), sorted_data(*shape)


@torch.no_grad()
def witness(layers: nn.Sequential, rows: Tensor) -> Tensor:
    """Return outputs when each norm has the statistics of all rows."""
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            rows = witness(layer, rows)
            continue
        mean: Any = None
        if isinstance(layer, nn.InstanceNorm2d):
            mean = rows.mean(dim=(2, 3)).mean(dim=0)
            variance = rows.var(dim=(2, 3)).mean(dim=0)
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats:
            channels = rows.movedim(1, 0).flatten(1).numpy()
            mean = torch.from_numpy(channels.mean(axis=1))
            variance = torch.from_numpy(channels.var(axis=1, ddof=1))
        elif type(layer) is OtherNorm:
            mean, variance = rows.mean(dim=0), rows.var(dim=0, correction=0)
        if mean is None:
            rows = layer(rows)
            continue
        shape = (1, -1, *[1] * (rows.ndim - 2))
        rows = (rows - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
    return rows


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_that_of_the_whole_data(name: str, training: bool, memory: str) -> None:
    model, (rows, classes) = make(name)
    model.train(training)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    if name == "mlp":
        model[7].eval()  # without statistics it would depend on batches
        model[7] = nn.Identity()
    expected = float(F.cross_entropy(witness(model, rows), classes))
    shuffled = torch.randperm(ROWS, generator=torch.Generator().manual_seed(2))
    for order in (torch.arange(ROWS), shuffled):
        for size in BATCHES:
            objective = ls.Objective(
                model, nn.CrossEntropyLoss(), (rows[order], classes[order]), buffers="recompute",
                batch_size=size,
            )  # fmt: skip
            assert objective.loss() == pytest.approx(expected, rel=1e-9)
            assert objective.notes == ()
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())
    assert all(m.training is training for m in model if not isinstance(m, nn.Identity))


class Twice(nn.Module):
    """One norm that is called twice, and one between the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.inner, self.last = nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.inner(torch.tanh(self.shared(rows)) * 2 + 1)
        return torch.as_tensor(self.last(self.shared(hidden)))


@torch.no_grad()
def test_a_norm_that_is_called_twice_has_the_statistics_of_all_its_inputs(memory: str) -> None:
    model, (rows, classes) = Twice().double().eval(), sorted_data(4)

    def normalize(inputs: Tensor, seen: Tensor) -> Tensor:
        return (inputs - seen.mean(0)) / (seen.var(0) + 1e-5).sqrt()

    before_inner = torch.tanh(normalize(rows, rows)) * 2 + 1
    second = normalize(before_inner, before_inner)
    both = torch.cat([rows, second])
    inner = torch.tanh(normalize(rows, both)) * 2 + 1
    outputs = model.last(normalize(normalize(inner, before_inner), both))
    expected = float(F.cross_entropy(outputs, classes))
    for size in BATCHES[:3]:
        objective = ls.Objective(
            model, nn.CrossEntropyLoss(), (rows, classes), buffers="recompute", batch_size=size
        )
        assert objective.loss() == pytest.approx(expected, rel=1e-9)


def test_elements_of_images_of_different_sizes_count_alike() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 2, s, s, generator=generator).double() + s for s in (2, 5, 9)]
    data = [(x, torch.tensor([0, 1, 0])) for x in images]
    elements = torch.cat([x.movedim(1, 0).flatten(1) for x in images], dim=1)
    objective = ls.Objective(model, nn.CrossEntropyLoss(), data, buffers="recompute")
    seen = _read_statistics(objective.problem)
    torch.testing.assert_close(seen["0.running_mean"], elements.mean(1))
    torch.testing.assert_close(seen["0.running_var"], elements.var(1))


def test_passes_are_one_or_one_for_each_norm(memory: str) -> None:
    model, data = make("cnn")
    objective = ls.Objective(
        model.eval(), nn.CrossEntropyLoss(), data, buffers="recompute", batch_size=7
    )
    with objective.problem.session() as session:
        passes = []
        for _ in range(2):
            session.evaluate(None)
            assert isinstance(session.statistics, RunningStatistics)
            passes.append(session.statistics.passes)
    assert passes == ([1, 1] if memory == "at once" else [4, 3])  # at first, it looks for a fourth


def test_statistics_of_another_meaning_are_an_error() -> None:
    class Deviation(OtherNorm):
        def forward(self, rows: Tensor) -> Tensor:
            if self.training:
                self.running_mean.lerp_(rows.amax(0), 0.2)
                self.running_var.lerp_(rows.std(0), 0.2)
            return rows - self.running_mean

    model = nn.Sequential(nn.Linear(4, 3), Deviation(3))
    objective = ls.Objective(model, nn.CrossEntropyLoss(), sorted_data(4), buffers="recompute")
    with pytest.raises(ObjectiveError, match=r"1 \(Deviation\).*cannot recompute"):
        objective.loss()


def test_a_scan_a_sample_and_a_hessian_use_statistics_of_all_rows() -> None:
    model, (rows, classes) = make("cnn")
    data = (rows.float(), classes)
    objective = ls.Objective(
        model.float().eval(), nn.CrossEntropyLoss(), data, buffers="recompute", batch_size=11
    )
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])
    plain = [objective.loss(line.at((x,))) for x in (-1.0, 0.0, 1.0)]
    for plan in (ls.engines.Local(workers=2), None):
        land = ls.scan(objective, line, ls.Grid(3), engine=plan)
        assert land.data["loss"].values == pytest.approx(plain, rel=1e-5)
    norm, whole = "1", _read_statistics(objective.problem)
    sampled = objective.problem.select_samples(range(0, ROWS, 2), torch.ones(1, ROWS // 2))
    hessian = ls.curvature.Hessian(objective, samples=list(range(20)))
    drawn = hessian._products.session.borrowed.model.state_dict()
    for statistics in (_read_statistics(sampled), drawn):
        for name in ("running_mean", "running_var"):
            key = f"0.{norm}.{name}"
            torch.testing.assert_close(statistics[key], whole[key])


def _read_statistics(problem: Problem) -> dict[str, Tensor]:
    """Return the buffers that a session has at the center."""
    with problem.session() as session:
        session.move(None)
        return {n: b.clone() for n, b in session.borrowed.model.named_buffers()}
