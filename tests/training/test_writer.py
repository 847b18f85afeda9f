"""The writer's thread: buffers that return, files that are complete, failures that are raised."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from landscope.errors import RecorderError
from landscope.training.checkpoint_buffer import CheckpointBuffer, arrange
from landscope.training.writer import Writer, WriteTask


def tensors() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return {"weight": torch.randn(4, 5, generator=draws), "scale": torch.tensor(0.5)}


def filled(given: dict[str, Tensor]) -> CheckpointBuffer:
    buffer = CheckpointBuffer(arrange(given), pinned=False)
    buffer.fill(given.items())
    return buffer


def test_a_writer_has_two_buffers_and_uses_them_again_when_they_are_written(
    tmp_path: Path,
) -> None:
    given = tensors()
    writer = Writer(tmp_path)
    buffers = [writer.acquire_buffer(given) for _ in range(2)]
    for buffer in buffers:
        buffer.fill(given.items())
    (tmp_path / "old").write_text("")
    writer.submit(WriteTask(buffers[0], tmp_path / "a.safetensors", {}, [tmp_path / "old"]))
    assert writer.acquire_buffer(given) is buffers[0]  # it has waited
    assert not (tmp_path / "old").exists()
    writer.release_buffer(buffers[1])
    assert writer.acquire_buffer(given) is buffers[1]
    writer.close()
    assert load_file(tmp_path / "a.safetensors").keys() == given.keys()


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, there = os.fsync, []

    def watched(handle: int) -> None:
        there.append((sorted(p.suffix for p in tmp_path.iterdir()), os.fstat(handle).st_size))
        sync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    given = tensors()
    writer = Writer(tmp_path)
    writer.submit(WriteTask(filled(given), tmp_path / "a.safetensors", {}))
    writer.close()
    ((suffixes, written),) = there
    assert suffixes == ["", ".safetensors"]  # the lock, and one that is not called a
    assert written == (tmp_path / "a.safetensors").stat().st_size


def test_failures_are_raised_once_and_the_first_is_named(tmp_path: Path) -> None:
    given = tensors()
    writer = Writer(tmp_path)
    for name in ("gone/a", "gone/b", "c"):
        buffer = writer.acquire_buffer(given)
        buffer.fill(given.items())
        writer.submit(WriteTask(buffer, tmp_path / f"{name}.safetensors", {}))
    writer.wait()
    assert writer.has_failed
    with pytest.raises(RecorderError, match=r"gone/a.safetensors, and 1 more, could not be writ"):
        writer.raise_failures()
    writer.close()
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["c.safetensors"]
