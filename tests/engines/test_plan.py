"""Plans as text: journals of every version hold them."""

from __future__ import annotations

from landscope.engines.plan import Plan


def test_a_plan_is_text_and_comes_back() -> None:
    plan = Plan(workers=2, threads=1, rows=450, forward="fused", layout="channels_last")
    assert Plan.loads(plan.dumps()) == plan
    assert str(plan) == "2 workers, 1 threads each, batches of 450, fused, channels_last"
    assert str(Plan()) == "1 worker, batches as given"


def test_the_names_in_the_text_are_those_of_version_0_1() -> None:
    text = '{"workers": 1, "threads": null, "rows": 8, "forward": "plain",'
    text += ' "layout": "contiguous", "points": 1, "plain": null}'
    assert Plan(rows=8).dumps() == text
    assert Plan.loads(text) == Plan(rows=8)
