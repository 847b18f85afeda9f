"""Scheduling: which points a worker gets next, how many at once, and which are sent again.

The code uses no clock, no thread and no network, so a simulation of a thousand workers
(``benchmarks/scheduling.py``) runs the same code as a cluster.
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

PREFETCH = 2  # chunks that a worker holds: the one it works on, and the next
MAX_ATTEMPTS = 3  # workers that may die at the same point
MAX_CHUNK = 1024  # points in a chunk
_LONG = 0.5  # seconds; a worker may idle while the next point of such a length is sent
_SECONDS = 0.1  # the minimum duration of a chunk; sending one takes about a millisecond
_CHUNKS_PER_SECOND = 2000  # maximum for one driver and all workers; Ray takes 0.5 ms each
_DECAY = 0.2  # weight of the last chunk in the running mean of the seconds per point


@final
class Scheduler:
    """Distributes points to workers in chunks.

    Args:
        points: The points; each is taken as late as possible.
        workers: The number of workers.
        size: The points per chunk. None makes chunks that take about a tenth of a second, and
            longer ones for more than a hundred workers, because one driver feeds them all. Chunks
            are small at the end, so that every worker gets a share; where the number of points is
            unknown, they are small at the beginning instead.
        max_size: The largest number of points in a chunk.

    Cost: about a microsecond per point; memory does not grow with the number of points.
    """

    def __init__(
        self,
        points: Iterable[Point],
        workers: int,
        *,
        size: int | None = None,
        max_size: int = MAX_CHUNK,
    ) -> None:
        self.workers, self.max_size = workers, max_size
        self.target = max(_SECONDS, 2 * workers / _CHUNKS_PER_SECOND)
        self._size = size
        self._remaining: int | None = operator.length_hint(points, -1)
        self._remaining = None if self._remaining < 0 else self._remaining
        self._points = iter(points)
        self._retries: deque[Point] = deque()
        self._sent = 0
        self._pending = 0  # points that are with workers
        self._exhausted = False
        self._deaths: Counter[int] = Counter()
        self._seconds: float | None = None

    def next_chunk(self) -> Chunk:
        """Return the points to send next; an empty chunk when none remain."""
        if self._retries:
            self._pending += 1
            return (self._retries.popleft(),)  # alone, to find the point that kills workers
        chunk = tuple(itertools.islice(self._points, self.chunk_size))
        if self._remaining is not None:
            self._remaining -= len(chunk)
        self._sent += len(chunk)
        self._pending += len(chunk)
        self._exhausted = not chunk
        return chunk

    @property
    def finished(self) -> bool:
        """Whether every point was sent and its result came back."""
        return self._exhausted and not self._retries and not self._pending

    @property
    def chunk_size(self) -> int:
        """The number of points in the next chunk."""
        if self._size is not None:
            return self._size
        if self._seconds is None:
            return 1
        seconds = max(self._seconds, 1e-9)
        # At the end no worker should wait for one that still has many points. Where the number of
        # points is unknown, the scan may be assumed to be half done.
        share = self._sent if self._remaining is None else self._remaining / 2
        least = self.workers / _CHUNKS_PER_SECOND / seconds
        size = max(min(self.target / seconds, share / (PREFETCH * self.workers)), least)
        return max(min(int(size + 0.5), self.max_size), 1)

    @property
    def prefetch(self) -> int:
        """The chunks that a worker should hold: a long point is better left for any free worker."""
        return 1 if self._seconds is not None and self._seconds > _LONG else PREFETCH

    def complete(self, chunk: Sequence[Point], seconds: float) -> None:
        """Record that a chunk is evaluated.

        Args:
            chunk: The points whose results came back.
            seconds: The time that the worker took for all of them.
        """
        self._pending -= len(chunk)
        each = seconds / max(len(chunk), 1)
        before = each if self._seconds is None else self._seconds
        self._seconds = before + _DECAY * (each - before)

    def requeue(self, chunk: Sequence[Point], *, was_running: bool) -> None:
        """Send the points of a chunk again, because its worker died.

        Args:
            chunk: The points that the worker held.
            was_running: Whether the worker was evaluating them; points that only waited in its
                queue are not blamed for the death.

        Raises:
            EngineError: When three workers died while they evaluated the same point.
        """
        self._pending -= len(chunk)
        self._retries.extend(chunk)
        if not was_running:
            return
        for index, coordinates in chunk:
            self._deaths[index] += 1
            if self._deaths[index] >= MAX_ATTEMPTS:
                raise EngineError(
                    f"{MAX_ATTEMPTS} workers died, one after the other, at the point {coordinates}."
                    " The results so far are not lost. To see the cause, evaluate this point with"
                    f" objective.loss(slice.at({coordinates})). A worker that runs out of memory"
                    " is killed too: use smaller batches."
                )
