"""Calibrated subsets, on populations whose every term is known at every cell.

The witness is the plain sum over all terms in float64, which no subset has seen away from the
anchors.
"""

from __future__ import annotations

import dataclasses
import io
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from landscope.errors import FormatError, SamplerError
from landscope.sampling import calibrated, calibration_table
from landscope.sampling.calibrated import Calibrated
from landscope.sampling.data_subset import REPLICATES, Subset, loads

SHAPE = (21, 21)
SIZE, ANCHORS = 300, 25


@lru_cache(maxsize=2)
def terms(samples: int = 4000, seed: int = 0) -> np.ndarray:
    """Logistic losses [cells, samples] of random margins: few terms count at the center, all do
    at the edge, as in a basin with walls."""
    rng = np.random.default_rng(seed)
    x, y = (a.ravel() for a in np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE)))
    features = np.stack([x, y, x * y, x**2, y**2, np.sin(3 * x), np.cos(2 * y) - 1])
    slopes = rng.standard_normal((len(features), samples)) * rng.gamma(1.0, 4.0, samples)
    margin = rng.gamma(4.0, 1.5, samples)[None] + features.T @ slopes
    losses: np.ndarray = np.logaddexp(0, -margin)
    return losses


def anchored(seed: int = 0, losses: np.ndarray | None = None) -> tuple[Subset, np.ndarray]:
    """A subset of the population, and the cells that are not anchors."""
    losses = terms() if losses is None else losses
    how = Calibrated(SIZE, ANCHORS, seed)
    places = how.places(SHAPE)
    subset = how.subset(losses[places], np.ones(losses.shape[1]))
    return subset, np.setdiff1d(np.arange(len(losses)), places)


def estimates(subset: Subset, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss at each row, with the weights and with each of the replicates."""
    weights = np.vstack([subset.weights, subset.replicates])
    found = losses[:, subset.rows] @ weights.T / weights.sum(axis=1)
    return found[:, 0], found[:, 1:]


def assert_reproduces(subset: Subset, values: np.ndarray, counts: np.ndarray) -> None:
    for weights in (subset.weights, *subset.replicates):
        known = np.abs(values).sum(axis=1)
        missed = values[:, subset.rows] @ weights - values.sum(axis=1)
        assert np.all(np.abs(missed) <= 1e-9 * known)
        assert counts[subset.rows] @ weights == pytest.approx(counts.sum(), rel=1e-9)


def test_every_anchor_and_the_counts_come_out_exactly() -> None:
    values = terms()[Calibrated(SIZE, ANCHORS).places(SHAPE)]
    subset, _ = anchored()
    assert_reproduces(subset, values, np.ones(values.shape[1]))
    assert subset.weights.min() > 0
    assert len(subset.rows) == SIZE
    assert np.all(np.diff(subset.rows) > 0)
    assert subset.replicates.shape == (REPLICATES, SIZE)
    assert subset.notes == ()


def test_samples_that_count_differently_are_weighted_by_their_counts() -> None:
    losses, rng = terms(), np.random.default_rng(1)
    tokens = rng.integers(0, 40, losses.shape[1]).astype(float)
    values = losses * tokens
    places = Calibrated(SIZE, ANCHORS).places(SHAPE)
    subset = Calibrated(SIZE, ANCHORS).subset(values[places], tokens)
    assert_reproduces(subset, values[places], tokens)
    rows, weights = subset.rows, subset.weights
    found = values[:, rows] @ weights / (tokens[rows] @ weights)
    error = np.abs(np.log(found / (values.sum(axis=1) / tokens.sum())))
    assert error.mean() < 0.03


def test_the_seed_alone_decides_the_draw() -> None:
    first, again, other = anchored(3)[0], anchored(3)[0], anchored(4)[0]
    np.random.seed(5)  # noqa: NPY002 the global state is to play no part
    assert first.dumps() == again.dumps() == anchored(3)[0].dumps()
    assert not np.array_equal(first.rows, other.rows)
    assert anchored(-3)[0].dumps() != first.dumps()


def test_a_calibrated_subset_is_three_times_as_accurate_as_a_plain_one() -> None:
    losses = terms()
    truth, errors, plain = losses.mean(axis=1), [], []
    for seed in range(5):
        subset, cells = anchored(seed)
        found, _ = estimates(subset, losses[cells])
        errors.append(np.abs(np.log(found / truth[cells])).mean())
        rows = np.random.default_rng(seed).choice(losses.shape[1], SIZE, replace=False)
        drawn = losses[cells][:, rows].mean(axis=1)
        plain.append(np.abs(np.log(drawn / truth[cells])).mean())
    assert np.mean(errors) < np.mean(plain) / 3
    assert max(errors) < min(plain) / 2


def test_intervals_hold_the_truth_and_are_not_wide() -> None:
    losses = terms()
    truth = losses.mean(axis=1)
    held, widths, errors = [], [], []
    for seed in range(8):
        subset, cells = anchored(seed)
        found, replicates = estimates(subset, losses[cells])
        width = subset.half_widths(found, replicates) / found
        error = np.abs(np.log(found / truth[cells]))
        held.append((error <= width).mean())
        widths.append(width.mean())
        errors.append(error.mean())
        # spread is the median standard error at anchors left out: farther from the others
        assert 0.15 < np.median(error) / (0.67 * subset.spread) < 0.6
    assert min(held) >= 0.85
    assert 0.93 <= np.mean(held) <= 0.999
    assert np.mean(widths) < 4 * np.mean(errors)  # 2.5 is what a normal law of known width has


def test_intervals_are_zero_at_the_anchors() -> None:
    subset, _ = anchored()
    values = terms()[Calibrated(SIZE, ANCHORS).places(SHAPE)]
    assert subset.half_widths(*estimates(subset, values)).max() < 1e-9


def test_an_interval_is_student_t_times_the_spread_of_the_replicates() -> None:
    subset = Subset(np.arange(2), np.ones(2), np.ones((2, 2)), trust=1.5, spread=0.1)
    estimate, replicates = np.array([2.0]), np.array([[2.3, 1.6]])
    by_hand = 1.5 * stats.t.ppf(0.975, 2) * np.sqrt((0.3**2 + 0.4**2) / 2)
    np.testing.assert_allclose(subset.half_widths(estimate, replicates), by_hand)
    signed = dataclasses.replace(subset, positive=False)
    np.testing.assert_allclose(signed.half_widths(-estimate, -replicates), by_hand)
    huge = subset.half_widths(1e200 * estimate, 1e200 * replicates)
    np.testing.assert_allclose(huge, 1e200 * by_hand)


def test_an_interval_around_nothing_is_nan() -> None:
    subset = Subset(np.arange(2), np.ones(2), np.ones((2, 2)), trust=1.0, spread=0.1)
    wrong = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0])
    replicates = np.stack([wrong, wrong], axis=1)
    assert np.isnan(subset.half_widths(wrong, replicates)).tolist() == [True] * 3 + [False] * 2
    one_inf = np.array([[1.0, np.inf], [1.0, np.nan], [1.0, 1.0]])
    assert np.isnan(subset.half_widths(np.ones(3), one_inf)).tolist() == [True, True, False]


def test_small_losses_are_met_as_exactly_as_large_ones() -> None:
    places = Calibrated(SIZE, ANCHORS).places(SHAPE)
    scale = np.geomspace(1e-3, 1e6, len(places))[:, None]
    values = terms()[places] * scale
    subset = Calibrated(SIZE, ANCHORS).subset(values, np.ones(values.shape[1]))
    assert_reproduces(subset, values, np.ones(values.shape[1]))
    np.testing.assert_array_equal(subset.rows, anchored()[0].rows)
    np.testing.assert_allclose(subset.weights, anchored()[0].weights, rtol=1e-6)


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_anchors_that_are_not_finite_are_left_out_with_a_note(hole: float) -> None:
    values = terms()[Calibrated(SIZE, ANCHORS).places(SHAPE)].copy()
    counts = np.ones(values.shape[1])
    values[[2, 7], [5, 9]] = hole
    subset = Calibrated(SIZE, ANCHORS).subset(values, counts)
    sound = np.delete(values, [2, 7], axis=0)
    assert_reproduces(subset, sound, counts)
    assert subset.notes == (
        "2 of 25 anchors hold losses that are not finite; the samples are calibrated on the"
        " others.",
    )
    assert (
        subset.weights.tolist() == Calibrated(SIZE, ANCHORS).subset(sound, counts).weights.tolist()
    )


@pytest.mark.parametrize("finite", [0, 1, 2])
def test_with_fewer_than_three_anchors_the_bars_are_called_unchecked(finite: int) -> None:
    values = terms()[[0, 100, 220]].copy()
    values[finite:] = np.nan
    counts = np.ones(values.shape[1])
    subset = Calibrated(SIZE, 3).subset(values, counts)
    assert_reproduces(subset, values[:finite], counts)
    assert subset.notes[-1] == (
        f"only {finite} anchors could be calibrated on; the error bars are unchecked."
    )
    assert np.isnan(subset.spread)
    assert subset.trust == 1


def test_samples_and_anchors_without_loss_do_no_harm() -> None:
    losses = terms().copy()
    losses[:, ::3] = 0
    losses[Calibrated(SIZE, ANCHORS).places(SHAPE)[4]] = 0
    subset, cells = anchored(losses=losses)
    found, _ = estimates(subset, losses[cells])
    assert np.abs(np.log(found / losses[cells].mean(axis=1))).mean() < 0.03
    assert np.isin(np.arange(0, losses.shape[1], 3), subset.rows).any()
    assert subset.notes == ()


def test_losses_of_both_signs_get_absolute_bars() -> None:
    losses = terms() - np.linspace(-2, 4, len(terms()))[:, None]
    subset, cells = anchored(losses=losses)
    truth = losses[cells].mean(axis=1)
    found, replicates = estimates(subset, losses[cells])
    assert_reproduces(
        subset, losses[Calibrated(SIZE, ANCHORS).places(SHAPE)], np.ones(losses.shape[1])
    )
    width = subset.half_widths(found, replicates)
    assert not subset.positive
    assert (truth < 0).any()
    assert (truth > 0).any()
    assert (np.abs(found - truth) <= width).mean() > 0.9


def test_anchors_that_repeat_each_other_count_once() -> None:
    values = terms()[Calibrated(SIZE, ANCHORS).places(SHAPE)]
    counts = np.ones(values.shape[1])
    doubled = np.vstack([values, 3 * values, values[:4] + values[4:8]])
    subset = Calibrated(SIZE, ANCHORS).subset(doubled, counts)
    assert_reproduces(subset, doubled, counts)
    assert subset.weights.min() > 0
    assert np.isfinite(subset.replicates).all()


def test_losses_that_are_the_same_everywhere_leave_nothing_to_chance() -> None:
    values = np.repeat(terms()[100:101], 5, axis=0)
    subset = Calibrated(SIZE, 5).subset(values, np.ones(values.shape[1]))
    assert subset.half_widths(*estimates(subset, values)).max() < 1e-9
    assert subset.trust == 0.5


@pytest.mark.parametrize("samples", [1, SIZE - 1, SIZE])
def test_data_no_larger_than_the_subset_are_taken_whole(samples: int) -> None:
    values = terms()[:ANCHORS, :samples]
    subset = Calibrated(SIZE, ANCHORS).subset(values, np.ones(samples))
    assert subset.rows.tolist() == list(range(samples))
    assert subset.weights.tolist() == [1.0] * samples
    assert subset.half_widths(*estimates(subset, terms()[:, :samples])).max() < 1e-12


def test_a_sample_that_carries_all_the_loss_is_always_drawn() -> None:
    values = np.full((4, 2000), 1e-6)
    values[:, 1234] = 1e3
    for seed in range(5):
        subset = Calibrated(50, 4, seed).subset(values, np.ones(2000))
        assert 1234 in subset.rows
        assert subset.weights[subset.rows == 1234] == pytest.approx(1.0, rel=1e-3)


def test_samples_are_drawn_as_often_as_their_odds_say() -> None:
    places = Calibrated(SIZE, ANCHORS).places(SHAPE)
    table = calibration_table.Table.of(terms()[places], np.ones(terms().shape[1]), seed=0)
    odds = calibration_table._inclusion_probabilities(table.chance, SIZE)
    assert odds.sum() == pytest.approx(SIZE)
    assert odds.max() <= 1
    drawn = np.zeros(len(odds))
    for number in range(400):
        drawn[table.draw(SIZE, number).rows] += 1
    away = (drawn - 400 * odds) / np.sqrt(400 * odds * (1 - odds) + 1e-9)
    assert abs(away.mean()) < 0.05
    assert away.std() == pytest.approx(1.0, abs=0.1)


def test_every_stretch_of_strata_gets_its_share_of_the_draw() -> None:
    places = Calibrated(SIZE, ANCHORS).places(SHAPE)
    table = calibration_table.Table.of(terms()[places], np.ones(terms().shape[1]), seed=0)
    odds = calibration_table._inclusion_probabilities(table.chance, SIZE)
    due = np.cumsum(np.bincount(table.strata, odds))
    for number in range(5):
        rows = table.draw(SIZE, number).rows
        drawn = np.cumsum(np.bincount(table.strata[rows], minlength=len(due)))
        assert np.abs(drawn - due).max() < 1


def test_strata_bring_like_to_like() -> None:
    shares = terms()[::40] / terms()[::40].sum(axis=1, keepdims=True)
    order = np.argsort(calibration_table._stratify(shares), kind="stable")
    roots = (shares * shares.shape[1]) ** 0.25
    beside = np.square(np.diff(roots[:, order], axis=1)).sum()
    anywhere = np.square(np.diff(roots, axis=1)).sum()
    assert beside < anywhere / 4


def test_negative_weights_are_told() -> None:
    places = Calibrated(SIZE, ANCHORS).places(SHAPE)
    table = calibration_table.Table.of(terms()[places], np.ones(terms().shape[1]), seed=0)
    draw = table.draw(SIZE, 0)
    weights = table.fit(draw).weights()
    assert list(calibrated._warnings(table, draw, weights)) == []
    weights[:2] = -1e-9
    (note,) = (n for n in calibrated._warnings(table, draw, weights) if "negative" in n)
    assert note.startswith("2 of 300 weights are negative, as no positive ones reproduce")


def test_subsets_too_small_for_their_anchors_say_so() -> None:
    rng = np.random.default_rng(0)
    values = rng.pareto(0.6, (20, 3000)) * (rng.random((20, 3000)) < 0.01) + 1e-9
    notes = {
        note.split(": ")[1]
        for seed in range(4)
        for note in Calibrated(40, 20, seed).subset(values, np.ones(3000)).notes
    }
    assert notes == {"draw more samples, or use fewer anchors."}


def test_a_kept_subset_is_read_back_as_it_was() -> None:
    subset = dataclasses.replace(anchored()[0], notes=("one.", "zwei größer."), positive=False)
    back = loads(subset.dumps())
    assert back.dumps() == subset.dumps()
    for name in ("rows", "weights", "replicates"):
        one, other = getattr(back, name), getattr(subset, name)
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert (back.trust, back.spread, back.positive, back.notes) == (
        subset.trust, subset.spread, False, subset.notes,
    )  # fmt: skip
    assert loads(anchored()[0].dumps()).notes == ()


def test_bytes_of_something_else_are_refused_and_nothing_is_unpickled() -> None:
    with pytest.raises(FormatError, match="these bytes are not a calibrated subset"):
        loads(b"not an archive")
    file = io.BytesIO()
    np.savez(file, rows=np.array([{"a": 1}], dtype=object), numbers=np.zeros(3))
    with pytest.raises(FormatError, match="allow_pickle"):
        loads(file.getvalue())


@pytest.mark.parametrize("shape", [(51,), (51, 51), (50, 41), (9, 9, 9), (51, 1), (4, 3, 2)])
def test_anchors_hold_the_center_and_the_corners(shape: tuple[int, ...]) -> None:
    places = Calibrated(600, 36).places(shape)
    cells = int(np.prod(shape))
    assert len(places) == min(36, cells)
    assert places == sorted(set(places))
    steps = np.cumprod([1, *shape[:-1]])
    far = (np.array(shape) - 1) * steps
    corners = {int(far @ corner) for corner in np.ndindex(*(2,) * len(shape))}
    assert corners <= set(places)
    if all(n % 2 for n in shape):
        assert int(np.sum((np.array(shape) - 1) // 2 * steps)) in places


@pytest.mark.parametrize(
    ("shape", "anchors"), [((1,), 36), ((2,), 36), ((1, 1, 1), 1), ((3, 3), 2), ((51, 51), 1)]
)
def test_tiny_grids_and_few_anchors_have_places_too(shape: tuple[int, ...], anchors: int) -> None:
    places = Calibrated(600, anchors).places(shape)
    assert len(places) == min(anchors, int(np.prod(shape)))
    if anchors == 1:
        assert places == [int(np.prod(shape)) // 2]


def test_anchors_are_spread_over_the_slice_and_closer_near_its_center() -> None:
    places = np.array(Calibrated().places((51, 51)))
    points = np.stack([places % 51 - 25, places // 51 - 25], axis=1) / 25
    everywhere = np.stack(np.divmod(np.arange(2601), 51)[::-1], axis=1) / 25 - 1
    gaps = np.sqrt(np.square(everywhere[:, None] - points).sum(axis=-1)).min(axis=1)
    assert gaps.max() < 0.34  # a 6 x 6 grid leaves gaps of 0.28
    inner = np.abs(everywhere).max(axis=1) <= 0.5
    assert gaps[inner].max() < 0.75 * gaps[~inner].max()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0,), "size=0; expected a whole number of 1 or more"),
        ((2.5,), r"size=2\.5; expected a whole number"),
        ((True,), "size=True; expected a whole number"),
        ((600, 0), "anchors=0; expected a whole number of 1 or more"),
        ((600, "many"), "anchors='many'; expected a whole number"),
        ((600, 36, 0.5), r"seed=0\.5; expected a whole number"),
        ((71, 36), "size=71 with anchors=36; .* draw 72 samples or more, or ask for fewer"),
    ],
)
def test_a_subset_that_cannot_be_is_refused_with_a_sentence(
    arguments: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(SamplerError, match=words):
        Calibrated(*arguments)


@pytest.mark.parametrize(
    ("values", "counts", "words"),
    [
        (np.ones(5), np.ones(5), r"values have shape \(5,\)"),
        (np.ones((2, 5)), np.ones(4), r"\(2, 5\) and counts \(4,\); expected"),
        (np.ones((2, 5)), np.zeros(5), "counts hold values that are not finite, negative, or all"),
        (np.ones((2, 5)), np.array([3.0, 1, 1, 1, -1]), "counts hold"),
        (np.ones((2, 5)), np.full(5, np.nan), "counts hold"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_a_sentence(
    values: np.ndarray, counts: np.ndarray, words: str
) -> None:
    with pytest.raises(SamplerError, match=words):
        Calibrated(2, 1).subset(values, counts)
