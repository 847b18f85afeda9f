"""Headers and reads of .safetensors files; ``safetensors`` itself is the witness of both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from landscope.errors import FormatError
from landscope.params import as_bytes
from landscope.tensorfile import (
    DTYPES,
    FLOATING,
    NAMES,
    Entry,
    encode_entries,
    encode_header,
    read_header,
    read_tensors,
)


def tensors() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return {
        str(dtype): torch.randint(0, 2, (3, 4), generator=draws).to(dtype)
        for dtype in DTYPES.values()
    }


def write(path: Path, given: dict[str, Tensor], metadata: dict[str, str] | None) -> None:
    entries, start = {}, 0
    for name, tensor in given.items():
        entries[name] = Entry(NAMES[tensor.dtype], tuple(tensor.shape), start, tensor.nbytes)
        start += tensor.nbytes
    content = b"".join(as_bytes(tensor).numpy().tobytes() for tensor in given.values())
    path.write_bytes(encode_header(encode_entries(entries), metadata) + content)


def test_the_names_of_the_dtypes_are_those_of_safetensors(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "a.safetensors")
    entries, _ = read_header(tmp_path / "a.safetensors")
    assert {name: DTYPES[entry.dtype] for name, entry in entries.items()} == {
        name: tensor.dtype for name, tensor in tensors().items()
    }
    floating = {name for name, entry in entries.items() if entry.is_floating_point}
    assert floating == {str(dtype) for dtype in FLOATING.values()}
    assert floating == {name for name, t in tensors().items() if t.is_floating_point()}


@pytest.mark.parametrize("metadata", [None, {}, {"note": "\N{GREEK SMALL LETTER ALPHA}"}])
def test_safetensors_reads_what_was_written(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = tmp_path / "a.safetensors"
    write(path, tensors(), metadata)
    read = load_file(path)
    assert read.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    with safe_open(path, "pt") as file:
        assert (file.metadata() or {}) == (metadata or {})


def test_a_file_without_tensors_keeps_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(encode_header(encode_entries({}), {"note": "x"}))
    assert read_header(path) == ({}, {"note": "x"})
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"note": "x"}


@pytest.mark.parametrize("alignment", [8, 64])
def test_tensors_begin_at_a_multiple_of_the_alignment(alignment: int) -> None:
    for size in range(70):
        entries = encode_entries({"x" * size: Entry("F32", (2,), 0, 8)})
        header = encode_header(entries, {"note": "y" * size}, alignment=alignment)
        assert len(header) % alignment == 0
        assert int.from_bytes(header[:8], "little") == len(header) - 8
        assert json.loads(header[8:])["x" * size]["data_offsets"] == [0, 8]


def test_single_tensors_are_read_bit_for_bit(tmp_path: Path) -> None:
    given = {"a": torch.randn(5), "b": torch.tensor(float("nan")), "none": torch.empty(0, 2)}
    save_file(given, tmp_path / "a.safetensors")
    entries, _ = read_header(tmp_path / "a.safetensors")
    for name, tensor in given.items():
        read = read_tensors(tmp_path / "a.safetensors", {name: entries[name]})
        assert list(read) == [name]
        np.testing.assert_array_equal(read[name].numpy(), tensor.numpy())
        assert read[name].shape == tensor.shape


@pytest.mark.parametrize("size", [0, 7, 8, 40, -1])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(5)}, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FormatError, match="is not a whole checkpoint"):
        read_header(path)
    path.unlink()
    with pytest.raises(FormatError, match="is gone"):
        read_header(path)
