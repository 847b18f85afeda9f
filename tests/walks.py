"""Folders of checkpoints with known weights, written with safetensors and torch alone.

What is read back by landscope is compared with what was written here; ``ls.Recorder`` is not used,
so that a fault that reading and writing share shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

Row = dict[str, Tensor]
SHAPES = {"b.weight": (5, 4, 3), "a.weight": (7, 5), "a.bias": (7,), "scale": ()}
VECTORS = ("a.bias", "scale")


def rows(
    count: int = 12,
    *,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> list[Row]:
    """A smooth walk, as training makes it, around weights that are not small."""
    draws = torch.Generator().manual_seed(seed)

    def drawn(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64)

    at = {name: drawn(shape) for name, shape in shapes.items()}
    speed = {name: drawn(shape) for name, shape in shapes.items()}
    checkpoints = []
    for _ in range(count):
        checkpoints.append({name: tensor.to(dtype) for name, tensor in at.items()})
        for name, shape in shapes.items():
            speed[name] = 0.8 * speed[name] + 0.3 * drawn(shape)
            at[name] = at[name] + 0.05 * speed[name]
    return checkpoints


def write(
    folder: Path,
    given: Sequence[Row],
    *,
    about: Sequence[Mapping[str, Any]] | None = None,
    first: int = 0,
    vectors: Sequence[str] = VECTORS,
    buffers: Sequence[Row] | None = None,
) -> Path:
    """Write checkpoints as the format of a recorded trajectory says, step = place in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, row in enumerate(given):
        notes = {
            "version": 1, "step": first + k, "epoch": None, "learning_rate": None, "values": {},
            "parameters": list(row), "vectors": list(vectors), **(about[k] if about else {}),
        }  # fmt: skip
        tensors = {**row, **(buffers[k] if buffers else {})}
        file = folder / f"{notes['step']:09d}.safetensors"
        save_file(tensors, file, metadata={"landscope": json.dumps(notes)})
    return folder


def flat(params: Mapping[str, Tensor], names: Sequence[str] | None = None) -> np.ndarray:
    """One vector of some tensors, float64."""
    chosen = list(params) if names is None else list(names)
    return np.concatenate([params[name].double().numpy().ravel() for name in chosen])


def matrix(given: Sequence[Row], names: Sequence[str] | None = None) -> np.ndarray:
    """Checkpoints as rows, [n, p], float64."""
    return np.stack([flat(row, names or list(given[0])) for row in given])
