"""Progress: how far a scan is, how long it will take, and who is told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from landscope.landscape import Landscape


@dataclass(frozen=True)
class Progress:
    """How far a scan is; its last point is in the journal already.

    Args:
        done: points that are known, those of earlier sessions included.
        total: points of the grid; a sampler may stop before.
        seconds: since this session began.
        remaining: seconds left at the pace of this session; None before its first point.
        values: of the last point; empty before the first.
        so_far: returns the landscape of what is known now; None before the first point. It may be
            called from within the function that gets this.
    """

    done: int
    total: int
    seconds: float
    remaining: float | None
    values: Mapping[str, float]
    so_far: Callable[[], Landscape] | None = None


@final
class Clock:
    """Seconds so far and seconds left.

    Args:
        known: points that earlier sessions found.
        total: points of the grid.
        deadline: when the time is up, by ``time.perf_counter()``; None for never.
    """

    def __init__(self, known: int, total: int, deadline: float | None) -> None:
        self.began, self.known, self.total = time.perf_counter(), known, total
        self.deadline = deadline

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.deadline is not None and time.perf_counter() > self.deadline

    def progress(self, done: int, values: Mapping[str, float]) -> Progress:
        """Return how far the scan is once ``done`` points are known, the last with ``values``."""
        seconds = time.perf_counter() - self.began
        fresh = done - self.known
        remaining = seconds / fresh * (self.total - done) if fresh else None
        if remaining is not None and self.deadline is not None:
            remaining = min(remaining, max(self.deadline - time.perf_counter(), 0.0))
        return Progress(done, self.total, seconds, remaining, values)


@contextlib.contextmanager
def reporter(
    progress: Callable[[Progress], None] | bool | None,
) -> Iterator[Callable[[Progress], None]]:
    """Yield the function to tell: what is given; for True a bar; else one that does nothing."""
    if callable(progress):
        yield progress
    elif progress:
        with bar("scan") as tell:
            yield tell
    else:
        yield lambda _: None


@contextlib.contextmanager
def bar(
    title: str, units: str = "points", *, values: bool = False
) -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar with the time left, and the last values if so, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn(units), TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[told]}"),
    )  # fmt: skip
    with Bar(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(title, total=None, left="", told="")

        def tell(now: Progress) -> None:
            left = "" if now.remaining is None else f"{_clock_text(now.remaining)} left"
            last = now.values.items() if values else ()
            told = "  ".join(f"{name} {value:.3g}" for name, value in last)
            shown.update(task, completed=now.done, total=now.total, left=left, told=told)

        yield tell


def counted(tell: Callable[[Progress], None]) -> Callable[[int, int], None]:
    """Return a function of (done, total) that tells a Progress."""
    clocks: list[Clock] = []

    def told(done: int, total: int) -> None:
        if not clocks:
            clocks.append(Clock(done, total, None))
        tell(clocks[0].progress(done, {}))

    return told


class ProductsBar:
    """Shows how many Hessian products were made, and for what."""

    def __init__(self, shown: Any, task: Any) -> None:
        self._shown, self._task = shown, task

    def __call__(self, count: int) -> None:
        """Note that so many products were made."""
        self._shown.update(self._task, completed=count)

    def title(self, text: str) -> None:
        """Say what the next ones are for."""
        self._shown.update(self._task, description=text)


@contextlib.contextmanager
def products_bar(title: str) -> Iterator[ProductsBar]:
    """Show a count of products on standard error; how many there will be is not known before."""
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed} products"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Bar(*columns, console=Console(stderr=True)) as shown:
        yield ProductsBar(shown, shown.add_task(title, total=None))


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
