"""Memory of scanning a plane of GPT-2 (124M) with seeded directions, against plain inference.

Each row is the largest resident size (VmHWM) of a fresh process, which includes the libraries and
the model.

    python -m benchmarks.memory [scan | stored | inference]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

RESOLUTION, SEQUENCES, LENGTH = 5, 8, 64
SPAN = (-0.5, 0.5)


def _build_model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model: torch.nn.Module = GPT2LMHeadModel(GPT2Config())
    return model.eval()


def _draw_text() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(50257, (SEQUENCES, LENGTH), generator=generator)


def inference() -> dict[str, Any]:
    """Evaluate the model twice, in the usual way."""
    model, text = _build_model(), _draw_text()
    began = time.perf_counter()
    with torch.no_grad():
        for _ in range(2):
            logits = model(input_ids=text, use_cache=False).logits
            shifted, targets = logits[:, :-1].flatten(0, 1), text[:, 1:].flatten()
            loss = float(torch.nn.functional.cross_entropy(shifted, targets))
            del logits, shifted
    return {"seconds a point": (time.perf_counter() - began) / 2, "center": loss}


def scan(*, stored: bool = False) -> dict[str, Any]:
    """Scan a plane along seeded directions: in place, or with stored directions and copies."""
    import landscope as ls
    from landscope.fingerprint import of_tensors
    from landscope.integrations import transformers

    model = _build_model()
    before = of_tensors(model.state_dict())
    data = [{"input_ids": row} for row in _draw_text()]
    objective = transformers.objective(model, data, batch_size=SEQUENCES, in_place=not stored)
    directions: Any = ls.directions.seeded(objective.center, seed=0)
    if stored:
        directions = [ls.params.like(objective.center, dict(d)) for d in directions]
    plane = ls.Plane(objective.center, *directions)
    began = time.perf_counter()
    land = ls.scan(objective, plane, ls.Grid(RESOLUTION, SPAN))
    return {
        "seconds a point": (time.perf_counter() - began) / RESOLUTION**2,
        "center": float(land.data["loss"].values[RESOLUTION // 2, RESOLUTION // 2]),
        "losses": land.data["loss"].values.tolist(),
        "weights are as before": of_tensors(model.state_dict()) == before,
    }


def _peak_memory() -> float:
    """Return the largest resident size of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _run_fresh(what: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", what]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    rows = {what: _run_fresh(what) for what in ("inference", "scan", "stored")}
    for what, row in rows.items():
        share = row["peak"] / rows["inference"]["peak"]
        print(
            f"{what:10} peak {row['peak']:7.0f} MiB, {share:.3f} of inference;"
            f" {row['seconds a point']:.2f} s per point; center {row['center']:.6f}"
        )
    stored, in_place = (np.array(rows[k]["losses"]) for k in ("stored", "scan"))
    print(f"largest relative difference of losses: {np.abs(in_place / stored - 1).max():.2g}")
    print(f"weights are as before: {rows['scan']['weights are as before']}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        row = inference() if sys.argv[1] == "inference" else scan(stored=sys.argv[1] == "stored")
        print(json.dumps({**row, "peak": _peak_memory()}))
    else:
        main()
