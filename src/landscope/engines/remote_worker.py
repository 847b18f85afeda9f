"""The remote worker: a process that opens a job once and evaluates points for a driver."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import threading
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack

import torch

from landscope.engines.job import Job, Point, Result, WorkerPool
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.engines.remote_job import Answer, Failure, PlainResult, RemoteJob
from landscope.engines.serialization import unpack
from landscope.errors import EngineError

_MAX_OPEN_JOBS = 2  # in a worker: a calibrated scan alternates between some and all samples
_IMPORTING_PROCESS = os.getpid()  # a forked process has another id
_RANKS = ("SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK")


def evaluate(remote_job: RemoteJob, points: Sequence[Point], *, per_sample: bool = False) -> Answer:
    """Return the results at some points, and the failure that ended the evaluation early.

    Args:
        remote_job: The job; it is opened the first time and stays open.
        points: The points of one chunk.
        per_sample: Whether each result has the losses of the individual samples.
    """
    rows: list[PlainResult] = []
    coordinates = None
    try:
        pool, size = _open_pool(remote_job), Plan.loads(remote_job.plan).points
        for k in range(0, len(points), size):
            coordinates = points[k][1]
            for result in _run(pool, points[k : k + size], per_sample=per_sample):
                array = None if result.per_sample is None else result.per_sample.numpy()
                rows.append((result.point, result.values, result.seconds, array))
    except Exception as error:  # the driver reports errors of any type
        return rows, _describe(error, coordinates)
    return rows, None


def _run(pool: WorkerPool, points: Sequence[Point], *, per_sample: bool) -> list[Result]:
    return [r for results in pool.run(points, per_sample=per_sample) for r in results]


def prepare(
    remote_job: RemoteJob,
    points: int = 1,
    probes: Sequence[tuple[float, ...]] = (),
    compile: bool = False,  # noqa: A002 - torch's word
) -> str | Failure:
    """Return the plan for a job, as text, or the failure that prevents one.

    Args:
        remote_job: The job; if it has a plan already, that one is returned.
        points: The number of points in the scan.
        probes: The coordinates at which plans are compared.
        compile: Whether to try plans with torch.compile.
    """
    try:
        if remote_job.plan:
            _open_pool(remote_job)
            return remote_job.plan
        job = dataclasses.replace(_load(remote_job), points=points, probes=tuple(probes))
        with _local_engine(job, None, compile).open(job) as pool:
            plan = Plan.loads(pool.plan)
            return dataclasses.replace(plan, workers=1, threads=remote_job.threads).dumps()
    except Exception as error:
        return _describe(error, None)


class _OpenPools(threading.local):
    """The open pools of one thread of a worker process: threads do not share a model."""

    def __init__(self) -> None:
        self.pools: OrderedDict[RemoteJob, tuple[WorkerPool, ExitStack]] = OrderedDict()


_OPEN_POOLS = _OpenPools()


def _open_pool(remote_job: RemoteJob) -> WorkerPool:
    """Return the pool of this thread for a job; the first call opens it."""
    pools = _OPEN_POOLS.pools
    if remote_job not in pools:
        while len(pools) >= _MAX_OPEN_JOBS:
            pools.popitem(last=False)[1][1].close()
        job, plan = _load(remote_job), Plan.loads(remote_job.plan)
        stack = ExitStack()
        pool = stack.enter_context(_local_engine(job, plan, False).open(job))
        pools[remote_job] = pool, stack
    pools.move_to_end(remote_job)
    return pools[remote_job][0]


def _local_engine(job: Job, plan: Plan | None, compile: bool) -> Local:  # noqa: A002
    device = str(job.objective.device)
    return Local(workers=1, plan=plan, compile=compile, devices=(device,))


def _load(remote_job: RemoteJob) -> Job:
    _check_fork(remote_job)
    torch.set_num_threads(remote_job.threads)
    return unpack(remote_job.payload, device=_choose_device(remote_job))


def _choose_device(remote_job: RemoteJob) -> torch.device | None:
    if not remote_job.device or remote_job.device == "cpu":
        return None
    if not torch.cuda.is_available():
        raise EngineError(
            "the objective computes on a GPU and a worker has none: give workers GPUs"
            " (ls.engines.Ray(gpus=1)), or make the objective with device='cpu'."
        )
    return torch.device("cuda", _local_rank() % torch.cuda.device_count())


def _local_rank() -> int:
    """Return the number of this worker on its machine, by the launcher or by the pool."""
    rank = next((os.environ[n] for n in _RANKS if os.environ.get(n, "").isdigit()), None)
    if rank is not None:
        return int(rank)
    identity = multiprocessing.current_process()._identity
    return identity[-1] - 1 if identity else 0


def _check_fork(remote_job: RemoteJob) -> None:
    """Raise an EngineError if torch would wait forever for threads that a fork lacks."""
    is_fork = os.getpid() != _IMPORTING_PROCESS
    if is_fork and (remote_job.threads > 1 or remote_job.device == "cuda"):
        raise EngineError(
            "the workers are forks of a process that has used torch, in which neither threads nor"
            " GPUs work: make the pool with"
            " ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))."
        )


def _describe(error: Exception, coordinates: tuple[float, ...] | None) -> Failure:
    trace = "".join(traceback.format_exception(error))
    return Failure(type(error).__name__, str(error).rstrip("."), coordinates, trace)
