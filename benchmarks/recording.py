"""What recording costs a training: seconds of an epoch with a recorder and without one.

Trainings of 25 epochs with no recorder, one checkpoint an epoch and one every ten steps take turns
in one process, from the same weights; each is timed to its end, the last file written. An epoch of
the digits has 12 steps, so both are as often as anybody records. The ratio is the median over
rounds of each training to the plain one of its round; "plain again" is a second plain training, and
says how far off a ratio is by chance. "CPU" are the same ratios of the seconds that all threads of
the process computed, which other programs disturb less. The parts of a call are timed apart.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.common import write
from landscope.training.recorder import Recorder
from landscope.zoo import digits

ROUNDS, BATCH = 7, 128
KINDS: dict[str, Any] = {
    "plain": None, "plain again": None, "every epoch": "epoch", "every 10 steps": 10,
}  # fmt: skip


def main() -> None:
    rows = []
    for name in sys.argv[1:] or ["digits_mlp", "digits_resnet8"]:
        rows.append({"network": name, **epochs(name), **parts(name)})
        print(rows[-1], flush=True)
        write("recording", rows)


def epochs(name: str) -> dict[str, Any]:
    """Seconds of an epoch, and the ratios of each kind to the plain one."""
    train(name, None)
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for k in range(ROUNDS):
        turn = [*KINDS][k % len(KINDS) :] + [*KINDS][: k % len(KINDS)]
        for kind in turn:
            found[kind].append(train(name, KINDS[kind]))
    row = {"ms an epoch": f"{1e3 * statistics.median(s for s, _ in found['plain']):.1f}"}
    for clock, label in enumerate(("", "CPU ")):
        for kind in [*KINDS][1:]:
            pairs = zip(found[kind], found["plain"], strict=True)
            row[label + kind] = f"{statistics.median(a[clock] / b[clock] for a, b in pairs):.3f}"
    return row


def train(name: str, every: Any) -> tuple[float, float]:
    """Seconds of an epoch of a short training: by the clock, and of the CPU."""
    model = digits.initial(name).train()
    inputs, targets = digits.load_data()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
    order = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        recorder = None if every is None else Recorder(folder, every)
        step = 0
        began = time.perf_counter(), time.process_time()
        for epoch in range(digits.EPOCHS):
            for rows in torch.randperm(len(targets), generator=order).split(BATCH):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(inputs[rows]), targets[rows])
                loss.backward()
                optimizer.step()
                step += 1
                if recorder is not None:
                    recorder(model, step=step, epoch=epoch, optimizer=optimizer, loss=loss)
        if recorder is not None:
            recorder.close()
        ended = time.perf_counter(), time.process_time()
    return (ended[0] - began[0]) / digits.EPOCHS, (ended[1] - began[1]) / digits.EPOCHS


def parts(name: str) -> dict[str, Any]:
    """What a call costs that takes nothing, one that does, and what the thread does then."""
    model = digits.initial(name)
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    with tempfile.TemporaryDirectory() as folder, Recorder(folder, every=1000) as recorder:
        recorder(model, step=0)
        began = time.perf_counter()
        for step in range(1, 1000):
            recorder(model, step=step)
        skipped = (time.perf_counter() - began) / 999
    with tempfile.TemporaryDirectory() as folder, Recorder(folder, every=1) as recorder:
        calls, writes = [], []
        for k in range(50):
            began = time.perf_counter()
            recorder(model, step=k)
            calls.append(time.perf_counter() - began)
            began = time.perf_counter()
            settle(recorder)
            writes.append(time.perf_counter() - began)
    return {
        "KiB a checkpoint": size // 1024,
        "us a call that takes none": f"{1e6 * skipped:.1f}",
        "ms a call that takes one": f"{1e3 * statistics.median(calls[2:]):.2f}",
        "ms of the thread": f"{1e3 * statistics.median(writes[2:]):.2f}",
    }


def settle(recorder: Recorder) -> None:
    """Wait until the thread has written all."""
    assert recorder._open is not None
    recorder._open[0].wait()


if __name__ == "__main__":
    main()
