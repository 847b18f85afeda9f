"""Milliseconds a point: landscope's exact pass against the plain loop, interleaved in one process.

The plain loop is what every tool does: set the weights of the point, walk a DataLoader of batch
128, ``.item()`` a batch. Both compute the same losses; the largest relative difference is printed.
"""

from __future__ import annotations

import statistics
import time

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import landscope as ls
from landscope.zoo import CATALOG, digits

ROUNDS, POINTS = 5, 4
NETWORKS = ("digits_mlp", "digits_resnet20", "digits_resnet56")


def main() -> None:
    torch.manual_seed(0)
    inputs, targets = digits.data()
    print(f"{'network':<18}{'plain ms':>10}{'landscope ms':>14}{'ratio':>8}{'difference':>12}")
    for name in NETWORKS:
        model = CATALOG[name].build().eval()
        loader = DataLoader(TensorDataset(inputs, targets), batch_size=128)
        objective = ls.Objective(model, torch.nn.CrossEntropyLoss(), (inputs, targets))
        dx, dy = ls.directions.random(objective.center)
        plane = ls.Plane(objective.center, dx, dy)
        points = [(0.1 * k, -0.05 * k) for k in range(POINTS)]
        plain_times, our_times, difference = [], [], 0.0
        for _ in range(ROUNDS):
            began = time.perf_counter()
            plain = [plain_loss(model, plane, at, loader) for at in points]
            middle = time.perf_counter()
            with objective.session() as session:
                ours = [session.values(plane.at(at))["loss"] for at in points]
            end = time.perf_counter()
            plain_times.append((middle - began) / POINTS)
            our_times.append((end - middle) / POINTS)
            pairs = zip(plain, ours, strict=True)
            difference = max(difference, *(abs(p - o) / abs(p) for p, o in pairs))
        a, b = (1e3 * statistics.median(times) for times in (plain_times, our_times))
        print(f"{name:<18}{a:>10.1f}{b:>14.1f}{a / b:>8.2f}{difference:>12.1e}")


def plain_loss(
    model: torch.nn.Module,
    plane: ls.Plane,
    at: tuple[float, float],
    loader: DataLoader[tuple[torch.Tensor, ...]],
) -> float:
    kept = {n: p.detach().clone() for n, p in model.named_parameters()}
    total, count = 0.0, 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(at[0] * plane.dx[name] + at[1] * plane.dy[name])
        for batch, labels in loader:
            total += F.cross_entropy(model(batch), labels, reduction="sum").item()
            count += len(labels)
        for name, parameter in model.named_parameters():
            parameter.copy_(kept[name])
    return float(total) / count


if __name__ == "__main__":
    main()
