"""The Ray engine: workers on this machine or on a cluster, which are replaced when they die.

Each worker is a Ray actor with its own CPUs and GPUs. All workers of a machine map one file into
memory (:mod:`landscope.engines.serialization`); a machine that does not see the file receives it
once, through Ray's object store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from landscope.engines.job import Job, WorkerPool
from landscope.engines.plan import Plan
from landscope.engines.ray_connection import connect, count_available_workers
from landscope.engines.ray_pool import RayPool, RayWorker
from landscope.engines.remote_job import RemoteJob
from landscope.engines.serialization import Make, pack
from landscope.errors import EngineError


@final
@dataclass(frozen=True)
class Ray:
    """Evaluates points with Ray, on this machine or on a cluster.

    Args:
        address: The address of a cluster ("auto", "host:6379", "ray://host:10001"). None takes
            $RAY_ADDRESS if it is set, else starts Ray on this machine and stops it afterwards. If
            ``ray.init`` was called before, that connection is used and stays open.
        workers: The number of workers; None starts as many as the cluster has room for now.
        gpus: The GPUs of each worker; a fraction lets workers share one.
        cpus: The CPUs of each worker, and its number of threads.
        runtime_env: The environment that Ray sets up for workers, such as
            {"pip": ["landscope[cluster]"]}.
        plan: The plan for evaluation; None lets a worker measure the fastest.
        compile: Whether the plan may use torch.compile, which takes half a minute in each worker.
        folder: The folder of the file that workers read; None takes the cache folder.
        make: A function that builds the objective in the worker, for objectives that cannot be
            pickled, or whose data are where the workers are.

    Raises:
        EngineError: When a number is out of range.

    Cost: starting Ray on this machine takes about 5 seconds, and a worker 3; each chunk (a tenth of
    a second of work) adds about a millisecond.
    """

    address: str | None = None
    _: dataclasses.KW_ONLY
    workers: int | None = None
    gpus: float = 0
    cpus: int = 1
    runtime_env: Mapping[str, Any] | None = None
    plan: Plan | None = None
    compile: bool = False
    folder: str | os.PathLike[str] | None = None
    make: Make | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise EngineError(f"workers={self.workers}; expected 1 or more, or None.")
        if self.cpus < 1 or self.gpus < 0:
            raise EngineError(
                f"cpus={self.cpus}, gpus={self.gpus}; expected 1 or more, and 0 or more."
            )

    @contextmanager
    def open(self, job: Job) -> Iterator[WorkerPool]:
        """Yield a worker pool for a job; the pool has copies of the model."""
        least = (self.workers or 1) * self.cpus
        with connect(self.address, self.runtime_env, gpus=self.gpus, least_cpus=least) as ray:
            payload = pack(job, folder=self.folder, make=self.make, cloudpickle=ray.cloudpickle)
            device = "cuda" if self.gpus else job.objective.device.type
            remote_job = RemoteJob(payload, threads=self.cpus, device=device)
            remote_job = remote_job.with_plan_of(job, self.plan)
            workers = self.workers or count_available_workers(ray, self.cpus, self.gpus)
            actor_class = ray.remote(**self._worker_options())(RayWorker)
            with contextlib.closing(RayPool(ray, actor_class, remote_job, workers)) as pool:
                if not remote_job.plan:
                    pool.choose_plan(job, compiler=self.compile)
                yield pool

    def _worker_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        if self.runtime_env is not None:
            options["runtime_env"] = dict(self.runtime_env)
        return options
