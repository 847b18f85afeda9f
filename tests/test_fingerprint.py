from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landscope import fingerprint


def test_tensors_have_a_fingerprint_of_sixteen_hexadecimal_digits() -> None:
    digest = fingerprint.of_tensors({"a": torch.ones(2)})
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert digest == fingerprint.of_tensors([("a", torch.ones(2))])


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.ones(2, 2)},
        {"a": torch.ones(4)},
        {"a": torch.ones(2, 2, dtype=torch.float64)},
        {"a": torch.ones(2, 2, dtype=torch.int32)},
        {"a": torch.tensor([[1.0, 1.0], [1.0, 1.0 + 2**-23]])},
        {"a": torch.ones(2, 2), "b": torch.ones(0)},
    ],
)
def test_tensors_that_differ_in_any_way_have_different_fingerprints(
    other: dict[str, Tensor],
) -> None:
    assert fingerprint.of_tensors(other) != fingerprint.of_tensors({"a": torch.ones(2, 2)})


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]
)
def test_every_single_bit_counts(dtype: torch.dtype) -> None:
    tensor = torch.ones(3).to(dtype)
    size = 1 if dtype == torch.bool else 8 * tensor.element_size()
    seen = {fingerprint.of_tensors({"a": tensor})}
    for bit in range(size):
        flipped = tensor.clone()
        flipped.view(torch.uint8)[bit // 8] ^= 1 << (bit % 8)
        seen.add(fingerprint.of_tensors({"a": flipped}))
    assert len(seen) == size + 1


def test_minus_zero_and_nan_are_values_of_their_own() -> None:
    given = [0.0, -0.0, float("nan"), float("inf")]
    assert len({fingerprint.of_tensors({"a": torch.tensor(v)}) for v in given}) == 4


def test_strides_and_gradients_do_not_count() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    same = [tensor.t().contiguous().t(), nn.Parameter(tensor), tensor.repeat(1, 2)[:, :3]]
    for other in same:
        assert fingerprint.of_tensors({"a": other}) == fingerprint.of_tensors({"a": tensor})


def test_texts_differ_but_not_by_memory_addresses() -> None:
    assert fingerprint.of_text("a") != fingerprint.of_text("b")
    assert fingerprint.of_text("a", "b") != fingerprint.of_text("ab")
    assert fingerprint.of_text("<f at 0x7f01>") == fingerprint.of_text("<f at 0x6a02>")


def test_a_module_is_its_class_and_structure() -> None:
    digest = fingerprint.of_module(nn.Linear(2, 3))
    assert digest.startswith("Linear ")
    assert digest == fingerprint.of_module(nn.Linear(2, 3))
    assert digest != fingerprint.of_module(nn.Linear(2, 4))


class Twice(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gives it
        return 2 * super().forward(input)


def test_a_module_is_the_code_of_its_forward_method() -> None:
    class Thrice(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gives it
            return 3 * super().forward(input)

    Thrice.__qualname__ = Thrice.__name__ = "Twice"  # all that a text of it says
    one, other = Twice(2, 3), Thrice(2, 3)
    assert repr(one) == repr(other)
    assert fingerprint.of_module(one) != fingerprint.of_module(other)
    assert fingerprint.of_module(one) == fingerprint.of_module(Twice(2, 3))


def closing(over: Any) -> Callable[[Tensor], Any]:
    return lambda x: (x, over)


def by_default(value: Any) -> Callable[[Tensor], Any]:
    def function(x: Tensor, content: Any = value) -> Any:
        return (x, content)

    return function


def by_keyword(value: Any) -> Callable[[Tensor], Any]:
    def function(x: Tensor, *, content: Any = value) -> Any:
        return (x, content)

    return function


class Holder:
    def __init__(self, content: Any) -> None:
        self.content = content

    def __call__(self, x: Tensor) -> Any:
        return (x, self.content)

    def method(self, x: Tensor) -> Any:
        return (x, self.content)


class Module(nn.Module):
    def __init__(self, content: Any) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Identity())
        self.inner[0].content = content


LONG = torch.arange(5000.0)
BUMPED = LONG.clone()
BUMPED[2500] += 1e-3
PAIRS: list[tuple[str, Any, Any]] = [
    ("numbers", 1.0, 2.0),
    ("number and truth", 1, True),
    ("signs of zero", 0.0, -0.0),
    ("texts", "mean", "sum"),
    ("long tensors", LONG, BUMPED),
    ("long arrays", LONG.numpy(), BUMPED.numpy()),
    ("lists of tensors", [LONG], [BUMPED]),
    ("mappings of tensors", {"w": LONG}, {"w": BUMPED}),
    ("sets", {"a", "b"}, {"a", "c"}),
    ("functions", lambda x: x + 1, lambda x: x + 2),
    ("partials", functools.partial(max, 1), functools.partial(max, 2)),
    ("modules", nn.Dropout(0.1), nn.Dropout(0.2)),
    ("weights", nn.Linear(1, 1), nn.Linear(1, 1)),
    ("objects", Holder(1), Holder(2)),
]
HOLDERS: list[Callable[[Any], Any]] = [
    closing,
    by_default,
    by_keyword,
    lambda value: functools.partial(closing, value),
    lambda value: functools.partial(closing, over=value),
    Holder,
    lambda value: Holder(value).method,
    Module,
]
NAMES = ["closure", "default", "keyword", "partial", "named", "object", "method", "module"]


@pytest.mark.parametrize("holder", HOLDERS, ids=NAMES)
@pytest.mark.parametrize(("one", "two"), [p[1:] for p in PAIRS], ids=[p[0] for p in PAIRS])
def test_functions_differ_when_what_they_hold_differs(
    holder: Callable[[Any], Any], one: Any, two: Any
) -> None:
    digest = fingerprint.of_function(holder(one))
    assert digest == fingerprint.of_function(holder(one))
    assert digest != fingerprint.of_function(holder(two))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x: x + 1, lambda x: x - 1),
        (lambda x: x.sum(), lambda x: x.max()),
        (lambda x: [y + 1 for y in x], lambda x: [y + 2 for y in x]),
        (lambda x: lambda: 1, lambda x: lambda: 2),
        (lambda x: x in {"a", "b"}, lambda x: x in {"a", "c"}),
        (torch.sin, torch.cos),
    ],
)
def test_functions_differ_when_their_code_or_a_constant_differs(one: Any, two: Any) -> None:
    assert fingerprint.of_function(one) != fingerprint.of_function(two)


def test_the_mode_of_a_module_does_not_count() -> None:
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.ones(2))
    assert fingerprint.of_function(loss) == fingerprint.of_function(loss.eval())


def test_a_function_may_hold_itself_or_a_name_that_is_not_bound() -> None:
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    def early() -> str:
        return fingerprint.of_function(lambda: late)

    before = early()
    late = 1
    ring: list[Any] = [1]
    ring.append(ring)
    holder = Holder(None)
    holder.content = holder
    for function in (factorial, closing(ring), holder):
        assert fingerprint.of_function(function) == fingerprint.of_function(function)
    assert before != early()
    assert late == 1


def test_what_cannot_be_looked_into_is_known_by_its_kind() -> None:
    one, two = closing(threading.Lock()), closing(np.random.default_rng(0).normal)
    assert fingerprint.of_function(one) != fingerprint.of_function(two)


SCRIPT = """
import functools, torch
from torch import nn
from landscope import fingerprint
from landscope.objective.torch_losses import as_loss
def terms(model, batch, *, kinds=frozenset("abcdef")):
    return [k for k in batch if k in {"x", "y", "z", "w"} or k in kinds]
class Held:
    pass
content = Held()
print(fingerprint.of_function(terms))
print(fingerprint.of_function(functools.partial(terms, content, kinds={"p", "q", "r", "s"})))
print(as_loss(nn.CrossEntropyLoss(weight=torch.ones(3))).identity)
print(as_loss(lambda o, t: (o, t, content)).identity)
print(fingerprint.of_tensors({"a": torch.arange(5.0)}))
"""


def test_fingerprints_are_the_same_in_another_process() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0].split("\n"))) == 6


def test_one_number_of_a_column_is_told_apart_by_its_value() -> None:
    """257 rows in batches of 128 leave one, whose stride is that of the table."""
    table = torch.arange(12).reshape(4, 3)
    lone = table[:, 0].split(3)[1]
    assert fingerprint.of_tensors({"x": lone}) == fingerprint.of_tensors({"x": torch.tensor([9])})
    assert fingerprint.of_tensors({"x": lone}) != fingerprint.of_tensors({"x": torch.tensor([3])})
