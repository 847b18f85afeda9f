"""FLOP/s and bytes/s of forward passes on a GPU, with ceilings measured in the same run.

The bytes are the minimum that the layers of a network move: the inputs, outputs and weights of
each convolution and matrix product, once. The table is printed and written to results/gpu.csv.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import landscope as ls
from benchmarks.common import load_all_digits, write_results
from landscope.zoo import CATALOG

IMAGES = 50_000
NETWORKS = ("digits_mlp", "digits_resnet20", "resnet20", "resnet56")


def main() -> None:
    if not torch.cuda.is_available():
        print("There is no GPU, so nothing is measured.")
        return
    device = torch.cuda.get_device_name()
    ceilings = {
        precision: measure_product_ceiling(precision)
        for precision in ("float32", "tf32", "bfloat16")
    }
    bandwidth = measure_bandwidth_ceiling()
    text = ", ".join(f"{name} {ceiling / 1e12:.0f} TFLOP/s" for name, ceiling in ceilings.items())
    print(f"{device}: {text}, {bandwidth / 1e12:.2f} TB/s")
    rows = []
    for name in NETWORKS:
        for precision, ceiling in ceilings.items():
            rows.append({"device": device, **measure(name, precision, ceiling, bandwidth)})
            print("  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
            write_results("gpu", rows)


def measure(name: str, precision: str, ceiling: float, bandwidth: float) -> dict[str, Any]:
    torch.manual_seed(0)
    model = CATALOG[name].build().eval().cuda()
    inputs, targets = load_all_digits() if name.startswith("digits") else draw_images()
    objective, reference = (
        ls.Objective(model, nn.CrossEntropyLoss(), (inputs, targets), precision=p, batch_size=1024)
        for p in (precision, "float32")
    )
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    cost = ls.estimate(objective, plane, ls.Grid(51))
    point = plane.at((0.3, 0.2))
    error = abs(objective.loss(point) / reference.loss(point) - 1)
    width = 0.5 if precision == "bfloat16" else 1  # of float32
    traffic = _count_bytes(model, inputs[:1].cuda()) * len(inputs) * width
    seconds = cost.seconds / cost.points
    return {
        "network": name,
        "precision": precision,
        "samples": len(inputs),
        "ms a point": f"{1e3 * seconds:.3g}",
        "plain loop ms": f"{1e3 * cost.naive_seconds / cost.naive_evaluations:.3g}",
        "TFLOP/s": f"{cost.flops / cost.points / seconds / 1e12:.3g}",
        "of the ceiling": f"{cost.flops / cost.points / seconds / ceiling:.0%}",
        "TB/s": f"{traffic / seconds / 1e12:.3g}",
        "of the bandwidth": f"{traffic / seconds / bandwidth:.0%}",
        "relative error": f"{error:.1e}",
        "how": cost.plan,
    }


def draw_images() -> tuple[Tensor, Tensor]:
    """Return random images of the size of CIFAR-10, and random labels."""
    return torch.randn(IMAGES, 3, 32, 32), torch.randint(10, (IMAGES,))


def _count_bytes(model: nn.Module, image: Tensor) -> int:
    """Return the bytes that the layers with weights read and write for one image."""
    total = 0

    def count(_: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        nonlocal total
        total += inputs[0].nbytes + outputs.nbytes

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return total


def measure_product_ceiling(precision: str) -> float:
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in "ab")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        return 2 * 8192**3 / _time(lambda: a @ b)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def measure_bandwidth_ceiling() -> float:
    a = torch.empty(2**30, device="cuda", dtype=torch.float32)
    b = torch.empty_like(a)
    return 2 * a.nbytes / _time(lambda: b.copy_(a))


def _time(function: Callable[[], Any], rounds: int = 20) -> float:
    function()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(rounds):
        function()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / rounds


if __name__ == "__main__":
    main()
