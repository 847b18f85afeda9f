"""Adaptive and calibrated scans through ``ls.scan``: columns, errors, resuming, together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import landscope as ls
from landscope.engines.job import Job, Result
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.errors import ObjectiveError
from tests.cases import seeded

ROWS = 1500
ENGINE = Local(plan=Plan(rows=ROWS))


def _objective(data: Any = None, **options: Any) -> ls.Objective:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4))
    inputs = torch.randn(ROWS, 6, generator=seeded(0))
    targets = (inputs[:, :4] + 0.5 * torch.randn(ROWS, 4, generator=seeded(1))).argmax(dim=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    given = (inputs, targets) if data is None else data(inputs, targets)
    metrics = {"accuracy": ls.losses.accuracy}
    return ls.Objective(model, nn.CrossEntropyLoss(), given, metrics=metrics, **options)


def _plane(objective: ls.Objective) -> ls.Plane:
    return ls.Plane(objective.center, *ls.directions.random(objective.center))


@pytest.fixture(scope="module")
def objective() -> ls.Objective:
    return _objective()


@pytest.fixture(scope="module")
def full(objective: ls.Objective) -> ls.Landscape:
    return ls.scan(objective, _plane(objective), ls.Grid(31), engine=ENGINE)


def _error(land: ls.Landscape, full: ls.Landscape) -> np.ndarray:
    both = (np.log(x.data["loss"].values) for x in (land, full))
    found: np.ndarray = np.abs(np.subtract(*both))
    return found


def test_an_adaptive_scan_is_near_the_full_one_for_a_fraction_of_it(
    objective: ls.Objective, full: ls.Landscape
) -> None:
    land = ls.scan(objective, _plane(objective), ls.Adaptive(resolution=31), engine=ENGINE)
    done = land.data["evaluated"].values.astype(bool)
    error = _error(land, full)
    assert done.sum() < 250
    assert error.max() < 0.06
    np.testing.assert_array_equal(land.data["loss"].values[done], full.data["loss"].values[done])
    assert (error <= land.data["loss_error"].values)[~done].mean() > 0.9
    assert (land.data["loss_error"].values[done] == 0).all()
    accuracy = np.abs(land.data["accuracy"].values - full.data["accuracy"].values)
    assert accuracy.mean() < 1.5
    assert f"{done.sum()} of 961 points were evaluated" in land.data.attrs["notes"]


def test_drawn_samples_are_near_all_of_them(objective: ls.Objective, full: ls.Landscape) -> None:
    terms = ls.Calibrated(200, anchors=25)
    land = ls.scan(objective, _plane(objective), ls.Grid(31), engine=ENGINE, samples=terms)
    error, bars = _error(land, full), land.data["loss_error"].values
    assert error.mean() < 0.02
    assert (error <= bars + 1e-9).mean() > 0.85
    assert bars.mean() < 0.1
    exact = bars.flat[terms.places((31, 31))]
    assert (exact == 0).all()  # all samples were evaluated there
    assert error.flat[terms.places((31, 31))].max() < 1e-12
    assert list(land.data.data_vars) == ["loss", "accuracy", "loss_error"]
    assert not any("~" in str(name) for name in land.data)


def test_both_together_and_with_several_workers(
    objective: ls.Objective, full: ls.Landscape
) -> None:
    terms = ls.Calibrated(200, anchors=25)
    lands = [
        ls.scan(objective, _plane(objective), ls.Adaptive(resolution=31), samples=terms,
                engine=Local(plan=Plan(workers=w, threads=1, rows=ROWS)))
        for w in (1, 2)
    ]  # fmt: skip
    assert lands[0].data.identical(lands[1].data)
    assert _error(lands[0], full).mean() < 0.02


class _Stopping:
    """An engine that is killed after some points."""

    def __init__(self, points: int) -> None:
        self.left = points

    def open(self, job: Job) -> Any:
        engine = self

        class Pool:
            size = 1
            plan = ""

            def run(self, points: Any, *, per_sample: bool = False) -> Iterator[list[Result]]:
                with ENGINE.open(job) as pool:
                    for results in pool.run(points, per_sample=per_sample):
                        if engine.left <= 0:
                            raise KeyboardInterrupt
                        engine.left -= len(results)
                        yield results

        import contextlib

        return contextlib.nullcontext(Pool())


@pytest.mark.parametrize("stops", [(1, 7, 30, 5), (24, 1, 2, 3), (26,)])
def test_a_scan_that_is_stopped_at_any_moment_ends_with_the_same_surface(
    objective: ls.Objective, tmp_path: Path, stops: Sequence[int]
) -> None:
    def run(engine: Any, journal: Path | None) -> ls.Landscape:
        terms = ls.Calibrated(100, anchors=25)
        sampler = ls.Adaptive(resolution=15)
        return ls.scan(
            objective, _plane(objective), sampler, engine=engine, journal=journal, samples=terms
        )

    undisturbed = run(ENGINE, None)
    for points in stops:
        with pytest.raises(KeyboardInterrupt):
            run(_Stopping(points), tmp_path / "j")
    assert run(ENGINE, tmp_path / "j").data.identical(undisturbed.data)


def test_data_that_are_streamed_are_drawn_from_as_well(objective: ls.Objective) -> None:
    def batches(inputs: Any, targets: Any) -> Any:
        return list(zip(inputs.split(64), targets.split(64), strict=True))

    streamed = _objective(batches, cache=False)
    line = ls.Line(streamed.center, ls.directions.random(streamed.center)[0])
    terms = ls.Calibrated(100, anchors=5)
    lands = [
        ls.scan(one, line, ls.Grid(9), samples=terms, engine=Local(plan=Plan()))
        for one in (streamed, objective)
    ]
    np.testing.assert_allclose(lands[0].data["loss"], lands[1].data["loss"], rtol=1e-5)


def test_fewer_samples_than_asked_for_are_all_evaluated(objective: ls.Objective) -> None:
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])
    exact = ls.scan(objective, line, ls.Grid(9), engine=ENGINE)
    land = ls.scan(
        objective, line, ls.Grid(9), samples=ls.Calibrated(5000, anchors=4), engine=ENGINE
    )
    np.testing.assert_array_equal(land.data["loss"], exact.data["loss"])


def test_samples_are_not_drawn_where_there_are_test_data() -> None:
    inputs, targets = torch.randn(900, 6), torch.zeros(900, dtype=torch.int64)
    objective = _objective(test_data=(inputs, targets))
    with pytest.raises(ObjectiveError, match="leave test_data out"):
        ls.scan(objective, _plane(objective), ls.Grid(7), samples=ls.Calibrated(50, anchors=9))


def test_a_loss_without_single_samples_is_told() -> None:
    def per_batch(outputs: Any, targets: Any) -> Any:
        return nn.functional.cross_entropy(outputs, targets)

    torch.manual_seed(0)
    data = torch.randn(900, 6), torch.zeros(900, dtype=torch.int64)
    objective = ls.Objective(nn.Linear(6, 2), per_batch, data)
    with pytest.raises(ObjectiveError, match="terms of single samples are not known"):
        ls.scan(objective, _plane(objective), ls.Grid(7), samples=ls.Calibrated(50, anchors=9))


def test_errors_can_be_drawn_and_exact_surfaces_have_none(
    objective: ls.Objective, full: ls.Landscape
) -> None:
    land = ls.scan(objective, _plane(objective), ls.Adaptive(resolution=15), engine=ENGINE)
    axes = ls.draw.error_map(land)
    (dots,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(np.asarray(dots.get_xdata())) == int(land.data["evaluated"].sum())
    with pytest.raises(ls.errors.DrawError, match="values of a full grid are exact"):
        ls.draw.error_map(full)


def test_a_kill_between_an_anchor_and_its_samples_changes_nothing(
    objective: ls.Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(journal: Path | None) -> ls.Landscape:
        terms = ls.Calibrated(100, anchors=25)
        return ls.scan(
            objective, _plane(objective), ls.Grid(9), samples=terms, engine=ENGINE, journal=journal
        )

    undisturbed, left, keep = run(None), [4], ls.Journal.save_setting

    def stops(self: ls.Journal, name: str, value: str | bytes) -> None:
        left[0] -= name.startswith("samples")
        if left[0] < 0:
            raise KeyboardInterrupt
        keep(self, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(ls.Journal, "save_setting", stops)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "j")
    left, write = [4], ls.Journal.write

    def writes(self: ls.Journal, results: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write(self, results)

    with monkeypatch.context() as patch:
        patch.setattr(ls.Journal, "write", writes)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "j")
    assert run(tmp_path / "j").data.identical(undisturbed.data)


@pytest.mark.parametrize("widths", ["of the longest row of each batch", "the same"])
def test_drawn_rows_of_unequal_lengths_stand_for_all_tokens(widths: str) -> None:
    """The witness: each row by itself, without padding, in float64."""
    lengths = torch.randint(2, 9, (90,), generator=seeded(0)).tolist()
    rows = [torch.randint(1, 6, (length,), generator=seeded(k)) for k, length in enumerate(lengths)]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6))
    wide = 8 if widths == "the same" else 0
    data = []
    for k in range(0, 90, 10):
        some = rows[k : k + 10]
        text = torch.zeros(10, max(wide, *map(len, some)), dtype=torch.int64)
        for row, tokens in zip(text, some, strict=True):
            row[: len(tokens)] = tokens
        data.append({"input": text, "labels": text})
    objective = ls.Objective(model, ls.losses.tokens(shift=True, padding=0), data)
    picked, weights = [0, 3, 11, 12, 40, 89], torch.tensor([[1.0, 2.0, 0.5, 3.0, 1.0, 4.0]])
    found = ls.Objective.of(objective.problem.select_samples(picked, weights)).loss()
    model, sums, counts = model.double(), 0.0, 0.0
    for row, weight in zip(picked, weights[0].tolist(), strict=True):
        logits = model(rows[row])[:-1]
        terms = nn.functional.cross_entropy(logits.detach(), rows[row][1:], reduction="none")
        sums, counts = sums + weight * float(terms.sum()), counts + weight * len(terms)
    assert found == pytest.approx(sums / counts, rel=1e-6)
