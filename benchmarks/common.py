"""What the benchmarks share: networks and data, the plain loop, ceilings, peak memory."""

from __future__ import annotations

import contextlib
import csv
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import landscope as ls
from landscope.files import cache_folder
from landscope.params import Params
from landscope.zoo import CATALOG, digits

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, eq=False)
class Case:
    """A trained network with its data."""

    name: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor

    @property
    def objective(self) -> ls.Objective:
        return ls.Objective(self.model, nn.CrossEntropyLoss(), (self.inputs, self.targets))

    def loader(self, workers: int = 0) -> DataLoader[tuple[Tensor, ...]]:
        data = TensorDataset(self.inputs, self.targets)
        return DataLoader(data, batch_size=128, num_workers=workers)


def whole_digits() -> tuple[Tensor, Tensor]:
    parts = digits.load_data(), digits.load_data(train=False)
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def digits_case(name: str) -> Case:
    return Case(name, digits.load_trained(name), *whole_digits())


def resnet20_32(images: int = 512) -> Case:
    """The CIFAR ResNet-20 on digits enlarged to 32 x 32 in three colors, trained for a minute."""
    inputs, targets = whole_digits()
    large = F.interpolate(inputs, size=(32, 32), mode="bilinear").repeat(1, 3, 1, 1)
    model = CATALOG["resnet20"].build()
    path = cache_folder() / "benchmark-resnet20-32.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        _train(model, large, targets, epochs=3)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    return Case("resnet20 at 32x32", model.eval(), large[:images].clone(), targets[:images])


def enlarged(count: int) -> tuple[Tensor, Tensor]:
    """Return digits shifted by up to a pixel, with noise: [count, 1, 8, 8]."""
    inputs, targets = whole_digits()
    draws = torch.Generator().manual_seed(0)
    rows = torch.randint(len(inputs), (count,), generator=draws)
    steps = torch.randint(-1, 2, (count, 2), generator=draws)
    wide = F.pad(inputs, (1, 1, 1, 1), value=float(inputs.min()))
    y, x = (1 + steps[:, k, None] + torch.arange(8) for k in (0, 1))
    moved = wide[rows[:, None, None], 0, y[:, :, None], x[:, None, :]][:, None]
    return moved + 0.1 * torch.randn(moved.shape, generator=draws), targets[rows]


def _train(model: nn.Module, inputs: Tensor, targets: Tensor, epochs: int) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    batches = -(-len(inputs) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, epochs * batches)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
            schedule.step()


def plain_losses(
    case: Case,
    plane: ls.Plane,
    points: Sequence[tuple[float, float]],
    loader: DataLoader[tuple[Tensor, ...]],
) -> list[float]:
    """The plain loop, which is what every tool does: set the weights, walk the data, .item()."""
    center: Params = plane.center
    found = []
    with torch.no_grad():
        for x, y in points:
            for name, parameter in case.model.named_parameters():
                parameter.copy_(center[name] + x * plane.dx[name] + y * plane.dy[name])
            total = 0.0
            for inputs, targets in loader:
                total += F.cross_entropy(case.model(inputs), targets, reduction="sum").item()
            found.append(total / len(case.targets))
        for name, parameter in case.model.named_parameters():
            parameter.copy_(center[name])
    return found


def ceiling() -> float:
    """Return the FLOP/s of large matrix products: the better of torch's own and oneDNN's."""
    size = 1536
    a, b = torch.randn(size, size), torch.randn(size, size)
    ops: Any = torch.ops.mkldnn
    ways: list[Callable[[], Tensor]] = [
        lambda: a @ b,
        lambda: ops._linear_pointwise(a, b, None, "none", [], ""),
    ]
    return max(2 * size**3 / min(_times(way, 5)) for way in ways)


def _times(work: Callable[[], Any], count: int) -> list[float]:
    work()
    found = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Give, at the end, the largest growth of the process in MiB, looked at every 5 ms."""
    found, done = [0.0], threading.Event()
    before = _resident()

    def watch() -> None:
        while not done.wait(0.005):
            found[0] = max(found[0], _resident() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write(name: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows to results/NAME.csv, with the machine in the first line."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="") as file:
        file.write(f"# {time.strftime('%Y-%m-%d')}, {machine()}\n")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def machine() -> str:
    cpu = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    return (
        f"{cpu or platform.processor()}, {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}, ceiling {ceiling() / 1e9:.0f} GFLOP/s"
    )
