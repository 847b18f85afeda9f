"""Round numbers are counted and compared with lists written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from landscope.draw.levels import choose_round_numbers, count_digits, format_number


def test_levels_on_a_log_scale_are_round_numbers_of_every_decade() -> None:
    numbers = choose_round_numbers(0.01, 10, scale="log", count=10).tolist()
    assert numbers == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]


def test_levels_on_a_linear_scale_are_evenly_spaced_without_rounding_errors() -> None:
    numbers = choose_round_numbers(0.05, 0.55, scale="linear", count=5).tolist()
    assert numbers == [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize("count", [5, 7, 20])
@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [
        (0.01, 1000.0, "log"),
        (1.0, 25.0, "log"),
        (0.5, 0.7, "log"),
        (1e-300, 1e300, "log"),
        (2.0, 1.7e308, "log"),
        (-2.0, 3.0, "linear"),
        (2.30258, 2.3026, "linear"),
        (0.0, 1e200, "linear"),
        (1e-320, 1.0, "linear"),
    ],
)
def test_levels_rise_within_the_range_and_have_about_the_requested_number(
    low: float, high: float, scale: str, count: int
) -> None:
    numbers = choose_round_numbers(low, high, scale=scale, count=count)
    assert count / 2 <= len(numbers) <= count * 2 + 1
    assert (np.diff(numbers) > 0).all()
    rounding = 1e-9 * (high - low) if scale == "linear" else 1e-8 * low
    assert low - rounding <= numbers[0]
    assert numbers[-1] <= high + rounding or numbers[-1] == pytest.approx(high)


def test_a_range_below_the_smallest_number_still_has_a_level() -> None:
    assert choose_round_numbers(0.0, 5e-324, scale="linear").tolist() == [0.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.1, "0.1"),
        (0.30000000000000004, "0.3"),
        (-2.5, "-2.5"),
        (1000.0, "1000"),
        (10000.0, "10000"),
        (100000.0, "1e5"),
        (123456.0, "1.235e5"),
        (0.0001, "0.0001"),
        (3e-7, "3e-7"),
        (1e200, "1e200"),
        (float("inf"), "inf"),
    ],
)
def test_a_number_is_written_as_short_as_possible(value: float, text: str) -> None:
    assert format_number(value) == text


def test_numbers_that_four_digits_do_not_distinguish_get_more() -> None:
    near = [2.30258, 2.30259, 2.3026]
    assert [format_number(value, count_digits(near)) for value in near] == [
        "2.30258",
        "2.30259",
        "2.3026",
    ]
    assert count_digits([0.1, 1.0, 10.0]) == 4
