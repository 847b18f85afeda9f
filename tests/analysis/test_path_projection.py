"""A path on a slice: coordinates, distances, and two losses that must not be mixed up.

Witnesses: NumPy's least squares on stacked vectors; a plain forward pass of the network with the
very state dict that was saved; and the cell of a scan at the projection.
"""

from __future__ import annotations

import copy
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import landscope as ls
from landscope.analysis.path_projection import plane, project
from landscope.errors import ParamsError, SliceError
from landscope.params import Params
from landscope.progress import Progress
from landscope.training.principal_components import pca
from landscope.training.trajectory import Checkpoint, Trajectory
from tests import cases, walks

State = dict[str, Tensor]


def _trained(case: cases.Case, steps: int = 6) -> list[State]:
    """State dicts on a path from the case's network, statistics of batch norm included."""
    model = copy.deepcopy(case.model).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    found = []
    for _ in range(steps):
        found.append({n: t.clone() for n, t in model.state_dict().items()})
        optimizer.zero_grad()
        F.cross_entropy(model(case.inputs), case.targets).backward()
        optimizer.step()
    return found


def _written(folder: Path, case: cases.Case, states: list[State]) -> Trajectory:
    names = [name for name, _ in case.model.named_parameters()]
    rows = [{n: state[n] for n in names} for state in states]
    buffers = [
        {n: t for n, t in state.items() if n not in names and t.is_floating_point()}
        for state in states
    ]
    about = [{"epoch": k / 2, "learning_rate": 0.3} for k in range(len(states))]
    return Trajectory.open(walks.write(folder, rows, about=about, buffers=buffers))


def _loss(case: cases.Case, state: State) -> float:
    """The plain loss of a network with a state dict, in evaluation mode."""
    model = copy.deepcopy(case.model).eval()
    model.load_state_dict({**model.state_dict(), **state})
    with torch.no_grad():
        return float(F.cross_entropy(model(case.inputs), case.targets))


def _last(case: cases.Case, states: list[State]) -> ls.Objective:
    """The objective of the network as training left it."""
    case.model.load_state_dict(states[-1])
    return case.objective(metrics={"accuracy": ls.losses.accuracy})


# --- coordinates and distances ------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_coordinates_are_those_of_least_squares(tmp_path: Path, count: int) -> None:
    rows = walks.rows(5)
    trajectory = Trajectory.open(walks.write(tmp_path, rows))
    center = trajectory[1].params()
    skewed = [Params(row) for row in walks.rows(count, seed=9)]  # neither orthogonal nor of norm 1
    slice_ = (ls.Line, ls.Plane, ls.Volume)[count - 1](center, *skewed)
    data = project(trajectory, slice_).data
    offsets = walks.matrix(rows) - walks.flat(rows[1])
    basis = np.stack([walks.flat(d, list(rows[0])) for d in skewed], axis=1)
    expected = np.linalg.lstsq(basis, offsets.T)[0]
    found = np.stack([data[dim].values for dim in ("x", "y", "z")[:count]])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    distance = np.linalg.norm(offsets - (basis @ expected).T, axis=1)
    np.testing.assert_allclose(data["distance"], distance, rtol=1e-9, atol=1e-12)
    far = np.linalg.norm(offsets, axis=1)
    share = np.divide(distance, far, out=np.zeros(5), where=far > 0)
    np.testing.assert_allclose(data["relative_distance"], share, rtol=1e-9, atol=1e-12)
    assert data["relative_distance"][1] == 0.0  # at the center, where 0 / 0 would be
    assert data["x"].dims == ("checkpoint",)


def test_cosines_are_lengths_along_each_axis_by_itself(tmp_path: Path) -> None:
    rows = walks.rows(5)
    trajectory = Trajectory.open(walks.write(tmp_path, rows))
    dx, dy = (Params(row) for row in walks.rows(2, seed=9))
    skewed = ls.Plane(trajectory[-1].params(), dx, dy)
    data = project(trajectory, skewed, method="cos").data
    offsets = walks.matrix(rows) - walks.flat(rows[-1])
    basis = np.stack([walks.flat(d, list(rows[0])) for d in (dx, dy)])
    lengths = offsets @ basis.T / np.linalg.norm(basis, axis=1)
    np.testing.assert_allclose(np.stack([data["x"], data["y"]], axis=1), lengths, atol=1e-12)
    off = np.linalg.norm(offsets - lengths @ basis, axis=1)
    np.testing.assert_allclose(data["distance"], off, rtol=1e-9, atol=1e-12)


def test_on_orthonormal_directions_both_methods_agree(tmp_path: Path) -> None:
    trajectory = Trajectory.open(walks.write(tmp_path, walks.rows(6)))
    where = plane(pca(trajectory))
    one, other = project(trajectory, where).data, project(trajectory, where, method="cos").data
    for name in ("x", "y", "distance"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-7, atol=1e-9)


def test_what_was_noted_and_where_it_comes_from_is_told(tmp_path: Path) -> None:
    about: list[dict[str, Any]] = [
        {"epoch": 0, "learning_rate": 0.1},
        {"epoch": None, "learning_rate": None},
        {},
    ]
    folder = walks.write(tmp_path / "adam", walks.rows(3), about=about, first=5)
    trajectory = Trajectory.open(folder)
    path = project(trajectory, plane(pca(trajectory)))
    np.testing.assert_array_equal(path.data["step"], [5.0, 6.0, 7.0])
    np.testing.assert_array_equal(path.data["epoch"], [0.0, np.nan, np.nan])
    np.testing.assert_array_equal(path.data["learning_rate"], [0.1, np.nan, np.nan])
    assert path.name == "adam"
    assert path.data.attrs["folder"] == str(folder)
    assert path.data["x"].attrs["long_name"].startswith("PC 1 (")
    assert all({"units", "long_name"} <= set(v.attrs) for v in path.data.values())
    assert "loss" not in path.data


def test_weights_that_are_not_finite_have_no_place(tmp_path: Path) -> None:
    rows = walks.rows(5)
    where = plane(pca(Trajectory.open(walks.write(tmp_path / "whole", rows))))
    rows[2]["a.weight"][0, 0] = float("nan")
    data = project(Trajectory.open(walks.write(tmp_path / "broken", rows)), where).data
    for name in ("x", "y", "distance", "relative_distance"):
        np.testing.assert_array_equal(np.isnan(data[name]), [False, False, True, False, False])


# --- losses -------------------------------------------------------------------------------------


def test_the_loss_at_a_checkpoint_is_what_the_network_had(tmp_path: Path) -> None:
    case = cases.batch_norm_cnn()
    states = _trained(case)
    trajectory, objective = _written(tmp_path, case, states), _last(case, states)
    data = project(trajectory, plane(pca(trajectory)), objective).data
    expected = [_loss(case, state) for state in states]
    np.testing.assert_allclose(data["loss"], expected, rtol=1e-5)
    stale = [_loss(case, {**state, **_statistics(states[-1])}) for state in states]
    assert abs(stale[0] - expected[0]) > 1e-3  # with the last statistics it would be another
    assert data.attrs["buffers"] == "of the checkpoint"
    assert {"accuracy", "projected_accuracy"} <= set(data)
    assert data["accuracy"].attrs["units"] == "%"
    assert data["loss"].attrs == {"units": "nat", "long_name": "loss at the checkpoint"}


def _statistics(state: State) -> State:
    return {n: t for n, t in state.items() if "running" in n}


def test_the_loss_at_a_projection_is_what_the_surface_shows(tmp_path: Path) -> None:
    case = cases.batch_norm_cnn()
    states = _trained(case)
    trajectory, objective = _written(tmp_path, case, states), _last(case, states)
    where = plane(pca(trajectory), objective)
    data = project(trajectory, where, objective).data
    (x0, y0), (x1, y1) = ((float(data["x"][k]), float(data["y"][k])) for k in (0, 2))
    grid = ls.Grid(2, ((min(x0, x1), max(x0, x1)), (min(y0, y1), max(y0, y1))))
    land = ls.scan(objective, where, grid)
    for k, x, y in ((0, x0, y0), (2, x1, y1)):
        shown = land.data["loss"].sel(x=x, y=y, method="nearest").item()
        assert float(data["projected_loss"][k]) == pytest.approx(shown, rel=1e-5)
    assert not np.allclose(data["loss"], data["projected_loss"], rtol=1e-3)
    kept = json.loads(land.data.attrs["fingerprints"])["slice"]
    assert data.attrs["slice"] == kept  # so that a path and a surface know that they belong


def test_recomputed_statistics_are_recomputed_at_both(tmp_path: Path) -> None:
    case = cases.batch_norm_cnn()
    states = _trained(case)
    trajectory = _written(tmp_path, case, states)
    objective = case.objective(buffers="recompute")
    where = plane(pca(trajectory), objective)
    data = project(trajectory, where, objective).data
    expected = [objective.loss(c.params()) for c in trajectory]
    np.testing.assert_allclose(data["loss"], expected, rtol=1e-6)
    at = [where.at((float(data["x"][k]), float(data["y"][k]))) for k in range(len(states))]
    expected = [objective.loss(params) for params in at]
    np.testing.assert_allclose(data["projected_loss"], expected, rtol=1e-6)
    assert data.attrs["buffers"] == "recomputed"


def test_over_states_a_projection_has_statistics_of_its_own(tmp_path: Path) -> None:
    case = cases.batch_norm_cnn()
    states = _trained(case)
    trajectory, objective = _written(tmp_path, case, states), _last(case, states)
    line = ls.Line(
        objective.states, ls.directions.between(objective.states, trajectory[0].states())
    )
    data = project(trajectory, line, objective).data
    assert float(data["x"][0]) == pytest.approx(1.0, abs=1e-6)
    assert float(data["projected_loss"][0]) == pytest.approx(_loss(case, states[0]), rel=1e-4)
    np.testing.assert_allclose(data["loss"], [_loss(case, s) for s in states], rtol=1e-5)


def test_without_recorded_buffers_those_of_the_objective_are_used_and_it_is_said(
    tmp_path: Path,
) -> None:
    case = cases.batch_norm_cnn()
    states = _trained(case)
    names = [name for name, _ in case.model.named_parameters()]
    rows = [{n: state[n] for n in names} for state in states]
    trajectory = Trajectory.open(walks.write(tmp_path, rows))
    data = project(trajectory, plane(pca(trajectory)), _last(case, states)).data
    expected = [_loss(case, {**state, **_statistics(states[-1])}) for state in states]
    np.testing.assert_allclose(data["loss"], expected, rtol=1e-5)
    assert data.attrs["buffers"] == "of the objective"


def test_with_test_data_the_training_loss_is_the_loss(tmp_path: Path) -> None:
    case, other = cases.mlp(), cases.mlp(rows=11)
    states = _trained(case)
    trajectory = _written(tmp_path, case, states)
    objective = case.objective(test_data=other.data)
    data = project(trajectory, plane(pca(trajectory)), objective).data
    np.testing.assert_allclose(data["loss"], [_loss(case, s) for s in states], rtol=1e-5)
    np.testing.assert_allclose(data["test_loss"], [_loss(other, s) for s in states], rtol=1e-5)
    assert "train_loss" not in data
    assert data.attrs["buffers"] == "none"


def test_the_model_is_given_back_as_it_was(tmp_path: Path) -> None:
    case = cases.batch_norm_cnn()
    trajectory = _written(tmp_path, case, _trained(case))
    before = cases.remembered(case.model)
    project(trajectory, plane(pca(trajectory)), case.objective())
    assert cases.remembered(case.model) == before


def test_progress_is_told_a_checkpoint_at_a_time(tmp_path: Path) -> None:
    trajectory = Trajectory.open(walks.write(tmp_path, walks.rows(4)))
    seen: list[Progress] = []
    project(trajectory, plane(pca(trajectory)), progress=seen.append)
    assert [(now.done, now.total) for now in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_bar_is_shown_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trajectory = Trajectory.open(walks.write(tmp_path / "lion", walks.rows(4)))
    project(trajectory, plane(pca(trajectory)))
    assert capsys.readouterr().err == ""
    project(trajectory, plane(pca(trajectory)), progress=True)
    assert "path of lion" in capsys.readouterr().err


def test_one_checkpoint_is_in_memory_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trajectory = Trajectory.open(walks.write(tmp_path, walks.rows(6)))
    where = plane(pca(trajectory))
    alive: list[weakref.ref[Tensor]] = []
    most = [0]
    read = Checkpoint.states

    def watched(checkpoint: Checkpoint) -> Params:
        found = read(checkpoint)
        alive.append(weakref.ref(found["a.weight"]))
        most[0] = max(most[0], sum(ref() is not None for ref in alive))
        return found

    monkeypatch.setattr(Checkpoint, "states", watched)
    project(trajectory, where)
    assert len(alive) == 6
    assert most[0] <= 2  # the one before goes when the next is there


# --- wrong questions ----------------------------------------------------------------------------


def test_a_parameter_too_many_or_too_few_is_named(tmp_path: Path) -> None:
    rows = walks.rows(3)
    trajectory = Trajectory.open(walks.write(tmp_path, rows))
    center = trajectory[-1].params()
    fewer = Params({n: t for n, t in center.items() if n != "a.bias"})
    with pytest.raises(
        ParamsError, match=r"the parameter 'a\.bias', which the slice does not have"
    ):
        project(trajectory, ls.Line(fewer, fewer))
    more = Params({**center, "head.weight": torch.ones(2, 2)})
    with pytest.raises(ParamsError, match=r"lacks 'head\.weight'.*different networks"):
        project(trajectory, ls.Line(more, more))
    shaped = Params({**center, "a.bias": torch.ones(3)})
    with pytest.raises(ParamsError, match=r"shape \(7,\); expected \(3,\)"):
        project(trajectory, ls.Line(shaped, shaped))


def test_unknown_methods_and_slices_get_a_sentence(tmp_path: Path) -> None:
    trajectory = Trajectory.open(walks.write(tmp_path, walks.rows(3)))
    line = ls.Line(trajectory[0].params(), trajectory[1].params())
    with pytest.raises(SliceError, match="method='cosine'"):
        project(trajectory, line, method="cosine")  # type: ignore[arg-type]  # that is what is wrong
    with pytest.raises(SliceError, match="expected a Line, a Plane or a Volume"):
        project(trajectory, nn.Linear(1, 1))  # type: ignore[arg-type]  # that is what is wrong
    with pytest.raises(SliceError, match=r"expected ls\.Trajectory\.open"):
        project(tmp_path, line)  # type: ignore[arg-type]  # that is what is wrong
    with pytest.raises(SliceError, match="a plane needs two"):
        plane(pca(trajectory, 1))
