"""Worker: what a process far from the driver does. It opens a job once and evaluates its points.

What goes back is made of plain numbers, texts and arrays: it can be unpickled whatever the user's
objective raised, and no memory is shared with a process that may be killed.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import threading
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NoReturn, final

import torch

from landscope import errors
from landscope.engines.job import Job, Point, Result, Team
from landscope.engines.local import Local
from landscope.engines.serialization import Parcel, unpack
from landscope.engines.tuning import Plan
from landscope.errors import EngineError

_OPEN = 2  # jobs that a worker keeps open: a scan over samples of the data goes with one over all
_PROCESS = os.getpid()  # of the process that imported this: another one, after a fork
_RANKS = ("SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK")


@final
@dataclass(frozen=True)
class Order:
    """How a worker is to work.

    Args:
        parcel: where the job lies.
        plan: how to make the passes, as text; "" where that is not chosen yet.
        threads: of torch.
        device: "cuda" where the worker is to use a GPU whatever the driver has; "" the driver's.
    """

    parcel: Parcel
    plan: str = ""
    threads: int = 1
    device: str = ""


@final
@dataclass(frozen=True)
class Failure:
    """An exception, in words.

    Args:
        kind: its type.
        text: what it says.
        at: coordinates of the point; None when there was no point yet.
        trace: of the worker.
    """

    kind: str
    text: str
    at: tuple[float, ...] | None
    trace: str

    def throw(self) -> NoReturn:
        """Raise it in the driver: an error of landscope as it is, any other in a sentence.

        Raises:
            LandscopeError: always.
        """
        own = getattr(errors, self.kind, None)
        if isinstance(own, type) and issubclass(own, errors.LandscopeError):
            error: Exception = own(self.text)
        else:
            where = "a worker" if self.at is None else f"a worker, at the point {self.at},"
            again = "" if self.at is None else (
                f" Evaluate it alone, with objective.loss(slice.at({self.at})), to look into it."
            )  # fmt: skip
            error = EngineError(f"{where} failed with {self.kind}: {self.text}.{again}")
        error.add_note(f"In the worker:\n{self.trace}")
        raise error


Row = tuple[int, dict[str, float], float, Any]
Answer = tuple[list[Row], Failure | None]


def evaluate(order: Order, points: Sequence[Point], *, terms: bool = False) -> Answer:
    """Return what came out at some points, and the failure that ended it before the last."""
    rows: list[Row] = []
    at = None
    try:
        team, size = _team(order), Plan.loads(order.plan).points
        for k in range(0, len(points), size):
            at = points[k][1]
            for result in _flat(team, points[k : k + size], terms=terms):
                found = None if result.terms is None else result.terms.numpy()
                rows.append((result.point, result.values, result.seconds, found))
    except Exception as error:  # of the user's objective: whatever it is, the driver is told
        return rows, _failure(error, at)
    return rows, None


def _flat(team: Team, points: Sequence[Point], *, terms: bool) -> list[Result]:
    return [result for results in team.run(points, terms=terms) for result in results]


def prepare(
    order: Order,
    points: int = 1,
    probes: Sequence[tuple[float, ...]] = (),
    compile: bool = False,  # noqa: A002 - torch's word
) -> str | Failure:
    """Return the plan for a job, as text, measured here; or why there is none.

    Args:
        order: its plan, where it has one, is returned.
        points: of the scan.
        probes: coordinates at which plans may be compared.
        compile: whether plans with torch.compile are tried.
    """
    try:
        if order.plan:
            _team(order)
            return order.plan
        job = dataclasses.replace(_job(order), points=points, probes=tuple(probes))
        with _local(job, None, compile).open(job) as team:
            plan = Plan.loads(team.plan)
            return dataclasses.replace(plan, workers=1, threads=order.threads).dumps()
    except Exception as error:
        return _failure(error, None)


def results(rows: Sequence[Row]) -> list[Result]:
    """Return the results in an answer, in the driver."""
    return [
        Result(index, values, seconds, None if terms is None else torch.tensor(terms))
        for index, values, seconds, terms in rows
    ]


class _Desk(threading.local):
    """What a thread of a worker process has open: threads do not share a model."""

    def __init__(self) -> None:
        self.teams: OrderedDict[Order, tuple[Team, ExitStack]] = OrderedDict()


_DESK = _Desk()


def _team(order: Order) -> Team:
    """Return the team of this thread for an order, opened when it is the first time."""
    teams = _DESK.teams
    if order not in teams:
        while len(teams) >= _OPEN:
            teams.popitem(last=False)[1][1].close()
        job, plan = _job(order), Plan.loads(order.plan)
        stack = ExitStack()
        teams[order] = stack.enter_context(_local(job, plan, False).open(job)), stack
    teams.move_to_end(order)
    return teams[order][0]


def _local(job: Job, plan: Plan | None, compile: bool) -> Local:  # noqa: A002
    device = str(job.objective.device)
    return Local(workers=1, plan=plan, compile=compile, devices=(device,))


def _job(order: Order) -> Job:
    _check_fork(order)
    torch.set_num_threads(order.threads)
    return unpack(order.parcel, device=_device(order))


def _device(order: Order) -> torch.device | None:
    if not order.device or order.device == "cpu":
        return None
    if not torch.cuda.is_available():
        raise EngineError(
            "the objective computes on a GPU and a worker has none: give workers GPUs"
            " (ls.engines.Ray(gpus=1)), or make the objective with device='cpu'."
        )
    return torch.device("cuda", _rank() % torch.cuda.device_count())


def _rank() -> int:
    """Return which worker of its machine this is, as far as anyone says."""
    named = next((os.environ[n] for n in _RANKS if os.environ.get(n, "").isdigit()), None)
    if named is not None:
        return int(named)
    identity = multiprocessing.current_process()._identity
    return identity[-1] - 1 if identity else 0


def _check_fork(order: Order) -> None:
    """Raise where torch would wait forever for threads that a fork left behind."""
    if os.getpid() != _PROCESS and (order.threads > 1 or order.device == "cuda"):
        raise EngineError(
            "the workers are forks of a process that has used torch, in which neither threads nor"
            " GPUs work: make the pool with"
            " ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))."
        )


def _failure(error: Exception, at: tuple[float, ...] | None) -> Failure:
    trace = "".join(traceback.format_exception(error))
    return Failure(type(error).__name__, str(error).rstrip("."), at, trace)
