"""Which points go where: checked against what anyone can count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from landscope.engines.job import Point
from landscope.engines.scheduling import AHEAD, Dispatcher
from landscope.errors import EngineError


def some(count: int) -> list[Point]:
    return [(k, (0.5 * k,)) for k in range(count)]


def streamed(count: int) -> Iterator[Point]:
    yield from some(count)


def test_every_point_is_sent_once_and_then_there_are_none() -> None:
    dispatcher = Dispatcher(streamed(10), 2, size=4)
    chunks = []
    while chunk := dispatcher.next_chunk():
        chunks.append(chunk)
    assert [len(chunk) for chunk in chunks] == [4, 4, 2]
    assert [point for chunk in chunks for point in chunk] == some(10)
    assert not dispatcher.finished
    for chunk in chunks:
        dispatcher.done(chunk, 1.0)
    assert dispatcher.finished


def test_chunks_of_cheap_points_grow_to_a_tenth_of_a_second() -> None:
    dispatcher = Dispatcher(some(10_000), 2)
    first = dispatcher.next_chunk()
    assert len(first) == 1
    dispatcher.done(first, 0.002)
    assert len(dispatcher.next_chunk()) == pytest.approx(50, abs=1)


def test_chunks_grow_with_what_was_sent_where_the_end_is_not_known() -> None:
    dispatcher, sizes = Dispatcher(streamed(1000), 2), []
    while chunk := dispatcher.next_chunk():
        sizes.append(len(chunk))
        dispatcher.done(chunk, 1e-3 * len(chunk))
    assert sizes[:6] == [1] * 6
    assert all(size <= max(1, sum(sizes[:k]) / 4 + 0.5) for k, size in enumerate(sizes))
    assert sizes[-2] > 50


def test_a_point_of_a_second_is_sent_alone_and_not_ahead() -> None:
    dispatcher = Dispatcher(streamed(10), 2)
    assert dispatcher.ahead == AHEAD
    dispatcher.done(dispatcher.next_chunk(), 1.0)
    assert len(dispatcher.next_chunk()) == 1
    assert dispatcher.ahead == 1


def test_the_last_points_are_shared_among_the_workers() -> None:
    dispatcher = Dispatcher(some(101), 5)
    dispatcher.done(dispatcher.next_chunk(), 1e-2)
    assert len(dispatcher.next_chunk()) == 100 // (2 * AHEAD * 5)


def test_a_thousand_workers_get_chunks_that_one_driver_can_send() -> None:
    dispatcher = Dispatcher(some(1_000_000), 1000)
    dispatcher.done(dispatcher.next_chunk(), 0.05)
    seconds = 0.05 * len(dispatcher.next_chunk())
    assert 1000 / seconds == pytest.approx(1000), "chunks a second"


def test_a_thousand_workers_are_not_fed_single_points_at_the_beginning_either() -> None:
    dispatcher = Dispatcher(streamed(100), 1000)
    dispatcher.done(dispatcher.next_chunk(), 0.05)
    assert len(dispatcher.next_chunk()) == 10, "half a second"


def test_points_of_a_dead_worker_are_asked_again_one_by_one() -> None:
    dispatcher = Dispatcher(some(4), 2, size=4)
    chunk = dispatcher.next_chunk()
    dispatcher.lost(chunk, guilty=True)
    again = [dispatcher.next_chunk() for _ in range(4)]
    assert again == [(point,) for point in chunk]


def test_a_point_that_kills_three_workers_in_a_row_is_named() -> None:
    dispatcher = Dispatcher([(7, (0.25, -1.0))], 2)
    for _ in range(2):
        dispatcher.lost(dispatcher.next_chunk(), guilty=True)
    with pytest.raises(EngineError, match=r"3 workers died.*\(0\.25, -1\.0\).*Evaluate it alone"):
        dispatcher.lost(dispatcher.next_chunk(), guilty=True)


def test_points_that_waited_their_turn_are_not_blamed() -> None:
    dispatcher = Dispatcher(some(2), 2, size=1)
    for _ in range(5):
        dispatcher.lost(dispatcher.next_chunk(), guilty=False)
    first, second = dispatcher.next_chunk(), dispatcher.next_chunk()
    for _ in range(2):
        dispatcher.lost(first, guilty=True)
        first = dispatcher.next_chunk()
    dispatcher.done(first, 0.1)
    dispatcher.lost(second, guilty=True)
    assert dispatcher.next_chunk() == second
