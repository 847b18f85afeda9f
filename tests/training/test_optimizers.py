"""How weights move: schedules, and each optimizer's steps.

Witness: the update rules written in NumPy, in float64, on a least-squares problem whose gradient is
2 X^T (X w - y) / n; they share no code with torch's optimizers nor with autograd.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.errors import TrainingError
from landscope.training.loop import train
from landscope.training.optimizers import Course, backpropagate_sharpness_aware

ROWS, WIDTH, STEPS, DROP = 12, 3, 5, 2


def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    return draws.normal(size=(ROWS, WIDTH)), draws.normal(size=ROWS), draws.normal(size=WIDTH)


def slope(weights: np.ndarray) -> np.ndarray:
    inputs, targets, _ = problem()
    return np.asarray(2 / ROWS * inputs.T @ (inputs @ weights - targets))


def sgd(weights: np.ndarray, rates: list[float], *, rho: float = 0.0, **_: Any) -> np.ndarray:
    speed = np.zeros(WIDTH)
    for rate in rates:
        first = slope(weights)
        there = weights + rho * first / np.linalg.norm(first)
        gradient = slope(there) + 0.01 * weights
        speed = 0.9 * speed + gradient
        weights = weights - rate * (gradient + 0.9 * speed)
    return weights


def adam(weights: np.ndarray, rates: list[float], *, apart: bool = False) -> np.ndarray:
    mean, square = np.zeros(WIDTH), np.zeros(WIDTH)
    for step, rate in enumerate(rates, start=1):
        gradient = slope(weights) + (0.0 if apart else 0.01) * weights
        weights = weights * (1 - rate * 0.01) if apart else weights
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        ahead, spread = mean / (1 - 0.9**step), square / (1 - 0.999**step)
        weights = weights - rate * ahead / (np.sqrt(spread) + 1e-8)
    return weights


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("sgd", sgd),
        ("sam", lambda weights, rates: sgd(weights, rates, rho=0.3)),
        ("adam", adam),
        ("adamw", lambda weights, rates: adam(weights, rates, apart=True)),
    ],
)
def test_steps_are_those_of_the_formulas(optimizer: str, expected: Any) -> None:
    inputs, targets, weights = problem()
    model = nn.Linear(WIDTH, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(weights)[None])
    data = torch.from_numpy(inputs), torch.from_numpy(targets)[:, None]
    course = Course(
        optimizer, learning_rate=0.05, weight_decay=0.01, rho=0.3, batch_size=ROWS, epochs=STEPS,
        drops=(DROP,), factor=0.5,
    )  # fmt: skip
    trained = train(ls.Objective(model, nn.MSELoss(), data), course)
    rates = [0.05] * DROP + [0.025] * (STEPS - DROP)
    found = next(trained.model.parameters()).detach().numpy()[0]
    np.testing.assert_allclose(found, expected(weights, rates), rtol=1e-11)


def test_momentum_may_look_behind_and_may_be_none() -> None:
    inputs, targets, weights = problem()
    data = torch.from_numpy(inputs), torch.from_numpy(targets)[:, None]
    for momentum, nesterov in ((0.5, False), (0.0, True)):
        model = nn.Linear(WIDTH, 1, bias=False).double()
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(weights)[None])
        course = Course(
            learning_rate=0.05, momentum=momentum, nesterov=nesterov, weight_decay=0.0, epochs=3,
            drops=(),
        )  # fmt: skip
        trained = train(ls.Objective(model, nn.MSELoss(), data), course)
        expected, speed = weights, np.zeros(WIDTH)
        for _ in range(3):
            speed = momentum * speed + slope(expected)
            expected = expected - 0.05 * speed
        found = next(trained.model.parameters()).detach().numpy()[0]
        np.testing.assert_allclose(found, expected, rtol=1e-11)


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1)
        return nn.Sequential(*layers).double()


def test_climbing_leaves_weights_and_statistics_as_the_first_pass_left_them() -> None:
    model, inputs = net().train(), torch.randn(9, 4).double()

    def gradient() -> Tensor:
        loss: Tensor = model(inputs).square().mean()
        loss.backward()
        return loss.detach()

    before = [p.detach().clone() for p in model.parameters()]
    loss = backpropagate_sharpness_aware(model, gradient, 0.3)
    other = net().train()
    expected = other(inputs).square().mean()
    slopes = torch.autograd.grad(expected, list(other.parameters()))
    assert torch.equal(loss, expected.detach())
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    for mine, theirs in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(mine, theirs)  # 0.9 x what was there + 0.1 x the first batch, count 1
    length = torch.sqrt(sum((g.square().sum() for g in slopes), torch.tensor(0.0)))
    with torch.no_grad():
        for weight, g in zip(other.parameters(), slopes, strict=True):
            weight.add_(0.3 * g / length)
    there = torch.autograd.grad(other(inputs).square().mean(), list(other.parameters()))
    for weight, g in zip(model.parameters(), there, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, g, rtol=1e-9, atol=1e-12)


def test_defaults_are_those_of_2018_and_suit_the_optimizer() -> None:
    assert (Course().learning_rate, Course().weight_decay, Course().momentum) == (0.1, 5e-4, 0.9)
    assert Course(epochs=300).drops == (150, 225, 275)
    assert (Course("adam").learning_rate, Course("adam").weight_decay) == (1e-3, 5e-4)
    assert Course("adamw").weight_decay == 1e-2
    assert Course("sam").learning_rate == 0.1
    assert Course(epochs=1).drops == ()
    assert Course(epochs=3).drops == (1, 2)


def test_the_rate_falls_at_the_first_step_after_a_drop() -> None:
    course = Course(learning_rate=0.8, epochs=9, drops=(2, 5), factor=0.25)
    rates = [course.rate(step, 3) for step in range(27)]
    assert rates == pytest.approx([0.8] * 6 + [0.2] * 9 + [0.05] * 12)


def test_the_rate_rises_in_a_line_while_it_warms_up() -> None:
    course = Course(learning_rate=0.6, epochs=9, drops=(), warmup=2)
    rates = [course.rate(step, 3) for step in range(8)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"optimizer": "lion"}, "optimizer='lion'; expected one of sgd, adam, adamw, sam"),
        ({"learning_rate": -0.1}, r"learning_rate=-0\.1; expected more than 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan; expected more than 0"),
        ({"rho": 0.0}, r"rho=0\.0; expected more than 0"),
        ({"factor": -1.0}, r"factor=-1\.0; expected more than 0"),
        ({"momentum": 1.0}, r"momentum=1\.0; expected 0 or more, and less than 1"),
        ({"weight_decay": -1e-4}, r"weight_decay=-0\.0001; expected 0 or more"),
        ({"epochs": 0}, "epochs=0; expected a whole number of 1 or more"),
        ({"batch_size": 0}, "batch_size=0; expected a whole number of 1 or more"),
        ({"warmup": -1}, "warmup=-1; expected a whole number of 0 or more"),
        ({"seed": 1.5}, r"seed=1\.5; expected a whole number of 0 or more"),
        ({"drops": (15, 5)}, r"drops=\(15, 5\) are out of order"),
        ({"drops": (5, 5)}, r"drops=\(5, 5\) are out of order"),
        ({"drops": (30,)}, r"drops=\(30,\): .* cannot drop after epoch 30 of 30"),
        ({"drops": (0, 5)}, r"drops=\(0, 5\): .* cannot drop after epoch 0 of 30"),
    ],
)
def test_numbers_out_of_range_get_a_sentence(words: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        Course(**words)
