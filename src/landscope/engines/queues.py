"""Queues through which results come back from workers."""

from __future__ import annotations

import contextlib
import queue
from typing import TypeVar

T = TypeVar("T")


def drain(source: queue.SimpleQueue[T], timeout: float | None = None) -> list[T]:
    """Return everything that is in a queue, after waiting for a first item.

    Args:
        source: The queue.
        timeout: The seconds to wait for the first item; None waits forever.

    Raises:
        queue.Empty: When no item came in time.
    """
    items = [source.get(timeout=timeout)]
    with contextlib.suppress(queue.Empty):
        while True:
            items.append(source.get_nowait())
    return items
