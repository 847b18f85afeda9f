"""Buffers and the files that they become; ``safetensors`` itself is the witness of a file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from landscope.errors import FormatError, RecorderError
from landscope.training.checkpoint_buffer import CheckpointBuffer, _powers_of_two, arrange


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


def test_a_tensor_that_was_offloaded_since_is_named() -> None:
    given = tensors()
    buffer = filled(given)
    with pytest.raises(RecorderError, match="'turned' lies on the meta device"):
        buffer.fill({"turned": given["turned"].to("meta")}.items())
