"""Plans: chosen by measurement, checked against the plain pass, and stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

import landscope as ls
from landscope.engines import local, tuning
from landscope.engines.fused import Fused
from landscope.engines.job import Job, Point, choose_probes
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.errors import EngineError
from tests.cases import seeded


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "MIN_EVALUATIONS", 1000)


def _objective(model: nn.Module | None = None, loss: Any = None) -> ls.Objective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made = model or nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
    data = torch.randn(600, 12, generator=seeded(0)), torch.randint(3, (600,), generator=seeded(1))
    return ls.Objective(made, loss or nn.CrossEntropyLoss(), data, batch_size=50)


def _job(objective: ls.Objective, points: int = 400) -> Job:
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    return Job(objective, plane, points=points, probes=choose_probes(ls.Grid(21).axes(plane.dims)))


def _values(job: Job, engine: Local, points: Sequence[Point]) -> list[dict[str, float]]:
    with engine.open(job) as pool:
        found = {r.point: r.values for results in pool.run(points) for r in results}
    return [found[k] for k, _ in points]


def test_a_measured_plan_gives_the_values_of_the_plain_pass() -> None:
    objective = _objective()
    job, points = _job(objective), [(k, (0.1 * k, -0.2 * k)) for k in range(4)]
    found = _values(job, Local(), points)
    with Local().open(job) as pool:
        assert Plan.loads(pool.plan).plain is not None  # it was measured
    plain = _values(_job(objective), Local(plan=Plan()), points)
    for one, other in zip(found, plain, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_packed_sequences_whose_rows_cannot_be_counted_are_measured_too() -> None:
    """Witness: torch's own loss of each sequence by itself."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.layer, self.out = nn.Linear(3, 3), nn.LSTM(3, 4), nn.Linear(4, 2)

        def forward(self, rows: rnn.PackedSequence) -> Tensor:
            hidden = rnn.PackedSequence(self.embed(rows.data), *rows[1:])
            return self.out(self.layer(hidden)[0].data)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    rows = [torch.randn(length, 3) for length in (3, 5, 1, 4) * 50]
    packed = [rnn.pack_sequence(rows[k : k + 4], enforce_sorted=False) for k in range(0, 200, 4)]
    model, loss = Tagger().eval(), nn.CrossEntropyLoss()
    zeros = [torch.zeros(len(p.data), dtype=torch.int64) for p in packed]
    objective = ls.Objective(model, loss, list(zip(packed, zeros, strict=True)))
    (values,) = _values(_job(objective), Local(), [(0, (0.0, 0.0))])
    with torch.no_grad():
        logits = torch.cat([model.out(model.layer(model.embed(row))[0]) for row in rows])
    assert values["loss"] == pytest.approx(float(loss(logits, logits.new_zeros(650).long())))


def test_a_short_scan_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning._Trials, "find_fastest", None)  # would raise
    job = _job(_objective(), points=1)
    with Local().open(job) as pool:
        assert Plan.loads(pool.plan) == Plan()


def test_the_plan_of_a_journal_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning._Trials, "find_fastest", None)
    job = replace(_job(_objective()), plan=Plan(rows=123).dumps())
    with Local().open(job) as pool:
        assert Plan.loads(pool.plan) == Plan(rows=123)


def test_what_was_measured_once_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _job(_objective()), _job(_objective(), points=500)
    with Local().open(first) as pool:
        plan = pool.plan
    monkeypatch.setattr(tuning._Trials, "find_fastest", None)
    with Local().open(second) as pool:
        assert pool.plan == plan


def test_a_cache_that_cannot_be_written_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path / "file"))
    job = _job(_objective())
    with Local().open(job) as pool:
        assert Plan.loads(pool.plan)


def test_a_pass_with_wrong_values_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Fused.__call__

    def wrong(self: Fused, inputs: Tensor) -> Tensor:
        found: Tensor = right(self, inputs[:1]).expand(len(inputs), -1)  # fast, and wrong
        return found

    monkeypatch.setattr(Fused, "__call__", wrong)
    job = _job(_objective())
    with Local().open(job) as pool:
        assert Plan.loads(pool.plan).forward == "plain"


class Mixing(nn.Module):
    """A model whose rows depend on each other: batches of another size give other values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.layer(rows - rows.mean(dim=0))
        return found


def test_batches_stay_as_given_where_rows_depend_on_each_other() -> None:
    job = _job(_objective(Mixing()))
    with Local().open(job) as pool:
        assert Plan.loads(pool.plan).rows in (None, 50)


class Drawing(nn.Module):
    """A model that draws the same noise at every call, by seeding the generator of all threads."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, rows: Tensor) -> Tensor:
        torch.manual_seed(0)
        found: Tensor = self.layer(rows + torch.randn(12))
        return found


def test_a_model_that_draws_random_numbers_has_one_worker() -> None:
    job = _job(_objective(Drawing()))
    with Local().open(job) as pool:
        assert Plan.loads(pool.plan).workers == 1


def test_a_loss_that_holds_the_users_model_is_not_shared_among_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning, "_RATIO_IF_LIKELY", 1e9)  # any right plan is accepted
    model = nn.Linear(12, 3)

    def terms(given: nn.Module, batch: Any) -> Tensor:
        rows, targets = batch  # the model is not the one that it is given
        return nn.functional.cross_entropy(model(rows), targets, reduction="none")

    job = _job(_objective(model, ls.losses.custom(terms)))
    with Local().open(job) as pool:
        assert Plan.loads(pool.plan).workers == 1


def test_the_same_question_twice_has_one_plan_and_one_surface() -> None:
    lands = []
    for _ in range(2):
        objective = _objective()
        plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
        lands.append(ls.scan(objective, plane, ls.Grid(9)))
    assert lands[0].data.identical(lands[1].data)


def test_workers_that_disturb_each_other_are_refused_with_a_sentence() -> None:
    model = nn.Linear(12, 3)

    def terms(given: nn.Module, batch: Any) -> Tensor:
        rows, targets = batch  # the model is not the one that it is given
        return nn.functional.cross_entropy(model(rows), targets, reduction="none")

    with (
        pytest.raises(EngineError, match="workers=2 at the same time do not give"),
        Local(workers=2).open(_job(_objective(model, ls.losses.custom(terms)))),
    ):
        pass


class Walking:
    """Batches that can be iterated again, but not twice at the same time."""

    def __init__(self) -> None:
        rows = torch.randn(600, 12, generator=seeded(0))
        self.batches = [(part, torch.zeros(50).long()) for part in rows.split(50)]
        self.place = 0

    def __iter__(self) -> Walking:
        self.place = 0
        return self

    def __next__(self) -> Any:
        if self.place == len(self.batches):
            raise StopIteration
        self.place += 1
        return self.batches[self.place - 1]


class Stream:
    """Returns one shared iterator."""

    def __init__(self) -> None:
        self.walk = Walking()

    def __iter__(self) -> Any:
        return iter(self.walk)


def test_data_that_are_streamed_are_not_walked_by_two_threads_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An iterable of the user may store its position: threads are not even tried."""
    tried: list[int] = []
    open_pool = local._open_pool

    def spy(job: Job, objectives: Any, plan: Plan, data: Any) -> Any:
        tried.append(plan.workers)
        return open_pool(job, objectives, plan, data)

    monkeypatch.setattr(local, "_open_pool", spy)
    for cache, most in ((False, 1), (True, torch.get_num_threads())):
        tried.clear()
        monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path / str(cache)))
        objective = ls.Objective(
            nn.Linear(12, 3), nn.CrossEntropyLoss(), Stream(), cache=cache, batch_size=30
        )
        with Local().open(_job(objective)):
            assert max(tried) == most
