"""Coverage of the error bars of ``Adaptive``: at least 93% of the cells of each kind of surface.

The witness is the surface itself, which is known in every cell; noise is a part of it. The table of
all kinds, with more seeds, is made by ``benchmarks/coverage.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from landscope.sampling.adaptive import Adaptive
from tests.surfaces import bowl, bumps, cells, scanned

Kind = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]


def with_noise(level: float) -> Kind:
    def surface(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        smooth = 0.3 + rng.uniform(0.5, 2) * x**2 + y**2 + 0.1 * np.sin(2 * x + 3 * y)
        return np.asarray(smooth * (1 + level * rng.standard_normal(x.shape)))

    return surface


def kinked(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angles = rng.uniform(0, 2 * np.pi, 6)
    folds = (np.maximum(x * np.cos(a) + y * np.sin(a) - 0.1, 0) for a in angles)
    return np.asarray(0.3 + sum(folds))


def striped(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The columns of the first round do not show the waves between them."""
    return np.asarray(x**2 + y**2 + 0.2 * np.sin(rng.uniform(2.8, 3.2) * x) ** 2 - 0.1)


def rounded(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Eight bits of a mantissa, as in bfloat16."""
    mantissa, exponent = np.frexp(bumps(x, y) * rng.uniform(0.5, 2))
    return np.asarray(np.ldexp(np.round(mantissa * 256) / 256, exponent))


KINDS: dict[str, Kind] = {
    "noise of 0.1%": with_noise(0.001),
    "noise of 0.5%": with_noise(0.005),
    "kinked": kinked,
    "striped": striped,
    "rounded to bfloat16": rounded,
    "huge": lambda rng, x, y: 1e30 * with_noise(0.005)(rng, x, y),
    "negative": lambda rng, x, y: with_noise(0.0)(rng, x, y) - 10,
}


@pytest.mark.parametrize("name", KINDS)
def test_error_bars_hold_in_93_percent_of_the_cells(name: str) -> None:
    held, points = [], []
    for seed in range(3):
        rng, sampler = np.random.default_rng(seed), Adaptive(resolution=31)
        losses = cells(sampler, lambda x, y, rng=rng: KINDS[name](rng, x, y))
        known = scanned(sampler, losses, (31, 31))
        filled = sampler.fill((31, 31), known)
        pair = filled.columns["loss"], losses
        error = np.abs(np.subtract(*map(np.log, pair) if filled.scale == "log" else pair))
        held.append((error <= filled.error)[~filled.evaluated].mean())
        points.append(len(known))
    assert np.mean(held) >= 0.93, held
    assert max(points) <= 961 / 3


def test_noise_below_the_tolerance_costs_few_points_and_no_noise_next_to_none() -> None:
    def count(level: float) -> int:
        sampler = Adaptive()
        noise = 1 + level * np.random.default_rng(0).standard_normal(2601)
        return len(scanned(sampler, cells(sampler, bowl) * noise, (51, 51)))

    assert count(0.0) <= 78  # 68 without points for the noise
    assert count(0.005) <= 130


def test_errors_are_within_the_tolerance_where_a_noisy_scan_ends() -> None:
    sampler = Adaptive(0.03)
    losses = cells(sampler, bowl) * (1 + 0.008 * np.random.default_rng(1).standard_normal(2601))
    known = scanned(sampler, losses, (51, 51))
    filled = sampler.fill((51, 51), known)
    error = np.abs(np.log(filled.columns["loss"] / losses))
    assert len(known) < 1300
    assert np.quantile(error, 0.985) <= 0.03
