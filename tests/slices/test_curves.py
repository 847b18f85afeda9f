"""Curves against closed forms in float64.

De Casteljau's construction (repeated interpolation of whole points) and ``Line`` share no code with
the weights of ``Curve``; projections are compared with the best of 4,001 points of the curve.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope import params
from landscope.errors import ParamsError, SliceError
from landscope.params import Params
from landscope.slices.curves import Curve, check_axes, default_span
from landscope.slices.slices import Line, Plane

SHAPES = {"b": (3, 2), "a": (4,)}
KINDS = ("bezier", "polyline")
build: Any = Curve  # for arguments of wrong types
each_kind = pytest.mark.parametrize("kind", KINDS)
each_count = pytest.mark.parametrize("count", [2, 3, 4, 7, 12])


def point(seed: int, scale: float = 1.0) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return Params(
        {
            n: scale * torch.randn(s, generator=generator, dtype=torch.float64)
            for n, s in SHAPES.items()
        }
    )


def flat(given: Params) -> Tensor:
    return params.flatten(given)


def vector(*values: float) -> Params:
    return Params({"w": torch.tensor(values, dtype=torch.float64)})


def on_bezier(nodes: list[Tensor], t: float) -> Tensor:
    """De Casteljau: interpolate between neighbors until one point is left."""
    while len(nodes) > 1:
        nodes = [(1 - t) * a + t * b for a, b in itertools.pairwise(nodes)]
    return nodes[0]


def on_polyline(nodes: list[Tensor], t: float) -> Tensor:
    matrix = torch.stack(nodes).numpy()
    at = np.linspace(0.0, 1.0, len(nodes))
    return torch.tensor([np.interp(t, at, column) for column in matrix.T])


def nearest(curve: Curve, away: Params) -> tuple[float, float]:
    """Brute force: the nearest of 4,001 points, and its distance."""
    places = np.linspace(0.0, 1.0, 4_001)
    matrix = torch.stack([flat(node) for node in curve.nodes]).numpy()
    weights = np.stack([curve._weights(t) for t in places])
    far = np.linalg.norm(weights @ matrix - flat(away).numpy(), axis=1)
    return float(places[far.argmin()]), float(far.min())


@each_count
@pytest.mark.parametrize("t", [0.0, 0.1, 1 / 3, 0.5, 0.77, 1.0])
def test_a_bezier_curve_is_that_of_de_casteljau(count: int, t: float) -> None:
    nodes = [point(k) for k in range(count)]
    found = Curve(nodes).at((t,))
    assert list(found) == list(SHAPES)
    expected = on_bezier([flat(node) for node in nodes], t)
    torch.testing.assert_close(flat(found), expected, rtol=1e-14, atol=1e-14)


@each_count
@pytest.mark.parametrize("t", [0.0, 0.1, 1 / 3, 0.5, 0.77, 1.0])
def test_a_polyline_gives_each_segment_an_equal_share(count: int, t: float) -> None:
    nodes = [point(k, scale=10.0**k) for k in range(count)]
    expected = on_polyline([flat(node) for node in nodes], t)
    found = Curve(nodes, "polyline").at((t,))
    torch.testing.assert_close(flat(found), expected, rtol=1e-13, atol=1e-13)


@each_kind
@pytest.mark.parametrize("t", [0.0, 0.3, 0.999, 1.0])
def test_a_curve_with_two_nodes_is_a_line(kind: Any, t: float) -> None:
    a, b = point(0), point(1)
    line, curve = Line(a, ls.directions.between(a, b)), Curve([a, b], kind)
    torch.testing.assert_close(flat(curve.at((t,))), flat(line.at((t,))), rtol=1e-14, atol=1e-14)
    away = line.at((t,))
    expected, residual = line.project(away)
    found, distance = curve.project(away)
    assert found == pytest.approx(expected, abs=1e-14)
    assert distance == pytest.approx(residual, abs=1e-13)


@each_kind
@each_count
def test_the_ends_come_back_bit_for_bit_in_memory_of_their_own(kind: Any, count: int) -> None:
    curve = Curve([point(k) for k in range(count)], kind)
    for t, node in ((0.0, curve.nodes[0]), (1.0, curve.nodes[-1])):
        found = curve.at((t,))
        for name, tensor in node.items():
            assert found[name].equal(tensor)
            assert found[name].data_ptr() != tensor.data_ptr()


@each_kind
def test_a_point_is_written_over_an_earlier_one(kind: Any) -> None:
    curve = Curve([point(k) for k in range(4)], kind)
    before = [flat(node).clone() for node in curve.nodes]
    out = curve.at((0.9,))
    again = curve.at((0.2,), out)
    assert again is out
    assert flat(out).equal(flat(curve.at((0.2,))))
    assert all(flat(n).equal(b) for n, b in zip(curve.nodes, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@each_kind
def test_halves_are_rounded_once(kind: Any, dtype: torch.dtype) -> None:
    nodes = [Params({n: t.to(dtype) for n, t in point(k).items()}) for k in range(12)]
    exact = Curve([Params({n: t.double() for n, t in node.items()}) for node in nodes], kind)
    curve = Curve(nodes, kind)
    out = curve.at((0.9,))
    for t in (0.1, 0.37, 0.5, 0.83):
        expected = exact.at((t,))
        for found in (curve.at((t,)), curve.at((t,), out)):
            for name, tensor in expected.items():
                assert found[name].dtype == dtype
                # Half a unit in the last place, and the error of a sum in float32.
                bound = 0.5001 * torch.finfo(dtype).eps * tensor.abs().clamp(min=1e-4) + 1e-6
                assert bool(((found[name].double() - tensor).abs() <= bound).all())


def test_integer_entries_are_those_of_the_first_node() -> None:
    nodes = [{"w": torch.full((2, 2), float(k)), "n": torch.tensor(5 + k)} for k in range(3)]
    curve = Curve([params.wrap(node) for node in nodes])
    found = curve.at((0.5,))
    assert found["n"].item() == 5
    assert found["w"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    (t,), residual = curve.project(found)
    assert (t, residual) == pytest.approx((0.5, 0.0), abs=1e-14)


def test_nodes_come_to_the_dtype_of_the_first_and_keep_their_layouts() -> None:
    model = nn.Linear(2, 2)
    here = params.parameters(model)
    there = {n: t.detach().double() + 1 for n, t in here.items()}
    curve = build([here, there])
    found = curve.at((0.5,))
    assert found["weight"].dtype == torch.float32
    assert not found["weight"].requires_grad
    assert found.layouts == here.layouts
    torch.testing.assert_close(found["weight"], (model.weight + 0.5).detach())
    assert {t.dtype for node in curve.nodes for t in node.values()} == {torch.float32}
    assert curve.nodes[0]["weight"].data_ptr() == model.weight.data_ptr()  # no copy


@each_kind
@each_count
@pytest.mark.parametrize("t", [0.0, 1e-9, 0.21, 0.5, 1 - 1e-9, 1.0])
def test_projection_takes_back_the_coordinate_of_a_point_of_the_curve(
    kind: Any, count: int, t: float
) -> None:
    curve = Curve([point(k) for k in range(count)], kind)
    found, residual = curve.project(curve.at((t,)))
    assert found == pytest.approx((t,), abs=1e-12)
    assert residual == pytest.approx(0.0, abs=1e-11)


@pytest.mark.parametrize("offset", [-1e-9, 0.0, 1e-9])
@pytest.mark.parametrize("node", [1, 2])
def test_projection_tells_a_node_from_its_neighborhood(node: int, offset: float) -> None:
    curve = Curve([point(k) for k in range(4)], "polyline")
    (found,), _ = curve.project(curve.at((node / 3 + offset,)))
    assert found == pytest.approx(node / 3 + offset, abs=1e-13)


@each_kind
@each_count
def test_projection_of_the_ends_stays_on_the_curve(kind: Any, count: int) -> None:
    for seed in range(100):
        curve = Curve([point(100 * seed + k) for k in range(count)], kind)
        for end in (0.0, 1.0):
            (found,), _ = curve.project(curve.at((end,)))
            assert 0.0 <= found <= 1.0
            assert found == pytest.approx(end, abs=1e-12)


@each_kind
@each_count
def test_a_straight_curve_is_projected_as_a_line(kind: Any, count: int) -> None:
    last = count - 1.0
    curve = Curve([vector(float(k), 0.0) for k in range(count)], kind)
    for x in (*np.linspace(0.0, last, 23), 1e-9, last - 1e-9, 1.0 - 1e-9, last / 2 + 1e-9):
        (found,), residual = curve.project(vector(x, 5.0))
        assert found == pytest.approx(x / last, abs=1e-14)
        assert residual == pytest.approx(5.0, rel=1e-14)


@each_kind
@each_count
@pytest.mark.parametrize("seed", range(5))
def test_projection_finds_the_nearest_of_all_points(kind: Any, count: int, seed: int) -> None:
    curve = Curve([point(100 * seed + k) for k in range(count)], kind)
    away = point(100 * seed + 99, scale=0.1 + seed)
    t, distance = nearest(curve, away)
    found, residual = curve.project(away)
    assert found == pytest.approx((t,), abs=5e-4)
    assert distance - 1e-5 <= residual <= distance + 1e-12
    assert residual == pytest.approx(float((flat(curve.at(found)) - flat(away)).norm()), rel=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_projection_takes_the_lower_of_two_local_minima(sign: float) -> None:
    curve = Curve([vector(-1, 0), vector(-1, 8), vector(1, 8), vector(1, 0)])
    away = vector(sign * 0.1, -0.5)  # below an arch, nearer to one of its feet
    (end,), distance = curve.project(away)
    assert (end, distance) == pytest.approx(((sign + 1) / 2, math.hypot(0.9, 0.5)))
    inside = vector(sign * 0.2, 3.0)
    t, distance = nearest(curve, inside)
    found, residual = curve.project(inside)
    assert (found[0] > 0.5) == (sign > 0)
    assert (found[0], residual) == pytest.approx((t, distance), abs=5e-4)


def test_a_parabola_is_projected_to_where_its_normal_meets_it() -> None:
    # p(t) = (x, x^2) with x = 4t - 2; towards (1, 2) its tangent (1, 2x) has no share.
    curve = Curve([vector(-2, 4), vector(0, -4), vector(2, 4)])
    found, residual = curve.project(vector(1.0, 2.0))
    x = 4 * found[0] - 2
    assert curve.at(found)["w"].tolist() == pytest.approx([x, x**2])
    assert 2 * x**3 - 3 * x - 1 == pytest.approx(0.0, abs=1e-12)  # = (x - 1) + 2x (x^2 - 2)
    assert residual == pytest.approx(math.hypot(x - 1, x**2 - 2), rel=1e-12)


def test_a_point_beyond_the_ends_is_nearest_to_an_end() -> None:
    for kind in KINDS:
        curve = build([vector(0, 0), vector(1, 0), vector(2, 0)], kind)
        assert curve.project(vector(5, 4)) == ((1.0,), 5.0)
        assert curve.project(vector(-3, 4)) == ((0.0,), 5.0)


def test_a_corner_of_a_polyline_is_the_nearest_point_from_outside() -> None:
    curve = Curve([vector(0, 0), vector(1, 0), vector(1, 1)], "polyline")
    found, residual = curve.project(vector(4, -4))
    assert (found, residual) == ((0.5,), 5.0)


@each_kind
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e6])
def test_projection_bears_short_and_long_curves_far_from_the_origin(
    kind: Any, scale: float
) -> None:
    start = point(50)
    nodes = [params.like(start, {n: t + scale * point(k)[n] for n, t in start.items()})
             for k in range(4)]  # fmt: skip
    curve = Curve(nodes, kind)
    found, _ = curve.project(curve.at((0.3,)))
    assert found == pytest.approx((0.3,), abs=1e-15 / min(scale, 1e-3))


@each_kind
def test_equal_nodes_are_one_point(kind: Any) -> None:
    curve = Curve([point(0)] * 4, kind)
    found, residual = curve.project(point(1))
    assert found == (0.0,)
    assert residual == pytest.approx(float((flat(point(1)) - flat(point(0))).norm()), rel=1e-14)


def test_a_repeated_node_makes_a_stop() -> None:
    curve = Curve([vector(0), vector(1), vector(1), vector(2)], "polyline")
    assert curve.at((0.4,))["w"].item() == curve.at((0.6,))["w"].item() == 1.0
    (t,), residual = curve.project(vector(1.5))
    assert (t, residual) == pytest.approx((5 / 6, 0.0))
    assert curve.project(vector(1.0)) == ((1 / 3,), 0.0)


def test_projection_of_large_tensors_goes_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = [Curve([point(k) for k in range(4)], kind) for kind in ("bezier", "polyline")]
    expected = [curve.project(point(9)) for curve in curves]
    monkeypatch.setattr("landscope.slices.curves._PIECE", 4)
    for curve, (coordinates, residual) in zip(curves, expected, strict=True):
        found, distance = curve.project(point(9))
        assert found == pytest.approx(coordinates, abs=1e-14)
        assert distance == pytest.approx(residual, rel=1e-14)


@each_kind
def test_a_point_that_is_not_finite_is_nowhere(kind: Any) -> None:
    away = Params({**point(5), "a": torch.full((4,), torch.nan, dtype=torch.float64)})
    (t,), residual = Curve([point(k) for k in range(3)], kind).project(away)
    assert math.isnan(t)
    assert math.isnan(residual)


def test_weights_of_a_bezier_curve_sum_to_one_at_any_degree() -> None:
    curve = Curve([vector(0.0)] * 200)
    for t in np.linspace(0, 1, 11):
        weights = curve._weights(float(t))
        assert bool((weights >= 0).all())
        assert weights.sum() == pytest.approx(1.0, rel=1e-13)


def test_kind_and_nodes_are_parts() -> None:
    curve = Curve([point(0), point(1)], "polyline")
    assert list(curve.parts) == ["polyline node 0", "polyline node 1"]
    assert curve.parts["polyline node 1"]["a"].equal(point(1)["a"])
    assert curve.dims == ("x",)
    assert curve.labels == ("position on the curve",)
    assert Curve([point(0), point(1)], labels=("t",)).labels == ("t",)


def test_a_curve_is_looked_at_from_end_to_end() -> None:
    assert default_span(Curve([point(0), point(1)])) == (0.0, 1.0)
    assert default_span(Plane(point(0), point(1), point(2))) == (-1.0, 1.0)


def test_coordinates_may_miss_an_end_by_rounding_only() -> None:
    curve = Curve([point(0), point(1)])
    assert flat(curve.at((1 + 1e-12,))).equal(flat(point(1)))
    assert flat(curve.at((-1e-12,))).equal(flat(point(0)))
    bare: Any = 0.5
    assert flat(curve.at(bare)).equal(flat(curve.at((0.5,))))
    check_axes(curve, [np.linspace(0, 1, 5)])
    with pytest.raises(SliceError, match=r"coordinates=\(-0\.5,\); a curve runs from 0"):
        check_axes(curve, [np.linspace(-0.5, 1, 4)])
    check_axes(Line(point(0), point(1)), [np.linspace(-5, 5, 4)])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Curve([]), SliceError, "nodes has 0 nodes; a curve needs two or more"),
        (lambda: Curve([point(0)]), SliceError, "nodes has 1 nodes; a curve needs two or more"),
        (lambda: build(point(0)), SliceError, "nodes is a Params; expected a list of two nodes"),
        (lambda: build(5), SliceError, "nodes is a int; expected a list"),
        (lambda: build([point(0), 5]), ParamsError, "params is a int; expected a dict"),
        (lambda: build([point(0)] * 2, "spline"), SliceError, "kind='spline'; expected \"bezier\""),
        (lambda: build([point(0)] * 2, labels="t"), SliceError, "labels='t'; a curve has one axis"),
        (lambda: Curve([point(0)] * 2, labels=()), SliceError, r"labels=\(\); a curve has one"),
        (
            lambda: Curve([point(0), Params({"b": torch.zeros(3, 2)})]),
            ParamsError,
            "node 1 lacks 'a'",
        ),
        (
            lambda: Curve([point(0), point(1), Params({**point(2), "a": torch.zeros(5)})]),
            ParamsError,
            r"node 2\['a'\] has the shape \(5,\)",
        ),
        (
            lambda: Curve([Params({**point(1), "a": torch.full((4,), torch.inf)}), point(0)]),
            SliceError,
            "node 0 holds NaN or infinity",
        ),
        (lambda: Curve([point(0)] * 2).at((0.5, 0.5)), SliceError, "2 numbers; a curve has"),
        (lambda: Curve([point(0)] * 2).at((1.5,)), SliceError, "a curve runs from 0"),
        (lambda: Curve([point(0)] * 2).at((math.nan,)), SliceError, "a curve runs from 0"),
        (lambda: Curve([point(0)] * 2).project({"a": torch.zeros(4)}), ParamsError, "lacks 'b'"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(
    make: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make()
