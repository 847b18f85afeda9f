"""Scans along curves: from the evaluation to files and pictures.

The loss of a quadratic model along a Bezier curve is a polynomial, expanded here in powers of t.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from torch import nn

import landscope as ls
from landscope.engines.executor import Executor
from landscope.engines.job import Job
from landscope.engines.local import Local
from landscope.engines.plan import Plan
from landscope.engines.serialization import pack, unpack
from landscope.errors import FormatError, JournalError, SliceError
from landscope.params import Params, like
from tests import cases

SERIAL = Local(plan=Plan())
GRID = ls.Grid(9, (0, 1))
each_kind = pytest.mark.parametrize("kind", ["bezier", "polyline"])


def nodes(center: Params, count: int = 3) -> list[Params]:
    """The center, and random points around it."""
    found = [center]
    for seed in range(1, count):
        (step,) = ls.directions.random(center, 1, normalize="layer", ignore=None, seed=seed)
        found.append(like(center, {n: t.detach() + step[n] for n, t in center.items()}))
    return found


def test_the_loss_of_a_quadratic_model_along_a_bezier_curve_is_a_known_polynomial() -> None:
    model, rows, right = cases.quadratic()
    objective = ls.Objective(model, nn.MSELoss(), (rows, right), batch_size=4)
    points = nodes(objective.center)
    land = ls.scan(objective, ls.Curve(points), GRID, engine=SERIAL)
    first, bend, last = ((rows @ p["w"].detach() - right).numpy() for p in points)
    errors = [Polynomial([a, 2 * (b - a), a - 2 * b + c])
              for a, b, c in zip(first, bend, last, strict=True)]  # fmt: skip
    expected = sum((e**2 for e in errors), Polynomial([0.0])) / len(errors)
    np.testing.assert_allclose(land.data["loss"], expected(np.linspace(0, 1, 9)), rtol=1e-13)
    assert land.data["x"].values.tolist() == np.linspace(0, 1, 9).tolist()


def test_the_loss_along_a_polyline_is_that_along_the_lines_of_its_segments() -> None:
    model, rows, right = cases.quadratic()
    objective = ls.Objective(model, nn.MSELoss(), (rows, right), batch_size=4)
    a, b, c = nodes(objective.center)
    land = ls.scan(objective, ls.Curve([a, b, c], "polyline"), GRID, engine=SERIAL)
    lines = [ls.Line(p, ls.directions.between(p, q)) for p, q in ((a, b), (b, c))]
    halves = [ls.scan(objective, line, ls.Grid(5, (0, 1)), engine=SERIAL) for line in lines]
    expected = np.concatenate([halves[0].data["loss"], halves[1].data["loss"][1:]])
    np.testing.assert_allclose(land.data["loss"], expected, rtol=1e-13)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two processes that import everything anew."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


@each_kind
def test_values_are_the_same_whoever_evaluates(kind: Any, pool: ProcessPoolExecutor) -> None:
    def scan(engine: Any) -> bytes:
        objective = cases.batch_norm_cnn().objective()
        curve = ls.Curve(nodes(objective.states, 4), kind)
        return ls.scan(objective, curve, GRID, engine=engine).data["loss"].values.tobytes()

    expected = scan(SERIAL)
    assert scan(Local(plan=Plan(workers=2, threads=1))) == expected
    assert scan(Executor(pool)) == expected
    measured = np.frombuffer(scan(Local(workers=2)))
    np.testing.assert_allclose(measured, np.frombuffer(expected), rtol=1e-5)


@each_kind
def test_a_curve_arrives_bit_for_bit_in_a_worker(kind: Any, tmp_path: Path) -> None:
    objective = cases.batch_norm_cnn().objective()
    curve = ls.Curve(nodes(objective.states), kind, labels=("t",))
    arrived = unpack(pack(Job(objective, curve), folder=tmp_path)).slice
    assert isinstance(arrived, ls.Curve)
    assert (arrived.kind, arrived.labels) == (kind, ("t",))
    assert arrived.nodes[0].layouts == curve.nodes[0].layouts
    for name, tensor in curve.at((0.3,)).items():
        assert arrived.at((0.3,))[name].equal(tensor)


@each_kind
def test_a_scan_resumes_to_the_same_bits(kind: Any, tmp_path: Path) -> None:
    objective, path = cases.mlp().objective(), tmp_path / "journal.sqlite"
    curve = ls.Curve(nodes(objective.center), kind)

    class Stopped(Exception):  # noqa: N818 - no error
        pass

    def stop(progress: Any) -> None:
        if progress.done == 4:
            raise Stopped

    with pytest.raises(Stopped):
        ls.scan(objective, curve, GRID, engine=SERIAL, journal=path, progress=stop)
    land = ls.scan(objective, curve, GRID, engine=SERIAL, journal=path)
    expected = ls.scan(objective, curve, GRID, engine=SERIAL)
    assert land.data["loss"].values.tobytes() == expected.data["loss"].values.tobytes()


def test_a_journal_knows_the_kind_the_nodes_and_their_order(tmp_path: Path) -> None:
    objective = cases.mlp().objective()
    a, b, c = nodes(objective.center)
    path = tmp_path / "journal.sqlite"
    ls.scan(objective, ls.Curve([a, b, c]), GRID, engine=SERIAL, journal=path)
    others: list[Any] = [
        ls.Curve([a, b, c], "polyline"), ls.Curve([a, c, b]), ls.Curve([a, b]),
        ls.Line(a, ls.directions.between(a, c)),
    ]  # fmt: skip
    for other in others:
        with pytest.raises(JournalError, match="slice"):
            ls.scan(objective, other, GRID, engine=SERIAL, journal=path)


@pytest.mark.parametrize(
    ("sampler", "count"),
    [(None, 51), (5, 5), (ls.Grid(5, "auto"), 5), (ls.Adaptive(resolution=5, span="auto"), 5)],
)
def test_a_scan_goes_from_end_to_end_of_a_curve(sampler: Any, count: int) -> None:
    objective = cases.mlp().objective()
    curve = ls.Curve(nodes(objective.center))
    land = ls.scan(objective, curve, sampler, engine=SERIAL)
    assert land.data["x"].values == pytest.approx(np.linspace(0, 1, count), rel=1e-15)
    assert np.isfinite(land.data["loss"]).all()
    assert ls.estimate(objective, curve, sampler, engine=SERIAL).naive_evaluations == count


@pytest.mark.parametrize("sampler", [ls.Grid(5), ls.Adaptive(resolution=5)])
def test_a_span_beyond_the_ends_is_refused_before_anything_is_kept(
    sampler: Any, tmp_path: Path
) -> None:
    objective = cases.mlp().objective()
    curve, path = ls.Curve(nodes(objective.center)), tmp_path / "journal.sqlite"
    words = r"coordinates=\(-1\.0,\); a curve runs from 0 .* span=\(0, 1\)"
    with pytest.raises(SliceError, match=words):
        ls.scan(objective, curve, sampler, engine=SERIAL, journal=path)
    with pytest.raises(SliceError, match=words):
        ls.estimate(objective, curve, sampler, engine=SERIAL)
    ls.scan(objective, curve, 5, engine=SERIAL, journal=path)


def test_a_budget_keeps_to_the_curve() -> None:
    objective = cases.mlp().objective()
    land = ls.scan(objective, ls.Curve(nodes(objective.center)), engine=SERIAL, budget=1)
    assert land.data["x"].values[[0, -1]].tolist() == [0.0, 1.0]


def test_a_model_that_fills_the_memory_is_not_moved_along_a_curve() -> None:
    case = cases.mlp()
    points = nodes(case.objective().center)
    objective = case.objective(in_place=True)
    with pytest.raises(SliceError, match="the slice is a Curve; an objective with in_place=True"):
        ls.scan(objective, ls.Curve(points), GRID)


def test_training_paths_are_not_projected_on_curves() -> None:
    objective = cases.mlp().objective()
    curve: Any = ls.Curve(nodes(objective.center))
    with pytest.raises(SliceError, match="slice is a Curve; expected a Line"):
        ls.paths.project(curve, curve)


def test_samplers_samples_and_quantities_work_along_a_curve() -> None:
    objective = cases.mlp(rows=200).objective()
    curve = ls.Curve(nodes(objective.center))
    adaptive = ls.scan(
        objective, curve, ls.Adaptive(resolution=21, span=(0, 1)), engine=SERIAL,
        quantities=[ls.loss_stderr],
    )  # fmt: skip
    full = ls.scan(objective, curve, ls.Grid(21, (0, 1)), engine=SERIAL)
    evaluated = adaptive.data["evaluated"].values == 1
    assert adaptive.data["loss"].values[evaluated] == pytest.approx(full.data["loss"][evaluated])
    assert "loss_stderr" in adaptive.data
    drawn = ls.scan(objective, curve, 21, samples=ls.Calibrated(50, anchors=4), engine=SERIAL)
    assert drawn.data["loss"].values == pytest.approx(full.data["loss"].values, rel=0.05)
    chained = [ls.curvature.hessian_extremes()]
    line = ls.Line(curve.nodes[0], ls.directions.between(curve.nodes[0], curve.nodes[-1]))
    found, expected = (
        ls.scan(objective, where, ls.Grid(2, (0, 1)), engine=SERIAL, quantities=chained)
        for where in (curve, line)
    )
    assert found.data["hessian_max"].values == pytest.approx(expected.data["hessian_max"], rel=1e-3)


@pytest.mark.filterwarnings("ignore:Matplotlib is building the font cache")
def test_pictures_and_files_of_a_curve(tmp_path: Path) -> None:
    objective = cases.mlp().objective()
    curve = ls.Curve(nodes(objective.center))
    land = ls.scan(objective, curve, GRID, engine=SERIAL)
    axes = ls.draw.line(land)
    assert axes.get_xlabel() == "position on the curve"
    assert axes.get_xlim() == (0.0, 1.0)
    assert "position on the curve" in ls.draw.page(land, tmp_path / "page.html").read_text()
    land.save(tmp_path / "a.nc")
    assert ls.load(tmp_path / "a.nc").data.identical(land.data)
    ls.formats.reference_h5.write_surface(land, tmp_path / "a.h5")
    again = ls.formats.reference_h5.read_surface(tmp_path / "a.h5").data
    assert again["x"].values.tolist() == land.data["x"].values.tolist()
    with pytest.raises(FormatError, match="a line has no surface"):
        ls.formats.vtk.write(land, tmp_path / "a.vtp")


def test_a_curve_of_another_model_is_refused() -> None:
    objective = cases.mlp().objective()
    strange = [{f"other.{n}": t for n, t in p.items()} for p in nodes(objective.center)]
    build: Any = ls.Curve
    with pytest.raises(SliceError, match="moves no parameter"):
        ls.scan(objective, build(strange), GRID)
