"""Adaptive sampling, against surfaces in closed form, which are known in every cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from landscope.errors import SamplerError
from landscope.sampling.adaptive import Adaptive
from landscope.sampling.grid import Grid
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
    ("wrong", "sentence"),
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
def test_wrong_arguments_get_a_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SamplerError, match=sentence):
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


def test_smoother_surfaces_and_looser_tolerances_need_fewer_points() -> None:
    def count(surface: Surface, tolerance: float) -> int:
        sampler = Adaptive(tolerance)
        return len(scanned(sampler, cells(sampler, surface), (51, 51)))

    assert count(bowl, 0.03) <= 100
    assert count(bowl, 0.03) < count(valley, 0.03)
    assert count(bumps, 0.2) < count(bumps, 0.03) < count(bumps, 0.01)


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


@pytest.mark.parametrize("shape", [(51, 1), (1, 51), (51, 2), (3, 40), (30, 2, 3), (1, 20, 20)])
def test_flat_grids_do_not_break_anything(shape: tuple[int, ...]) -> None:
    sampler = Adaptive(resolution=shape)
    axes = np.meshgrid(*sampler.axes("xyz"[: len(shape)])[::-1], indexing="ij")
    losses = (0.5 + sum(a**2 for a in axes)).ravel()
    filled = sampler.fill(shape, scanned(sampler, losses, shape))
    assert errors(filled, losses).max() <= 0.06


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
