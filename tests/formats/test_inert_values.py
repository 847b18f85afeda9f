"""Plain values beside the weights are left out, whatever their class, and nothing is called."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import os
import pickle
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscope.errors import FormatError
from landscope.formats import checkpoint
from landscope.formats.inert_values import InertValue, load_inert


class Settings(dict[str, Any]):
    """As many frameworks have: a dict with attributes."""


class History(list[float]):
    """A class of lists."""


class Kind(enum.Enum):
    SGD = "sgd"


@dataclasses.dataclass
class Config:
    width: int = 3
    more: object = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise AssertionError("code of the file's class ran")


VALUES: dict[str, Any] = {
    "NumPy number": np.float64(93.1),
    "NumPy integer": np.int64(3),
    "NumPy truth value": np.bool_(True),
    "NumPy array": np.arange(3.0),
    "NumPy array of objects": np.array([1, "a"], dtype=object),
    "NumPy random state": np.random.RandomState(0).get_state(),
    "NumPy generator": np.random.default_rng(0),
    "Namespace": argparse.Namespace(lr=0.1, out=Path("runs")),
    "path": Path("/a/b"),
    "date": datetime.datetime(2018, 1, 1, tzinfo=datetime.UTC),
    "duration": datetime.timedelta(seconds=1),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1, 2], maxlen=5),
    "counter": collections.Counter("aab"),
    "dict with attributes": Settings(lr=0.1),
    "class of lists": History([1.0, 2.0]),
    "enumeration": Kind.SGD,
    "dataclass": Config(more=[Config()]),
    "simple namespace": types.SimpleNamespace(a=1),
    "decimal": decimal.Decimal("1.2"),
    "partial": functools.partial(max, 1),
    "frozen set": frozenset((1, 2)),
    "range": range(4),
    "class": torch.optim.SGD,
    "function of torch": torch.relu,
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", VALUES)
def test_values_beside_the_weights_are_left_out(tmp_path: Path, name: str, *, zipped: bool) -> None:
    path = tmp_path / "a.pt"
    state = {"w": torch.arange(3.0)}
    content = {"value": VALUES[name], "state_dict": state, "again": [VALUES[name], 3]}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert torch.equal(checkpoint.read(path)["w"], state["w"])


def test_all_of_them_at_once_and_torch_stays_as_strict_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({**VALUES, "state_dict": {"w": torch.ones(2)}, "epoch": 3}, path)
    before = set(torch.serialization.get_safe_globals())
    content = load_inert(path)
    assert content["epoch"] == 3
    assert isinstance(content["dataclass"], InertValue)
    assert content["dataclass"].name == f"{__name__}.Config"
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


class Calls:
    """Calls a harmless function when it is unpickled by someone who trusts pickles."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def _append(texts: list[str]) -> list[str]:
    CALLED.extend(texts)
    return texts


CALLED: list[str] = []


@pytest.mark.parametrize("zipped", [True, False])
def test_functions_in_a_file_are_not_called(tmp_path: Path, *, zipped: bool) -> None:
    path = tmp_path / "a.pt"
    content = {"state_dict": {"w": torch.ones(2)}, "more": Calls(_append, ["called"])}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert list(checkpoint.read(path)) == ["w"]
    assert CALLED == []
    torch.load(path, weights_only=False)
    assert CALLED == ["called"]
    CALLED.clear()


@pytest.mark.parametrize("function", [os.getcwd, eval, os.path.exists, open])
def test_functions_of_the_standard_library_that_act_are_refused(
    tmp_path: Path, function: Any
) -> None:
    path = tmp_path / "a.pt"
    torch.save({"state_dict": {"w": torch.ones(2)}, "more": Calls(function)}, path)
    with pytest.raises(FormatError, match="cannot be opened without unpickling"):
        checkpoint.read(path)
