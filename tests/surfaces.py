"""Surfaces in closed form, and an adaptive scan of one that ends when the sampler has enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from landscope.sampling.adaptive import Adaptive
from landscope.sampling.prediction import Prediction

Values = dict[int, dict[str, float]]
Surface = Callable[..., np.ndarray]


def bowl(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(0.1 + x**2 + 2 * y**2)


def valley(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(0.3 + 5 * (y - 0.5 * x**2 + 0.3) ** 2 + (x - 0.4) ** 2)


def bumps(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(0.2 + x**2 + y**2 + 0.3 * np.sin(4 * x + y) ** 2 + 0.1 * np.cos(5 * y))


def funnel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(0.05 + np.hypot(x, y))


def cells(sampler: Adaptive, surface: Surface, dims: str = "xy") -> np.ndarray:
    """Return the surface in every cell, x running fastest."""
    axes = sampler.axes(dims)
    return surface(*np.meshgrid(*axes[::-1], indexing="ij")[::-1]).ravel()


def scanned(sampler: Adaptive, losses: np.ndarray, shape: Sequence[int]) -> Values:
    """Return what is known in the end of a scan."""
    known: Values = {}
    while wanted := sampler.ask(shape, known):
        assert len(set(wanted)) == len(wanted)
        assert not set(wanted) & set(known)
        assert 0 <= min(wanted) <= max(wanted) < losses.size
        known |= {k: {"loss": float(losses[k])} for k in wanted}
    return known


def errors(filled: Prediction, losses: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(np.log(filled.columns["loss"]) - np.log(losses)))
