"""Slices from options: the lines, planes and volumes that requests describe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import landscope as ls
from landscope import directions
from landscope.cli import run_folder
from landscope.cli.scan_request import ScanRequest
from landscope.cli.slice_options import make_slice
from landscope.errors import FormatError, SliceError
from landscope.formats import reference_h5
from landscope.params import dot
from landscope.slices.slices import Affine
from tests.cases import seeded
from tests.toy_target import make


def _equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def slice_of(objective: ls.Objective, axes: int, **options: Any) -> Affine:
    return make_slice(ScanRequest("target.py:make", ((-1.0, 1.0, 5),) * axes, **options), objective)


@pytest.mark.parametrize(("count", "kind"), [(1, ls.Line), (2, ls.Plane), (3, ls.Volume)])
def test_without_options_directions_are_random_and_filter_normalized(
    count: int, kind: type[ls.Plane]
) -> None:
    objective = make()
    slice_ = slice_of(objective, count, seed=4)
    assert isinstance(slice_, kind)
    expected = directions.random(objective.center, count, seed=4)
    assert all(map(_equal, slice_.directions, expected))
    assert slice_.labels == tuple(f"random direction {d}" for d in "xyz"[:count])
    assert _equal(slice_.center, objective.center)


def test_the_options_of_random_directions_are_passed_on() -> None:
    objective = make()
    slice_ = slice_of(objective, 2, normalize="layer", ignore="none", orthogonal=False, seed=2)
    expected = directions.random(
        objective.center, normalize="layer", ignore=None, orthogonal=False, seed=2
    )
    assert all(map(_equal, slice_.directions, expected))
    assert slice_.labels == ("layer-normalized direction x", "layer-normalized direction y")


def test_selected_parameters_move_alone() -> None:
    slice_ = slice_of(make(), 1, select=("0.*",))
    assert {n for n, t in slice_.directions[0].items() if t.any()} == {"0.weight"}


def test_directions_of_models_that_fill_the_memory_are_drawn_from_a_seed() -> None:
    plain = make()
    objective = ls.Objective(
        plain.model, plain.problem.loss, plain.problem.sources[""], in_place=True
    )
    slice_ = slice_of(objective, 2, seed=4)
    expected = directions.seeded(objective.center, seed=4)
    assert all(map(_equal, slice_.directions, expected))


def test_same_uses_one_direction_for_every_axis() -> None:
    plane = slice_of(make(), 2, same=True)
    assert plane.directions[0] is plane.directions[1]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    model = make(seed=9).model
    with torch.no_grad():
        model.get_buffer("1.running_mean").normal_(generator=seeded(1))
    torch.save(model.state_dict(), tmp_path / "other.pt")
    return tmp_path / "other.pt"


def test_toward_ends_at_the_other_model_with_its_statistics(other: Path) -> None:
    objective = make()
    line = slice_of(objective, 1, toward=(other,))
    state = torch.load(other, weights_only=True)
    there = line.at((1.0,))
    assert set(there) == set(objective.states)
    for name, tensor in there.items():
        torch.testing.assert_close(tensor, state[name])
    assert line.labels == ("towards other.pt, x",)


def test_toward_over_parameters_leaves_the_statistics(other: Path) -> None:
    objective = make()
    line = slice_of(objective, 1, toward=(other,), over="parameters")
    assert set(line.center) == set(objective.center)


def test_a_random_direction_fills_the_axis_that_no_model_names(other: Path) -> None:
    objective = make()
    plane = slice_of(objective, 2, toward=(other,))
    expected = directions.random(objective.states, 2)[1]
    assert _equal(plane.directions[1], expected)
    assert plane.labels[1] == "random direction y"


def test_directions_of_a_run_are_used_again(tmp_path: Path) -> None:
    objective = make()
    first = slice_of(objective, 2, seed=8)
    run_folder.write_directions(first, run_folder.create_run(tmp_path / "run"))
    again = slice_of(objective, 2, directions=tmp_path / "run")
    assert all(map(_equal, first.directions, again.directions))
    assert again.labels[0] == "direction of run, x"


def test_directions_of_a_2018_file_are_used(tmp_path: Path) -> None:
    objective = make()
    made = directions.random(objective.center, seed=3)
    reference_h5.write_directions(made, tmp_path / "d.h5")
    slice_ = slice_of(objective, 2, directions=tmp_path / "d.h5")
    assert dot(slice_.directions[0], made[0]) == pytest.approx(dot(made[0], made[0]))


def test_more_directions_than_axes_are_refused(other: Path) -> None:
    with pytest.raises(SliceError, match=r"2 directions are given for 1 axes: add --y"):
        slice_of(make(), 1, toward=(other, other))


def test_a_checkpoint_of_another_width_is_refused(other: Path) -> None:
    with pytest.raises(
        FormatError, match=r"center: 0\.weight has the shape \(6, 4\) in .* \(5, 4\)"
    ):
        slice_of(make(width=5), 1, toward=(other,))


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"0.weight": torch.zeros(6, 4)}, tmp_path / "half.pt")
    with pytest.raises(FormatError, match=r"half\.pt does not fit .*0\.bias is missing"):
        slice_of(make(), 1, toward=(tmp_path / "half.pt",))
