"""Common parts of the benchmarks: networks and data, the plain loop, ceilings, peak memory."""

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
    """A trained network and its data."""

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


def load_all_digits() -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of the training and the test digits."""
    sets = digits.load_data(), digits.load_data(train=False)
    return torch.cat([s[0] for s in sets]), torch.cat([s[1] for s in sets])


def load_case(name: str) -> Case:
    return Case(name, digits.load_trained(name), *load_all_digits())


def load_resnet20_32(images: int = 512) -> Case:
    """Return the CIFAR ResNet-20 on digits of 32 x 32 pixels and three colors, briefly trained."""
    inputs, targets = load_all_digits()
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


def augment_digits(count: int) -> tuple[Tensor, Tensor]:
    """Return digits shifted by up to a pixel, with noise: [count, 1, 8, 8]."""
    inputs, targets = load_all_digits()
    draws = torch.Generator().manual_seed(0)
    rows = torch.randint(len(inputs), (count,), generator=draws)
    steps = torch.randint(-1, 2, (count, 2), generator=draws)
    framed = F.pad(inputs, (1, 1, 1, 1), value=float(inputs.min()))
    y, x = (1 + steps[:, k, None] + torch.arange(8) for k in (0, 1))
    shifted = framed[rows[:, None, None], 0, y[:, :, None], x[:, None, :]][:, None]
    return shifted + 0.1 * torch.randn(shifted.shape, generator=draws), targets[rows]


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


def run_plain_loop(
    case: Case,
    plane: ls.Plane,
    points: Sequence[tuple[float, float]],
    loader: DataLoader[tuple[Tensor, ...]],
) -> list[float]:
    """Return the losses of the plain loop of every tool: set the weights, sum over batches."""
    center: Params = plane.center
    losses = []
    with torch.no_grad():
        for x, y in points:
            for name, parameter in case.model.named_parameters():
                parameter.copy_(center[name] + x * plane.dx[name] + y * plane.dy[name])
            total = 0.0
            for inputs, targets in loader:
                total += F.cross_entropy(case.model(inputs), targets, reduction="sum").item()
            losses.append(total / len(case.targets))
        for name, parameter in case.model.named_parameters():
            parameter.copy_(center[name])
    return losses


def measure_ceiling() -> float:
    """Return the FLOP/s of large matrix products, by torch or by oneDNN, whichever is faster."""
    size = 1536
    a, b = torch.randn(size, size), torch.randn(size, size)
    ops: Any = torch.ops.mkldnn
    products: list[Callable[[], Tensor]] = [
        lambda: a @ b,
        lambda: ops._linear_pointwise(a, b, None, "none", [], ""),
    ]
    return max(2 * size**3 / min(_time_calls(product, 5)) for product in products)


def _time_calls(function: Callable[[], Any], count: int) -> list[float]:
    function()
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return seconds


@contextlib.contextmanager
def measure_peak_memory() -> Iterator[list[float]]:
    """Yield a list that holds the largest growth of the process in MiB, sampled every 5 ms."""
    growth, done = [0.0], threading.Event()
    before = _resident_memory()

    def watch() -> None:
        while not done.wait(0.005):
            growth[0] = max(growth[0], _resident_memory() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield growth
    finally:
        done.set()
        thread.join()


def _resident_memory() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_results(name: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows to results/NAME.csv, with a description of the machine in the first line."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="") as file:
        file.write(f"# {time.strftime('%Y-%m-%d')}, {describe_machine()}\n")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def describe_machine() -> str:
    cpu = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    return (
        f"{cpu or platform.processor()}, {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}, ceiling {measure_ceiling() / 1e9:.0f} GFLOP/s"
    )
