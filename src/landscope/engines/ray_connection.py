"""The connection to Ray: an existing one, a cluster's, or one that starts Ray on this machine."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from landscope.errors import EngineError
from landscope.extras import import_optional

_STORE = 128 * 2**20  # bytes of Ray's object store on this machine: only results go through it


@contextmanager
def connect(
    address: str | None, runtime_env: Mapping[str, Any] | None, *, gpus: float, least_cpus: int
) -> Iterator[ModuleType]:
    """Yield the module ``ray``, connected; only a new connection is closed afterwards.

    Args:
        address: The address of a cluster; None takes $RAY_ADDRESS, else starts Ray here.
        runtime_env: The environment of the workers.
        gpus: The GPUs of each worker.
        least_cpus: The minimum number of CPUs to declare when Ray is started here.

    Raises:
        EngineError: When Ray cannot be reached, or this machine has too few GPUs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_optional("ray", extra="cluster")
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with _preserve_sigterm_handler():
        try:
            _check_reachable(address)
            ray.init(address, **_init_options(address, runtime_env, least_cpus))
        except (Exception, SystemExit) as error:  # Ray raises errors of many types
            raise EngineError(
                f"Ray cannot be reached at address={address!r} ({error}): start it there with"
                " `ray start --head --port 6379`, or pass address=None for this machine."
            ) from error
        try:
            check_gpus(ray, gpus, address)
            yield ray
        finally:
            ray.shutdown()


def _init_options(
    address: str, runtime_env: Mapping[str, Any] | None, least_cpus: int
) -> dict[str, Any]:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if runtime_env is not None:
        options["runtime_env"] = dict(runtime_env)
    if address == "local":
        cores = max(os.cpu_count() or 1, least_cpus)
        options |= {
            "num_cpus": cores, "include_dashboard": False, "object_store_memory": _STORE,
        }  # fmt: skip
    return options


def _check_reachable(address: str) -> None:
    """Raise if no process listens at "host:port": Ray itself would try for two minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _preserve_sigterm_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)


def check_gpus(ray: ModuleType, gpus: float, address: str) -> None:
    """Raise if this machine has fewer GPUs than one worker needs; a cluster may grow."""
    total = ray.cluster_resources().get("GPU", 0)
    if address == "local" and gpus > total:
        raise EngineError(
            f"this machine has {total:g} GPUs and a worker needs gpus={gpus:g}: use fewer, or pass"
            " the address of a cluster."
        )


def count_available_workers(ray: ModuleType, cpus: int, gpus: float) -> int:
    """Return the number of workers for which the cluster has room now.

    Args:
        ray: The module, connected.
        cpus: The CPUs of each worker.
        gpus: The GPUs of each worker.

    Raises:
        EngineError: When there is no room for any worker.
    """
    free = ray.available_resources()
    counts = [free.get("CPU", 0.0) / cpus]
    if gpus:
        counts.append(free.get("GPU", 0.0) / gpus)
    if min(counts) < 1:
        raise EngineError(
            f"Ray has {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free; a worker"
            f" needs cpus={cpus}, gpus={gpus}. Use fewer; or pass workers=, and they will start"
            " when there is room."
        )
    return int(min(counts))
