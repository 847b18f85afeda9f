"""The watch saves values before the first write, whichever operator writes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from landscope.objective.write_watch import WriteWatch, equal_bits

WRITES: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda t: t.clamp_(0, 1),
    "a view": lambda t: t[1:].zero_(),
    "data": lambda t: t.data.add_(1),
    "out": lambda t: torch.add(t, t, out=t),
    "several": lambda t: torch._foreach_mul_([t], 2.0),
    "the same value": lambda t: t.mul_(1.0),
    "renormalization": lambda t: nn.functional.embedding(torch.tensor([0]), t, max_norm=0.1),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_values_are_saved_before_the_first_write(write: Callable[[Tensor], object]) -> None:
    other, tensor = torch.ones(3, 2), torch.arange(6.0).reshape(3, 2)
    before = tensor.clone()
    watch = WriteWatch([other, tensor])
    with torch.no_grad(), watch.observe():
        write(tensor)
        write(tensor)
        after = tensor.clone()
    assert list(watch.saved) == [1]
    assert torch.equal(watch.saved[1], before)
    assert torch.equal(tensor, before)  # and restored
    assert torch.equal(after, before) == (write is WRITES["the same value"])


def test_reading_is_no_write() -> None:
    layer = nn.Linear(3, 2)
    watch = WriteWatch(layer.parameters())
    with watch.observe():
        layer(torch.ones(4, 3)).sum().backward()
    assert watch.saved == {}


def test_what_has_no_plain_memory_is_not_watched() -> None:
    tensors = [torch.ones(2, device="meta"), torch.eye(2).to_sparse()]
    watch = WriteWatch(tensors)
    with watch.observe():
        for tensor in tensors:
            tensor.mul_(2)
    assert watch.saved == {}
    assert equal_bits(torch.ones(2, device="meta"), torch.zeros(2, device="meta"))


def test_bits_distinguish_signs_of_zero_and_nan_equals_itself() -> None:
    nan = torch.tensor([float("nan"), 0.0])
    assert equal_bits(nan, nan.clone())
    assert not equal_bits(nan, torch.tensor([float("nan"), -0.0]))


def test_torch_does_not_import_its_compiler_for_the_watch() -> None:
    """It would wrap the method in ``torch._disable_dynamo``, whose first call takes seconds."""
    assert not hasattr(WriteWatch.__torch_dispatch__, "__wrapped__")
