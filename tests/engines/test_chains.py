"""Chains: where each point starts, and that its value does not depend on the worker.

The order is checked against its definition, written down here with divisibility in the place of
bits; values against those of a plain recursion along it, and against themselves: whoever evaluates
a point, and whatever came before, the bits are the same.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import landscope as ls
from landscope.engines.chains import WarmStartEvaluator, find_chain, locate, sort_by_chain
from landscope.engines.job import Job
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.objective.objective import Objective
from landscope.objective.quantities import Chained
from landscope.params import Params, norm
from landscope.progress import Progress
from tests import cases
from tests.engines import distant

SHAPES = st.lists(st.integers(1, 70), min_size=1, max_size=3).map(tuple)


@dataclass(frozen=True)
class Trail(Chained):
    """A number that depends on every point of the chain and on their order."""

    def follow(
        self, objective: Objective, params: Params, state: Any
    ) -> tuple[dict[str, float], Any]:
        before = 0.0 if state is None else state
        found = 0.7 * before + norm(params)
        return {"trail": found}, found


class Counting(Chained):
    """Notes the state from which each point starts: the coordinate of its predecessor."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Any]] = []

    def follow(
        self, objective: Objective, params: Params, state: Any
    ) -> tuple[dict[str, float], Any]:
        place = float(next(iter(params.values())).flatten()[0])
        self.calls.append((place, state))
        return {"place": place}, place


def steps_of(index: int, shape: Sequence[int]) -> list[int]:
    """Whole steps from the middle of the grid, an axis each, x running fastest."""
    places = np.unravel_index(index, tuple(shape)[::-1])[::-1]
    return [int(k) - n // 2 for k, n in zip(places, shape, strict=True)]


def level_of(steps: Sequence[int]) -> int:
    """The step of the coarsest grid in which a point lies: the largest power of 2 in all."""
    level = 1
    while all(s % (2 * level) == 0 for s in steps):
        level *= 2
    return level


@settings(max_examples=300, deadline=None)
@example(shape=(1,), where=0.0)
@example(shape=(64, 1, 2), where=0.0)
@given(shape=SHAPES, where=st.floats(0, 1))
def test_each_point_follows_the_nearest_one_of_the_next_coarser_grid(
    shape: tuple[int, ...], where: float
) -> None:
    index = min(int(where * np.prod(shape)), int(np.prod(shape)) - 1)
    found = find_chain(index, shape)
    assert found[-1] == index
    assert steps_of(found[0], shape) == [0] * len(shape)
    assert len(found) <= np.log2(max(shape)) + 2
    for before, after in itertools.pairwise(found):
        old, new = steps_of(before, shape), steps_of(after, shape)
        coarse = 2 * level_of(new)
        for a, b, n in zip(old, new, shape, strict=True):
            assert a % coarse == 0, "it lies in the coarser grid"
            assert -(n // 2) <= a < n - n // 2, "and in this one"
            inside = [c for c in range(-(n // 2), n - n // 2) if c % coarse == 0]
            nearest = min(abs(c - b) for c in inside)
            assert abs(a - b) == nearest
            assert abs(a) <= abs(b), "of two that are as near, the one nearer to the middle"


@settings(max_examples=200, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32), share=st.floats(0.01, 1))
def test_in_order_every_point_comes_after_the_one_that_it_follows(
    shape: tuple[int, ...], seed: int, share: float
) -> None:
    total = int(np.prod(shape))
    chosen = random.Random(seed).sample(range(total), min(max(int(share * total), 1), 400))
    found = sort_by_chain(chosen, shape)
    assert sorted(found) == sorted(chosen)
    places = {index: k for k, index in enumerate(found)}
    for index in chosen:
        for before in find_chain(index, shape)[:-1]:
            if before in places:
                assert places[before] < places[index]


def test_coordinates_are_those_of_the_grid_x_running_fastest() -> None:
    axes = ls.Grid((4, 3), ((0, 3), (-1, 1))).axes(("x", "y"))
    assert [locate(k, axes) for k in (0, 1, 4, 11)] == [(0, -1), (1, -1), (0, 0), (3, 1)]


def line_chain(points: int) -> tuple[WarmStartEvaluator, Counting, Objective]:
    """The chain over a line on which a parameter is its coordinate, which is its index."""
    job = distant.line_job(distant.Fragile(np.inf))
    counting = Counting()
    return (
        WarmStartEvaluator(counting, job.slice, (np.arange(float(points)),)),
        counting,
        job.objective,
    )


@pytest.mark.parametrize("points", [1, 2, 51, 1001])
def test_in_order_no_point_is_measured_twice(points: int) -> None:
    chain, counting, objective = line_chain(points)
    for index in sort_by_chain(range(points), (points,)):
        assert chain.values(objective, index) == {"place": float(index)}
    assert len(counting.calls) == points
    for place, state in counting.calls:
        way = find_chain(int(place), (points,))
        assert state == (way[-2] if len(way) > 1 else None)


@pytest.mark.parametrize("shape", [(40, 33), (300, 257)])
def test_in_order_no_point_of_a_plane_is_measured_twice(shape: tuple[int, int]) -> None:
    objective = distant.line_job(distant.Fragile(np.inf)).objective
    still = Params({n: t * 0 for n, t in objective.center.items()})
    step = Params({n: t * 0 + 1 for n, t in objective.center.items()})
    other = Params({n: t * 0 + 1000 for n, t in objective.center.items()})
    counting = Counting()
    axes = [np.arange(float(n)) for n in shape]
    chain = WarmStartEvaluator(counting, ls.Plane(still, step, other, dependent=True), axes)
    chosen = [k for k in range(shape[0] * shape[1]) if k % shape[0] > 0.9 * shape[0]]
    chosen += [k for index in chosen for k in find_chain(index, shape)]
    for index in sort_by_chain(set(chosen), shape):
        chain.values(objective, index)
    assert len(counting.calls) == len(set(chosen))


def test_a_scan_goes_in_an_order_in_which_no_point_is_measured_twice() -> None:
    counting = Counting()
    objective = cases.mlp(rows=4).objective()
    ls.scan(
        objective, cases.plane(objective), ls.Grid((18, 13)), engine=distant.SERIAL,
        quantities=(counting,),
    )  # fmt: skip
    assert len(counting.calls) == 18 * 13


def test_the_memory_of_a_chain_is_bounded() -> None:
    chain, counting, objective = line_chain(4001)
    for index in range(0, 4001, 7):
        chain.values(objective, index)
        assert len(chain.states) <= np.log2(4001) + 2
    assert len(counting.calls) <= 4001 / 7 * (np.log2(4001) + 2)


def test_without_a_neighbor_it_starts_cold() -> None:
    counting = Counting()
    objective = cases.mlp().objective()
    counting(objective, objective.center)
    assert counting.calls[0][1] is None
    plane = cases.plane(objective)
    job = Job(objective, plane, (Trail(),), points=2)
    points = [(0, (-1.0, 0.5)), (5, (0.25, 0.5))]
    for index, found in distant.evaluate(distant.SERIAL, job, points).items():
        here = plane.at(dict(points)[index])
        assert found.values["trail"] == norm(here)


# --- the same bits ------------------------------------------------------------------------------

GRID = ls.Grid((5, 6), ((-1, 1), (-0.8, 0.9)))
QUANTITIES = (Trail(), ls.curvature.hessian_extremes())


def scan_points(journal: Path, **options: Any) -> dict[int, dict[str, float]]:
    """Return the values at every point that was evaluated."""
    objective = cases.mlp(rows=12).objective()
    options = {"engine": distant.SERIAL, "sampler": GRID, **options}
    ls.scan(objective, cases.plane(objective), journal=journal, quantities=QUANTITIES, **options)
    with ls.Journal(journal) as kept:
        return {int(k): dict(v) for k, v in kept.values().items()}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, float]]:
    found = scan_points(tmp_path_factory.mktemp("serial") / "j")
    assert len(found) == 30
    assert set(found[0]) >= {"loss", "trail", "hessian_min", "hessian_max", "hessian_products"}
    return found


def test_values_are_those_of_a_recursion_along_the_path(
    serial: dict[int, dict[str, float]],
) -> None:
    objective = cases.mlp(rows=12).objective()
    plane, axes = cases.plane(objective), GRID.axes(("x", "y"))
    for index, values in serial.items():
        expected = 0.0
        for step in find_chain(index, (5, 6)):
            expected = 0.7 * expected + norm(plane.at(locate(step, axes)))
        assert values["trail"] == expected


def test_a_scan_that_is_interrupted_and_resumed_finds_the_same_bits(
    serial: dict[int, dict[str, float]], tmp_path: Path
) -> None:
    class EnoughError(Exception):
        pass

    def stop_at(count: int) -> Any:
        def tell(now: Progress) -> None:
            if now.done >= count:
                raise EnoughError

        return tell

    for count in (4, 13, 22):  # each in the middle of a chain
        with pytest.raises(EnoughError):
            scan_points(tmp_path / "j", progress=stop_at(count))
        with ls.Journal(tmp_path / "j") as kept:
            assert len(kept.values()) == count
    assert scan_points(tmp_path / "j") == serial


def test_two_threads_find_the_same_bits(
    serial: dict[int, dict[str, float]], tmp_path: Path
) -> None:
    engine = Local(plan=Plan(workers=2, threads=1))
    assert scan_points(tmp_path / "j", engine=engine) == serial


def test_two_processes_find_the_same_bits(
    serial: dict[int, dict[str, float]], tmp_path: Path
) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        engine = ls.engines.Executor(pool, threads=1, chunk=5)
        assert scan_points(tmp_path / "j", engine=engine) == serial


def test_a_sampler_that_asks_in_another_order_finds_the_same_bits(
    serial: dict[int, dict[str, float]], tmp_path: Path
) -> None:
    class Backwards:
        def axes(self, dims: Any) -> tuple[np.ndarray, ...]:
            return GRID.axes(dims)

        def ask(self, shape: Any, known: Any) -> list[int]:
            return [k for k in range(29, -1, -1) if k not in known][:4]

        def fill(self, shape: Any, known: Any) -> None:
            pass

        def with_span(self, find: Any) -> Backwards:
            return self

        def expected_points(self, shape: Any) -> int:
            return 30

    assert scan_points(tmp_path / "j", sampler=Backwards()) == serial


def test_an_adaptive_sampler_finds_the_same_bits(tmp_path: Path) -> None:
    some = scan_points(tmp_path / "a", sampler=ls.Adaptive(resolution=(11, 11), tolerance=0.3))
    whole = scan_points(tmp_path / "b", sampler=ls.Grid((11, 11)), engine=distant.SERIAL)
    assert 20 <= len(some) < len(whole) == 121
    assert {k: whole[k] for k in some} == some
