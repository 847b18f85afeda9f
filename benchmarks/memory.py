"""Memory of a plane of GPT-2 (124M) with seeded directions, against that of plain inference.

Each row is a fresh process, whose largest resident size is told (VmHWM): what it takes to load the
libraries and the model counts in all of them.

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


def _model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model: torch.nn.Module = GPT2LMHeadModel(GPT2Config())
    return model.eval()


def _text() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(50257, (SEQUENCES, LENGTH), generator=generator)


def inference() -> dict[str, Any]:
    """Evaluate the model twice, as anyone would."""
    model, text = _model(), _text()
    began = time.perf_counter()
    with torch.no_grad():
        for _ in range(2):
            logits = model(input_ids=text, use_cache=False).logits
            shifted, wanted = logits[:, :-1].flatten(0, 1), text[:, 1:].flatten()
            loss = float(torch.nn.functional.cross_entropy(shifted, wanted))
            del logits, shifted
    return {"seconds a point": (time.perf_counter() - began) / 2, "center": loss}


def scan(*, stored: bool = False) -> dict[str, Any]:
    """Scan a plane along directions of a seed, in place; or stored, with everything copied."""
    import landscope as ls
    from landscope.fingerprint import of_tensors
    from landscope.integrations import transformers

    model = _model()
    before = of_tensors(model.state_dict())
    data = [{"input_ids": row} for row in _text()]
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


def _peak() -> float:
    """Return the largest resident size of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _fresh(what: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", what]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    found = {what: _fresh(what) for what in ("inference", "scan", "stored")}
    for what, told in found.items():
        share = told["peak"] / found["inference"]["peak"]
        print(
            f"{what:10} peak {told['peak']:7.0f} MiB, {share:.3f} of inference;"
            f" {told['seconds a point']:.2f} s a point; center {told['center']:.6f}"
        )
    exact, other = (np.array(found[k]["losses"]) for k in ("stored", "scan"))
    print(f"largest relative difference of losses: {np.abs(other / exact - 1).max():.2g}")
    print(f"weights are as before: {found['scan']['weights are as before']}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        made = inference() if sys.argv[1] == "inference" else scan(stored=sys.argv[1] == "stored")
        print(json.dumps({**made, "peak": _peak()}))
    else:
        main()
