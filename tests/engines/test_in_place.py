"""Models whose own weights are moved and restored.

The witnesses: the plain scan, which copies everything; the weights as they were, bit for bit; and
the resident size of fresh processes.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope import params
from landscope.engines import in_place
from landscope.errors import EngineError, ObjectiveError, ParamsError, SliceError
from landscope.slices import seeded_directions

CLASSES = 13


class Model(nn.Module):
    """Tied, frozen, transposed (not contiguous) and batch-normalized: whatever may be moved."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 8)
        self.hidden = nn.Linear(8, 8)
        self.hidden.weight = nn.Parameter(torch.randn(8, 8).t())
        self.norm = nn.BatchNorm1d(8)
        self.frozen = nn.Linear(8, 8).requires_grad_(requires_grad=False)
        self.head = nn.Linear(8, CLASSES)
        self.head.weight = self.embedding.weight
        self.left = 10**6

    def forward(self, text: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        hidden = self.frozen(self.hidden(self.embedding(text)).tanh())
        logits: Tensor = self.head(self.norm(hidden.transpose(1, 2)).transpose(1, 2))
        return logits


@pytest.fixture(autouse=True)
def _pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeded_directions, "PIECE", 24)  # so that tensors have many


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


def _objective(model: nn.Module, **options: Any) -> ls.Objective:
    text = torch.randint(CLASSES, (6, 5), generator=torch.Generator().manual_seed(1))
    return ls.Objective(model, ls.losses.tokens(), (text, text.flip(0)), **options)


def _bits(model: nn.Module) -> dict[str, bytes]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {n: t.detach().contiguous().view(torch.uint8).numpy().tobytes() if t.ndim else
            t.numpy().tobytes() for n, t in tensors.items()}  # fmt: skip


def _plane(objective: ls.Objective, kind: str = "seeded") -> ls.Plane:
    make: Any = getattr(ls.directions, kind)
    return ls.Plane(objective.center, *make(objective.center, seed=3))


@pytest.mark.parametrize("kind", ["seeded", "random"])
def test_a_scan_in_place_gives_the_values_of_a_plain_one_and_leaves_every_bit(
    model: Model, kind: str
) -> None:
    before, places = _bits(model), [p.data_ptr() for p in model.parameters()]
    objective = _objective(model, in_place=True)
    land = ls.scan(objective, _plane(objective, kind), ls.Grid((5, 4)))
    assert _bits(model) == before
    assert [p.data_ptr() for p in model.parameters()] == places
    plain = _objective(model)
    expected = ls.scan(plain, _plane(plain, kind), ls.Grid((5, 4))).data["loss"].values
    assert land.data["loss"].values == pytest.approx(expected, rel=1e-6)
    assert np.ptp(expected) > 0.1
    assert land.data.attrs["fingerprints"]


def test_the_center_is_the_model_itself(model: Model) -> None:
    objective = _objective(model, in_place=True)
    assert all(
        objective.center[n].data_ptr() == model.get_parameter(n).data_ptr()
        for n in objective.center
    )
    assert objective.loss() == _objective(model).loss()
    moved = params.clone(objective.center)
    moved["hidden.weight"] += 0.5
    assert objective.loss(moved) == pytest.approx(_objective(model).loss(moved), rel=1e-6)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_weights_come_back_when_an_exception_flies(
    model: Model, error: type[BaseException]
) -> None:
    before = _bits(model)
    objective = _objective(model, in_place=True)
    seen: list[bool] = []

    def breaking(objective: ls.Objective, point: params.Params) -> dict[str, float]:
        seen.append(_bits(model) != before)
        if len(seen) == 3:
            raise error("stop")
        return {}

    with pytest.raises(error):
        ls.scan(objective, _plane(objective), ls.Grid(4), quantities=[breaking])
    assert seen == [True, True, True]  # it was elsewhere
    assert _bits(model) == before


@pytest.mark.parametrize("presses", [1, 3])
def test_no_thread_moves_weights_after_an_interrupt(
    model: Model, monkeypatch: pytest.MonkeyPatch, presses: int
) -> None:
    """The user presses Ctrl-C while threads move pieces, and again while they are restored."""
    left = list(range(presses))
    add, read = seeded_directions.SeededBasis.add, in_place._Backup.read

    def pressed(wait: float) -> None:
        if left and left.pop() >= 0:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(wait)

    def slow(self: seeded_directions.SeededBasis, *given: Any) -> None:
        pressed(0.05)
        add(self, *given)

    def reading(self: Any, *given: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            pressed(0.0)
        read(self, *given)

    before = _bits(model)
    objective = _objective(model, in_place=True)
    plane = _plane(objective)
    monkeypatch.setattr(seeded_directions.SeededBasis, "add", slow)
    monkeypatch.setattr(in_place._Backup, "read", reading)
    with pytest.raises(KeyboardInterrupt):
        ls.scan(objective, plane, ls.Grid(2))
    assert not left
    assert _bits(model) == before


def test_what_is_known_on_the_way_answers_the_same_question(model: Model) -> None:
    objective = _objective(model, in_place=True)
    told = []

    def telling(now: Any) -> None:
        if now.so_far is not None:
            told.append(now.so_far().data.attrs["fingerprints"])

    land = ls.scan(objective, _plane(objective), ls.Grid(3), progress=telling)
    assert told
    assert set(told) == {land.data.attrs["fingerprints"]}


def test_a_scan_in_place_resumes(model: Model, tmp_path: Any) -> None:
    objective = _objective(model, in_place=True)
    whole = ls.scan(objective, _plane(objective), ls.Grid(4))
    model.left = 8
    with pytest.raises(KeyboardInterrupt):
        ls.scan(objective, _plane(objective), ls.Grid(4), journal=tmp_path / "j")
    model.left = 10**6
    found = ls.scan(objective, _plane(objective), ls.Grid(4), journal=tmp_path / "j")
    assert 10**6 - model.left < 16  # not all of them again
    assert np.array_equal(found.data["loss"].values, whole.data["loss"].values)


def test_a_slice_over_some_parameters_moves_these_alone(model: Model) -> None:
    objective = _objective(model, in_place=True)
    part = params.select(objective.center, "hidden.*")
    moved: set[str] = set()

    def watching(_: object, __: object) -> dict[str, float]:
        moved.update(n for n, bits in _bits(model).items() if bits != before[n])
        return {}

    before = _bits(model)
    line = ls.Line(part, ls.directions.seeded(part, 1)[0])
    ls.scan(objective, line, ls.Grid(3), quantities=[watching])
    assert moved == {"hidden.weight"}
    assert _bits(model) == before


def test_a_slice_around_another_point_starts_there(model: Model) -> None:
    plain = _objective(model)
    elsewhere = params.clone(plain.center)
    elsewhere["hidden.weight"] *= 1.5
    line = ls.Line(elsewhere, ls.directions.random(elsewhere, 1)[0])
    expected = ls.scan(plain, line, ls.Grid(3)).data["loss"].values
    before = _bits(model)
    found = ls.scan(_objective(model, in_place=True), line, ls.Grid(3)).data["loss"].values
    assert found == pytest.approx(expected, rel=1e-6)
    assert _bits(model) == before


@pytest.mark.parametrize("kind", ["seeded", "random"])
def test_low_precision_weights_are_moved_in_float32_and_come_back(model: Model, kind: str) -> None:
    model = model.to(torch.bfloat16)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    objective = _objective(model, in_place=True)
    assert objective.problem.low_precision is torch.bfloat16
    plane = _plane(objective, kind)
    at: dict[str, Tensor] = {}

    def keeping(_: object, point: params.Params) -> dict[str, float]:
        at.update({n: t.clone() for n, t in point.items()})
        return {}

    ls.scan(objective, plane, ls.Grid(2, (-0.7, 0.3)), quantities=[keeping])
    for name, tensor in before.items():
        assert torch.equal(model.get_parameter(name), tensor)
        if name in objective.center:
            exact = tensor.double() + sum(0.3 * d[name].double() for d in plane.directions)
            loose = 1e-5 if kind == "random" else 0.02  # what is drawn is rounded when it is read
            assert torch.allclose(at[name].double(), exact, rtol=2**-8, atol=loose)


def _identity(model: Model) -> ls.Plane:
    return _plane(_objective(model, in_place=True))


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({"engine": ls.engines.Local(workers=2)}, EngineError, "one model, which evaluates"),
        ({"quantities": [ls.curvature.hessian_extremes()]}, EngineError, "neighboring points"),
    ],
)
def test_what_needs_more_models_is_refused(
    model: Model, change: dict[str, Any], kind: type[Exception], told: str
) -> None:
    before = _bits(model)
    with pytest.raises(kind, match=told):
        ls.scan(_objective(model, in_place=True), _identity(model), ls.Grid(3), **change)
    assert _bits(model) == before


def test_workers_in_other_processes_are_refused(model: Model) -> None:
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:  # none is started
        engine = ls.engines.Executor(pool)
        with pytest.raises(EngineError, match="moves the weights of this process"):
            ls.scan(_objective(model, in_place=True), _identity(model), ls.Grid(3), engine=engine)


def test_a_slice_of_another_kind_is_refused(model: Model) -> None:
    objective = _objective(model, in_place=True)
    with (
        pytest.raises(SliceError, match="moves along a Line, a Plane or a Volume"),
        in_place.borrow_in_place(model, objective.center, object()),  # type: ignore[arg-type] # on purpose
    ):
        pass


def test_a_slice_that_moves_more_than_the_trainable_parameters_is_refused(model: Model) -> None:
    """Statistics and frozen parameters would stay where they are, and nobody would know."""
    before = _bits(model)
    objective = _objective(model, in_place=True)
    states = objective.states
    line = ls.Line(states, ls.directions.random(states, 1)[0])
    with pytest.raises(SliceError, match=r"moves 'norm\.running_mean'|moves 'frozen"):
        ls.scan(objective, line, ls.Grid(3))
    assert _bits(model) == before


def test_parameters_that_share_memory_are_refused(model: Model) -> None:
    """One could not move without the other, and the surface would be of neither network."""
    model.frozen.requires_grad_(requires_grad=True)
    model.frozen.weight.data = model.hidden.weight.data[4:].repeat(2, 1)
    plane = _identity(model)
    ls.scan(_objective(model, in_place=True), plane, ls.Grid(2))
    model.frozen.weight.data = model.hidden.weight.data.t()
    with pytest.raises(ParamsError, match=r"shares memory with '(hidden|frozen)\.weight'"):
        ls.scan(_objective(model, in_place=True), plane, ls.Grid(2))
    model.frozen.weight.data = torch.ones(8, 1).expand(8, 8)
    with pytest.raises(ParamsError, match=r"'frozen\.weight' cannot.*share one memory location"):
        ls.scan(_objective(model, in_place=True), plane, ls.Grid(2))


def test_parameters_that_lie_side_by_side_in_one_block_are_moved(model: Model) -> None:
    block = torch.cat([p.detach().flatten() for p in model.parameters()])
    start = 0
    for parameter in model.parameters():
        place = block[start : start + parameter.numel()]
        parameter.data, start = place.reshape(parameter.shape), start + parameter.numel()
    before = block.clone()
    expected = ls.scan(_objective(model), _plane(_objective(model)), ls.Grid(3)).data["loss"]
    objective = _objective(model, in_place=True)
    found = ls.scan(objective, _plane(objective), ls.Grid(3)).data["loss"]
    assert found.values == pytest.approx(expected.values, rel=1e-6)
    assert torch.equal(block, before)


def test_a_device_or_a_precision_of_its_own_is_refused(model: Model) -> None:
    for options in ({"device": "cpu"}, {"precision": "bfloat16"}):
        with pytest.raises(ObjectiveError, match=r"move it yourself, with model\.to"):
            _objective(model, in_place=True, **options)


def test_a_full_disk_gets_a_sentence_and_nothing_is_moved(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _bits(model)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(EngineError, match=r"No space left.*LANDSCOPE_CACHE"):
        ls.scan(_objective(model, in_place=True), _identity(model), ls.Grid(3))
    assert _bits(model) == before


_LARGE = """
import torch, landscope as ls
from landscope.integrations import __name__ as _
model = torch.nn.Sequential(torch.nn.Linear(6000, 9000, bias=False), torch.nn.Linear(9000, 5))
data = torch.ones(4, 6000), torch.tensor([0, 1, 2, 3])
loss = torch.nn.CrossEntropyLoss()
if {scan}:
    objective = ls.Objective(model, loss, data, in_place=True)
    plane = ls.Plane(objective.center, *ls.directions.seeded(objective.center))
    ls.scan(objective, plane, ls.Grid(2))
else:
    import xarray, scipy.spatial
    with torch.no_grad():
        loss(model(data[0]), data[1])
text = open("/proc/self/status").read()
print(text.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_that_of_plain_inference() -> None:
    """Of 216 MB of weights one copy more would be a third of the whole."""
    sizes = []
    for scan in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", _LARGE.format(scan=scan)], check=True, capture_output=True
        )
        sizes.append(int(done.stdout))
    assert sizes[1] < 1.15 * sizes[0]
