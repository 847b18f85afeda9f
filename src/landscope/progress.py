"""Progress: how far along a long computation is, the time left, and the function that is told.

Every function that can take long has an argument ``progress``: a function that is called with a
:class:`Progress` after each step (a ``Report``), True for a bar on standard error, or None.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final

from landscope.errors import LandscopeError
from landscope.landscape import Landscape

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


@dataclass(frozen=True)
class Progress:
    """How far along a computation is. In a scan, the last point is in the journal already.

    Args:
        done: The number of steps that are done, including those of earlier sessions: points of a
            scan, Hessian-vector products, training steps, checkpoints, profiles.
        total: The number of all steps; None if it is unknown.
        seconds: The time since this session began.
        remaining: The seconds left at the pace of this session; None before its first step, and
            without a total.
        values: The values of the last step; empty before the first one.
        so_far: Returns the landscape of the points that are known now; None before the first point
            and outside scans. The function that receives this may call it.
        is_estimate: Whether ``total`` is an estimate, as for a sampler that stops when it is
            accurate enough. The last report of a scan has the true number.
    """

    done: int
    total: int | None
    seconds: float
    remaining: float | None
    values: Mapping[str, float]
    so_far: Callable[[], Landscape] | None = None
    is_estimate: bool = False


Report: TypeAlias = Callable[[Progress], None]


@final
class Clock:
    """Measures the seconds since it was made, and estimates the seconds left.

    Args:
        known: The number of steps that earlier sessions did.
        total: The number of all steps.
        is_estimate: Whether there may be more or fewer; the total is then at least one more than
            what is done.
        deadline: The time at which to stop, on the clock of ``time.perf_counter()``; None for no
            deadline.
    """

    def __init__(
        self, known: int, total: int, deadline: float | None = None, *, is_estimate: bool = False
    ) -> None:
        self.began, self.known, self.total = time.perf_counter(), known, total
        self.deadline, self.is_estimate = deadline, is_estimate

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.perf_counter() > self.deadline

    def progress(self, done: int, values: Mapping[str, float]) -> Progress:
        """Return the progress when ``done`` steps are done, the last one with ``values``."""
        seconds = time.perf_counter() - self.began
        fresh = done - self.known
        total = max(self.total, done + 1) if self.is_estimate else self.total
        remaining = seconds / fresh * (total - done) if fresh else None
        if remaining is not None and self.deadline is not None:
            remaining = min(remaining, max(self.deadline - time.perf_counter(), 0.0))
        return Progress(done, total, seconds, remaining, values, is_estimate=self.is_estimate)

    def finish(self, done: int) -> Progress:
        """Return the progress at the end, when nothing is left."""
        return Progress(done, done, time.perf_counter() - self.began, 0.0, {})


@contextlib.contextmanager
def open_report(
    progress: Report | bool | None, title: str = "scan", units: str = "points"
) -> Iterator[Report]:
    """Yield what an argument ``progress`` stands for, as a function.

    It is the function that was passed; for True it is a bar with a title; otherwise it is a
    function that does nothing.
    """
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise LandscopeError(
            f"progress={progress!r}; expected True for a bar, or a function of a Progress."
        )
    if callable(progress):
        yield progress
    elif progress:
        with show_bar(title, units) as report:
            yield report
    else:
        yield lambda _: None


@contextlib.contextmanager
def show_bar(title: str, units: str = "points", *, values: bool = False) -> Iterator[Report]:
    """Show a bar with the time left on standard error, and yield the function that moves it.

    Args:
        title: The text in front of the bar.
        units: The plural of what is counted.
        values: Whether the values of the last step are shown as well.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    # Without ipywidgets rich would warn at every step in a notebook; it then writes text there.
    in_text = None if importlib.util.find_spec("ipywidgets") else False
    texts = ("description", "fields[count]", "fields[left]", "fields[values]")
    name, count, left, last = (TextColumn(f"{{task.{text}}}") for text in texts)
    columns = (name, BarColumn(), count, TextColumn(units), TimeElapsedColumn(), left, last)
    with RichProgress(*columns, console=Console(stderr=True, force_jupyter=in_text)) as bar:
        task = bar.add_task(title, total=None, count="0", left="", values="")
        yield lambda now: _move(bar, task, now, values=values)


def duration(seconds: float) -> str:
    """Return seconds in words: 0.8 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, left = divmod(minutes, 60)
    if not minutes:
        return f"{whole} s"
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


def _move(bar: RichProgress, task: TaskID, now: Progress, *, values: bool) -> None:
    fields: dict[str, Any] = {
        "count": _count(now),
        "left": "" if now.remaining is None else f"{_clock_text(now.remaining)} left",
    }
    if values and now.values:
        fields["values"] = "  ".join(f"{name} {value:.3g}" for name, value in now.values.items())
    bar.update(task, completed=now.done, total=now.total, **fields)


def _count(now: Progress) -> str:
    if now.total is None:
        return str(now.done)
    return f"{now.done} of about {now.total}" if now.is_estimate else f"{now.done}/{now.total}"


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
