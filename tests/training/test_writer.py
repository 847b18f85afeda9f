"""Blocks of memory and the files they become; ``safetensors`` itself is the witness of a file."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from landscope.errors import FormatError, RecorderError
from landscope.training.checkpoint_buffer import CheckpointBuffer, _powers_of_two, arrange
from landscope.training.writer import Writer, WriteTask


def tensors() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    dtypes = torch.bfloat16, torch.float64, torch.float32, torch.float16
    found = {
        f"{kind} {count}".removeprefix("torch."): torch.randn(count, generator=draws).to(kind)
        for kind, count in itertools.product(dtypes, (1, 3, 11))
    }
    turned = torch.randn(4, 5, generator=draws).T
    return {"turned": turned, "none": torch.empty(0, 3), "zero": torch.tensor(0.5), **found}


def filled(given: dict[str, Tensor], sizes: list[int] | None = None) -> CheckpointBuffer:
    # Pinned memory, which only a machine with a GPU has, is in several pieces.
    buffer = CheckpointBuffer(arrange(given), pinned=False, sizes=sizes)
    buffer.fill(given.items())
    return buffer


def size(given: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in given.values())


@pytest.mark.parametrize("pieces", [None, 1, 7, 64])
def test_a_file_is_one_of_safetensors_whatever_pieces_its_memory_has(
    pieces: int | None, tmp_path: Path
) -> None:
    given = tensors()
    whole, rest = divmod(size(given), pieces or 1)
    buffer = filled(given, None if pieces is None else [pieces] * whole + [rest])
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        buffer.write(file, {"note": "\N{GREEK SMALL LETTER ALPHA}"})
    read = load_file(path)
    assert read.keys() == given.keys()
    for name, tensor in given.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"note": "\N{GREEK SMALL LETTER ALPHA}"}
    assert buffer.equals_file(path)


def test_what_is_in_a_file_is_compared_bit_for_bit(tmp_path: Path) -> None:
    given = {"a": torch.tensor([1.0, float("nan")]), "b": torch.tensor([0.0])}
    path = tmp_path / "a.safetensors"
    save_file(given, path)
    assert filled(given).equals_file(path)
    assert not filled({**given, "b": torch.tensor([-0.0])}).equals_file(path)
    assert not filled({**given, "b": torch.tensor([[0.0]])}).equals_file(path)
    assert not filled({"a": given["a"]}).equals_file(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="not a whole checkpoint"):
        filled(given).equals_file(path)


def test_tensors_are_aligned_and_their_header_too(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        filled(tensors()).write(file, {"odd": "x" * 3})
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    assert begin % 8 == 0
    index = json.loads(content[8:begin])
    for name, tensor in tensors().items():
        assert index[name]["data_offsets"][0] % tensor.element_size() == 0


@pytest.mark.parametrize("count", [1, 2**20 - 1, 2**20, 2**20 + 1, 37 * 2**20 + 5, 600_000_000])
def test_pinned_memory_wastes_less_than_its_smallest_piece(count: int) -> None:
    sizes = _powers_of_two(count)
    assert sum(sizes) == count
    rounded = sum(1 << (part - 1).bit_length() for part in sizes)  # as torch allocates them
    assert rounded - count < 2**20
    assert len(sizes) < 32


def test_a_writer_lends_two_blocks_and_takes_them_back_when_they_are_written(
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


def test_a_failure_is_told_once_and_is_the_first(tmp_path: Path) -> None:
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


def test_a_tensor_that_was_offloaded_since_is_named() -> None:
    given = tensors()
    buffer = filled(given)
    with pytest.raises(RecorderError, match="'turned' lies on the meta device"):
        buffer.fill({"turned": given["turned"].to("meta")}.items())
