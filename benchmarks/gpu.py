"""Achieved FLOP/s and bytes/s of passes on a GPU, against ceilings measured in the same run.

Bytes are those that the layers of a network must move at least: the inputs, outputs and weights of
each convolution and product, once. Prints a table, and keeps it in results/gpu.csv.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import landscope as ls
from benchmarks.common import whole_digits, write
from landscope.zoo import CATALOG

IMAGES = 50_000
NETWORKS = ("digits_mlp", "digits_resnet20", "resnet20", "resnet56")


def main() -> None:
    if not torch.cuda.is_available():
        print("no GPU here: nothing is measured")
        return
    device = torch.cuda.get_device_name()
    tops = {precision: product_ceiling(precision) for precision in ("float32", "tf32", "bfloat16")}
    bandwidth = bandwidth_ceiling()
    told = ", ".join(f"{name} {top / 1e12:.0f} TFLOP/s" for name, top in tops.items())
    print(f"{device}: {told}, {bandwidth / 1e12:.2f} TB/s")
    rows = []
    for name in NETWORKS:
        for precision, top in tops.items():
            rows.append({"device": device, **measure(name, precision, top, bandwidth)})
            print("  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
            write("gpu", rows)


def measure(name: str, precision: str, top: float, bandwidth: float) -> dict[str, Any]:
    torch.manual_seed(0)
    model = CATALOG[name].build().eval().cuda()
    if name.startswith("digits"):
        inputs, targets = whole_digits()
    else:
        inputs, targets = torch.randn(IMAGES, 3, 32, 32), torch.randint(10, (IMAGES,))
    objective = ls.Objective(
        model, nn.CrossEntropyLoss(), (inputs, targets), precision=precision, batch_size=1024
    )
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    cost = ls.estimate(objective, plane, ls.Grid(51))
    reference = ls.Objective(model, nn.CrossEntropyLoss(), (inputs, targets), batch_size=1024).loss(
        plane.at((0.3, 0.2))
    )
    error = abs(objective.loss(plane.at((0.3, 0.2))) / reference - 1)
    moved = _bytes(model, inputs[:1].cuda()) * len(inputs) * (0.5 if precision == "bfloat16" else 1)
    one = cost.seconds / cost.points
    return {
        "network": name,
        "precision": precision,
        "samples": len(inputs),
        "ms a point": f"{1e3 * one:.3g}",
        "plain loop ms": f"{1e3 * cost.naive_seconds / cost.naive_evaluations:.3g}",
        "TFLOP/s": f"{cost.flops / cost.points / one / 1e12:.3g}",
        "of the ceiling": f"{cost.flops / cost.points / one / top:.0%}",
        "TB/s": f"{moved / one / 1e12:.3g}",
        "of the bandwidth": f"{moved / one / bandwidth:.0%}",
        "relative error": f"{error:.1e}",
        "how": cost.plan,
    }


def _bytes(model: nn.Module, image: Tensor) -> int:
    """Return the bytes that the layers with weights read and write for one image."""
    total = [0]

    def seen(_: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        total[0] += inputs[0].nbytes + outputs.nbytes

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(seen) for layer in layers]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return total[0]


def product_ceiling(precision: str) -> float:
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in "ab")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        return 2 * 8192**3 / _seconds(lambda: a @ b)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def bandwidth_ceiling() -> float:
    a = torch.empty(2**30, device="cuda", dtype=torch.float32)
    b = torch.empty_like(a)
    return 2 * a.nbytes / _seconds(lambda: b.copy_(a))


def _seconds(work: Callable[[], Any], rounds: int = 20) -> float:
    work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(rounds):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / rounds


if __name__ == "__main__":
    main()
