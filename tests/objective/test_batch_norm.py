"""Batch norm: recomputed statistics against numpy, as means weighted by batch size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landscope.errors import ObjectiveError
from landscope.objective import batch_norm


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 3, generator=generator).double(), torch.zeros(n)) for n in sizes]


def evaluate(model: nn.Module) -> Callable[[tuple[Tensor, Tensor]], Tensor]:
    return lambda batch: model(batch[0])


def mean_over(data: list[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    rows = [x.numpy() for x, _ in data]
    sizes = np.array([len(x) for x in rows])
    means, variances = [x.mean(axis=0) for x in rows], [x.var(axis=0, ddof=1) for x in rows]
    return np.average(means, axis=0, weights=sizes), np.average(variances, axis=0, weights=sizes)


def test_statistics_are_the_means_over_batches_weighted_by_their_size() -> None:
    norm, data = nn.BatchNorm1d(3).double().eval(), batches(5, 2, 9)
    batch_norm.recompute_statistics(norm, data, evaluate(norm))
    mean, variance = mean_over(data)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(norm.running_var.numpy(), variance, rtol=1e-12)


def test_a_batch_of_one_row_is_left_out_after_the_first() -> None:
    norm, data = nn.BatchNorm1d(3).double(), batches(4, 1, 6)
    batch_norm.recompute_statistics(norm, data, evaluate(norm))
    assert norm.running_mean is not None
    mean, _ = mean_over([data[0], data[2]])
    np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-12, atol=1e-14)


def test_mode_and_momentum_are_restored_also_after_an_error() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=0.3), nn.BatchNorm1d(3, momentum=None))
    model[0].eval()
    settings = [(m.training, m.momentum) for m in model]

    def fail(batch: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        batch_norm.recompute_statistics(model, batches(4), fail)
    assert [(m.training, m.momentum) for m in model] == settings


def test_points_that_set_statistics_are_an_error_and_others_are_not() -> None:
    batch_norm.check_statistics_stay({"0.weight": 0})
    with pytest.raises(ObjectiveError, match=r"the slice moves \(0.running_var\)"):
        batch_norm.check_statistics_stay({"0.weight": 0, "0.running_var": 0})


def test_the_first_batch_norm_in_training_mode_is_noted() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    (note,) = batch_norm.note_training_mode(model)
    assert note.startswith("1 (batch norm) is in training mode")
    assert batch_norm.note_training_mode(model.eval()) == []
