"""Scheduling: which points a worker gets, checked by counting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from landscope.engines.job import Point
from landscope.engines.scheduling import PREFETCH, Scheduler
from landscope.errors import EngineError


def some(count: int) -> list[Point]:
    return [(k, (0.5 * k,)) for k in range(count)]


def streamed(count: int) -> Iterator[Point]:
    yield from some(count)


def test_every_point_is_sent_once_and_then_there_are_none() -> None:
    scheduler = Scheduler(streamed(10), 2, size=4)
    chunks = []
    while chunk := scheduler.next_chunk():
        chunks.append(chunk)
    assert [len(chunk) for chunk in chunks] == [4, 4, 2]
    assert [point for chunk in chunks for point in chunk] == some(10)
    assert not scheduler.finished
    for chunk in chunks:
        scheduler.complete(chunk, 1.0)
    assert scheduler.finished


def test_chunks_of_cheap_points_grow_to_a_tenth_of_a_second() -> None:
    scheduler = Scheduler(some(10_000), 2)
    first = scheduler.next_chunk()
    assert len(first) == 1
    scheduler.complete(first, 0.002)
    assert len(scheduler.next_chunk()) == pytest.approx(50, abs=1)


def test_chunks_grow_with_what_was_sent_where_the_end_is_not_known() -> None:
    scheduler, sizes = Scheduler(streamed(1000), 2), []
    while chunk := scheduler.next_chunk():
        sizes.append(len(chunk))
        scheduler.complete(chunk, 1e-3 * len(chunk))
    assert sizes[:6] == [1] * 6
    assert all(size <= max(1, sum(sizes[:k]) / 4 + 0.5) for k, size in enumerate(sizes))
    assert sizes[-2] > 50


def test_a_point_of_a_second_is_sent_alone_and_not_ahead() -> None:
    scheduler = Scheduler(streamed(10), 2)
    assert scheduler.prefetch == PREFETCH
    scheduler.complete(scheduler.next_chunk(), 1.0)
    assert len(scheduler.next_chunk()) == 1
    assert scheduler.prefetch == 1


def test_the_last_points_are_shared_among_the_workers() -> None:
    scheduler = Scheduler(some(101), 5)
    scheduler.complete(scheduler.next_chunk(), 1e-2)
    assert len(scheduler.next_chunk()) == 100 // (2 * PREFETCH * 5)


def test_a_thousand_workers_get_chunks_that_one_driver_can_send() -> None:
    scheduler = Scheduler(some(1_000_000), 1000)
    scheduler.complete(scheduler.next_chunk(), 0.05)
    seconds = 0.05 * len(scheduler.next_chunk())
    assert 1000 / seconds == pytest.approx(1000), "chunks a second"


def test_a_thousand_workers_are_not_fed_single_points_at_the_beginning_either() -> None:
    scheduler = Scheduler(streamed(100), 1000)
    scheduler.complete(scheduler.next_chunk(), 0.05)
    assert len(scheduler.next_chunk()) == 10, "half a second"


def test_points_of_a_dead_worker_are_asked_again_one_by_one() -> None:
    scheduler = Scheduler(some(4), 2, size=4)
    chunk = scheduler.next_chunk()
    scheduler.requeue(chunk, was_running=True)
    again = [scheduler.next_chunk() for _ in range(4)]
    assert again == [(point,) for point in chunk]


def test_a_point_that_kills_three_workers_in_a_row_is_named() -> None:
    scheduler = Scheduler([(7, (0.25, -1.0))], 2)
    for _ in range(2):
        scheduler.requeue(scheduler.next_chunk(), was_running=True)
    with pytest.raises(EngineError, match=r"3 workers died.*\(0\.25, -1\.0\).*the cause, evaluate"):
        scheduler.requeue(scheduler.next_chunk(), was_running=True)


def test_points_that_waited_their_turn_are_not_blamed() -> None:
    scheduler = Scheduler(some(2), 2, size=1)
    for _ in range(5):
        scheduler.requeue(scheduler.next_chunk(), was_running=False)
    first, second = scheduler.next_chunk(), scheduler.next_chunk()
    for _ in range(2):
        scheduler.requeue(first, was_running=True)
        first = scheduler.next_chunk()
    scheduler.complete(first, 0.1)
    scheduler.requeue(second, was_running=True)
    assert scheduler.next_chunk() == second
