"""Terms: weights of 0 and 1, and sums over rows, against loops over the single terms."""

from __future__ import annotations

import math

import pytest
import torch

from landscope.errors import ObjectiveError
from landscope.objective.loss_terms import Loss, Terms, has_few_classes


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_terms_of_values_have_weight_1_each() -> None:
    terms = Terms.from_values(numbers(2, 3))
    assert terms.values.shape == (6,)
    assert terms.weights.tolist() == [1.0] * 6


def test_terms_outside_a_mask_add_nothing_even_when_they_are_nan() -> None:
    values = torch.tensor([[1.0, math.nan], [3.0, 4.0]])
    terms = Terms.from_mask(values, torch.tensor([[True, False], [True, True]]))
    assert terms.values.tolist() == [1.0, 0.0, 3.0, 4.0]
    assert terms.weights.tolist() == [1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_sums_by_row_add_the_terms_of_each_row_in_float64(rows: int) -> None:
    terms = Terms(numbers(8), numbers(8).abs())
    values, weights = terms.sum_by_row(rows)
    assert values.dtype == weights.dtype == torch.float64
    each = 8 // rows
    for k in range(rows):
        inside = range(k * each, (k + 1) * each)
        assert float(values[k]) == pytest.approx(sum(float(terms.values[j]) for j in inside))
        assert float(weights[k]) == pytest.approx(sum(float(terms.weights[j]) for j in inside))


@pytest.mark.parametrize(("rows", "size"), [(3, "3"), (16, "16"), (None, "uneven")])
def test_terms_that_do_not_divide_into_the_rows_are_an_error(rows: int | None, size: str) -> None:
    terms = Terms.from_values(numbers(8))
    assert not terms.divide_into(rows)
    with pytest.raises(ObjectiveError, match=f"8 terms for a batch of {size} rows"):
        terms.sum_by_row(rows)


def test_a_metric_reports_the_mean_or_its_exponential_which_may_be_infinite() -> None:
    loss, metric = (Loss("a", Terms, reduction=r) for r in ("mean", "exp"))
    assert loss.transform(2.5) == 2.5
    assert metric.transform(2.5) == pytest.approx(math.e**2.5)
    assert metric.transform(1000.0) == math.inf
    assert math.isnan(metric.transform(math.nan))


def test_few_classes_are_many_rows_with_class_indices() -> None:
    assert has_few_classes(numbers(100, 3), torch.zeros(100))
    assert not has_few_classes(numbers(100, 65), torch.zeros(100))
    assert not has_few_classes(numbers(64, 3), torch.zeros(64))
    assert not has_few_classes(numbers(100, 3), torch.zeros(100, 3))
    assert not has_few_classes(numbers(100, 3), torch.zeros(50))
