"""Progress: the clock against sums done by hand, the bar as it is printed.

When a scan reports what is in ``scanning/test_loop.py``.
"""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest

import landscope as ls
from landscope.progress import Clock, Progress, open_report, show_bar
from tests.toy_target import make


class Watch(SimpleNamespace):
    """A clock that only the test moves."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    clock = Watch()
    monkeypatch.setattr("landscope.progress.time", clock)
    return clock


def test_the_time_left_follows_from_the_pace_of_this_session_alone(watch: Watch) -> None:
    clock = Clock(40, 100, None)
    assert clock.progress(40, {}) == Progress(40, 100, 0.0, None, {})
    watch.now += 30.0
    assert clock.progress(50, {"loss": 1.0}) == Progress(50, 100, 30.0, 150.0, {"loss": 1.0})
    assert not clock.over


def test_no_more_time_is_left_than_until_the_deadline(watch: Watch) -> None:
    clock = Clock(0, 100, 160.0)
    watch.now = 150.0
    assert clock.progress(1, {}).remaining == 10.0
    assert not clock.over
    watch.now = 161.0
    assert clock.progress(2, {}).remaining == 0.0
    assert clock.over


def test_a_function_is_called_itself_and_nothing_is_shown_without_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reports: list[Progress] = []
    with open_report(reports.append) as report:
        report(Progress(1, 2, 1.0, 1.0, {}))
    assert reports == [Progress(1, 2, 1.0, 1.0, {})]
    for nothing in (None, False):
        with open_report(nothing) as report:
            report(Progress(1, 2, 1.0, 1.0, {}))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("remaining", "text"),
    [(None, ""), (59.6, "1:00 left"), (7.2, "0:07 left"), (3_725.0, "1:02:05 left")],
)
def test_a_bar_shows_points_and_the_time_left_on_standard_error(
    remaining: float | None, text: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "120")
    with show_bar("scan of mine") as report:
        report(Progress(3, 9, 1.0, remaining, {}))
    out, err = capsys.readouterr()
    assert out == ""
    assert "scan of mine" in err
    (left,) = re.findall(r"3/9 points \d:\d\d:\d\d *(.*?) *\n", err)
    assert left == text


@pytest.mark.parametrize("values", [True, False])
def test_a_bar_shows_the_last_values_if_requested(
    values: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    with show_bar("train mine", "steps", values=values) as report:
        report(Progress(3, 9, 1.0, None, {"loss": 0.12345, "accuracy": 97.0}))
    assert ("loss 0.123  accuracy 97" in capsys.readouterr().err) == values


def test_a_bar_without_a_total_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with show_bar("eigenvalues", "products") as report:
        report(Progress(12, None, 1.0, None, {}))
    assert re.search(r"eigenvalues .* 12 +products 0:00", capsys.readouterr().err)


def test_true_shows_a_bar_with_its_title_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    with open_report(True, "profiles of mine", "profiles") as report:
        report(Progress(3, 9, 1.0, None, {}))
    assert re.search(r"profiles of mine .* 3/9 profiles", capsys.readouterr().err)


def test_the_progress_of_an_adaptive_scan_is_of_about_and_ends_full() -> None:
    objective = make()
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    reports: list[Progress] = []
    land = ls.scan(objective, plane, ls.Adaptive(resolution=15), progress=reports.append)
    *during, last = reports
    assert all(now.is_estimate and (now.total or 0) > now.done for now in during)
    assert (last.done, last.total) == (int(land.data["evaluated"].sum()),) * 2
    assert (last.is_estimate, last.remaining) == (False, 0.0)


def test_a_bar_of_an_estimate_says_about(capsys: pytest.CaptureFixture[str]) -> None:
    with show_bar("scan") as report:
        report(Progress(84, 100, 1.0, 1.0, {}, is_estimate=True))
    assert "84 of about 100 points" in capsys.readouterr().err
    with show_bar("scan") as report:
        report(Progress(84, 84, 1.0, 0.0, {}))
    assert "84/84 points" in capsys.readouterr().err


def test_a_notebook_without_widgets_gets_a_bar_and_no_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with show_bar("scan") as report:  # warnings are errors here
        for done in range(4):
            report(Progress(done, 3, 1.0, 1.0, {}))
    assert "3/3 points" in capsys.readouterr().err
