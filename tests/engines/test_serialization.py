"""Jobs arrive at workers unchanged: tensors are compared bit for bit and by their addresses."""

from __future__ import annotations

import copy
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import landscope as ls
from landscope.engines.job import Job
from landscope.engines.serialization import Payload, pack, unpack
from landscope.errors import EngineError
from tests import cases


def job(objective: ls.Objective | None = None) -> Job:
    objective = cases.batch_norm_cnn().objective() if objective is None else objective
    return Job(objective, cases.plane(objective))


def send(given: Job, folder: Path) -> Job:
    return unpack(pack(given, folder=folder))


@pytest.mark.parametrize("case", cases.CASES)
def test_an_objective_arrives_as_the_same_question(case: object, tmp_path: Path) -> None:
    assert callable(case)
    objective = case().objective(metrics={"accuracy": ls.losses.accuracy})
    arrived = send(job(objective), tmp_path)
    assert arrived.objective.problem.fingerprints() == objective.problem.fingerprints()
    assert arrived.objective.evaluate() == objective.evaluate()


def test_a_slice_arrives_bit_for_bit(tmp_path: Path) -> None:
    given = job()
    arrived = send(given, tmp_path)
    for role, params in given.slice.parts.items():
        found = arrived.slice.parts[role]
        assert list(found) == list(params)
        assert all(torch.equal(found[n], params[n]) for n in params)
        assert getattr(found, "layouts", 1) == getattr(params, "layouts", 2)
    at = (0.25, -0.5)
    a, b = given.slice.at(at), arrived.slice.at(at)
    assert all(torch.equal(a[n], b[n]) for n in a)


class Laid(nn.Module):
    """Tensors with different memory layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.row = nn.Parameter(torch.arange(2000.0)[3:1003])
        self.column = nn.Parameter(torch.arange(4000.0).reshape(1000, 4)[:, 1])
        self.lone = nn.Parameter(torch.arange(6.0).reshape(2, 3)[1:, 1])
        self.same = self.row
        self.few = nn.Parameter(torch.arange(9.0)[2:5])
        self.register_buffer("none", torch.zeros(0, 3))
        self.register_buffer("one", torch.tensor(3))
        self.register_buffer("true", torch.tensor([True, False] * 1000))
        self.frozen = nn.Parameter(torch.ones(2, 300, dtype=torch.float64), requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        return rows.sum(1) * self.row.sum()


def test_tensors_lie_in_memory_as_they_did_and_tied_ones_stay_tied(tmp_path: Path) -> None:
    model = Laid()
    objective = ls.Objective(model, nn.MSELoss(), (torch.ones(5, 2), torch.ones(5)))
    line = ls.Line(objective.center, objective.center)
    found = unpack(pack(Job(objective, line), folder=tmp_path)).objective.model
    assert isinstance(found, Laid)
    assert found.same is found.row
    expected, arrived = model.state_dict(keep_vars=True), found.state_dict(keep_vars=True)
    assert list(arrived) == list(expected)
    for name, tensor in expected.items():
        other = arrived[name]
        assert torch.equal(other, tensor), name
        assert (type(other), other.dtype, other.requires_grad) == (
            type(tensor), tensor.dtype, tensor.requires_grad,
        ), name  # fmt: skip
        if name != "column":  # which has holes
            assert other.stride() == tensor.stride(), name
        if tensor.numel():
            assert other.data_ptr() % 64 == tensor.data_ptr() % 64, name


def test_the_file_is_a_safetensors_file_that_is_mapped_and_written_once(tmp_path: Path) -> None:
    big = nn.Linear(300, 300)
    given = job(ls.Objective(big, nn.MSELoss(), (torch.ones(2, 300), torch.ones(2, 300))))
    payload = pack(given, folder=tmp_path)
    first = Path(payload.path).stat()
    again = ls.Objective(copy.deepcopy(big), nn.MSELoss(), (torch.ones(2, 300), torch.ones(2, 300)))
    assert pack(job(again), folder=tmp_path) == payload
    assert Path(payload.path).stat().st_ino == first.st_ino
    assert [p.name for p in tmp_path.iterdir()] == [f"{payload.digest}.safetensors"]
    with safe_open(payload.path, framework="pt") as file:
        found = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - no mapping
    assert any(t.numel() == 90_000 and torch.equal(t, big.weight.reshape(-1)) for t in found)
    arrived = unpack(payload)
    assert payload.path in Path("/proc/self/maps").read_text()
    # the model, the center and the slice's center are one copy, two directions two more
    assert first.st_size < 3.2 * 4 * 90_000
    assert torch.equal(arrived.objective.center["weight"], big.weight)


def test_writing_to_what_arrived_does_not_change_the_file(tmp_path: Path) -> None:
    big = nn.Linear(300, 300)
    given = job(ls.Objective(big, nn.MSELoss(), (torch.ones(2, 300), torch.ones(2, 300))))
    payload = pack(given, folder=tmp_path)
    before = Path(payload.path).read_bytes()
    unpack(payload).objective.center["weight"].zero_()
    assert Path(payload.path).read_bytes() == before


def test_a_worker_with_another_device_gets_model_data_and_slice_there(tmp_path: Path) -> None:
    """On the device "meta", which has shapes and no values: the test needs no GPU."""
    meta = torch.device("meta")
    arrived = unpack(pack(job(), folder=tmp_path), device=meta)
    assert arrived.objective.device == meta
    tensors = [
        *arrived.objective.center.values(),
        *next(iter(arrived.objective.problem.batches[""])),
    ]
    tensors += [t for params in arrived.slice.parts.values() for t in params.values()]
    assert {t.device for t in tensors} == {meta}


def test_other_weights_make_another_file(tmp_path: Path) -> None:
    case = cases.mlp()
    one = pack(job(case.objective()), folder=tmp_path)
    with torch.no_grad():
        next(case.model.parameters()).add_(1.0)
    assert pack(job(case.objective()), folder=tmp_path).digest != one.digest


def test_files_that_nobody_used_for_a_week_are_removed(tmp_path: Path) -> None:
    old = Path(pack(job(cases.mlp().objective()), folder=tmp_path).path)
    os.utime(old, (0, time.time() - 8 * 86400))
    pack(job(), folder=tmp_path)
    assert not old.exists()


def test_data_that_are_kept_travel_as_the_first_walk_found_them(tmp_path: Path) -> None:
    class Noisy(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return torch.randn(4), torch.tensor(index % 3)

    loader = torch.utils.data.DataLoader(Noisy(), batch_size=4)
    objective = ls.Objective(cases.mlp().model, nn.CrossEntropyLoss(), loader)
    expected = objective.loss()
    arrived = send(job(objective), tmp_path).objective
    assert arrived.loss() == expected
    assert arrived.problem.sources == {"": ()}, "the data set itself stays"


def test_data_that_are_streamed_travel_as_the_loader(tmp_path: Path) -> None:
    case = cases.mlp()
    data = torch.utils.data.TensorDataset(case.inputs, case.targets)
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    objective = ls.Objective(case.model, nn.CrossEntropyLoss(), loader, cache=False)
    arrived = send(job(objective), tmp_path).objective
    assert all(b.streamed for b in arrived.problem.batches.values())
    assert arrived.loss() == objective.loss()


class Locked:
    """A loss that cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] - targets).square()


def test_an_objective_that_cannot_be_pickled_is_a_sentence(tmp_path: Path) -> None:
    case = cases.mlp()
    objective = ls.Objective(case.model, Locked(), case.data)
    with pytest.raises(EngineError, match=r"cannot be sent to workers.*make="):
        pack(job(objective), folder=tmp_path)


def build() -> ls.Objective:
    return cases.mlp().objective()


def build_other() -> ls.Objective:
    return cases.mlp(rows=22).objective()


def test_a_function_can_build_the_objective_in_the_worker(tmp_path: Path) -> None:
    arrived = unpack(pack(job(build()), folder=tmp_path, make=build))
    assert arrived.objective.problem.fingerprints() == build().problem.fingerprints()


def test_a_function_that_builds_another_objective_is_found_out(tmp_path: Path) -> None:
    payload = pack(job(build()), folder=tmp_path, make=build_other)
    with pytest.raises(EngineError, match=r"another objective in a worker: data differ"):
        unpack(payload)


def test_a_function_that_builds_no_objective_is_a_sentence(tmp_path: Path) -> None:
    payload = pack(job(build()), folder=tmp_path, make=dict)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"make= returned a dict"):
        unpack(payload)


def test_a_file_that_is_not_seen_is_a_sentence(tmp_path: Path) -> None:
    payload = pack(job(), folder=tmp_path)
    Path(payload.path).unlink()
    with pytest.raises(EngineError, match=r"does not see .*folder="):
        unpack(payload)


def test_a_pickle_that_is_not_ours_is_not_loaded(tmp_path: Path) -> None:
    one, other = pack(job(), folder=tmp_path), pack(job(build()), folder=tmp_path)
    swapped = Payload(one.path, other.digest, one.size)
    with pytest.raises(EngineError, match=r"is not the file that was written"):
        unpack(swapped)


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"cannot be written to .*folder="):
        pack(job(), folder=tmp_path / "file" / "below")
