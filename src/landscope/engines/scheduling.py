"""Dispatch: which points go to a worker next, how many at once, and which are asked again.

There is no clock, no thread and no network in it, so a simulation of a thousand workers runs the
same code as a cluster (``benchmarks/scheduling.py``).
"""

from __future__ import annotations

import itertools
import operator
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import final

from landscope.engines.job import Point
from landscope.errors import EngineError

Chunk = tuple[Point, ...]
"""Points that are sent to a worker together."""

AHEAD = 2  # chunks a worker holds: one that it works on, and the next
ATTEMPTS = 3  # workers that may die of a point
MOST = 1024  # points a chunk
_LONG = 0.5  # seconds; while sending the next of such points a worker may wait
_SECONDS = 0.1  # that a chunk takes at least, against a millisecond for sending it
_CHUNKS_A_SECOND = 2000  # that a driver can send, to all workers together: half a ms each, with Ray
_MEMORY = 0.2  # weight of the last chunk in the running mean of seconds a point


@final
class Dispatcher:
    """Points on their way to workers.

    Args:
        points: taken one by one, as late as can be.
        workers: how many there are.
        size: points a chunk; None makes chunks that take about a tenth of a second (and more with
            more than a hundred workers, for one driver feeds them all), and small ones at the end,
            or the beginning where the end is not known, so that every worker gets some.
        most: points a chunk, at most.

    Cost: about a microsecond a point; memory does not grow with the points.
    """

    def __init__(
        self,
        points: Iterable[Point],
        workers: int,
        *,
        size: int | None = None,
        most: int = MOST,
    ) -> None:
        self.workers, self.most = workers, most
        self.target = max(_SECONDS, 2 * workers / _CHUNKS_A_SECOND)
        self._size = size
        self._left: int | None = operator.length_hint(points, -1)
        self._left = None if self._left < 0 else self._left
        self._points = iter(points)
        self._again: deque[Point] = deque()
        self._sent = 0
        self._flying = 0  # points that are with workers
        self._ended = False
        self._deaths: Counter[int] = Counter()
        self._seconds: float | None = None

    def next_chunk(self) -> Chunk:
        """Return the points to send next; none when there are none left."""
        if self._again:
            self._flying += 1
            return (self._again.popleft(),)  # alone, so that the one that kills is found
        chunk = tuple(itertools.islice(self._points, self.size))
        if self._left is not None:
            self._left -= len(chunk)
        self._sent += len(chunk)
        self._flying += len(chunk)
        self._ended = not chunk
        return chunk

    @property
    def finished(self) -> bool:
        """Whether every point was sent and is known."""
        return self._ended and not self._again and not self._flying

    @property
    def size(self) -> int:
        """How many points the next chunk has."""
        if self._size is not None:
            return self._size
        if self._seconds is None:
            return 1
        seconds = max(self._seconds, 1e-9)
        # Nobody should wait at the end for one who has much left. Where nobody knows how many
        # points are to come, as many may be as have been.
        known = self._sent if self._left is None else self._left / 2
        least = self.workers / _CHUNKS_A_SECOND / seconds
        size = max(min(self.target / seconds, known / (AHEAD * self.workers)), least)
        return max(min(int(size + 0.5), self.most), 1)

    @property
    def ahead(self) -> int:
        """How many chunks a worker should have: a long point had better wait for any worker."""
        return 1 if self._seconds is not None and self._seconds > _LONG else AHEAD

    def done(self, chunk: Sequence[Point], seconds: float) -> None:
        """Note that the points of a chunk are known, and what they took a worker."""
        self._flying -= len(chunk)
        each = seconds / max(len(chunk), 1)
        before = each if self._seconds is None else self._seconds
        self._seconds = before + _MEMORY * (each - before)

    def lost(self, chunk: Sequence[Point], *, guilty: bool) -> None:
        """Ask for the points of a chunk again, whose worker died.

        Args:
            chunk: what the worker had.
            guilty: whether it was at work on them: the points that waited their turn are innocent.

        Raises:
            EngineError: when a point was being evaluated by three workers that died.
        """
        self._flying -= len(chunk)
        self._again.extend(chunk)
        if not guilty:
            return
        for index, coordinates in chunk:
            self._deaths[index] += 1
            if self._deaths[index] >= ATTEMPTS:
                raise EngineError(
                    f"{ATTEMPTS} workers died, one after the other, at the point {coordinates}:"
                    " what was found before is safe. Evaluate it alone, with"
                    f" objective.loss(slice.at({coordinates})), to see why; a worker that runs out"
                    " of memory is killed too, and needs smaller batches."
                )
