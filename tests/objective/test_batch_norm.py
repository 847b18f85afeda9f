"""Batch norm: the note on its training mode, and the check of what a slice moves."""

from __future__ import annotations

import pytest
from torch import nn

from landscope.errors import ObjectiveError
from landscope.objective import batch_norm


def test_points_that_set_statistics_are_an_error_and_others_are_not() -> None:
    batch_norm.check_statistics_stay({"0.weight": 0})
    with pytest.raises(ObjectiveError, match=r"the slice moves \(0.running_var\)"):
        batch_norm.check_statistics_stay({"0.weight": 0, "0.running_var": 0})


def test_the_first_batch_norm_in_training_mode_is_noted() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    (note,) = batch_norm.note_training_mode(model)
    assert note.startswith("1 (batch norm) is in training mode")
    assert batch_norm.note_training_mode(model.eval()) == []


def test_norms_with_statistics_use_them_until_modes_are_restored() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    batch_norm.fix_statistics(model)
    assert [m.training for m in model] == [False, True]
