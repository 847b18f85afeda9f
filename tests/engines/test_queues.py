"""Draining a queue: everything that is there, after a first item."""

from __future__ import annotations

import queue
import threading

import pytest

from landscope.engines.queues import drain


def test_all_items_come_in_order_and_the_queue_is_empty() -> None:
    source: queue.SimpleQueue[int] = queue.SimpleQueue()
    for k in range(5):
        source.put(k)
    assert drain(source) == [0, 1, 2, 3, 4]
    assert source.empty()


def test_an_empty_queue_is_waited_for() -> None:
    source: queue.SimpleQueue[str] = queue.SimpleQueue()
    timer = threading.Timer(0.05, source.put, ["late"])
    timer.start()
    assert drain(source) == ["late"]
    timer.join()


def test_waiting_ends_with_the_timeout() -> None:
    with pytest.raises(queue.Empty):
        drain(queue.SimpleQueue(), timeout=0.01)
