from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope import params
from landscope.errors import ParamsError, SliceError
from landscope.params import Params
from landscope.slices.curves import Curve
from landscope.slices.slices import Affine, Line, Plane, Slice, Volume

SHAPES = {"b": (3, 2), "a": (4,)}


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


SLICES: list[tuple[Any, tuple[float, ...]]] = [
    (Line(point(0), point(1)), (0.7,)),
    (Plane(point(0), point(1), point(2)), (-1.5, 0.25)),
    (Volume(point(0), point(1), point(2), point(3)), (2.0, -0.5, 1e-3)),
]
each_slice = pytest.mark.parametrize(("where", "steps"), SLICES, ids=["line", "plane", "volume"])


@each_slice
def test_a_point_of_a_slice_is_center_plus_steps_along_directions(
    where: Any, steps: tuple[float, ...]
) -> None:
    expected = flat(where.center)
    for step, direction in zip(steps, where.directions, strict=True):
        expected = expected + step * flat(direction)
    found = where.at(steps)
    assert list(found) == list(SHAPES)
    torch.testing.assert_close(flat(found), expected, rtol=1e-14, atol=1e-14)


@each_slice
def test_the_center_comes_back_bit_for_bit_in_memory_of_its_own(
    where: Any, steps: tuple[float, ...]
) -> None:
    found = where.at((0.0,) * len(steps))
    for name, tensor in where.center.items():
        assert found[name].equal(tensor)
        assert found[name].data_ptr() != tensor.data_ptr()


@each_slice
def test_going_to_a_point_leaves_center_and_directions_as_they_were(
    where: Any, steps: tuple[float, ...]
) -> None:
    before = {role: flat(part).clone() for role, part in where.parts.items()}
    where.at(steps)
    assert list(before) == ["center", "x", "y", "z"][: len(steps) + 1]
    assert all(flat(part).equal(before[role]) for role, part in where.parts.items())


@each_slice
def test_projection_takes_back_the_coordinates_of_a_point_of_the_slice(
    where: Any, steps: tuple[float, ...]
) -> None:
    found, residual = where.project(where.at(steps))
    assert found == pytest.approx(steps, rel=1e-12, abs=1e-12)
    assert residual == pytest.approx(0.0, abs=1e-13)


@each_slice
def test_projection_is_least_squares_and_the_residual_is_the_distance(
    where: Any, steps: tuple[float, ...]
) -> None:
    away = point(9)
    matrix = torch.stack([flat(d) for d in where.directions], dim=1)
    offset = flat(away) - flat(where.center)
    expected = torch.linalg.lstsq(matrix, offset).solution
    found, residual = where.project(away)
    assert found == pytest.approx(expected.tolist(), rel=1e-11)
    assert residual == pytest.approx(float((offset - matrix @ expected).norm()), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1e-8, 1e8, 1e12])
def test_projection_bears_directions_of_very_different_length(scale: float) -> None:
    plane = Plane(point(0), point(1), point(2, scale))
    found, _ = plane.project(plane.at((0.5, 2.0 / scale)))
    assert found == pytest.approx((0.5, 2.0 / scale), rel=1e-9)


def test_projection_works_where_directions_are_nearly_parallel() -> None:
    near = params.like(point(1), {n: t + 1e-4 * point(2)[n] for n, t in point(1).items()})
    plane = Plane(point(0), point(1), near)
    found, residual = plane.project(plane.at((3.0, -1.0)))
    assert found == pytest.approx((3.0, -1.0), rel=1e-5)
    assert residual < 1e-9


@pytest.mark.parametrize("angle", [1e-4, 1e-6, 1e-8, 1e-10])
def test_projection_loses_only_the_digits_that_the_angle_costs(angle: float) -> None:
    """The exact coordinates are known; the normal equations lose 1 / angle^2 of the digits."""
    near = params.like(point(1), {n: t + angle * point(2)[n] for n, t in point(1).items()})
    plane = Plane(point(0), point(1), near)
    found, residual = plane.project(plane.at((3.0, -1.0)))
    assert found == pytest.approx((3.0, -1.0), rel=1e-14 / angle)
    assert residual < 1e-13


def test_the_residual_off_nearly_parallel_directions_is_the_distance() -> None:
    u, v, w = (torch.eye(10, dtype=torch.float64)[k] for k in range(3))
    center = Params({"w": torch.zeros(10, dtype=torch.float64)})
    plane = Plane(center, Params({"w": u}), Params({"w": u + 1e-6 * v}))
    found, residual = plane.project({"w": 0.5 * u + 2e-6 * v + 3.0 * w})
    assert found == pytest.approx((-1.5, 2.0), rel=1e-9)
    assert residual == pytest.approx(3.0, rel=1e-14)


def _times(factor: float, given: Params, dtype: torch.dtype = torch.float64) -> Params:
    return params.like(given, {n: (factor * t).to(dtype) for n, t in given.items()})


def test_the_same_direction_may_be_taken_twice_on_purpose() -> None:
    d = point(1)
    plane = Plane(point(0), d, d, dependent=True)
    torch.testing.assert_close(flat(plane.at((0.5, 0.25))), flat(point(0)) + 0.75 * flat(d))
    assert plane.project(plane.at((0.5, 0.25)))[0] == pytest.approx((0.375, 0.375))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [1.0, -1.0, 3.0, -1 / 3, 1e-3])
def test_parallel_directions_are_refused(factor: float, dtype: torch.dtype) -> None:
    d = _times(1.0, point(1), dtype)
    with pytest.raises(SliceError, match=r"directions x and y are parallel.*independent"):
        Plane(point(0), d, _times(factor, d, dtype))
    with pytest.raises(SliceError, match=r"directions y and z are parallel"):
        Volume(point(0), point(2), d, _times(factor, d, dtype))


def test_three_directions_in_a_plane_are_refused() -> None:
    sum_ = params.like(point(1), {n: t - 2 * point(2)[n] for n, t in point(1).items()})
    with pytest.raises(SliceError, match=r"directions x, y and z are linearly dependent"):
        Volume(point(0), point(1), point(2), sum_)


def test_a_seeded_direction_taken_twice_is_refused() -> None:
    dx, _ = ls.directions.seeded(point(0))
    with pytest.raises(SliceError, match="parallel"):
        Plane(point(0), dx, dx)


def test_a_center_that_holds_nan_is_blamed_and_not_the_direction() -> None:
    broken = Params({"w": torch.tensor([[1.0, float("nan")], [2.0, 3.0]])})
    with pytest.raises(SliceError, match=r"center\['w'\] holds NaN: the model itself"):
        Line(broken, Params({"w": torch.ones(2, 2)}))


def test_integer_entries_stay_where_they_are() -> None:
    center = {"w": torch.zeros(2, 2), "n": torch.tensor(5)}
    line = Line(params.wrap(center), params.wrap({"w": torch.ones(2, 2), "n": torch.tensor(3)}))
    found = line.at((2.0,))
    assert found["n"].item() == 5
    assert found["w"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert line.project(found) == ((2.0,), 0.0)


def test_a_bare_number_is_taken_for_a_line() -> None:
    line = Line(point(0), point(1))
    found = line.at(2.0)  # type: ignore[arg-type]
    assert flat(found).equal(flat(line.at((2.0,))))


def test_live_parameters_may_be_the_center() -> None:
    model = nn.Linear(2, 2).double()
    here = params.parameters(model)
    (d,) = ls.directions.random(here, 1)
    found = Line(here, d).at((1.0,))
    assert found["weight"].tolist() == (model.weight + d["weight"]).tolist()


def test_plain_dicts_become_params() -> None:
    plane = Plane(dict(point(0)), dict(point(1)), dict(point(2)))  # type: ignore[arg-type]
    assert isinstance(plane.center, Params)
    assert isinstance(plane.dy, Params)
    assert plane.dims == ("x", "y")


def test_a_rectangular_scan_lies_where_the_axes_say() -> None:
    plane = Plane(point(0), point(1), point(2))
    xs, ys = ls.Grid((3, 2), ((-1, 1), (0, 4))).axes(plane.dims)
    for x in xs:
        for y in ys:
            expected = flat(point(0)) + x * flat(point(1)) + y * flat(point(2))
            torch.testing.assert_close(flat(plane.at((x, y))), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Line(point(0), point(1)).at((1.0, 2.0)), SliceError, "2 numbers; this line has"),
        (lambda: Plane(point(0), point(1), point(2)).at((1.0,)), SliceError, "this plane has"),
        (lambda: Line(point(0), Params({"b": torch.zeros(3, 2)})), ParamsError, "x lacks 'a'"),
        (
            lambda: Plane(point(0), point(1), Params({**point(2), "a": torch.zeros(5)})),
            ParamsError,
            r"direction y\['a'\] has the shape \(5,\)",
        ),
        (
            lambda: Line(point(0), Params({**point(1), "a": torch.full((4,), torch.nan)})),
            SliceError,
            "direction x holds NaN or infinity",
        ),
        (
            lambda: Line(point(0), point(1), labels=("a", "b")),
            SliceError,
            "expected a tuple of 1 texts",
        ),
        (lambda: Line(point(0), point(1)).project({"a": torch.zeros(4)}), ParamsError, "lacks 'b'"),
        (lambda: Line(Params(), point(1)), ParamsError, "params is an empty Params"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(
    make: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make()


def test_every_slice_has_all_members_of_the_protocol_and_labels_are_empty_or_one_per_axis() -> None:
    a, b, c, d = (point(k) for k in range(4))
    slices: list[Slice] = [Line(a, b), Plane(a, b, c), Volume(a, b, c, d), Curve([a, b])]
    for slice_ in slices:
        assert len(slice_.labels) in (0, len(slice_.dims))
    assert Plane(a, dx=b, dy=c, labels=("u", "v")).labels == ("u", "v")
    assert Line(a, dx=b).directions == (Line(a, b).dx,)


def test_the_base_class_of_lines_and_planes_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Affine()  # type: ignore[abstract]
