"""Problems with known answers, small enough to be looked at from every side.

Each call makes a new one from a fixed seed, so that a test cannot spoil another one.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscope import Objective, Plane, directions, losses

CLASSES = 3


@dataclass(frozen=True, eq=False)
class Case:
    """A model with its loss and data; ``inputs`` and ``targets`` are whole."""

    name: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        return self.inputs, self.targets

    def objective(self, **options: Any) -> Objective:
        options = {"batch_size": 7, **options}
        return Objective(self.model, nn.CrossEntropyLoss(), self.data, **options)


class Quadratic(nn.Module):
    """Row a -> a . w, whose mean squared error is a quadratic function of w."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(size, generator=seeded(5)))

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ self.w


class Tied(nn.Module):
    """Two layers with one weight, a frozen layer, an unused one, and an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(requires_grad=False)
        self.unused = nn.Linear(2, 2)
        self.last = nn.Linear(4, CLASSES)
        nn.init.zeros_(self.last.bias)
        nn.init.zeros_(self.last.weight)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2]))

    def forward(self, rows: Tensor) -> Tensor:
        order = self.get_buffer("order")
        hidden = torch.tanh(self.second(torch.tanh(self.first(rows))))
        return torch.as_tensor(self.last(self.frozen(hidden)[:, order]))


class Attentive(nn.Module):
    """One block of a transformer: layer norms, fused attention of two heads, a wider layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(4), nn.LayerNorm(4)
        self.queries = nn.Linear(4, 12)
        self.wide = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))
        self.last = nn.Linear(4, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.queries(self.first(tokens)).unflatten(2, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*heads.unbind())
        hidden = tokens + seen.transpose(1, 2).flatten(2)
        hidden = hidden + self.wide(self.second(hidden))
        return torch.as_tensor(self.last(hidden.mean(dim=1)))


class Recurrent(nn.Module):
    """An LSTM whose last hidden state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.LSTM(3, 4, batch_first=True)
        self.last = nn.Linear(4, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.as_tensor(self.last(self.layers(rows)[0][:, -1]))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(*, rows: int = 23) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    return _case("mlp", model, (rows, 4))


def batch_norm_cnn(*, rows: int = 19, track: bool = True) -> Case:
    """A convolution and batch norms whose statistics come from other data than the case's."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.BatchNorm2d(4, track_running_stats=track),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 6),
            nn.BatchNorm1d(6),
            nn.Linear(6, CLASSES),
        )
        for _ in range(3):
            model(torch.randn(16, 2, 6, 6) * 1.5 + 0.2)
    return _case("batch_norm_cnn", model.eval(), (rows, 2, 6, 6))


def odd(*, rows: int = 23) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Tied()
    return _case("odd", model, (rows, 4))


def dropout(*, rows: int = 23) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, CLASSES))
    return _case("dropout", model.train(), (rows, 4))


def transformer(*, rows: int = 19) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Attentive()
    return _case("transformer", model, (rows, 5, 4))


def lstm(*, rows: int = 19) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = Recurrent()
    return _case("lstm", model, (rows, 5, 3))


CASES: tuple[Callable[[], Case], ...] = (mlp, batch_norm_cnn, odd)


def _case(name: str, model: nn.Module, shape: tuple[int, ...]) -> Case:
    inputs = torch.randn(shape, generator=seeded(10))
    targets = torch.randint(CLASSES, shape[:1], generator=seeded(11))
    return Case(name, model, inputs, targets)


def quadratic() -> tuple[Quadratic, Tensor, Tensor]:
    """A float64 model whose loss is mean((A w - b)^2), with A and b."""
    rows = torch.randn(11, 5, generator=seeded(6), dtype=torch.float64)
    right = torch.randn(11, generator=seeded(7), dtype=torch.float64)
    return Quadratic(5).double(), rows, right


class Place(nn.Module):
    """Parameters that stand for nothing but a place."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(size, generator=seeded(8), dtype=torch.float64))


def curved(matrix: Tensor, **options: Any) -> Objective:
    """An objective w'Mw / 2, whose Hessian is a given symmetric matrix everywhere."""

    def bowl(model: nn.Module, batch: Tensor) -> Tensor:
        w = model.get_parameter("w")
        return 0.5 * (w @ matrix.to(w) @ w).expand(len(batch))

    data = [torch.zeros(2, 1), torch.zeros(1, 1)]
    return Objective(Place(len(matrix)), losses.custom(bowl), [*data, data[0]], **options)


def plane(objective: Objective, *, seed: int = 0) -> Plane:
    """A random plane that moves every trainable parameter, biases included."""
    dx, dy = directions.random(objective.center, 2, normalize="layer", ignore=None, seed=seed)
    return Plane(objective.center, dx, dy)


def plain_loss(case: Case, params: Mapping[str, Tensor], *, double: bool = False) -> float:
    """The cross-entropy of a deep copy of the model over all data in one batch.

    An independent witness: it knows nothing of batches, borrowing or terms.
    """
    model = copy.deepcopy(case.model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    inputs = case.inputs
    with torch.no_grad():
        for name, value in params.items():
            tensors[name].copy_(value)
        if double:
            model, inputs = model.double(), inputs.double()
        return float(F.cross_entropy(model(inputs), case.targets))


def remembered(model: nn.Module) -> dict[str, Any]:
    """Everything of the user's that a scan could have touched, as plain values."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "values": {n: t.detach().numpy().tobytes() for n, t in tensors},
        "places": {n: t.data_ptr() for n, t in tensors},
        "objects": {n: id(t) for n, t in tensors},
        "dtypes": {n: t.dtype for n, t in tensors},
        "state": {n: t.numpy().tobytes() for n, t in model.state_dict().items()},
        "flags": {n: m.training for n, m in model.named_modules()},
        "requires": {n: t.requires_grad for n, t in tensors},
        "grads": {n: None if t.grad is None else t.grad.numpy().tobytes() for n, t in tensors},
        "grad objects": {n: id(t.grad) for n, t in tensors},
        "torch": torch.get_rng_state().numpy().tobytes(),
        "python": random.getstate(),
        "numpy": repr(np.random.get_state(legacy=False)),  # noqa: NPY002 - the global state
        "threads": torch.get_num_threads(),
    }
