"""The cost of recording a training: seconds per epoch with a recorder and without one.

Trainings of 25 epochs without a recorder, with a checkpoint per epoch, and with one every ten steps
alternate in one process, from the same weights; the time includes writing the last file. An epoch
of the digits has 12 steps, so both are recorded more often than usual. A ratio is the median over
rounds of the time of a training by that of the plain training of its round; "plain again" is a
second plain training, which shows the random error of a ratio. "CPU" are the same ratios of the CPU
seconds of all threads, which other programs disturb less. The parts of a call are timed separately.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.common import write_results
from landscope.training.recorder import Recorder
from landscope.zoo import digits

ROUNDS, BATCH = 7, 128
KINDS: dict[str, Any] = {
    "plain": None, "plain again": None, "every epoch": "epoch", "every 10 steps": 10,
}  # fmt: skip


def main() -> None:
    rows = []
    for name in sys.argv[1:] or ["digits_mlp", "digits_resnet8"]:
        rows.append({"network": name, **time_epochs(name), **time_parts(name)})
        print(rows[-1], flush=True)
        write_results("recording", rows)


def time_epochs(name: str) -> dict[str, Any]:
    """Return the seconds per epoch, and the ratio of each kind to the plain one."""
    train(name, None)
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for k in range(ROUNDS):
        order = [*KINDS][k % len(KINDS) :] + [*KINDS][: k % len(KINDS)]
        for kind in order:
            times[kind].append(train(name, KINDS[kind]))
    row = {"ms an epoch": f"{1e3 * statistics.median(s for s, _ in times['plain']):.1f}"}
    for clock, label in enumerate(("", "CPU ")):
        for kind in [*KINDS][1:]:
            pairs = zip(times[kind], times["plain"], strict=True)
            row[label + kind] = f"{statistics.median(a[clock] / b[clock] for a, b in pairs):.3f}"
    return row


def train(name: str, every: Any) -> tuple[float, float]:
    """Return the wall-clock and the CPU seconds per epoch of a short training."""
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


def time_parts(name: str) -> dict[str, Any]:
    """Return the times of a call that records nothing, of one that does, and of the writer."""
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
            wait_for_writer(recorder)
            writes.append(time.perf_counter() - began)
    return {
        "KiB a checkpoint": size // 1024,
        "us a call that takes none": f"{1e6 * skipped:.1f}",
        "ms a call that takes one": f"{1e3 * statistics.median(calls[2:]):.2f}",
        "ms of the thread": f"{1e3 * statistics.median(writes[2:]):.2f}",
    }


def wait_for_writer(recorder: Recorder) -> None:
    """Wait until the writer thread is idle."""
    assert recorder._open is not None
    recorder._open[0].wait()


if __name__ == "__main__":
    main()
