"""The loop: what it asks, when it tells, and what goes into the result."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import landscope as ls
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.errors import ObjectiveError, SamplerError, SliceError
from landscope.params import Params, norm
from landscope.progress import Progress
from tests import cases


def test_progress_tells_of_a_point_only_when_it_is_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    told: list[Progress] = []

    def tell(now: Progress) -> None:
        db = sqlite3.connect(path)
        assert db.execute("SELECT COUNT(*) FROM point").fetchone() == (now.done,)
        last = db.execute("SELECT value FROM value WHERE point = ?", (now.done - 1,)).fetchone()
        db.close()
        assert (last is None) if now.done == 0 else last == (now.values["loss"],)
        told.append(now)

    objective = cases.mlp().objective()
    ls.scan(objective, cases.plane(objective), ls.Grid(3), journal=path, progress=tell)
    assert [now.done for now in told] == list(range(10))
    assert {now.total for now in told} == {9}
    assert told[0].remaining is None
    assert told[-1].remaining == 0


def test_quantities_add_columns_and_a_negative_zero_is_the_same_after_resuming(
    tmp_path: Path,
) -> None:
    def sizes(objective: ls.Objective, params: Params) -> dict[str, float]:
        return {"size": norm(params), "nothing": -0.0}

    objective = cases.mlp().objective()
    plane, path = cases.plane(objective), tmp_path / "journal.sqlite"
    land, again = (
        ls.scan(objective, plane, ls.Grid(3), journal=path, quantities=[sizes]) for _ in range(2)
    )
    assert set(land.data) == {"loss", "size", "nothing"}
    assert float(land.data["size"][2, 0]) == norm(plane.at((-1, 1)))
    for name in land.data:
        assert land.data[name].values.tobytes() == again.data[name].values.tobytes()


def test_cells_that_were_not_asked_for_are_nan() -> None:
    class Diagonal:
        def axes(self, dims: Any) -> tuple[np.ndarray, ...]:
            return ls.Grid(3).axes(dims)

        def ask(self, shape: Any, known: Any) -> list[int]:
            return [k for k in (0, 4, 8) if k not in known]

        def fill(self, shape: Any, known: Any) -> None:
            pass

        def with_span(self, find: Any) -> Diagonal:
            return self

        def expected_points(self, shape: Any) -> int:
            return 3

    objective = cases.mlp().objective()
    land = ls.scan(objective, cases.plane(objective), Diagonal())
    np.testing.assert_array_equal(np.isfinite(land.data["loss"]), np.eye(3, dtype=bool))


def test_wrong_parts_get_a_sentence() -> None:
    objective = cases.mlp().objective()
    with pytest.raises(ObjectiveError, match="objective is a Sequential"):
        ls.scan(cases.mlp().model, cases.plane(objective))  # type: ignore[arg-type]
    strange = {f"other.{n}": t for n, t in objective.center.items()}
    with pytest.raises(SliceError, match="moves no parameter"):
        ls.scan(objective, ls.Line(Params(strange), Params(strange)), ls.Grid(2))


def test_a_whole_number_as_sampler_is_a_grid_of_that_resolution() -> None:
    objective = cases.mlp().objective()
    plane, engine = cases.plane(objective), Local(plan=Plan())
    land = ls.scan(objective, plane, 3, engine=engine)
    assert land.data.identical(ls.scan(objective, plane, ls.Grid(3), engine=engine).data)
    assert ls.estimate(objective, plane, 3, engine=engine).points == 9


@pytest.mark.parametrize("nonsense", [0, -3, 2.5, "51", True])
def test_a_sampler_that_is_none_gets_a_sentence(nonsense: Any) -> None:
    objective = cases.mlp().objective()
    for run in (ls.scan, ls.estimate):
        with pytest.raises(SamplerError, match="expected a whole number of points along each axis"):
            run(objective, cases.plane(objective), nonsense)


@pytest.mark.parametrize("run", [ls.scan, ls.estimate], ids=["scan", "estimate"])
def test_other_types_than_slices_and_drawn_samples_get_a_sentence(run: Any) -> None:
    objective = cases.mlp().objective()
    with pytest.raises(SliceError, match=r"slice is a NoneType; expected an ls\.Line"):
        run(objective, None, 3)
    with pytest.raises(SamplerError, match=r"samples=600; expected ls\.Calibrated\(600\)"):
        run(objective, cases.plane(objective), 3, samples=600)
