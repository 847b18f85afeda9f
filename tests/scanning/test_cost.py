"""What a scan will cost: counts from the shape of the job, seconds from a few timed points."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import landscope as ls
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.progress import duration
from landscope.scanning.cost import amount
from tests.cases import seeded

ROWS, WIDE = 40, 30


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path))


def _question(**options: int) -> tuple[ls.Objective, ls.Plane]:
    model = nn.Sequential(nn.Linear(WIDE, 50), nn.ReLU(), nn.Linear(50, 3))
    data = torch.randn(ROWS, WIDE, generator=seeded(0)), torch.zeros(ROWS, dtype=torch.int64)
    objective = ls.Objective(model, nn.CrossEntropyLoss(), data, **options)  # type: ignore[arg-type]
    return objective, ls.Plane(objective.center, *ls.directions.random(objective.center))


def test_a_grid_costs_a_pass_a_point() -> None:
    cost = ls.estimate(*_question(batch_size=7), ls.Grid((5, 3)), engine=Local(plan=Plan()))
    assert (cost.points, cost.evaluations, cost.naive_evaluations) == (15, 15, 15)
    assert cost.flops == 15 * 2 * ROWS * (WIDE * 50 + 50 * 3)
    assert cost.naive_flops == cost.flops
    assert 0 < cost.seconds < 5
    assert cost.naive_seconds > 0


def test_an_adaptive_scan_costs_less_and_drawn_samples_less_again() -> None:
    question, engine = _question(), Local(plan=Plan())
    grid = ls.estimate(*question, ls.Grid(51), engine=engine)
    adaptive = ls.estimate(*question, ls.Adaptive(), engine=engine)
    both = ls.estimate(
        *question, ls.Adaptive(), engine=engine, samples=ls.Calibrated(10, anchors=4)
    )
    assert grid.points == grid.naive_evaluations == 2601
    assert adaptive.points == both.points == 260
    assert both.evaluations == 4 + (260 - 4) * 10 / ROWS
    assert adaptive.flops < grid.flops / 9
    assert adaptive.naive_flops == grid.flops


def test_memory_is_parameters_and_activations_of_a_batch() -> None:
    objective, plane = _question()
    moving = sum(p.nbytes for p in objective.center.values())
    widest = ROWS * (WIDE + 50) * 4  # the first layer's inputs and outputs
    for workers in (1, 2):
        plan = Plan(workers=workers, threads=1, rows=ROWS)
        cost = ls.estimate(objective, plane, ls.Grid(3), engine=Local(plan=plan))
        assert widest < cost.bytes - moving * (1 + workers) <= 1.3 * widest * workers
        assert ("2 workers" if workers == 2 else "1 worker") in cost.plan


class Text(nn.Module):
    """Attention of two heads of width 4, or two layers of an LSTM, between tokens."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(5, 8), nn.Linear(8, 5)
        self.packed = nn.Linear(8, 24) if kind == "attention" else None
        self.recurrent = nn.LSTM(8, 8, 2, batch_first=True)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(rows)
        if self.packed is None:
            return self.out(self.recurrent(hidden)[0])  # type: ignore[no-any-return]
        query, key, value = self.packed(hidden).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["attention", "recurrent"])
def test_operations_of_attention_and_recurrence_count_in_batches_of_any_width(kind: str) -> None:
    shapes = ((3, 7), (3, 7), (2, 4))
    ones = [torch.ones(shape, dtype=torch.int64) for shape in shapes]
    data = [{"rows": rows, "labels": rows} for rows in ones]
    objective = ls.Objective(Text(kind).eval(), ls.losses.tokens(), data)
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    cost = ls.estimate(objective, plane, ls.Grid(3), engine=Local(plan=Plan()))
    tokens = sum(rows * width for rows, width in shapes)
    pairs = sum(rows * width**2 for rows, width in shapes)
    if kind == "attention":
        expected = tokens * (8 * 24 + 8 * 5) + pairs * 2 * 8
    else:
        expected = tokens * (2 * (8 + 8) * 4 * 8 + 8 * 5)
    assert cost.flops == 9 * 2 * expected


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_transformer_of_torch_is_counted_with_its_padding() -> None:
    """In evaluation mode it leaves padding out, by a way whose operations cannot be counted."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.embed, self.layers = nn.Embedding(5, 8), nn.TransformerEncoder(layer, 1)

        def forward(self, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.layers(self.embed(rows), src_key_padding_mask=~mask).sum(dim=1)  # type: ignore[no-any-return]

    rows = torch.tensor([[1, 2, 3], [4, 0, 0]])
    data = [{"rows": rows, "mask": rows > 0, "labels": torch.tensor([1, 2])}]
    objective = ls.Objective(Encoder().eval(), nn.CrossEntropyLoss(), data)
    plane = ls.Plane(objective.center, *ls.directions.random(objective.center))
    cost = ls.estimate(objective, plane, ls.Grid(2), engine=Local(plan=Plan()))
    assert cost.flops == 4 * 2 * (6 * (8 * 24 + 8 * 8 + 2 * 8 * 16) + 2 * 3**2 * 2 * 8)
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_time_is_that_of_the_scan_within_a_factor() -> None:
    # A loose bound: how near it comes is measured in benchmarks/estimates.py.
    import time

    objective, plane = _question()
    engine = Local(plan=Plan())
    cost = ls.estimate(objective, plane, ls.Grid(21), engine=engine)
    began = time.perf_counter()
    ls.scan(objective, plane, ls.Grid(21), engine=engine)
    assert cost.seconds / 5 < time.perf_counter() - began < 5 * cost.seconds + 1


def test_a_cost_can_be_read() -> None:
    text = str(ls.Cost(260, 41.5, 12.34, 3_400_000, 2.5e12, 4000.0, 2601, 1.6e14, "1 worker"))
    for part in ("12 s", "plain loop: 1 h 6 min, 324 x", "41.5 over all data", "260", "2,601",
                 "2.5 TFLOP", "160 TFLOP", "3.4 MB besides the data", "1 worker"):  # fmt: skip
        assert part in text


def test_the_span_auto_needs_not_be_found_for_an_estimate() -> None:
    cost = ls.estimate(*_question(), ls.Grid(9, "auto"), engine=Local(plan=Plan()))
    assert cost.points == 81


def test_a_sampler_with_a_span_that_is_not_known_yet_costs_what_it_costs_with_one() -> None:
    """Version 0.1 priced the full grid, 2,601 points, for ``Adaptive(span="auto")``."""
    engine = Local(plan=Plan())
    costs = [
        ls.estimate(*_question(), ls.Adaptive(span=s), engine=engine) for s in ("auto", (-1, 1))
    ]
    assert [cost.points for cost in costs] == [260, 260]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "0.012 s"), (9.96, "10 s"), (12.4, "12 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(999, "999 "), (1500, "1.5 k"), (2.5e7, "25 M"), (1e9, "1 G"), (3e12, "3 T"), (5e16, "50 P")],
)
def test_amounts_have_prefixes(value: float, text: str) -> None:
    assert amount(value) == text
