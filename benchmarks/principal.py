"""The cost of principal components of a trajectory: 200 checkpoints of a million float32 weights.

Time: landscope (with a new Gram matrix, and with one that grows by 20 checkpoints) against stacking
the files with safetensors and calling scikit-learn's PCA(2), which uses its randomized solver;
interleaved, medians. Error: compared with NumPy's full decomposition of the stacked matrix in
float64. Memory: the peak growth of the resident size of a fresh process, after the libraries were
used once with as many checkpoints of a small model; in units of a checkpoint, with the results.
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

from benchmarks.common import write_results
from landscope.training.principal_components import pca
from landscope.training.trajectory import Trajectory

CHECKPOINTS, NEW = 200, 20
SHAPES = {"in.weight": (1000, 600), "in.bias": (1000,), "out.weight": (399, 1000)}  # 1,000,000
SMALL = {"weight": (50, 50)}
ROUNDS = 5
TOLERANCE = 1e-8  # of variances and components

MEMORY = """
import sys
from landscope.training.principal_components import pca
from landscope.training.trajectory import Trajectory

def resident(what):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])

pca(Trajectory.open(sys.argv[1]))
trajectory = Trajectory.open(sys.argv[2])
before = resident("VmRSS")
components = pca(trajectory)
print(1024 * (resident("VmHWM") - before))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = write_walk(folder / "small", SMALL), write_walk(folder / "large", SHAPES)
        row = {"checkpoints": CHECKPOINTS, "parameters": 1_000_000, **measure_errors(large)}
        row |= {"peak, checkpoints": f"{measure_peak(small, large):.2f}", **measure_seconds(large)}
    print(row, flush=True)
    write_results("principal", [row])


def write_walk(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """Write the checkpoints of a random walk like a training: fast, then slow, with noise."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    at = {n: 0.1 * draws.standard_normal(s, dtype=np.float32) for n, s in shapes.items()}
    speed = {n: np.zeros_like(a) for n, a in at.items()}
    for step in range(CHECKPOINTS):
        notes = {"version": 1, "step": step, "parameters": list(at), "vectors": []}
        tensors = {n: torch.from_numpy(a) for n, a in at.items()}
        save_file(tensors, folder / f"{step:09d}.safetensors", {"landscope": json.dumps(notes)})
        for n, a in at.items():
            noise = 1e-3 * draws.standard_normal(a.shape, dtype=np.float32)
            speed[n] = 0.9 * speed[n] - 1e-3 * a + noise
            at[n] = a + speed[n]
    return folder


def stack(folder: Path) -> np.ndarray:
    """Return all checkpoints as the rows of a matrix, float32."""
    files = sorted(folder.glob("*.safetensors"))
    return np.stack([np.concatenate([t.flatten() for t in load_file(f).values()]) for f in files])


def measure_errors(folder: Path) -> dict[str, str]:
    """Return the errors of variances and components against a full decomposition."""
    components = pca(Trajectory.open(folder))
    matrix = stack(folder).astype(np.float64)
    matrix -= matrix.mean(axis=0)
    _, values, vectors = np.linalg.svd(matrix, full_matrices=False)
    variance_error = np.abs(
        components.explained_variance / (values[:2] ** 2 / (len(matrix) - 1)) - 1
    ).max()
    names = sorted(SHAPES)  # as load_file has them
    flat = [np.concatenate([d[n].flatten() for n in names]) for d in components.directions]
    component_error = max(
        np.abs(d * np.sign(d @ v) - v).max() for d, v in zip(flat, vectors[:2], strict=True)
    )
    assert variance_error < TOLERANCE
    assert component_error < TOLERANCE
    share = components.explained_variance_ratio.sum()
    return {
        "held by two": f"{share:.3f}",
        "error of variances": f"{variance_error:.1e}",
        "error of components": f"{component_error:.1e}",
    }


def measure_peak(small: Path, large: Path) -> float:
    """Return the peak memory of a fresh process, in units of a checkpoint."""
    delete_cache(small)
    delete_cache(large)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, small, large], capture_output=True, text=True, check=True
    )
    return int(done.stdout) / 4e6


def measure_seconds(folder: Path) -> dict[str, str]:
    """Return the seconds of each method, and the median ratio of consecutive runs."""
    ours, grown, theirs = [], [], []
    newest = sorted(folder.glob("*.safetensors"))[-NEW:]
    for _ in range(ROUNDS):
        delete_cache(folder)
        ours.append(time_call(lambda: pca(Trajectory.open(folder))))
        theirs.append(time_call(lambda: PCA(2).fit(stack(folder))))
        delete_cache(folder)
        hidden = [file.rename(file.with_suffix(".hidden")) for file in newest]
        pca(Trajectory.open(folder))
        newest = [file.rename(file.with_suffix(".safetensors")) for file in hidden]
        grown.append(time_call(lambda: pca(Trajectory.open(folder))))
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return {
        "ours s": f"{statistics.median(ours):.2f}",
        f"ours, {NEW} more s": f"{statistics.median(grown):.2f}",
        "stack and scikit-learn s": f"{statistics.median(theirs):.2f}",
        "ratio": f"{ratio:.1f}",
    }


def time_call(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def delete_cache(folder: Path) -> None:
    """Delete the Gram matrices of earlier calls."""
    for file in folder.glob(".gram-*"):
        file.unlink()


if __name__ == "__main__":
    main()
