"""Losses and models that differentiate by themselves, against plain torch and closed forms."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.engines.plan import Plan
from landscope.objective.inner_gradients import InnerGradients

Residual = Callable[[Any, Tensor], Tensor]


def make_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1)).double().eval()


POINTS = torch.linspace(-1, 1, 22, dtype=torch.float64).reshape(11, 2)
BATCHES = list(POINTS.split(4))


def first_derivative(model: Any, batch: Tensor) -> Tensor:
    x = batch.clone().requires_grad_()
    u = model(x)
    slope = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    return torch.as_tensor((slope + u).square().sum(dim=1))


def marked_in_place(model: Any, batch: Tensor) -> Tensor:
    """The inputs themselves are marked, as many tutorials do it."""
    batch.requires_grad_()
    u = model(batch)
    slope = torch.autograd.grad(u.sum(), batch, create_graph=True)[0]
    return torch.as_tensor((slope + u).square().sum(dim=1))


def backward_inside(model: Any, batch: Tensor) -> Tensor:
    """``backward()``, which leaves gradients in inputs and parameters."""
    batch.requires_grad_()
    u = model(batch)
    u.sum().backward(create_graph=True)
    assert batch.grad is not None
    return torch.as_tensor((batch.grad + u).square().sum(dim=1))


def functional(model: Any, batch: Tensor) -> Tensor:
    """The same with transforms of torch.func."""
    slopes = torch.func.vmap(torch.func.jacrev(lambda x: model(x)[0]))(batch)
    return torch.as_tensor((slopes + model(batch)).square().sum(dim=1))


def differentiate_again(slope: Tensor, x: Tensor) -> list[Tensor]:
    """Return the second derivatives by each coordinate, shape (n,) each."""
    sums = slope.sum(dim=0)
    return [torch.autograd.grad(sums[k], x, create_graph=True)[0][:, k] for k in (0, 1)]


def laplacian(model: Any, batch: Tensor) -> Tensor:
    x = batch.clone().requires_grad_()
    slope = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]
    seconds = differentiate_again(slope, x)
    return (seconds[0] + seconds[1] - 1).square()


def score(model: Any, batch: Tensor) -> Tensor:
    """Score matching (Hyvarinen, 2005): half the squared gradient and the Laplacian."""
    x = batch.clone().requires_grad_()
    slope = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]
    seconds = differentiate_again(slope, x)
    return 0.5 * slope.square().sum(dim=1) + seconds[0] + seconds[1]


def penalty_of_gradient(model: Any, batch: Tensor) -> Tensor:
    """The gradient penalty of WGAN-GP (Gulrajani and others, 2017)."""
    mixed = (0.3 * batch + 0.7 * batch.flip(1)).requires_grad_()
    slope = torch.autograd.grad(model(mixed).sum(), mixed, create_graph=True)[0]
    return torch.as_tensor(model(batch)[:, 0] + 10 * (slope.norm(dim=1) - 1).square())


LOSSES: tuple[Residual, ...] = (
    first_derivative, marked_in_place, backward_inside, functional, laplacian, score,
    penalty_of_gradient,
)  # fmt: skip


def plain(residual: Residual, model: nn.Module, batches: list[Tensor] = BATCHES) -> Tensor:
    """The mean of the terms over fresh copies of the batches, by torch alone."""
    copied = copy.deepcopy(model)
    return torch.cat([residual(copied, b.detach().clone()) for b in batches]).mean()


def make_objective(residual: Residual, **options: Any) -> ls.Objective:
    return ls.Objective(make_network(), ls.losses.custom(residual), BATCHES, **options)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True:UserWarning")
@pytest.mark.parametrize("residual", LOSSES, ids=lambda r: r.__name__)
def test_the_loss_is_that_of_plain_torch_at_every_evaluation(residual: Residual) -> None:
    objective = make_objective(residual)
    expected = plain(residual, objective.model).item()
    values = [objective.loss() for _ in range(3)]
    assert values == pytest.approx([expected] * 3, rel=1e-12)
    assert objective.terms().mean().item() == pytest.approx(expected, rel=1e-12)
    assert all(p.grad is None for p in objective.model.parameters())
    assert not any(b.requires_grad or b.grad is not None for b in BATCHES)


@pytest.mark.parametrize("residual", [first_derivative, laplacian, functional])
def test_gradient_and_hessian_are_those_of_plain_torch(residual: Residual) -> None:
    objective = make_objective(residual)
    model = copy.deepcopy(objective.model)
    loss = torch.cat([residual(model, b.clone()) for b in BATCHES]).mean()
    weights = list(model.parameters())
    slopes = torch.autograd.grad(
        loss, weights, create_graph=True, allow_unused=True, materialize_grads=True
    )
    gradient = objective.gradient()
    for mine, right in zip(gradient.values(), slopes, strict=True):
        torch.testing.assert_close(mine, right.detach(), rtol=1e-10, atol=1e-12)
    flat = torch.cat([s.reshape(-1) for s in slopes])
    v = torch.ones_like(flat)
    product = torch.autograd.grad(flat @ v, weights, allow_unused=True, materialize_grads=True)
    hessian = ls.curvature.Hessian(objective)
    right = torch.cat([p.reshape(-1) for p in product])
    torch.testing.assert_close(hessian @ v, right, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "plan",
    [Plan(), Plan(rows=11), Plan(workers=2, threads=1), Plan(points=4)],
    ids=str,
)
def test_every_plan_gives_the_plain_values_or_is_refused_by_torch(plan: Plan) -> None:
    objective = make_objective(first_derivative)
    (direction,) = ls.directions.random(objective.center, 1)
    line = ls.Line(objective.center, direction)
    engine = ls.engines.Local(plan=plan)
    if plan.points > 1:  # vmap has no autograd inside: such a plan is not chosen
        with pytest.raises(RuntimeError, match="functorch"):
            ls.scan(objective, line, ls.Grid(5, (-1, 1)), engine=engine)
        return
    land = ls.scan(objective, line, ls.Grid(5, (-1, 1)), engine=engine)
    expected = [_at(objective, direction, s) for s in np.linspace(-1, 1, 5)]
    assert land.data["loss"].values == pytest.approx(expected, rel=1e-10)


def _at(objective: ls.Objective, direction: dict[str, Tensor], step: float) -> float:
    moved = copy.deepcopy(objective.model)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            parameter.add_(direction[name], alpha=float(step))
    return plain(first_derivative, moved).item()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_of_the_caller_change_nothing(mode: Callable[[], Any]) -> None:
    model = make_network()
    with mode():
        objective = ls.Objective(model, ls.losses.custom(first_derivative), BATCHES)
        inside = objective.loss(), objective.loss(ls.params.clone(objective.center))
        (direction,) = ls.directions.random(objective.center, 1)
        line = ls.Line(objective.center, direction)
        land = ls.scan(objective, line, ls.Grid(2, (0, 1)))
        gradient = objective.gradient()
    expected = plain(first_derivative, objective.model).item()
    assert inside == pytest.approx((expected, expected), rel=1e-12)
    assert land.data["loss"].values[0] == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(dict(gradient), dict(objective.gradient()))


def test_data_made_in_inference_mode_are_as_any_other_and_a_model_gets_a_sentence() -> None:
    with torch.inference_mode():
        model, batches = make_network(), [b.clone() for b in BATCHES]
    residual = ls.losses.custom(first_derivative)
    expected = plain(first_derivative, make_network()).item()
    assert ls.Objective(make_network(), residual, batches).loss() == pytest.approx(expected)
    with pytest.raises(ls.errors.CallError, match=r"inference_mode.* copy\.deepcopy\(model\)"):
        ls.Objective(model, residual, batches).loss()
    copied = ls.Objective(copy.deepcopy(model), residual, batches)
    assert copied.loss() == pytest.approx(expected)


def test_inputs_that_their_owner_has_marked_are_differentiated() -> None:
    def slopes(model: Any, batch: Tensor) -> Tensor:
        return torch.autograd.grad(model(batch).sum(), batch, create_graph=True)[0].square()

    marked = [b.clone().requires_grad_() for b in BATCHES]
    objective = ls.Objective(make_network(), ls.losses.custom(slopes), marked)
    model = make_network()
    expected = torch.cat([slopes(model, b) for b in marked]).mean().item()
    assert objective.loss() == pytest.approx(expected, rel=1e-12)
    engine = ls.engines.Local(plan=Plan(rows=11))
    (direction,) = ls.directions.random(objective.center, 1)
    line = ls.Line(objective.center, direction)
    land = ls.scan(objective, line, ls.Grid(1, (0, 0)), engine=engine)
    assert land.data["loss"].values[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True:UserWarning")
def test_gradients_of_the_user_stay_when_a_loss_calls_backward() -> None:
    model = make_network()
    model(POINTS).sum().backward()
    kept = [(p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    objective = ls.Objective(model, ls.losses.custom(backward_inside), BATCHES)
    expected = plain(backward_inside, make_network()).item()
    assert objective.loss() == pytest.approx(expected, rel=1e-12)
    for parameter, (gradient, copied) in zip(model.parameters(), kept, strict=True):
        assert parameter.grad is gradient
        torch.testing.assert_close(parameter.grad, copied)


def test_no_graph_is_kept_and_other_losses_are_evaluated_without_one() -> None:
    objective = make_objective(first_derivative)
    with objective.problem.session() as session:
        session.evaluate(None)
        gc.collect()
        counts = []
        for _ in range(3):
            session.evaluate(None)
            gc.collect()
            counts.append(sum(type(o) in (Tensor, nn.Parameter) for o in gc.get_objects()))
        assert counts[0] == counts[1] == counts[2]
        with torch.no_grad():
            terms = list(session.terms(None))
    assert not any(t.values.requires_grad for t in terms)
    seen = []

    def watch(model: nn.Module, batch: Tensor) -> Any:
        seen.append(torch.is_grad_enabled())
        return model(batch)

    ls.Objective(make_network(), ls.losses.custom(watch), BATCHES).loss()
    assert not any(seen)


def test_metrics_and_penalties_may_differentiate_too() -> None:
    def slope(outputs: Tensor, targets: Tensor) -> Tensor:
        leaf = outputs.detach().requires_grad_()
        return torch.autograd.grad((leaf - targets).square().sum(), leaf)[0].abs().mean(dim=1)

    targets = POINTS[:, :1]
    objective = ls.Objective(
        make_network(), nn.MSELoss(), (POINTS, targets), metrics={"slope": slope}
    )
    with torch.no_grad():
        expected = 2 * (objective.model(POINTS) - targets).abs().mean().item()
    assert objective.evaluate()["slope"] == pytest.approx(expected, rel=1e-12)


def test_samples_of_a_calibrated_scan_have_gradients_inside() -> None:
    points = torch.randn(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    objective = ls.Objective(
        make_network(), ls.losses.custom(first_derivative), list(points.split(100))
    )
    (direction,) = ls.directions.random(objective.center, 1)
    line = ls.Line(objective.center, direction)
    land = ls.scan(objective, line, ls.Grid(9, (-1, 1)), samples=ls.Calibrated(size=100, anchors=5))
    whole = ls.scan(objective, line, ls.Grid(9, (-1, 1)))
    difference = np.abs(land.data["loss"].values - whole.data["loss"].values)
    assert difference.max() < 0.05 * whole.data["loss"].values.max()


def test_an_error_that_is_not_about_gradients_is_the_one_that_is_reported() -> None:
    calls = []

    def failing(model: Any, batch: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        if torch.is_grad_enabled():
            raise RuntimeError("a leaf Variable that requires grad was used in place")
        raise RuntimeError("shapes do not fit")

    with pytest.raises(ls.errors.CallError, match="shapes do not fit"):
        make_objective(failing).loss()
    assert calls == [False, True]


def test_random_numbers_are_the_same_when_the_first_attempt_fails() -> None:
    def hutchinson(model: Any, batch: Tensor) -> Tensor:
        x = batch.clone().requires_grad_()
        noise = torch.randn_like(x)
        slope = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]
        return (slope * noise).sum(dim=1)

    objective = make_objective(hutchinson)
    torch.manual_seed(3)
    expected = plain(hutchinson, objective.model).item()
    objective.loss()  # reads the data, which sets seeds
    torch.manual_seed(3)
    assert objective.loss() == pytest.approx(expected, rel=1e-12)


def test_a_loss_that_cuts_its_graph_gets_a_sentence() -> None:
    def cut(model: Any, batch: Tensor) -> Tensor:
        x = batch.clone().requires_grad_()
        return torch.autograd.grad(model(x).detach().sum(), x)[0]

    with pytest.raises(ls.errors.CallError, match=r"although gradients were enabled: \.detach\(\)"):
        make_objective(cut).loss()


def test_the_answer_of_the_first_attempt_is_remembered() -> None:
    gradients = InnerGradients(make_network())
    modes: list[bool] = []

    def keep(result: list[int]) -> list[int]:
        return result

    def compute() -> list[int]:
        modes.append(torch.is_grad_enabled())
        if not torch.is_grad_enabled():
            raise RuntimeError("does not require grad")
        return [1]

    with torch.no_grad():
        assert [gradients.run(compute, keep) for _ in range(2)] == [[1], [1]]
    assert gradients.needed
    assert modes == [False, True, True]
