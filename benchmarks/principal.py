"""What principal components of a trajectory cost: 200 checkpoints of a million float32 weights.

Time: ours (the Gram matrix made anew, and grown by 20 checkpoints), against stacking the files with
safetensors and calling scikit-learn's PCA(2), which takes its randomized solver there; interleaved,
medians. Error: against NumPy's full decomposition of the stacked matrix in float64. Memory: by how
much the resident size of a fresh process grows at its peak, after the libraries were used once with
as many checkpoints of a small model; in checkpoints' worth, results included.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.decomposition import PCA

from benchmarks.common import write
from landscope.training.principal_components import pca
from landscope.training.trajectory import Trajectory

CHECKPOINTS, NEW = 200, 20
SHAPES = {"in.weight": (1000, 600), "in.bias": (1000,), "out.weight": (399, 1000)}  # 1,000,000
SMALL = {"weight": (50, 50)}
ROUNDS = 5
DIGITS = 1e-8  # what the variances must agree to

MEMORY = """
import sys
from landscope.training.principal_components import pca
from landscope.training.trajectory import Trajectory

def resident(what):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])

pca(Trajectory.open(sys.argv[1]))
walk = Trajectory.open(sys.argv[2])
before = resident("VmRSS")
found = pca(walk)
print(1024 * (resident("VmHWM") - before))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = walk(folder / "small", SMALL), walk(folder / "large", SHAPES)
        row = {"checkpoints": CHECKPOINTS, "parameters": 1_000_000, **errors(large)}
        row |= {"peak, checkpoints": f"{peak(small, large):.2f}", **seconds(large)}
    print(row, flush=True)
    write("principal", [row])


def walk(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """Write a walk as training makes it: fast and then slow, with noise."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    at = {n: 0.1 * draws.standard_normal(s, dtype=np.float32) for n, s in shapes.items()}
    speed = {n: np.zeros_like(a) for n, a in at.items()}
    for step in range(CHECKPOINTS):
        told = {"version": 1, "step": step, "parameters": list(at), "vectors": []}
        tensors = {n: torch.from_numpy(a) for n, a in at.items()}
        save_file(tensors, folder / f"{step:09d}.safetensors", {"landscope": json.dumps(told)})
        for n, a in at.items():
            noise = 1e-3 * draws.standard_normal(a.shape, dtype=np.float32)
            speed[n] = 0.9 * speed[n] - 1e-3 * a + noise
            at[n] = a + speed[n]
    return folder


def stacked(folder: Path) -> np.ndarray:
    """Return all checkpoints as the rows of a matrix, float32."""
    files = sorted(folder.glob("*.safetensors"))
    return np.stack([np.concatenate([t.flatten() for t in load_file(f).values()]) for f in files])


def errors(folder: Path) -> dict[str, str]:
    """How far variances and components are from those of a full decomposition."""
    found = pca(Trajectory.open(folder))
    matrix = stacked(folder).astype(np.float64)
    matrix -= matrix.mean(axis=0)
    _, values, vectors = np.linalg.svd(matrix, full_matrices=False)
    off = np.abs(found.explained_variance / (values[:2] ** 2 / (len(matrix) - 1)) - 1).max()
    names = sorted(SHAPES)  # as load_file has them
    flat = [np.concatenate([d[n].flatten() for n in names]) for d in found.directions]
    apart = max(
        np.abs(d * np.sign(d @ v) - v).max() for d, v in zip(flat, vectors[:2], strict=True)
    )
    assert off < DIGITS
    assert apart < DIGITS
    share = found.explained_variance_ratio.sum()
    return {
        "held by two": f"{share:.3f}",
        "error of variances": f"{off:.1e}",
        "error of components": f"{apart:.1e}",
    }


def peak(small: Path, large: Path) -> float:
    """Peak of the memory of a fresh process, in checkpoints."""
    forget(small)
    forget(large)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, small, large], capture_output=True, text=True, check=True
    )
    return int(done.stdout) / 4e6


def seconds(folder: Path) -> dict[str, str]:
    """Seconds of each way, and the median of the ratios of neighbors."""
    ours, grown, theirs = [], [], []
    newest = sorted(folder.glob("*.safetensors"))[-NEW:]
    for _ in range(ROUNDS):
        forget(folder)
        ours.append(timed(lambda: pca(Trajectory.open(folder))))
        theirs.append(timed(lambda: PCA(2).fit(stacked(folder))))
        forget(folder)
        away = [file.rename(file.with_suffix(".away")) for file in newest]
        pca(Trajectory.open(folder))
        newest = [file.rename(file.with_suffix(".safetensors")) for file in away]
        grown.append(timed(lambda: pca(Trajectory.open(folder))))
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return {
        "ours s": f"{statistics.median(ours):.2f}",
        f"ours, {NEW} more s": f"{statistics.median(grown):.2f}",
        "stack and scikit-learn s": f"{statistics.median(theirs):.2f}",
        "ratio": f"{ratio:.1f}",
    }


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def forget(folder: Path) -> None:
    """Delete what earlier calls kept."""
    for file in folder.glob(".gram-*"):
        file.unlink()


if __name__ == "__main__":
    main()
