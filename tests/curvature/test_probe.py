"""Second derivatives of torch that are wrong without an error, against ``dense.differences``.

The witness differentiates once only: central differences of the gradient of a float64 clone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import landscope as ls
from landscope.curvature.matrices import MATRICES, GaussNewton, Hessian
from landscope.curvature.products import DIFFERENCES, FORMULAS, PLAIN
from landscope.errors import ObjectiveError
from tests.cases import seeded
from tests.oracles import dense

DATA = torch.randn(20, 3, generator=seeded(0)), torch.randint(2, (20,), generator=seeded(1))


class Detached(torch.autograd.Function):
    """The hyperbolic tangent, whose backward pass keeps its result out of the graph."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.result = rows.detach().tanh()
        return torch.as_tensor(ctx.result.clone())

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return torch.as_tensor(slope * (1 - ctx.result**2))


class Numpy(Detached):
    """The same by numpy, so that nothing of it is in the graph of the gradient."""

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return torch.from_numpy(slope.detach().numpy() * (1 - ctx.result.numpy() ** 2))


class Rounded(torch.autograd.Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(_: Any, rows: Tensor) -> Tensor:
        return (4 * rows).round() / 4

    @staticmethod
    def backward(_: Any, slope: Tensor) -> Tensor:
        return slope


class Between(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, rows: Tensor) -> Tensor:
        return torch.as_tensor(self.function(rows))


def network(middle: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), middle, nn.Linear(4, 2))


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(layer)


NORMS: dict[str, Callable[[], nn.Module]] = {
    "filters": lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    "inputs": lambda: parametrizations.weight_norm(nn.Linear(4, 4), dim=1),
    "old": lambda: old_weight_norm(nn.Linear(4, 4)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4)), parametrizations.weight_norm(nn.Conv1d(1, 2, 3)), nn.Flatten()
    ),
}


def matrix(operator: Any) -> Tensor:
    return torch.as_tensor(operator @ torch.eye(operator.shape[0], dtype=operator.dtype)).double()


def witness(model: nn.Module, other: nn.Module | None = None) -> Tensor:
    """Return the Hessian of a model, or of another one with its parameters."""
    if other is not None:
        other.load_state_dict(model.state_dict())
    twin, (inputs, targets) = dense.clone(model) if other is None else other.double(), DATA
    loss = lambda: F.cross_entropy(twin(inputs.double()), targets)  # noqa: E731
    return dense.differences(loss, dense.leaves(twin))


def assert_equal(result: Tensor, expected: Tensor, error: float) -> None:
    assert float((result - expected).abs().max()) <= error * float(expected.abs().max())


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", list(NORMS))
def test_the_hessian_under_weight_norm_is_exact(name: str, precision: str) -> None:
    model = network(nn.Sequential(nn.Tanh(), NORMS[name](), nn.Tanh()))
    expected = witness(model, network(nn.Sequential(nn.Tanh(), NORMS[name](), nn.Tanh())))
    objective = ls.Objective(model, nn.CrossEntropyLoss(), DATA, precision=precision)
    hessian = Hessian(objective)
    result = matrix(hessian)
    assert_equal(result, expected, 1e-8 if precision == "float64" else 1e-5)
    assert_equal(result, result.T, 1e-12 if precision == "float64" else 1e-5)
    assert hessian.route == FORMULAS
    assert hessian.symmetry < 1e-12
    assert "weight norm" in "; ".join(objective.notes)
    ends, values = ls.curvature.extremes(hessian), torch.linalg.eigvalsh(expected)
    assert ends.smallest == pytest.approx(float(values[0]), rel=1e-3)
    assert ends.largest == pytest.approx(float(values[-1]), rel=1e-3)


@pytest.mark.parametrize("function", [Detached, Numpy])
@pytest.mark.parametrize("kind", list(MATRICES))
def test_a_backward_pass_that_leaves_the_graph_is_noticed(kind: Any, function: Any) -> None:
    model, smooth = network(Between(function.apply)), network(nn.Tanh())
    results = []
    for each in (model, smooth):
        objective = ls.Objective(each.double(), nn.CrossEntropyLoss(), _double(DATA))
        operator = MATRICES[kind](objective)
        results.append(matrix(operator))
        assert operator.symmetry < 1e-6
        if each is model and (function is Numpy or kind == "hessian"):
            assert operator.route == DIFFERENCES
            assert "custom function" in "; ".join(objective.notes)
    assert_equal(results[0], results[1], 1e-8)


def _double(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return data[0].double(), data[1]


def test_a_part_that_is_held_constant_is_noted_and_stays_constant() -> None:
    model = network(Between(lambda x: x * torch.sigmoid(x).detach()))
    objective = ls.Objective(model, nn.CrossEntropyLoss(), DATA, precision="float64")
    hessian = Hessian(objective)
    result = matrix(hessian)
    assert "counts as constant" in "; ".join(objective.notes)
    assert hessian.route == PLAIN
    inputs = DATA[0].double()
    twin = dense.clone(model)
    factor = torch.sigmoid(twin[0](inputs)).detach()  # type: ignore[index]
    twin[1].function = lambda x: x * factor  # type: ignore[index]
    expected = dense.hessian(lambda: F.cross_entropy(twin(inputs), DATA[1]), dense.leaves(twin))
    assert_equal(result, expected, 1e-12)


def test_a_straight_through_estimator_is_noted() -> None:
    objective = ls.Objective(network(Between(Rounded.apply)), nn.CrossEntropyLoss(), DATA)
    hessian = Hessian(objective)
    assert float((hessian @ torch.ones(26)).norm()) > 0
    assert "straight-through" in "; ".join(objective.notes)


def test_a_gradient_that_is_of_no_function_has_no_curvature() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(5, 4, scale_grad_by_freq=True)
            self.head = nn.Linear(4, 2)

        def forward(self, rows: Tensor) -> Tensor:
            return torch.as_tensor(self.head(torch.tanh(self.table(rows))))

    words = torch.tensor([0, 0, 0, 1, 2, 0, 3, 3, 1, 0] * 2)
    hessian = Hessian(ls.Objective(Words(), nn.CrossEntropyLoss(), (words, DATA[1])))
    with pytest.raises(ObjectiveError, match="not the derivative of the loss"):
        hessian @ torch.ones(hessian.shape[0])


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_kinks_are_no_reason_to_distrust_second_derivatives(precision: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 2)
    )
    objective = ls.Objective(model, nn.CrossEntropyLoss(), DATA, precision=precision)
    hessian = Hessian(objective)
    hessian @ torch.ones(hessian.shape[0])
    assert hessian.route == PLAIN
    assert objective.notes == ()


def test_a_model_that_cannot_be_computed_in_float64_is_compared_in_float32() -> None:
    shift = torch.eye(4)  # in float32, whatever the model is in
    model = network(Between(lambda x: torch.tanh(x @ shift)))
    hessian = Hessian(ls.Objective(model, nn.CrossEntropyLoss(), DATA))
    hessian @ torch.ones(26)
    assert hessian.route == PLAIN
    assert hessian.symmetry < 1e-3
    wrong = network(Between(lambda x: Detached.apply(x @ shift)))  # type: ignore[no-untyped-call]
    hessian = Hessian(ls.Objective(wrong, nn.CrossEntropyLoss(), DATA))
    hessian @ torch.ones(26)
    assert hessian.route == DIFFERENCES


def test_a_tensor_that_a_forward_pass_leaves_in_the_model_is_no_obstacle() -> None:
    model = old_weight_norm(nn.Linear(3, 2))
    model(DATA[0])
    objective = ls.Objective(model, nn.CrossEntropyLoss(), DATA, precision="float64")
    assert_equal(matrix(Hessian(objective)), witness(model, old_weight_norm(nn.Linear(3, 2))), 1e-8)


# --- losses without a second derivative ----------------------------------------------------------


def connectionist(outputs: Tensor, targets: Tensor) -> Tensor:
    """The CTC loss of sequences of 3 steps with 1 label; torch differentiates it once."""
    count = len(outputs)
    lengths = torch.full((count,), 3), torch.full((count,), 1)
    logits = outputs.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(logits, targets, *lengths, reduction="none")


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-4), ("float64", 1e-7)])
def test_gauss_newton_of_a_loss_that_is_differentiable_once(precision: str, error: float) -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 5)
    inputs = torch.randn(12, 3, 2, generator=seeded(2))
    targets = torch.randint(1, 5, (12, 1), generator=seeded(3))
    operator = GaussNewton(
        ls.Objective(model, connectionist, (inputs, targets), precision=precision)
    )
    result = matrix(operator)
    assert operator.route == "double backward, finite differences of the loss by outputs"
    twin = dense.clone(model)
    outputs = twin(inputs.double())
    free = outputs.detach().clone().requires_grad_()
    curved = dense.differences(lambda: connectionist(free, targets).mean(), [free])
    pushed = dense.jacobian(outputs, dense.leaves(twin))
    assert_equal(result, pushed.T @ curved @ pushed, error)


def test_gauss_newton_of_a_loss_whose_second_derivative_is_wrong() -> None:
    model = network(nn.Tanh()).double()
    rough = ls.Objective(model, lambda o, t: F.nll_loss(_log_softmax(o), t), _double(DATA))
    smooth = ls.Objective(model, nn.CrossEntropyLoss(), _double(DATA))
    assert_equal(matrix(GaussNewton(rough)), matrix(GaussNewton(smooth)), 1e-7)


class LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.result = logits.detach().log_softmax(-1)
        return torch.as_tensor(ctx.result.clone())

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return torch.as_tensor(slope - ctx.result.exp() * slope.sum(-1, keepdim=True))


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.as_tensor(LogSoftmax.apply(logits))  # type: ignore[no-untyped-call]
