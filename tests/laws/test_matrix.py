"""Kinds of model x kinds of loss x forms of data, each against a plain loop over the batches.

The loop (:func:`plain_mean`) is written with torch alone: it calls the model on each batch as a
user would, adds up values and weights of the terms, and differentiates the mean with autograd. It
knows nothing of borrowing, of caching, or of how landscope finds the terms. Losses of torch are
compared with their own ``reduction="sum"`` or with formulas.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset, TensorDataset

import landscope as ls
from tests.cases import seeded

ROWS, CLASSES = 11, 3
TOLERANCE = 1e-5


# Models -----------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Blocks with batch norm, in evaluation mode, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6))
        self.last = nn.Linear(6, CLASSES)
        for _ in range(3):
            self.first(torch.randn(9, 6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.last(F.relu(x + self.first(x))))


class Adapted(nn.Module):
    """A frozen layer with a trainable low-rank update."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, CLASSES).requires_grad_(requires_grad=False)
        self.down = nn.Parameter(torch.randn(6, 2))
        self.up = nn.Parameter(torch.randn(2, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.base(x) + x @ self.down @ self.up)


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.last = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.last(torch.tanh(self.second(torch.tanh(self.first(x))))))


class Spectral(nn.Module):
    """Complex numbers inside: real parameters as the real and imaginary parts of a filter."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(4, 2))
        self.last = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        filtered = torch.fft.rfft(x) * torch.view_as_complex(self.filter)
        return torch.as_tensor(self.last(torch.fft.irfft(filtered, n=6)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.LSTM(3, 4, batch_first=True)
        self.last = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.last(self.layers(x)[0][:, -1]))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.last = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.last(self.layer(x).mean(dim=1)))


class Bag(nn.Module):
    """Tokens in a bag of embeddings whose gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(7, 4, sparse=True)
        self.last = nn.Linear(4, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.as_tensor(self.last(self.bag(tokens)))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 5), nn.Linear(2, 5)
        self.last = nn.Linear(5, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.as_tensor(self.last(torch.tanh(self.left(left) * self.right(right))))


class Graph(nn.Module):
    """A layer on the nodes of a graph, whose adjacency matrix is dense or sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return torch.as_tensor(self.last(torch.tanh(adjacency @ self.first(x))))


class Named(nn.Module):
    """Logits in a dict, as models of Hugging Face return them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, CLASSES))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layers(x)}


class Forces(nn.Module):
    """Forces as the negative gradient of an energy: the forward pass differentiates."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, x: Tensor) -> Tensor:
        places = x.detach().requires_grad_()
        energy = self.energy(places).sum()
        return -torch.autograd.grad(energy, places, create_graph=True)[0]


def make_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, CLASSES)
    )


def make_normed() -> nn.Module:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))
    return nn.Sequential(normed, nn.Tanh(), nn.Linear(5, CLASSES))


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, CLASSES))


def make_autoencoder() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6))


class Kind(NamedTuple):
    """A kind of model: how it is made, the shape of a row of its input, its number of outputs."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (6,)
    outputs: int = CLASSES
    several: tuple[str, ...] = ()


MODELS = {
    "mlp": Kind(make_mlp),
    "cnn": Kind(make_cnn, (2, 5, 5)),
    "residual": Kind(Residual),
    "lstm": Kind(Recurrent, (4, 3)),
    "transformer": Kind(Transformer, (4, 4)),
    "bag": Kind(Bag, (5,)),
    "lora": Kind(Adapted),
    "weight norm": Kind(make_normed),
    "two inputs": Kind(TwoInputs, several=("left", "right")),
    "dict output": Kind(Named),
    "tied": Kind(Tied),
    "complex": Kind(Spectral),
    "graph": Kind(Graph, several=("x", "adjacency")),
    "autoencoder": Kind(make_autoencoder, outputs=6),
    "forces": Kind(Forces, outputs=6),
}


def make_inputs(name: str, rows: int) -> tuple[Tensor, ...]:
    shape = MODELS[name].shape
    if name == "bag":
        return (torch.randint(7, (rows, *shape), generator=seeded(1)),)
    x = torch.randn(rows, *shape, generator=seeded(1))
    if name == "two inputs":
        return x[:, :4], x[:, 4:]
    if name == "graph":
        return x, (torch.rand(rows, rows, generator=seeded(2)) < 0.3).float()
    return (x,)


# Losses -----------------------------------------------------------------------------------------

WEIGHTS = torch.tensor([0.5, 2.0, 1.2, 0.7, 1.5, 0.9])

Pair = tuple[Tensor, Tensor | float]
"""Sum over the terms of a batch, and the sum of their weights."""


@dataclass(frozen=True)
class Cost:
    """A kind of loss.

    Args:
        make: From the number of outputs to the loss that is given to landscope.
        plain: From outputs and targets of a batch to the sums of values and of weights.
        targets: The kind of targets.
        whole: A function (model, inputs, targets) in place of ``plain``, for ``custom`` losses.
    """

    make: Callable[[int], Any]
    plain: Callable[[Tensor, Tensor], Pair] | None
    targets: str = "classes"
    whole: Callable[[Any, Any, Any], Pair] | None = None


def add_up(function: Callable[..., Tensor], **options: Any) -> Callable[[Tensor, Tensor], Pair]:
    """Return the plain sums of a loss of torch whose mean is over all of its values."""

    def sums(outputs: Tensor, targets: Tensor) -> Pair:
        values = function(outputs, targets, reduction="none", **options)
        return values.sum(), values.numel()

    return sums


def weighted_entropy(outputs: Tensor, targets: Tensor) -> Pair:
    weights = WEIGHTS[: outputs.shape[1]].to(outputs)
    picked = weights[targets]
    logs = outputs.log_softmax(dim=1)
    return -(picked * logs[torch.arange(len(targets)), targets]).sum(), picked.sum()


def smooth_entropy(outputs: Tensor, targets: Tensor) -> Pair:
    logs = outputs.log_softmax(dim=1)
    right = logs[torch.arange(len(targets)), targets]
    return -(0.9 * right + 0.1 * logs.mean(dim=1)).sum(), len(targets)


def ignoring_entropy(outputs: Tensor, targets: Tensor) -> Pair:
    mask = targets != 1
    logs = outputs.log_softmax(dim=1)[torch.arange(len(targets)), targets]
    return -(logs * mask).sum(), mask.sum()


def divergence(outputs: Tensor, targets: Tensor) -> Pair:
    shares = targets.softmax(dim=1)
    return (shares * (shares.log() - outputs.log_softmax(dim=1))).sum(), len(outputs)


def divergence_terms(outputs: Tensor, targets: Tensor) -> Tensor:
    shares = targets.softmax(dim=1)
    logs = outputs.log_softmax(dim=1)
    return F.kl_div(logs, shares, reduction="none").sum(dim=1)


def hinge(outputs: Tensor, targets: Tensor) -> Pair:
    right = outputs[torch.arange(len(targets)), targets][:, None]
    margins = (1 - right + outputs).clamp(min=0).scatter(1, targets[:, None], 0.0)
    return margins.sum() / outputs.shape[1], len(outputs)


def gaussian(outputs: Tensor, targets: Tensor) -> Pair:
    variance = 0.3 + targets**2
    values = 0.5 * (variance.log() + (outputs - targets) ** 2 / variance)
    return values.sum(), values.numel()


def gaussian_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.gaussian_nll_loss(outputs, targets, 0.3 + targets**2)


def contrast(outputs: Tensor, targets: Tensor) -> Tensor:
    """InfoNCE over the rows of the batch: a number for each row that depends on all rows."""
    near = F.normalize(outputs, dim=1) @ F.normalize(targets, dim=1).T
    return F.cross_entropy(near / 0.3, torch.arange(len(near)), reduction="none")


def mean_of_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


def call(model: Any, inputs: Any) -> Tensor:
    """Call a model on the inputs of a batch, as its author would."""
    outputs: Any = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return torch.as_tensor(outputs["logits"] if isinstance(outputs, dict) else outputs)


def take_apart(batch: Any) -> tuple[Any, Tensor]:
    """Return inputs, a tuple where there are several, and targets of a batch of any form."""
    if isinstance(batch, Mapping):
        *inputs, targets = batch.values()
    elif len(batch) == 2:
        first, targets = batch
        several = first.values() if isinstance(first, Mapping) else first
        inputs = [first] if isinstance(first, Tensor) else list(several)
    else:
        *inputs, targets = batch
    return (inputs[0] if len(inputs) == 1 else tuple(inputs)), targets


def residual(model: Any, inputs: Any) -> Tensor:
    """The residual of du/dx + u = 0 at each point, shape (n,)."""
    first, rest = (inputs[0], inputs[1:]) if isinstance(inputs, tuple) else (inputs, ())
    x = first.detach().clone().requires_grad_()
    u = call(model, (x, *rest) if rest else x)
    slope = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    return torch.as_tensor(slope.flatten(1).sum(dim=1) + u.sum(dim=1))


def residual_terms(model: nn.Module, batch: Any) -> Tensor:
    return residual(model, take_apart(batch)[0]).square()


def residual_sums(model: Any, inputs: Any, _: Any) -> Pair:
    values = residual(model, inputs).square()
    return values.sum(), len(values)


def own_terms(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """Terms with weights: each row counts as much as its target says."""
    inputs, targets = take_apart(batch)
    return (call(model, inputs) - targets).square().mean(dim=1), targets[:, 0].abs()


def own_sums(model: Any, inputs: Any, targets: Tensor) -> Pair:
    weights = targets[:, 0].abs()
    return ((call(model, inputs) - targets).square().mean(dim=1) * weights).sum(), weights.sum()


def alignment(logits: Tensor, targets: Tensor) -> Tensor:
    """CTC of three steps of log-probabilities against one label, shape (n,)."""
    steps = torch.stack([logits, logits.roll(1, 1), -logits]).log_softmax(dim=2)
    lengths = torch.full((len(targets),), 3), torch.ones(len(targets), dtype=torch.long)
    labels = targets.clamp(min=1)[:, None]
    return F.ctc_loss(steps, labels, *lengths, reduction="none")


def count(values: Tensor) -> Pair:
    return values.sum(), values.numel()


LOSSES = {
    "entropy": Cost(lambda _: nn.CrossEntropyLoss(), add_up(F.cross_entropy)),
    "weighted entropy": Cost(
        lambda k: nn.CrossEntropyLoss(weight=WEIGHTS[:k].clone()), weighted_entropy
    ),
    "smooth entropy": Cost(lambda _: nn.CrossEntropyLoss(label_smoothing=0.1), smooth_entropy),
    "ignoring entropy": Cost(lambda _: nn.CrossEntropyLoss(ignore_index=1), ignoring_entropy),
    "nll": Cost(lambda _: nn.NLLLoss(), add_up(F.nll_loss)),
    "hinge": Cost(lambda _: nn.MultiMarginLoss(), hinge),
    "number": Cost(lambda _: mean_of_entropy, add_up(F.cross_entropy)),
    "alignment": Cost(lambda _: alignment, lambda o, t: count(alignment(o, t))),
    "bce": Cost(lambda _: nn.BCEWithLogitsLoss(), add_up(F.binary_cross_entropy_with_logits), "01"),
    "bce function": Cost(
        lambda _: F.binary_cross_entropy_with_logits,
        add_up(F.binary_cross_entropy_with_logits),
        "01",
    ),
    "mse": Cost(lambda _: nn.MSELoss(), add_up(F.mse_loss), "real"),
    "huber": Cost(lambda _: nn.HuberLoss(delta=0.5), add_up(F.huber_loss, delta=0.5), "real"),
    "divergence": Cost(lambda _: divergence_terms, divergence, "real"),
    "gaussian": Cost(lambda _: gaussian_mean, gaussian, "real"),
    "contrast": Cost(lambda _: contrast, lambda o, t: count(contrast(o, t)), "real"),
    "weighted terms": Cost(lambda _: ls.losses.custom(own_terms), None, "real", own_sums),
    "pinn": Cost(lambda _: ls.losses.custom(residual_terms), None, "real", residual_sums),
}


def make_targets(kind: str, outputs: int, rows: int) -> Tensor:
    if kind == "classes":
        return torch.randint(outputs, (rows,), generator=seeded(3))
    values = torch.randn(rows, outputs, generator=seeded(4))
    return (values > 0).to(values) if kind == "01" else values


# Forms of data ----------------------------------------------------------------------------------


class Rows(Dataset[Any]):
    """A data set whose samples are what a function makes of inputs and targets of a row."""

    def __init__(self, inputs: tuple[Tensor, ...], targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> Any:
        return tuple(t[row] for t in self.inputs), self.targets[row]


class Again:
    """Batches that are made anew at each pass."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        yield from self.batches


def split_rows(inputs: tuple[Tensor, ...], targets: Tensor) -> list[Any]:
    """Return batches of 4, 4 and 3 rows as (tuple of inputs, targets)."""
    return list(zip(zip(*(t.split(4) for t in inputs), strict=True), targets.split(4), strict=True))


def _join(inputs: tuple[Any, ...]) -> Any:
    return inputs[0] if len(inputs) == 1 else inputs


def as_tensors(_: Kind, inputs: tuple[Tensor, ...], targets: Tensor) -> Any:
    return (inputs[0], targets) if len(inputs) == 1 else [(inputs, targets)]


def as_loader(_: Kind, inputs: tuple[Tensor, ...], targets: Tensor) -> Any:
    if len(inputs) == 1:
        return DataLoader(TensorDataset(*inputs, targets), batch_size=4, shuffle=True)
    return DataLoader(Rows(inputs, targets), batch_size=4)


def as_flat_tuples(_: Kind, inputs: tuple[Tensor, ...], targets: Tensor) -> Any:
    return DataLoader(TensorDataset(*inputs, targets), batch_size=4)


def as_pairs(kind: Kind, inputs: tuple[Tensor, ...], targets: Tensor) -> Any:
    if kind.make is Graph:  # a graph is one batch
        return [(inputs, targets)]
    return [(_join(i), t) for i, t in split_rows(inputs, targets)]


def as_dicts(kind: Kind, inputs: tuple[Tensor, ...], targets: Tensor) -> Any:
    names = kind.several or ("x",)
    if kind.make is Graph:
        return [{**dict(zip(names, inputs, strict=True)), "labels": targets}]
    batches = split_rows(inputs, targets)
    return [{**dict(zip(names, i, strict=True)), "labels": t} for i, t in batches]


def as_dict_pairs(kind: Kind, inputs: tuple[Tensor, ...], targets: Tensor) -> Any:
    names = kind.several or (_first_argument(kind),)
    return [(dict(zip(names, i, strict=True)), t) for i, t in split_rows(inputs, targets)]


def as_iterable(kind: Kind, inputs: tuple[Tensor, ...], targets: Tensor) -> Any:
    return Again(as_pairs(kind, inputs, targets))


def as_sparse(_: Kind, inputs: tuple[Tensor, ...], targets: Tensor) -> Any:
    if len(inputs) == 1:
        first, *others = split_rows(inputs, targets)
        return [(i[0].to_sparse(), t) for i, t in (first,)] + [
            (i[0].to_sparse_csr(), t) for i, t in others
        ]
    return [{"x": inputs[0], "adjacency": inputs[1].to_sparse_csr(), "y": targets}]


def _first_argument(kind: Kind) -> str:
    model: Any = kind.make()
    return next(iter(signature(model.forward).parameters))


FORMS: dict[str, Callable[[Kind, tuple[Tensor, ...], Tensor], Any]] = {
    "tensors": as_tensors,
    "loader": as_loader,
    "flat tuples": as_flat_tuples,
    "pairs": as_pairs,
    "dicts": as_dicts,
    "pairs with dicts": as_dict_pairs,
    "iterable": as_iterable,
    "sparse": as_sparse,
    "one row": as_pairs,
    "float64": as_pairs,
}


# The plain loop ---------------------------------------------------------------------------------


def plain_mean(model: nn.Module, cost: Cost, batches: list[tuple[Any, Tensor]]) -> Tensor:
    """The loss of a model by a plain loop: the sum over all terms by the sum of their weights."""
    pairs = []
    with sdpa_kernel(SDPBackend.MATH):  # torch's own fused attention has no second derivative
        for inputs, targets in batches:
            if cost.whole is not None:
                pairs.append(cost.whole(model, inputs, targets))
            else:
                assert cost.plain is not None
                pairs.append(cost.plain(call(model, inputs), targets))
    values, weights = zip(*pairs, strict=True)
    return torch.as_tensor(sum(values) / sum(weights))


def move(model: nn.Module, direction: Mapping[str, Tensor], step: float) -> nn.Module:
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if parameter.requires_grad:
                parameter.add_(direction[name], alpha=step)
    return moved


# The matrix -------------------------------------------------------------------------------------


def makes_sense(model: str, loss: str, form: str) -> bool:
    kind, cost = MODELS[model], LOSSES[loss]
    is_dense_only = loss == "pinn" or model not in ("mlp", "lora", "graph")
    nonsense = (
        cost.targets == "classes" and kind.outputs != CLASSES,  # reconstructions, forces
        loss == "pinn" and model in ("bag", "forces"),  # there is no derivative by their inputs
        loss in ("weighted entropy", "ignoring entropy") and model == "dict output",  # no weights
        loss == "ignoring entropy" and form == "one row",  # no terms
        form == "flat tuples" and not kind.several,  # the same as a loader
        form == "sparse" and is_dense_only,
        form == "float64" and model == "bag",
        model == "graph" and form in ("loader", "flat tuples", "iterable", "pairs with dicts"),
    )
    return not any(nonsense)


def list_combinations() -> list[tuple[str, str, str]]:
    """Every model with every loss that suits it, each pair with three of the forms in turn."""
    chosen = []
    for number, (model, loss) in enumerate(itertools.product(MODELS, LOSSES)):
        forms = [f for f in FORMS if makes_sense(model, loss, f)]
        turns = sorted({(number + k * 2) % len(forms) for k in range(3)}) if forms else []
        chosen += [(model, loss, forms[k]) for k in turns]
    return chosen


COMBINATIONS = list_combinations()


def wrap(loss: Any, model: str) -> Any:
    """Return the loss for a model with a dict of outputs: a function that takes the logits."""
    if model != "dict output" or isinstance(loss, type(ls.losses.custom(own_terms))):
        return loss
    if isinstance(loss, nn.Module):
        single = copy.copy(loss)
        single.reduction = "none"  # type: ignore[assignment]  # losses of torch have it
        return lambda outputs, targets: single(outputs["logits"], targets)
    if loss is F.binary_cross_entropy_with_logits:
        return lambda outputs, targets: loss(outputs["logits"], targets, reduction="none")
    return lambda outputs, targets: loss(outputs["logits"], targets)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")  # of torch
@pytest.mark.parametrize(
    ("name", "loss_name", "form"), [pytest.param(*c, id=", ".join(c)) for c in COMBINATIONS]
)
def test_a_combination_has_the_values_of_a_plain_loop(name: str, loss_name: str, form: str) -> None:
    kind, cost = MODELS[name], LOSSES[loss_name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind.make().eval()
    rows = 1 if form == "one row" else ROWS
    inputs, targets = make_inputs(name, rows), make_targets(cost.targets, kind.outputs, rows)
    if form == "float64":
        model, inputs = model.double(), tuple(t.double() for t in inputs)
        targets = targets.double() if targets.is_floating_point() else targets
    data = FORMS[form](kind, inputs, targets)
    objective = ls.Objective(model, wrap(cost.make(kind.outputs), name), data)
    check(objective, model, cost, [take_apart(b) for b in iter_batches(data)])


def iter_batches(data: Any) -> Any:
    """Return the batches of any form of data, in the order of the data set."""
    if isinstance(data, DataLoader):
        return DataLoader(data.dataset, batch_size=data.batch_size)
    return [data] if isinstance(data, tuple) else data


def check(objective: ls.Objective, model: nn.Module, cost: Cost, batches: Any) -> None:
    """Check loss, terms, gradient and two points of a line against the plain loop."""
    expected = plain_mean(model, cost, batches)
    value = pytest.approx(expected.item(), rel=TOLERANCE)
    assert objective.loss() == value
    try:
        mean = float(objective.terms().mean())
    except ls.errors.ObjectiveError as error:
        assert "one number for each batch" in str(error)  # noqa: PT017 - a right answer, too
    else:
        assert mean == value
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(expected, list(trainable.values()), allow_unused=True)
    gradient = objective.gradient()
    right = {
        n: torch.zeros_like(p) if g is None else g.to_dense()
        for (n, p), g in zip(trainable.items(), slopes, strict=True)
    }
    difference = ls.params.norm({n: gradient[n] - g for n, g in right.items()})
    assert difference <= TOLERANCE * max(ls.params.norm(right), 1e-3)
    (direction,) = ls.directions.random(objective.center, 1, seed=1)
    land = ls.scan(objective, ls.Line(objective.center, direction), ls.Grid(2, (-0.5, 0.5)))
    values = [plain_mean(move(model, direction, s), cost, batches).item() for s in (-0.5, 0.5)]
    assert land.data["loss"].values == pytest.approx(values, rel=TOLERANCE)


def test_the_matrix_has_twelve_kinds_of_each_and_three_hundred_combinations() -> None:
    assert len(MODELS) >= 12
    assert len(LOSSES) >= 12
    assert len(FORMS) >= 8
    assert len(COMBINATIONS) == len(set(COMBINATIONS)) >= 300
