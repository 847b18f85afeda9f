"""Room for workers, by the numbers that Ray reports; a stand-in for Ray reports them here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from landscope.engines.ray_connection import check_gpus, count_available_workers
from landscope.errors import EngineError


def fake_ray(**resources: float) -> Any:
    return SimpleNamespace(
        available_resources=lambda: resources, cluster_resources=lambda: resources
    )


@pytest.mark.parametrize(
    ("cpus", "gpus", "count"), [(1, 0, 9), (4, 0, 2), (1, 1, 3), (1, 0.5, 6), (4, 1, 2)]
)
def test_the_scarcer_resource_decides_how_many_workers_there_are(
    cpus: int, gpus: float, count: int
) -> None:
    assert count_available_workers(fake_ray(CPU=9.0, GPU=3.0), cpus, gpus) == count


@pytest.mark.parametrize(("cpus", "gpus"), [(10, 0), (1, 4), (1, 0.5)])
def test_no_room_for_one_worker_is_a_sentence(cpus: int, gpus: float) -> None:
    ray = fake_ray(CPU=9.0) if gpus == 0.5 else fake_ray(CPU=9.0, GPU=3.0)
    with pytest.raises(EngineError, match=rf"9 CPUs and .* needs cpus={cpus}, gpus={gpus}\."):
        count_available_workers(ray, cpus, gpus)


def test_a_cluster_may_get_more_gpus_and_this_machine_may_not() -> None:
    check_gpus(fake_ray(GPU=2.0), 2, "local")
    check_gpus(fake_ray(GPU=2.0), 8, "head:6379")
    with pytest.raises(EngineError, match=r"this machine has 2 GPUs and a worker needs gpus=8"):
        check_gpus(fake_ray(GPU=2.0), 8, "local")
