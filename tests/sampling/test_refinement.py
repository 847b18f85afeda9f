"""Which points are asked for: the same ones however they arrive, and where a surface is hard."""

from __future__ import annotations

import numpy as np
import pytest

from landscope.sampling import refinement, splines
from landscope.sampling.adaptive import Adaptive
from tests.surfaces import Values, bowl, bumps, cells, errors, scanned


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_scan_that_is_killed_and_resumed_in_any_order_asks_for_the_same_points(
    seed: int,
) -> None:
    sampler, shape = Adaptive(resolution=(31, 25)), (31, 25)
    losses = cells(sampler, bumps)
    straight = scanned(sampler, losses, shape)
    rng, known = np.random.default_rng(seed), Values()
    while wanted := sampler.ask(shape, known):
        refinement._find_next_round.cache_clear()  # another process does not remember
        arrived = rng.permutation(wanted)[: rng.integers(1, len(wanted) + 1)]
        known |= {int(k): {"loss": float(losses[k])} for k in arrived}
    assert set(known) == set(straight)
    one, other = (Adaptive(resolution=(31, 25)).fill(shape, k) for k in (known, straight))
    assert one.columns["loss"].tobytes() == other.columns["loss"].tobytes()
    assert one.error.tobytes() == other.error.tobytes()
    assert one.notes == other.notes


def test_each_round_is_worked_out_once_although_every_question_replays_them_all() -> None:
    sampler, shape = Adaptive(resolution=31), (31, 31)
    refinement._find_next_round.cache_clear()
    losses = cells(sampler, bumps)
    count, known = 0, Values()
    while wanted := sampler.ask(shape, known):
        count += 1
        known |= {k: {"loss": float(losses[k])} for k in wanted}
    assert refinement._find_next_round.cache_info().misses == count > 5


def test_noise_is_evaluated_whole_never_more_and_said_to_be_too_rough() -> None:
    losses = np.exp(np.random.default_rng(0).normal(size=35 * 31))
    sampler = Adaptive(resolution=(35, 31))
    known = scanned(sampler, losses, (35, 31))
    assert sorted(known) == list(range(35 * 31))
    filled = sampler.fill((35, 31), known)
    assert any("too rough to be cheap" in note for note in filled.notes)
    assert (filled.error == 0).all()


def test_large_rough_grids_stop_at_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "_SMALL", 100)
    monkeypatch.setattr(splines, "LIMIT", 200)
    monkeypatch.setattr(refinement, "_CANDIDATES", 300)
    refinement._find_next_round.cache_clear()
    losses = np.exp(np.random.default_rng(0).normal(size=41 * 41))
    sampler = Adaptive(resolution=41)
    known = scanned(sampler, losses, (41, 41))
    assert 200 <= len(known) < 230
    filled = sampler.fill((41, 41), known)
    refinement._find_next_round.cache_clear()
    assert any("too rough" in note for note in filled.notes)
    assert filled.error.max() > 0.5  # and the error says it too


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


def test_points_kept_aside_are_predicted_from_earlier_rounds_only() -> None:
    sampler, shape = Adaptive(), (51, 51)
    losses = cells(sampler, bumps)
    known: Values = {}
    for _ in range(4):
        known |= {k: {"loss": float(losses[k])} for k in sampler.ask(shape, known)}
    before = sampler.fill(shape, known)
    wanted = sampler.ask(shape, known)
    known |= {k: {"loss": float(losses[k])} for k in wanted}
    measured = sampler._replay(shape, known).errors[-2:]
    np.testing.assert_allclose(measured, errors(before, losses)[wanted[-2:]], rtol=1e-6, atol=1e-9)
