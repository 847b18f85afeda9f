"""The Ray engine: its values are the serial ones to the bit, also when workers are killed."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import landscope as ls
from landscope.engines.job import Result
from landscope.engines.plan import Plan
from landscope.engines.ray import Ray
from landscope.engines.ray_connection import check_gpus
from landscope.engines.serialization import Payload, pack
from landscope.errors import CallError, EngineError
from tests import cases
from tests.engines import distant

ray: Any = pytest.importorskip("ray", reason="ray, of landscope[cluster], is not installed")

POINTS = distant.POINTS[:20]

# Ray leaves its own log files and pipes to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """Start Ray once: the engine uses the existing connection."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        handler = signal.getsignal(signal.SIGTERM)
        ray.init(
            "local", num_cpus=3, include_dashboard=False, object_store_memory=80 * 2**20,
            log_to_driver=False, logging_level="ERROR",
        )  # fmt: skip
        yield
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)


@dataclass(frozen=True, eq=False)
class Ran:
    """What was observed of a pool of two workers, which is closed now."""

    found: dict[int, Result]
    size: int
    busy: bool  # whether each worker had its CPU
    before: dict[str, Any]  # of the user's
    after: dict[str, Any]


@pytest.fixture(scope="module")
def ran(_cluster: None) -> Ran:
    job = distant.job()
    before = cases.remembered(job.objective.model)
    with Ray(workers=2).open(job) as pool:
        found = {r.point: r for rs in pool.run(POINTS, per_sample=True) for r in rs}
        size, busy = pool.size, _comes_to(1.0)
    return Ran(found, size, busy, before, cases.remembered(job.objective.model))


def _comes_to(cpus: float) -> bool:
    """Whether a number of CPUs becomes free; Ray updates its counts now and then."""
    for _ in range(200):
        if ray.available_resources().get("CPU", 0.0) == cpus:
            return True
        time.sleep(0.05)
    return False


def test_values_and_terms_equal_serial_ones_to_the_bit_and_nothing_of_the_user_is_changed(
    ran: Ran,
) -> None:
    serial = distant.evaluate(distant.SERIAL, distant.job(), POINTS, per_sample=True)
    assert set(serial[0].values) == {"loss", "accuracy", "steepness"}
    assert serial[0].per_sample.shape == (2, 19)
    distant.check_equal(ran.found, serial)
    distant.check_equal(
        distant.evaluate(Ray(workers=1), distant.job(), POINTS, per_sample=True), serial
    )
    assert ran.after == ran.before


def test_actors_end_with_the_pool_and_the_connection_stays(ran: Ran) -> None:
    assert ran.size == 2
    assert ran.busy
    assert _comes_to(3.0)
    assert ray.is_initialized()


def test_a_killed_worker_costs_only_its_points_in_flight(tmp_path: Path) -> None:
    """A scan with a journal gives the values of an undisturbed one."""
    folder = tmp_path / "workers"
    folder.mkdir()
    objective, quick = (
        distant.line_job(distant.Slow(folder, seconds)).objective for seconds in (0.02, 0.0)
    )
    line = ls.Line(objective.center, objective.center)
    grid, killed = ls.Grid(60), []

    def workers() -> list[int]:
        return [int(p.name) for p in folder.iterdir() if p.name != str(os.getpid())]

    def kill() -> None:
        while len(workers()) < 2:  # both are at work
            time.sleep(0.01)
        killed.append(workers()[0])
        os.kill(killed[0], signal.SIGKILL)

    serial = ls.scan(quick, line, grid, engine=distant.SERIAL)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with ls.Journal(tmp_path / "journal.sqlite") as journal:
        many = ls.scan(objective, line, grid, engine=Ray(workers=2), journal=journal)
        assert len(journal.values()) == 60
        assert Plan.loads(journal.settings()["plan"]) == Plan(workers=1, threads=1)
    assert killed, "the scan was over before a worker could be killed"
    assert many.data["loss"].values.tobytes() == serial.data["loss"].values.tobytes()


def test_a_point_that_kills_every_worker_is_named() -> None:
    job = distant.line_job(distant.Fragile(4.5, deadly=True))
    known: list[int] = []
    with (
        Ray(workers=1).open(job) as pool,
        pytest.raises(EngineError, match=r"3 workers died.* the point \(5\.0,\)"),
    ):
        distant.note_points(pool, distant.along(6), known)
    assert known == [0, 1, 2, 3, 4]


def test_a_loss_that_fails_in_a_worker_is_a_sentence_with_the_point() -> None:
    job = distant.line_job(distant.Fragile(4.5))
    with (
        Ray(workers=2).open(job) as pool,
        pytest.raises(CallError, match=r"too far out.* at the point \(5\.0,\)"),
    ):
        list(pool.run(distant.along(6)))


def test_a_function_of_a_script_travels_by_value() -> None:
    module = type(sys)("landscope_test_script")
    module.__file__ = "landscope_test_script.py"
    code = "def loss(outputs, targets):\n    return (outputs[:, 0] - targets).abs() * scale()\n"
    exec(code + "def scale():\n    return 2.0\n", vars(module))
    sys.modules[module.__name__] = module
    try:
        found = distant.evaluate(Ray(workers=1), distant.line_job(module.loss), distant.along(3))
    finally:
        del sys.modules[module.__name__]
    assert [found[k].values["loss"] for k in range(3)] == [0.0, 2.0, 4.0]


def test_a_machine_that_does_not_see_the_file_gets_it_through_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is removed before workers look for it, as if they were on another machine."""
    engine = importlib.import_module("landscope.engines.ray")
    ray_pool = importlib.import_module("landscope.engines.ray_pool")
    contents: list[Payload] = []

    def hidden(*given: Any, **options: Any) -> Payload:
        payload = pack(*given, **options)
        kept = Path(payload.path).replace(tmp_path / "kept")
        monkeypatch.setattr(ray_pool.np, "memmap", lambda path, *rest: original(kept, *rest))
        contents.append(payload)
        return payload

    original = ray_pool.np.memmap
    monkeypatch.setattr(engine, "pack", hidden)
    job = distant.job()
    found = distant.evaluate(Ray(workers=2, folder=tmp_path / "far"), job, distant.POINTS[:5])
    distant.check_equal(found, distant.evaluate(distant.SERIAL, distant.job(), distant.POINTS[:5]))
    assert contents[0].in_folder().is_here, "each machine has the file now"


def test_more_workers_than_there_is_room_for_join_later() -> None:
    found = distant.evaluate(Ray(workers=5), distant.job())
    distant.check_equal(found, distant.evaluate(distant.SERIAL, distant.job()))


def test_asking_for_what_is_not_there_is_a_sentence() -> None:
    with (
        pytest.raises(EngineError, match=r"3 CPUs.*cpus=64, gpus=0"),
        Ray(cpus=64).open(distant.job()),
    ):
        pass


def test_workers_that_there_is_never_room_for_are_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("landscope.engines.ray_pool._START_TIMEOUT", 0.5)
    with (
        pytest.raises(EngineError, match=r"no worker was ready after 0\.5 seconds: Ray has"),
        Ray(workers=1, cpus=64).open(distant.job()),
    ):
        pass


@pytest.mark.parametrize(
    ("actor", "sentence"),
    [
        (distant.DyingWorker, r"3 workers died before they could begin"),
        (distant.FailingWorker, r"a worker failed with ZeroDivisionError: odd"),
    ],
)
def test_workers_that_cannot_begin_are_a_sentence(
    actor: type, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landscope.engines.ray.RayWorker", actor)
    with pytest.raises(EngineError, match=sentence), Ray(workers=1).open(distant.job()):
        pass


def test_a_gpu_that_this_machine_has_not_is_a_sentence() -> None:
    with pytest.raises(EngineError, match=r"this machine has \d+ GPUs .* gpus=512"):
        check_gpus(ray, 512, "local")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"workers": 0}, r"workers=0"), ({"cpus": 0}, r"cpus=0"), ({"gpus": -1}, r"gpus=-1")],
)
def test_a_wrong_argument_is_a_sentence(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence):
        Ray(**options)  # type: ignore[arg-type]


ALONE = """
import os, signal
import torch
import landscope as ls
from landscope.engines.ray import Ray
from landscope.errors import EngineError

handler = signal.getsignal(signal.SIGTERM)
def double(outputs, targets):  # of a script: it travels by value
    return 2 * (outputs[:, 0] - targets).abs()
data = torch.eye(2), torch.zeros(2)
objective = ls.Objective(torch.nn.Linear(2, 1, bias=False), double, data)
line = ls.Line({"weight": torch.zeros(1, 2)}, {"weight": torch.ones(1, 2)})
land = ls.scan(objective, line, ls.Grid(3), engine=Ray(workers=1))
assert land.data["loss"].values.tolist() == [2.0, 0.0, 2.0], land
import ray
assert not ray.is_initialized()
assert signal.getsignal(signal.SIGTERM) == handler
try:
    ls.scan(objective, line, ls.Grid(3), engine=Ray(address="127.0.0.1:1"))
except EngineError as error:
    assert "cannot be reached at address='127.0.0.1:1'" in str(error), error
else:
    raise AssertionError
print("as it was")
"""


def test_ray_that_was_started_for_a_scan_is_stopped_after_it(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout.strip().endswith("as it was"), done.stderr
