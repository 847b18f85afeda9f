"""Adaptive sampling, against surfaces in closed form, which are known in every cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from landscope import adaptive, splines
from landscope.adaptive import Adaptive
from landscope.errors import SamplerError
from landscope.sampling import Grid
from tests.surfaces import Surface, Values, bowl, bumps, cells, errors, funnel, scanned, valley


def test_axes_are_those_of_a_grid() -> None:
    given = (7, 3), ((-1.0, 1.0), (0.0, 2.0))
    for ours, grids in zip(Adaptive(0.1, *given).axes("xy"), Grid(*given).axes("xy"), strict=True):
        assert ours.tolist() == grids.tolist()


def test_an_automatic_span_is_left_to_scan() -> None:
    sampler = Adaptive(span="auto")
    with pytest.raises(SamplerError, match=r"ls\.scan finds it"):
        sampler.axes("xy")
    assert len(replace(sampler, span=(-2.0, 2.0)).axes("xy")) == 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"tolerance": 0.0}, "tolerance=0.0; expected a finite number above 0"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
        ({"tolerance": "small"}, "tolerance='small'"),
        ({"scale": "sqrt"}, "scale='sqrt'; expected"),
        ({"batch": 0}, "batch=0; expected a whole number"),
        ({"batch": 2.5}, "batch=2.5"),
        ({"span": "wide"}, "span='wide'"),
        ({"span": (1.0, -1.0)}, "swap them"),
        ({"resolution": 0}, "resolution=0"),
    ],
)
def test_wrong_arguments_get_a_sentence(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SamplerError, match=told):
        Adaptive(**wrong)


def test_four_axes_get_a_sentence() -> None:
    with pytest.raises(SamplerError, match="lines, planes and volumes"):
        Adaptive().ask((3, 3, 3, 3), {})


@pytest.mark.parametrize("surface", [bowl, valley, bumps, funnel])
def test_a_plane_is_predicted_within_the_tolerance_from_a_fraction_of_its_points(
    surface: Surface,
) -> None:
    sampler = Adaptive()
    losses = cells(sampler, surface)
    known = scanned(sampler, losses, (51, 51))
    filled = sampler.fill((51, 51), known)
    off = errors(filled, losses)
    assert len(known) <= 260
    assert np.quantile(off, 0.99) <= 0.03
    assert off.max() <= 0.06
    assert off.mean() <= 0.006
    assert filled.scale == "log"


def test_the_estimated_error_covers_the_true_one_of_cells_that_were_not_evaluated() -> None:
    for surface in (bowl, valley, bumps, funnel):
        for tolerance in (0.1, 0.03):
            sampler = Adaptive(tolerance)
            losses = cells(sampler, surface)
            filled = sampler.fill((51, 51), scanned(sampler, losses, (51, 51)))
            rest = ~filled.evaluated
            assert (errors(filled, losses) <= filled.error)[rest].mean() >= 0.95
            assert np.quantile(filled.error[rest], 0.99) <= 1.7 * tolerance
            assert filled.error.max() <= 3 * tolerance
            assert (filled.error[rest] > 0).all()


def test_evaluated_cells_stay_as_they_came_out_and_are_without_error() -> None:
    sampler = Adaptive(resolution=31)
    losses = cells(sampler, bumps)
    known = scanned(sampler, losses, (31, 31))
    filled = sampler.fill((31, 31), known)
    assert np.flatnonzero(filled.evaluated).tolist() == sorted(known)
    assert all(filled.columns["loss"][k] == values["loss"] for k, values in known.items())
    assert (filled.error[filled.evaluated] == 0).all()


def test_smoother_surfaces_and_looser_tolerances_need_fewer_points() -> None:
    def count(surface: Surface, tolerance: float) -> int:
        sampler = Adaptive(tolerance)
        return len(scanned(sampler, cells(sampler, surface), (51, 51)))

    assert count(bowl, 0.03) <= 100
    assert count(bowl, 0.03) < count(valley, 0.03)
    assert count(bumps, 0.2) < count(bumps, 0.03) < count(bumps, 0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_scan_that_is_killed_and_resumed_in_any_order_asks_for_the_same_points(
    seed: int,
) -> None:
    sampler, shape = Adaptive(resolution=(31, 25)), (31, 25)
    losses = cells(sampler, bumps)
    straight = scanned(sampler, losses, shape)
    rng, known = np.random.default_rng(seed), Values()
    while wanted := sampler.ask(shape, known):
        adaptive._plan.cache_clear()  # another process does not remember
        arrived = rng.permutation(wanted)[: rng.integers(1, len(wanted) + 1)]
        known |= {int(k): {"loss": float(losses[k])} for k in arrived}
    assert set(known) == set(straight)
    one, other = (Adaptive(resolution=(31, 25)).fill(shape, k) for k in (known, straight))
    assert one.columns["loss"].tobytes() == other.columns["loss"].tobytes()
    assert one.error.tobytes() == other.error.tobytes()
    assert one.notes == other.notes


def test_points_that_were_not_asked_for_do_not_change_the_choice_but_are_used() -> None:
    sampler, shape = Adaptive(resolution=31), (31, 31)
    losses = cells(sampler, bumps)
    straight = scanned(sampler, losses, shape)
    extra = {k: {"loss": float(losses[k])} for k in range(0, 961, 29) if k not in straight}
    known = dict(extra)
    while wanted := sampler.ask(shape, known):
        known |= {k: {"loss": float(losses[k])} for k in wanted}
    assert set(known) == set(straight) | set(extra)
    filled = sampler.fill(shape, known)
    assert filled.evaluated[list(extra)].all()
    assert errors(filled, losses).mean() < errors(sampler.fill(shape, straight), losses).mean()


def test_each_round_is_worked_out_once_although_every_question_replays_them_all() -> None:
    sampler, shape = Adaptive(resolution=31), (31, 31)
    adaptive._plan.cache_clear()
    losses = cells(sampler, bumps)
    rounds, known = 0, Values()
    while wanted := sampler.ask(shape, known):
        rounds += 1
        known |= {k: {"loss": float(losses[k])} for k in wanted}
    assert adaptive._plan.cache_info().misses == rounds > 5


def test_noise_is_evaluated_whole_never_more_and_said_to_be_too_rough() -> None:
    losses = np.exp(np.random.default_rng(0).normal(size=35 * 31))
    sampler = Adaptive(resolution=(35, 31))
    known = scanned(sampler, losses, (35, 31))
    assert sorted(known) == list(range(35 * 31))
    filled = sampler.fill((35, 31), known)
    assert any("too rough to be cheap" in note for note in filled.notes)
    assert (filled.error == 0).all()


def test_large_rough_grids_stop_at_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "_SMALL", 100)
    monkeypatch.setattr(splines, "LIMIT", 200)
    monkeypatch.setattr(adaptive, "_CANDIDATES", 300)
    adaptive._plan.cache_clear()
    losses = np.exp(np.random.default_rng(0).normal(size=41 * 41))
    sampler = Adaptive(resolution=41)
    known = scanned(sampler, losses, (41, 41))
    assert 200 <= len(known) < 230
    filled = sampler.fill((41, 41), known)
    adaptive._plan.cache_clear()
    assert any("too rough" in note for note in filled.notes)
    assert filled.error.max() > 0.5  # and the error says it too


@pytest.mark.parametrize("count", [51, 201])
def test_lines_are_predicted(count: int) -> None:
    sampler = Adaptive(resolution=count, span=(0.0, 1.0))
    (x,) = sampler.axes("x")
    losses = 0.05 + x * (1 - x) + 0.1 * np.sin(8 * x) ** 2
    known = scanned(sampler, losses, (count,))
    filled = sampler.fill((count,), known)
    assert len(known) <= 0.8 * count
    assert errors(filled, losses).max() <= 0.03


def test_volumes_are_predicted() -> None:
    sampler = Adaptive(0.05, resolution=(15, 13, 11))

    def surface(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.asarray(0.3 + x**2 + 2 * y**2 + 0.5 * z**2 + 0.1 * np.sin(3 * x * z))

    losses = cells(sampler, surface, "xyz")
    known = scanned(sampler, losses, (15, 13, 11))
    filled = sampler.fill((15, 13, 11), known)
    off = errors(filled, losses)
    assert len(known) <= 2145 / 4
    assert np.quantile(off, 0.99) <= 0.05
    assert (off <= filled.error)[~filled.evaluated].mean() >= 0.95


@pytest.mark.parametrize(
    "shape",
    [(1,), (2,), (4,), (1, 1), (3, 4), (1, 5), (5, 5), (2, 2, 2), (1, 1, 1), (5, 5, 4), (7, 7)],
)
def test_tiny_grids_are_evaluated_whole(shape: tuple[int, ...]) -> None:
    sampler = Adaptive(resolution=shape)
    losses = 1.0 + np.random.default_rng(0).random(int(np.prod(shape)))
    known = scanned(sampler, losses, shape)
    assert len(sampler.ask(shape, {})) == len(known) == losses.size
    assert sampler.fill(shape, known).columns["loss"].tolist() == losses.tolist()


@pytest.mark.parametrize("shape", [(51, 1), (1, 51), (51, 2), (3, 40), (30, 2, 3), (1, 20, 20)])
def test_flat_grids_do_not_break_anything(shape: tuple[int, ...]) -> None:
    sampler = Adaptive(resolution=shape)
    axes = np.meshgrid(*sampler.axes("xyz"[: len(shape)])[::-1], indexing="ij")
    losses = (0.5 + sum(a**2 for a in axes)).ravel()
    filled = sampler.fill(shape, scanned(sampler, losses, shape))
    assert errors(filled, losses).max() <= 0.06


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_edge_of_a_hole_is_traced_down_to_the_grid(value: float) -> None:
    sampler = Adaptive()
    x, y = (cells(sampler, lambda x, y, k=k: (x, y)[k]) for k in (0, 1))
    losses = bowl(x, y)
    hole = np.hypot(x - 0.4, y) < 0.3
    losses[hole] = value
    known = scanned(sampler, losses, (51, 51))
    filled = sampler.fill((51, 51), known)
    predicted = filled.columns["loss"]
    assert np.isfinite(predicted).tolist() == (~hole).tolist()
    assert len(known) <= 300
    assert errors(filled, np.where(hole, np.nan, losses))[~hole].max() <= 0.06
    lost = hole & ~filled.evaluated
    assert lost.any()
    assert np.isnan(filled.error[lost]).all()
    assert np.isnan(predicted[lost]).all()
    assert any("are left empty" in note for note in filled.notes)


def test_the_neighbors_of_a_single_hole_are_evaluated() -> None:
    sampler = Adaptive()
    losses = cells(sampler, bowl)
    hole = sampler.ask((51, 51), {})[14]
    losses[hole] = np.nan
    known = scanned(sampler, losses, (51, 51))
    assert {hole - 1, hole + 1, hole - 51, hole + 51} <= set(known)
    assert np.isfinite(np.delete(sampler.fill((51, 51), known).columns["loss"], hole)).all()


def test_a_surface_without_any_finite_value_is_evaluated_whole() -> None:
    sampler = Adaptive(resolution=21)
    losses = np.full(441, np.nan)
    known = scanned(sampler, losses, (21, 21))
    assert len(known) == 441
    assert np.isnan(sampler.fill((21, 21), known).columns["loss"]).all()


@pytest.mark.parametrize("lowest", [0.0, -0.5])
def test_losses_that_have_no_logarithm_are_predicted_as_they_are(lowest: float) -> None:
    sampler = Adaptive(resolution=41)
    losses = cells(sampler, lambda x, y: lowest + x**2 + y**2 + 0.2 * np.sin(3 * x) ** 2)
    known = scanned(sampler, losses, (41, 41))
    filled = sampler.fill((41, 41), known)
    off = np.abs(filled.columns["loss"] - losses)
    assert len(known) < 200
    assert filled.scale == "linear"
    assert off.max() <= 0.06 * np.ptp(losses)
    assert (off <= filled.error)[~filled.evaluated].mean() >= 0.95
    assert any("scale is linear" in note for note in filled.notes)


def test_the_linear_scale_looks_at_the_loss_relative_to_its_range() -> None:
    sampler = Adaptive(0.02, resolution=41, scale="linear")
    losses = 1e6 * cells(sampler, bumps)
    known = scanned(sampler, losses, (41, 41))
    filled = sampler.fill((41, 41), known)
    off = np.abs(filled.columns["loss"] - losses)
    assert set(known) == set(scanned(sampler, losses / 1e6, (41, 41)))
    assert np.quantile(off, 0.99) <= 0.02 * np.ptp(losses)
    assert filled.error.max() > 1e3  # in units of the loss
    assert (off <= filled.error)[~filled.evaluated].mean() >= 0.95
    assert filled.scale == "linear"


def test_a_constant_surface_stops_at_once() -> None:
    sampler = Adaptive()
    losses = np.full(2601, 0.7)
    known = scanned(sampler, losses, (51, 51))
    filled = sampler.fill((51, 51), known)
    assert len(known) <= 80
    np.testing.assert_allclose(filled.columns["loss"], 0.7, rtol=1e-9)
    assert (errors(filled, losses) <= filled.error).all()
    assert (filled.error[~filled.evaluated] > 0).all()  # there is always rounding


def test_other_quantities_are_predicted_too_and_shares_stay_within_what_was_seen() -> None:
    sampler, shape = Adaptive(resolution=31), (31, 31)
    losses = cells(sampler, bumps)
    columns = {
        "test_loss": 2 * losses,
        "accuracy": 1 / (1 + np.exp(8 * (losses - 0.8))),
        "curvature": losses - 1,
    }
    known = scanned(sampler, losses, shape)
    for k, values in known.items():
        values |= {name: float(column[k]) for name, column in columns.items()}
    first = min(known)
    known[first]["curvature"] = np.nan  # a hole of its own
    filled = sampler.fill(shape, known)
    assert np.abs(np.log(filled.columns["test_loss"] / columns["test_loss"])).max() < 0.06
    accuracy = filled.columns["accuracy"]
    seen = accuracy[filled.evaluated]
    assert seen.min() <= accuracy.min() <= accuracy.max() <= seen.max()
    assert np.abs(accuracy - columns["accuracy"]).mean() < 0.02
    off = np.abs(filled.columns["curvature"] - columns["curvature"])
    assert np.isnan(filled.columns["curvature"][first])
    assert np.nanmax(off) < 0.1
    assert np.isfinite(filled.columns["loss"]).all()


def test_the_loss_of_the_training_data_decides_where_there_is_no_other() -> None:
    sampler, shape = Adaptive(resolution=31), (31, 31)
    losses = cells(sampler, bumps)
    known: Values = {}
    while wanted := sampler.ask(shape, known):
        known |= {k: {"accuracy": 0.5, "train_loss": float(losses[k])} for k in wanted}
    assert set(known) == set(scanned(sampler, losses, shape))
    alone: Values = {}
    while wanted := sampler.ask(shape, alone):
        alone |= {k: {"bits": float(losses[k])} for k in wanted}
    assert set(alone) == set(known)


def test_a_scan_that_was_stopped_early_is_filled_with_larger_errors_and_says_so() -> None:
    sampler, shape = Adaptive(), (51, 51)
    losses = cells(sampler, bumps)
    known: Values = {}
    for _ in range(3):
        known |= {k: {"loss": float(losses[k])} for k in sampler.ask(shape, known)}
    early = sampler.fill(shape, known)
    late = sampler.fill(shape, scanned(sampler, losses, shape))
    assert np.isfinite(early.columns["loss"]).all()
    assert early.error.mean() > 1.5 * late.error.mean()
    assert any("stopped before" in note for note in early.notes)
    assert not any("stopped before" in note for note in late.notes)


def test_nearly_everything_may_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splines, "LIMIT", 300)
    sampler, shape = Adaptive(), (51, 51)
    losses = cells(sampler, bumps)
    known = {k: {"loss": float(losses[k])} for k in range(2000)}
    filled = sampler.fill(shape, known)
    assert np.isfinite(filled.columns["loss"]).all()
    assert errors(filled, losses)[2000:2051].max() < 0.01  # next to known ones
    rest = np.flatnonzero(~filled.evaluated)
    told = adaptive._told(sampler._problem(shape), losses, filled.evaluated, rest)
    assert len(told.at) == 300
    assert told.at.min() >= 1650  # next to the unknown ones


def test_nothing_known_is_nothing_told() -> None:
    filled = Adaptive(resolution=5).fill((5, 5), {})
    assert filled.columns == {}
    assert not filled.evaluated.any()
    assert np.isnan(filled.error).all()
    few = Adaptive().fill((51, 51), {0: {"loss": 1.0}})
    assert np.isnan(few.columns["loss"][1:]).all()


def test_notes_count_the_points_kept_aside() -> None:
    sampler, shape = Adaptive(), (51, 51)
    losses = cells(sampler, bumps)
    known = scanned(sampler, losses, shape)
    replay = sampler._replay(shape, known)
    assert 4 <= len(replay.misses) <= len(known) / 6
    text = "; ".join(sampler.fill(shape, known).notes)
    assert f"{len(known)} of 2601 points were evaluated" in text
    assert f"of {len(replay.misses)} points kept aside" in text


def test_points_kept_aside_are_predicted_from_earlier_rounds_only() -> None:
    sampler, shape = Adaptive(), (51, 51)
    losses = cells(sampler, bumps)
    known: Values = {}
    for _ in range(4):
        known |= {k: {"loss": float(losses[k])} for k in sampler.ask(shape, known)}
    before = sampler.fill(shape, known)
    wanted = sampler.ask(shape, known)
    known |= {k: {"loss": float(losses[k])} for k in wanted}
    misses = sampler._replay(shape, known).misses[-2:]
    np.testing.assert_allclose(misses, errors(before, losses)[wanted[-2:]], rtol=1e-6, atol=1e-9)
