"""What becomes of the cells, against surfaces in closed form, which are known in every cell."""

from __future__ import annotations

import numpy as np
import pytest

from landscope.sampling import prediction, splines
from landscope.sampling.adaptive import Adaptive
from tests.surfaces import Values, bumps, cells, errors, scanned


def test_evaluated_cells_stay_as_they_came_out_and_are_without_error() -> None:
    sampler = Adaptive(resolution=31)
    losses = cells(sampler, bumps)
    known = scanned(sampler, losses, (31, 31))
    filled = sampler.fill((31, 31), known)
    assert np.flatnonzero(filled.evaluated).tolist() == sorted(known)
    assert all(filled.columns["loss"][k] == values["loss"] for k, values in known.items())
    assert (filled.error[filled.evaluated] == 0).all()


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
    observations = prediction._observe(sampler._goal(shape), losses, filled.evaluated, rest)
    assert len(observations.at) == 300
    assert observations.at.min() >= 1650  # next to the unknown ones


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
    assert 4 <= len(replay.errors) <= len(known) / 6
    text = "; ".join(sampler.fill(shape, known).notes)
    assert f"{len(known)} of 2601 points were evaluated" in text
    assert f"of {len(replay.errors)} random points" in text
