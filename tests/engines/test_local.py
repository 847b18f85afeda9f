"""The local engine: workers in threads, memory, errors; it restores all that it borrows."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.engines.job import Job
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.errors import EngineError
from tests import cases

TWO = Plan(workers=2, threads=1)


def _job(objective: ls.Objective, **options: Any) -> Job:
    return Job(objective, cases.plane(objective), **options)


def _points(count: int) -> list[tuple[int, tuple[float, float]]]:
    return [(k, (0.05 * k, -0.03 * k)) for k in range(count)]


def _evaluate(objective: ls.Objective, plan: Plan, count: int = 12, **run: Any) -> dict[int, Any]:
    with Local(plan=plan).open(_job(objective)) as pool:
        return {r.point: r for results in pool.run(_points(count), **run) for r in results}


def test_two_workers_find_what_one_finds() -> None:
    objective = cases.CASES[0]().objective()
    one, two = (_evaluate(objective, Plan(workers=w, threads=1)) for w in (1, 2))
    assert {k: r.values for k, r in one.items()} == {k: r.values for k, r in two.items()}
    assert all(r.seconds > 0 for r in two.values())


def test_a_pool_runs_several_times() -> None:
    objective = cases.CASES[0]().objective()
    with Local(plan=TWO).open(_job(objective)) as pool:
        rounds = [[r.values for rs in pool.run(_points(4)) for r in rs] for _ in range(3)]
        assert pool.size == 2
    assert [sorted(map(str, r)) for r in rounds] == [sorted(map(str, rounds[0]))] * 3


@pytest.mark.parametrize("workers", [1, 2])
def test_terms_are_those_of_the_objective(workers: int) -> None:
    objective = cases.CASES[0]().objective()
    result = _evaluate(objective, Plan(workers=workers, threads=1), 1, per_sample=True)[0]
    values, counts = result.per_sample
    expected = objective.terms()
    assert counts.tolist() == [1.0] * len(expected)
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_arrives_and_ends_the_others(workers: int) -> None:
    objective = cases.CASES[0]().objective()

    def fails(_: ls.Objective, params: dict[str, Tensor]) -> dict[str, float]:
        raise ZeroDivisionError("in the middle")

    job = _job(objective, quantities=(fails,))
    with Local(plan=Plan(workers=workers, threads=1)).open(job) as pool:
        with pytest.raises(ZeroDivisionError, match="in the middle"):
            list(pool.run(_points(50)))
        with pytest.raises(ZeroDivisionError):  # and the pool is still there
            list(pool.run(_points(2)))


def test_a_run_that_is_left_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    objective = cases.CASES[0]().objective()
    with Local(plan=TWO).open(_job(objective)) as pool:
        running = pool.run((k, (0.0, 0.0)) for k in range(10**6))
        next(running)
        running.close()
    assert threading.active_count() == before


def test_points_are_taken_as_workers_become_free() -> None:
    indices: list[int] = []

    def points() -> Any:
        for k in range(10**6):
            indices.append(k)
            yield k, (0.0, 0.0)

    with Local(plan=TWO).open(_job(cases.CASES[0]().objective())) as pool:
        running = pool.run(points())
        next(running)
        running.close()
    assert len(indices) < 1000


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _evaluate(cases.CASES[0]().objective(), Plan(workers=3, threads=1))
        assert torch.get_num_threads() == 2
        counts: list[int] = []
        thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert counts == [2]
    finally:
        torch.set_num_threads(before)


def test_several_devices_have_a_worker_each() -> None:
    objective = cases.CASES[0]().objective()
    with Local(plan=Plan(threads=1), devices=("cpu", "cpu")).open(_job(objective)) as pool:
        assert pool.size == 2
        found = {r.point: r.values for rs in pool.run(_points(6)) for r in rs}
    assert found == {k: r.values for k, r in _evaluate(objective, Plan(threads=1), 6).items()}


class Greedy(nn.Module):
    """A model that has memory for a few rows only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self.seen: list[int] = []

    def forward(self, rows: Tensor) -> Tensor:
        self.seen.append(len(rows))
        if len(rows) > 6:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried")
        found: Tensor = self.layer(rows)
        return found


def test_batches_are_halved_when_memory_does_not_suffice() -> None:
    data = torch.randn(40, 5, generator=cases.seeded(0)), torch.zeros(40, dtype=torch.int64)
    model = Greedy()
    objective = ls.Objective(model, nn.CrossEntropyLoss(), data, batch_size=40)
    job = _job(objective)
    with Local(plan=Plan()).open(job) as pool:
        (found,) = next(pool.run(_points(1)))
        plan = Plan.loads(pool.plan)
    model.seen.clear()
    small = ls.Objective(model, nn.CrossEntropyLoss(), data, batch_size=5)
    assert found.values["loss"] == pytest.approx(small.loss(), rel=1e-6)
    assert plan.rows == 5  # 40, 20, 10, 5: told to the journal


def test_batches_of_unequal_widths_are_halved_each_by_itself() -> None:
    data = [
        (torch.randn(rows, width, 5, generator=cases.seeded(0)), torch.zeros(rows, width).long())
        for rows, width in ((10, 4), (9, 4), (12, 2), (5, 3))
    ]
    model = Greedy()
    job = _job(ls.Objective(model, ls.losses.tokens(), data))
    with Local(plan=Plan()).open(job) as pool:
        (found,) = next(pool.run(_points(1)))
    assert model.seen[-7:] == [5, 5, 5, 4, 6, 6, 5]  # neighbors of one width are joined
    with torch.no_grad():
        each = [model(x) for inputs, _ in data for x in inputs.split(1)]
    logits = torch.cat([outputs.flatten(0, 1) for outputs in each])
    expected = nn.functional.cross_entropy(logits, torch.zeros(len(logits)).long())
    assert found.values["loss"] == pytest.approx(float(expected), rel=1e-6)


def test_memory_that_suffices_for_no_row_is_an_error() -> None:
    class Hopeless(Greedy):
        def forward(self, rows: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("no")

    data = torch.randn(4, 5), torch.zeros(4, dtype=torch.int64)
    objective = ls.Objective(Hopeless(), nn.CrossEntropyLoss(), data)
    with pytest.raises(RuntimeError, match="no"):
        _evaluate(objective, Plan(), 1)


def test_less_than_one_worker_is_refused() -> None:
    with pytest.raises(EngineError, match="workers=0; expected 1 or more"):
        Local(workers=0)


def test_quantities_see_the_point_in_every_worker() -> None:
    objective = cases.CASES[0]().objective()

    def total(_: ls.Objective, params: dict[str, Tensor]) -> dict[str, float]:
        return {"total": float(sum(p.double().sum() for p in params.values()))}

    plane = cases.plane(objective)
    land = ls.scan(objective, plane, ls.Grid(3), quantities=(total,), engine=Local(plan=TWO))
    for i, y in enumerate((-1.0, 0.0, 1.0)):
        for j, x in enumerate((-1.0, 0.0, 1.0)):
            expected = total(objective, plane.at((x, y)))["total"]
            assert float(land.data["total"][i, j]) == pytest.approx(expected)


@pytest.fixture
def _young() -> Iterator[None]:
    """Leave what other tests left behind out of ``gc.get_objects``: to walk it takes long."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_young")
@pytest.mark.parametrize("workers", [1, 2])
def test_memory_is_the_parameters_twice_and_does_not_grow_with_the_resolution(
    workers: int,
) -> None:
    """Peak of the tensors that are not the user's: a copy and a batch of activations per worker."""
    wide = 600
    model = nn.Sequential(nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, 3))
    data = torch.randn(20, wide), torch.zeros(20, dtype=torch.int64)
    objective = ls.Objective(model, nn.CrossEntropyLoss(), data)
    (d,) = ls.directions.random(objective.center, 1)
    size = sum(p.nbytes for p in model.parameters())
    activations = 3 * 20 * wide * 4
    peaks = []
    for count in (8, 80):
        line = ls.Line(objective.center, d)
        with Local(plan=Plan(workers=workers, threads=1)).open(Job(objective, line)) as pool:
            before, peak = _bytes(), 0
            for _ in pool.run((k, (k / count,)) for k in range(count)):
                peak = max(peak, _bytes() - before)
            peaks.append(peak)
    assert peaks[0] > 0.9 * size  # what is looked for is seen
    for peak in peaks:
        assert peak <= workers * (size + activations)


def _bytes() -> int:
    """Return the bytes of all tensors that are alive, each piece of memory once."""
    found: dict[int, int] = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor):
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def test_the_users_model_is_not_copied_for_a_worker() -> None:
    objective = cases.CASES[0]().objective()
    clone = objective.problem.clone()
    addresses = {n: p.data_ptr() for n, p in objective.model.named_parameters()}
    assert {n: p.data_ptr() for n, p in clone.model.named_parameters()} == addresses
    assert clone.model is not objective.model
