"""Sharpness, each measure beside a closed form or a law that it must obey.

On a quadratic around its minimum, L = L0 + d'Hd / 2: the largest rise within |d| <= r is
lambda_max r^2 / 2, and along a direction v the loss has risen by h at sqrt(2 h / v'Hv). H is
written down here from the data. Rescaling two layers of a ReLU network against each other leaves
its function as it is, and so must an adaptive measure.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope import directions
from landscope.errors import ParamsError
from landscope.params import Params
from tests import cases
from tests.analysis.test_representative_planes import Row, vector


def bowl(*, sign: float = 1.0) -> tuple[ls.Objective, np.ndarray]:
    """A quadratic around the model's own parameters, and its Hessian."""
    model = Row().double()
    rows = torch.randn(40, 23, generator=cases.seeded(8), dtype=torch.float64)

    def terms(model: nn.Module, batch: Any) -> Tensor:
        found: Tensor = 1.5 + sign * (model(batch[0]) - batch[1]) ** 2
        return found

    data = rows, model(rows).detach()
    objective = ls.Objective(model, ls.losses.custom(terms), data, batch_size=16)
    return objective, (sign * 2 / 40 * rows.T @ rows).numpy()


def filter_sizes(center: Params) -> np.ndarray:
    """Return the norm of its filter for each weight, its own size for each entry of a bias."""
    found = []
    for tensor in center.values():
        rows = tensor.numpy()
        wide = np.linalg.norm(rows, axis=1, keepdims=True) if rows.ndim > 1 else np.abs(rows)
        found.append(np.broadcast_to(wide, rows.shape).ravel())
    return np.concatenate(found)


def test_largest_and_trace_are_those_of_the_matrix() -> None:
    objective, matrix = bowl()
    found = ls.curvature.sharpness(objective)
    values = np.linalg.eigvalsh(matrix)
    assert found.loss == pytest.approx(1.5)
    assert abs(float(found.largest.value) - values[-1]) <= float(found.largest.residual) + 1e-12
    assert float(found.largest.value) == pytest.approx(values[-1], rel=1e-3)
    assert found.trace.value == pytest.approx(values.sum(), abs=5 * found.trace.stderr)
    assert found.trace.stderr <= 0.05 * found.trace.value
    assert found.converged
    assert found.products == found.largest.products + found.trace.products > 2


def test_epsilon_is_the_highest_rise_in_the_ball() -> None:
    objective, matrix = bowl()
    top = float(np.linalg.eigvalsh(matrix)[-1])
    for radius in (0.05, 1.0):
        found = ls.curvature.sharpness(objective, radius=radius)
        assert found.epsilon == pytest.approx(top * radius**2 / 2, rel=1e-4)
        assert found.epsilon <= top * radius**2 / 2 * (1 + 1e-12), "it is a lower bound"


def test_adaptive_is_the_highest_rise_where_filters_are_measured_by_their_norm() -> None:
    objective, matrix = bowl()
    sizes = filter_sizes(objective.center)
    top = float(np.linalg.eigvalsh(sizes[:, None] * matrix * sizes)[-1])
    found = ls.curvature.sharpness(objective, adaptive_radius=0.5, num_steps=60)
    assert found.adaptive == pytest.approx(top * 0.5**2 / 2, rel=1e-3)
    few = ls.curvature.sharpness(objective, adaptive_radius=0.5)
    assert 0.9 * found.adaptive < few.adaptive <= found.adaptive * (1 + 1e-9)


def test_beside_a_minimum_the_slope_counts() -> None:
    """A line: the rise is radius |g|, and adaptively radius |s g|, wherever the point is."""
    objective, _ = bowl()
    line = ls.Objective(
        objective.model, ls.losses.custom(lambda model, batch: model(batch[0])),
        (torch.arange(1.0, 24.0).double()[None], torch.ones(1)),
    )  # fmt: skip
    slope, sizes = np.arange(1.0, 24.0), filter_sizes(line.center)
    found = ls.curvature.sharpness(line, radius=0.2, adaptive_radius=0.3)
    assert found.epsilon == pytest.approx(0.2 * np.linalg.norm(slope))
    assert found.adaptive == pytest.approx(0.3 * np.linalg.norm(sizes * slope))


def test_a_point_that_is_given_takes_the_place_of_the_center() -> None:
    objective, matrix = bowl()
    point = {n: t + 0.2 for n, t in objective.center.items()}
    off = 0.2 * np.ones(23)
    found = ls.curvature.sharpness(objective, point, radius=1e-4)
    assert found.loss == pytest.approx(1.5 + off @ matrix @ off / 2)
    assert found.epsilon == pytest.approx(1e-4 * np.linalg.norm(matrix @ off), rel=1e-3)


def test_widths_are_those_of_the_parabola_along_each_direction() -> None:
    objective, matrix = bowl()
    for rise in (1.0, 0.01, 30.0):
        found = ls.curvature.sharpness(objective, rise=rise, num_directions=5, seed=3)
        ways = directions.random(objective.center, 5, orthogonal=False, seed=3)
        expected = [math.sqrt(2 * rise / (vector(d) @ matrix @ vector(d))) for d in ways]
        assert found.widths.shape == (5, 2)
        for side in found.widths.T:
            np.testing.assert_allclose(side, expected, rtol=0.01)
        assert found.width == np.median(found.widths)


def test_where_the_loss_does_not_rise_the_width_is_infinite() -> None:
    objective, _ = bowl(sign=-1.0)
    found = ls.curvature.sharpness(objective)
    assert np.isinf(found.widths).all()
    assert math.isinf(found.width)
    assert found.epsilon == pytest.approx(0.0, abs=1e-9), "within the ball nothing is higher"
    assert float(found.largest.value) < 0


def test_a_flat_loss_is_not_sharp_at_all() -> None:
    objective, _ = bowl(sign=0.0)
    found = ls.curvature.sharpness(objective)
    assert (float(found.largest.value), found.trace.value) == (0, 0)
    assert (found.epsilon, found.adaptive) == (0, 0)
    assert np.isinf(found.widths).all()


def test_a_wall_of_no_numbers_is_an_end_of_the_basin() -> None:
    objective, _ = bowl()

    def terms(model: nn.Module, batch: Any) -> Tensor:
        error = model(batch[0]) - batch[1]
        found: Tensor = 1.5 + 1e-6 * error**2 + torch.where(error.abs() > 3, math.nan, 0.0)
        return found

    walled = ls.Objective(objective.model, ls.losses.custom(terms), objective.problem.sources[""])
    found = ls.curvature.sharpness(walled, num_directions=3)
    rows = objective.problem.sources[""][0].numpy()
    ways = directions.random(objective.center, 3, orthogonal=False, seed=0)
    expected = [3 / np.abs(rows @ vector(d)).max() for d in ways]
    np.testing.assert_allclose(found.widths.mean(axis=1), expected, rtol=0.01)


# --- what must not depend on the scale of layers ------------------------------------------------


def networks() -> tuple[cases.Case, cases.Case]:
    """A trained two-layer ReLU network, and one of the same function with rescaled layers."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    inputs = torch.randn(60, 4, generator=cases.seeded(10), dtype=torch.float64)
    targets = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0.3).long()
    descent = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(200):
        descent.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        descent.step()
    model.zero_grad(set_to_none=True)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for tensor, factor in zip(other.parameters(), (4, 4, 0.25, 1), strict=True):
            tensor.mul_(factor)
    torch.testing.assert_close(other(inputs), model(inputs))
    return cases.Case("one", model, inputs, targets), cases.Case("other", other, inputs, targets)


def test_adaptive_sharpness_and_width_do_not_depend_on_the_scale_of_layers() -> None:
    one, other = (ls.curvature.sharpness(case.objective()) for case in networks())
    assert other.loss == pytest.approx(one.loss)
    assert other.adaptive == pytest.approx(one.adaptive, rel=0.03)
    assert other.epsilon > 2 * one.epsilon
    assert float(other.largest.value) > 2 * float(one.largest.value)
    np.testing.assert_allclose(other.widths, one.widths, rtol=0.01)


@pytest.mark.parametrize("name", ["radius", "adaptive_radius", "rise"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_radius_that_is_none_is_a_sentence(name: str, value: float) -> None:
    objective, _ = bowl()
    given: dict[str, Any] = {name: value}
    with pytest.raises(ParamsError, match=rf"{name}={value}.*expected numbers above 0"):
        ls.curvature.sharpness(objective, **given)


def test_the_same_seed_gives_the_same_numbers_and_the_model_is_as_it_was() -> None:
    case = cases.batch_norm_cnn()
    before = cases.remembered(case.model)
    one, again = (
        ls.curvature.sharpness(case.objective(), num_directions=2, num_steps=2) for _ in range(2)
    )
    assert cases.remembered(case.model) == before
    np.testing.assert_array_equal(one.widths, again.widths)
    assert float(one.largest.value) == float(again.largest.value)
    named = ("loss", "trace", "epsilon", "adaptive")
    assert [getattr(one, n) for n in named] == [getattr(again, n) for n in named]


def test_filters_that_are_zero_stay_zero() -> None:
    """Adaptively nothing can be moved by a share of nothing."""
    found = ls.curvature.sharpness(cases.odd().objective(), num_directions=2, num_steps=3)
    assert math.isfinite(found.adaptive)
    assert found.adaptive == pytest.approx(0.0, abs=1e-6), "its last layer is zero"
    assert found.epsilon > 0


def test_a_loss_that_overflows_in_the_ball_rises_without_bounds() -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2, 2))

        def forward(self, rows: Tensor) -> Tensor:
            return torch.exp(1e4 * (rows @ self.w).square()).sum(dim=1) - 2.0

    data = torch.ones(3, 2), torch.zeros(3)
    found = ls.curvature.sharpness(
        ls.Objective(Steep(), nn.MSELoss(), data), radius=1.0, num_directions=1
    )
    assert found.epsilon == np.inf
