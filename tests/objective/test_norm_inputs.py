"""Moments of inputs of norms, against numpy in float64."""

from __future__ import annotations

import numpy as np
import torch

from landscope.objective.norm_inputs import Norm


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double()
    rows[20:] += 5
    norm = Norm("", torch.nn.BatchNorm1d(4))
    parts = [norm.measure(part) for part in rows.split((1, 19, 10))]
    whole = parts[0] + parts[1] + parts[2]
    assert whole.count == len(rows)
    np.testing.assert_allclose(whole.mean, rows.numpy().mean(axis=0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(whole.variance, rows.numpy().var(axis=0), rtol=1e-12)


def test_the_variance_of_numbers_far_from_zero_keeps_its_digits() -> None:
    rows = 100 + 1e-3 * torch.randn(64, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    moments = Norm("", torch.nn.BatchNorm2d(3)).measure(rows)
    expected = rows.double().numpy().var(axis=(0, 2, 3))
    np.testing.assert_allclose(moments.variance, expected, rtol=1e-5)
