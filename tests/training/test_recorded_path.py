"""Thinning as arithmetic: which numbers stay is computed here by counting alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from landscope.errors import FormatError
from landscope.training.recorded_path import RecordedPath, Snapshot, thin


def path(count: int, rates: dict[int, float] | None = None) -> list[Snapshot]:
    """A path whose rate is 1, and from each key of ``rates`` on the value there."""
    rate, found = 1.0, []
    for k in range(count):
        rate = (rates or {}).get(k, rate)
        found.append(Snapshot(Path(str(k)), 10 * k, k, None, rate))
    return found


def grown(count: int, keep: int, rates: dict[int, float] | None = None) -> list[int]:
    """Numbers that are left when checkpoints come one by one."""
    stay: list[Snapshot] = []
    stride = 1
    for taken in path(count, rates):
        stay, stride = thin([*stay, taken], stride, keep)
    return [taken.number for taken in stay]


@pytest.mark.parametrize("keep", [2, 3, 4, 5, 16, 31])
def test_what_stays_are_the_multiples_of_one_power_of_two_and_the_last(keep: int) -> None:
    for count in range(1, 300):
        stride = 1  # the smallest at which there are few enough
        while len({*range(0, count, stride), count - 1}) > keep:
            stride *= 2
        assert grown(count, keep) == sorted({*range(0, count, stride), count - 1})


@pytest.mark.parametrize("keep", [8, 16, 31])
def test_both_sides_of_a_few_drops_stay(keep: int) -> None:
    found = grown(300, keep, {101: 0.1})
    assert {0, 100, 101, 299} <= set(found)
    assert keep / 2 <= len(found) <= keep
    many = grown(300, keep, {k: 0.9**k for k in range(10, 300, 10)})  # more than a quarter
    assert len(many) <= keep


def test_a_drop_that_is_not_told_is_none() -> None:
    unknown = [Snapshot(Path(str(k)), k, k, None, None) for k in range(9)]
    assert [taken.number for taken in thin(unknown, 1, 8)[0]] == [0, 2, 4, 6, 8]


def test_what_a_kill_left_is_swept_whatever_the_step(tmp_path: Path) -> None:
    left = [tmp_path / f".{step:09d}-x7_ab.safetensors" for step in (0, 12, 10**9 + 1)]
    others = [tmp_path / name for name in (".lock", ".gram-0a.npz", "training-state.safetensors")]
    for file in (*left, *others):
        file.touch()
    RecordedPath(tmp_path).remove_partial_files()
    assert set(tmp_path.iterdir()) == set(others)


def test_a_checkpoint_that_tells_nonsense_of_itself_is_named(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "000000003.safetensors", {"landscope": "{step"})
    with pytest.raises(FormatError, match=r"000000003.safetensors is not a whole checkpoint"):
        RecordedPath(tmp_path)
