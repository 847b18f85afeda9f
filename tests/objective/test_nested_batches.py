"""Nested batches: every function meets the same tensors and arrays, in the same order."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from landscope.errors import ObjectiveError
from landscope.objective import nested_batches


class Pair(NamedTuple):
    x: Any
    y: Any


def batch(rows: int = 3) -> dict[str, Any]:
    """Return a batch of all kinds of containers and leaves, five of which hold numbers."""
    array = np.arange(rows, dtype=np.float32)
    return {
        "pair": Pair(torch.ones(rows, 2), array),
        "list": [torch.zeros(rows), (array + 1, None, "text")],
        "ordered": OrderedDict(z=np.array(["a", "b"]), w=torch.arange(rows)),
    }


def test_tensors_that_are_mapped_are_those_that_are_listed_in_the_same_order() -> None:
    met: list[Tensor] = []

    def record(tensor: Tensor) -> Tensor:
        met.append(tensor)
        return tensor + 1

    mapped = nested_batches.map_tensors(record, batch())
    listed = list(nested_batches.iter_tensors(batch()))
    assert len(listed) == 5
    assert all(torch.equal(a, b) for a, b in zip(met, listed, strict=True))
    after = list(nested_batches.iter_tensors(mapped))
    assert all(torch.equal(a + 1, b) for a, b in zip(listed, after, strict=True))


def test_structure_and_leaves_without_numbers_stay() -> None:
    mapped = nested_batches.map_tensors(torch.clone, batch())
    assert isinstance(mapped["pair"], Pair)
    assert mapped["list"][1][1:] == (None, "text")
    assert mapped["ordered"]["z"].tolist() == ["a", "b"]
    assert list(mapped) == list(batch())


def test_rows_of_arrays_count() -> None:
    assert nested_batches.count_rows(batch(4)) == 4
    assert nested_batches.count_rows((np.zeros(3), torch.zeros(2))) is None
    assert nested_batches.count_rows(np.zeros(())) is None
    assert nested_batches.count_rows("text") is None


def rows(*sizes: int, width: int = 2) -> list[tuple[Tensor, Any]]:
    """Return batches with the numbers 0, 1, 2, ... as targets, which are numpy arrays."""
    starts = np.cumsum([0, *sizes])
    return [
        (torch.full((n, width), float(start)), np.arange(start, start + n))
        for start, n in zip(starts, sizes, strict=False)
    ]


def targets(batches: list[Any] | None) -> list[list[int]]:
    assert batches is not None
    return [torch.as_tensor(y).tolist() for _, y in batches]


def test_batches_are_joined_and_divided_with_all_rows_in_order() -> None:
    assert targets(nested_batches.rebatch(rows(3, 4), 2)) == [[0, 1], [2, 3], [4, 5], [6]]
    assert targets(nested_batches.rebatch(rows(3, 4), 7)) == [[*range(7)]]
    assert targets(nested_batches.rebatch(rows(2), 0)) == [[0], [1]]


def test_batches_of_other_shapes_are_not_joined() -> None:
    mixed = [*rows(3), *rows(2, width=5)]
    assert targets(nested_batches.rebatch(mixed, 9)) == [[0, 1, 2], [0, 1]]
    assert nested_batches.rebatch_evenly(mixed, 9) is None
    assert targets(nested_batches.rebatch_evenly(rows(3, 4), 5)) == [[0, 1, 2, 3], [4, 5, 6]]


def test_batches_with_tensors_of_different_lengths_are_not_divided() -> None:
    uneven = [(torch.zeros(3), torch.zeros(2))]
    assert nested_batches.rebatch(uneven, 2) is None
    with pytest.raises(ObjectiveError, match="different lengths"):
        nested_batches.select_rows(uneven, [0])


def test_selected_rows_are_joined_where_their_shapes_allow() -> None:
    assert targets(nested_batches.select_rows(rows(3, 4, 2), [1, 3, 6])) == [[1, 3, 6]]
    assert targets(nested_batches.select_rows([*rows(3), *rows(2, width=5)], [0, 2, 4])) == [
        [0, 2],
        [1],
    ]
    assert targets([nested_batches.index_rows(rows(4)[0], torch.tensor([3, 0]))]) == [[3, 0]]


def test_equal_batches_have_nan_in_the_same_places() -> None:
    nan = torch.tensor([1.0, float("nan")])
    assert nested_batches.equal(nan, nan.clone())
    assert not nested_batches.equal(nan, torch.tensor([1.0, 0.5]))  # NaN equals NaN only
    assert not nested_batches.equal(nan, [1.0])
    assert nested_batches.equal({"a": nan, "b": ["text"]}, {"a": nan, "b": ["other"]})
    assert not nested_batches.equal((nan,), (nan, nan))
    assert nested_batches.equal(nan.numpy(), nan.numpy().copy())
    assert not nested_batches.equal(nan.numpy(), nan.numpy() + 1)


def test_inputs_and_targets_are_found_in_pairs_and_by_key() -> None:
    x = torch.ones(2)
    assert nested_batches.split((x, 3)) == (x, 3)
    assert nested_batches.split({"x": x, "y": 3}) == (x, 3)
    assert nested_batches.split({"a": 1, "b": 2, "labels": 3}) == ({"a": 1, "b": 2}, 3)
    with pytest.raises(ObjectiveError, match="a list of 3; expected"):
        nested_batches.split([1, 2, 3])
