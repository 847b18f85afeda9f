"""Every loss of ``torch.nn`` with its options, against torch itself on all the data at once."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import loss as torch_modules

from landscope import Objective, losses
from landscope.errors import ObjectiveError

rng = torch.Generator().manual_seed(7)
N = 13  # rows, in batches of 5, 5 and 3


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=rng, dtype=torch.float64)


def indices(*shape: int, high: int = 4) -> Tensor:
    return torch.randint(high, shape, generator=rng)


class Given(nn.Module):
    """A model whose inputs are its outputs; of several inputs, [n, k, ...], a tuple."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.kind = kind

    def forward(self, inputs: Tensor) -> Any:
        outputs = inputs * self.scale
        if self.kind == "several":
            return tuple(outputs.unbind(dim=1))
        return outputs.transpose(0, 1) if self.kind == "time first" else outputs


LOGITS, LINES, IMAGES = normal(N, 4), normal(N, 4, 3), normal(N, 4, 2, 3)
CLASSES, WORDS, MASKS = indices(N), indices(N, 3), indices(N, 2, 3)
HOLES, IGNORED = CLASSES.clone(), WORDS.clone()
HOLES[::3], IGNORED[:, 0] = -100, 255
SOFT = normal(N, 4).softmax(1)
WEIGHT = torch.tensor([0.0, 1.0, 2.0, 3.5], dtype=torch.float64)
REAL, OTHER, COUNTS = normal(N, 2, 3), normal(N, 2, 3), 3 * uniform(N, 2, 3)
SHARES, YES = uniform(N, 4), indices(N, 4, high=2).double()
SIGNS = 2.0 * indices(N, high=2).double() - 1
RANKED = torch.where(torch.arange(4) < 2, normal(N, 4).argsort(dim=1), -1)
PAIRS, TRIPLES = normal(N, 2, 5), normal(N, 3, 5)
SCORES = normal(N, 2)
MEANS = torch.stack([normal(N, 3), uniform(N, 3) + 0.1], dim=1)

CASES: list[tuple[str, dict[str, Any], Tensor, Tensor]] = [
    *(
        ("CrossEntropyLoss", options, outputs, targets)
        for options in (
            {},
            {"weight": WEIGHT},
            {"ignore_index": 255},
            {"label_smoothing": 0.2},
            {"weight": WEIGHT, "ignore_index": 255, "label_smoothing": 0.3},
        )
        for outputs, targets in (
            (LOGITS, CLASSES), (LINES, WORDS), (LINES, IGNORED), (IMAGES, MASKS), (LOGITS, SOFT)
        )
        if targets is not IGNORED or "ignore_index" in options
        if targets is not SOFT or "ignore_index" not in options
    ),
    ("CrossEntropyLoss", {}, LOGITS, HOLES),
    ("CrossEntropyLoss", {"ignore_index": 2}, LOGITS, CLASSES),
    ("CrossEntropyLoss", {"weight": WEIGHT + 1, "ignore_index": -100}, LOGITS, HOLES),
    ("NLLLoss", {}, LOGITS.log_softmax(1), HOLES),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 255}, LINES.log_softmax(1), IGNORED),
    *(("PoissonNLLLoss", {"log_input": log, "full": full}, REAL.abs(), COUNTS)
      for log in (True, False) for full in (True, False)),
    ("PoissonNLLLoss", {"log_input": False, "eps": 0.1}, REAL.abs(), COUNTS),
    *(("GaussianNLLLoss", {"full": full}, MEANS, normal(N, 3)) for full in (True, False)),
    ("GaussianNLLLoss", {"eps": 0.5}, MEANS, normal(N, 3)),
    *(("KLDivLoss", {"log_target": log, "reduction": how}, LOGITS.log_softmax(1), SOFT.log() if log
       else SOFT) for log in (True, False) for how in ("mean", "batchmean")),
    ("MSELoss", {}, REAL, OTHER),
    ("L1Loss", {}, REAL, OTHER),
    ("SmoothL1Loss", {}, REAL, OTHER),
    ("SmoothL1Loss", {"beta": 0.3}, REAL, OTHER),
    ("HuberLoss", {"delta": 0.3}, REAL, OTHER),
    ("BCELoss", {}, SHARES, YES),
    ("BCELoss", {"weight": WEIGHT}, SHARES, YES),
    ("BCEWithLogitsLoss", {}, LOGITS, YES),
    ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT + 1}, LOGITS, SHARES),
    ("HingeEmbeddingLoss", {}, normal(N), SIGNS),
    ("HingeEmbeddingLoss", {"margin": 0.2}, normal(N), SIGNS),
    ("MultiLabelMarginLoss", {}, LOGITS, RANKED),
    ("SoftMarginLoss", {}, LOGITS, 2 * YES - 1),
    ("MultiLabelSoftMarginLoss", {}, LOGITS, YES),
    ("MultiLabelSoftMarginLoss", {"weight": WEIGHT}, LOGITS, YES),
    ("CosineEmbeddingLoss", {}, PAIRS, SIGNS),
    ("CosineEmbeddingLoss", {"margin": 0.4}, PAIRS, SIGNS),
    ("MarginRankingLoss", {"margin": 0.4}, SCORES, SIGNS),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5}, LOGITS, CLASSES),
    ("MultiMarginLoss", {"weight": WEIGHT}, LOGITS, CLASSES),
    ("TripletMarginLoss", {"margin": 3.0, "p": 1.0, "swap": True}, TRIPLES, SIGNS),
    ("TripletMarginWithDistanceLoss", {"margin": 3.0, "swap": True}, TRIPLES, SIGNS),
]  # fmt: skip
SEVERAL = {
    "CosineEmbeddingLoss", "MarginRankingLoss", "TripletMarginLoss",
    "TripletMarginWithDistanceLoss", "GaussianNLLLoss",
}  # fmt: skip


def call(module: Any, outputs: Any, targets: Tensor) -> Tensor:
    """Return a loss by its documented arguments."""
    name = type(module).__name__
    if name == "GaussianNLLLoss":
        return torch.as_tensor(module(outputs[0], targets, outputs[1]))
    if name.startswith("Triplet"):
        return torch.as_tensor(module(*outputs))
    outputs = outputs if name in SEVERAL else (outputs,)
    return torch.as_tensor(module(*outputs, targets))


def make_objective(loss: Any, inputs: Tensor, targets: Any, kind: str = "one") -> Objective:
    return Objective(Given(kind), loss, (inputs, targets), batch_size=5)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")  # of KLDivLoss
@pytest.mark.parametrize(
    ("name", "options", "inputs", "targets"),
    CASES,
    ids=[f"{c[0]} {','.join(c[1])} {tuple(c[3].shape)} {k}" for k, c in enumerate(CASES)],
)
def test_loss_and_terms_are_torchs_mean_over_all_rows(
    name: str, options: dict[str, Any], inputs: Tensor, targets: Tensor
) -> None:
    module = getattr(nn, name)(**options)
    kind = "several" if name in SEVERAL else "one"
    expected = float(call(module, Given(kind)(inputs), targets).detach())
    objective = make_objective(module, inputs, targets, kind)
    assert objective.loss() == pytest.approx(expected, rel=1e-10)
    assert float(objective.terms().mean()) == pytest.approx(expected, rel=1e-10)
    assert objective.notes == ()
    gradient = float(objective.gradient()["scale"])
    whole = Given(kind)
    call(module, whole(inputs), targets).backward()
    assert whole.scale.grad is not None
    assert gradient == pytest.approx(float(whole.scale.grad), rel=1e-9, abs=1e-12)


def test_the_table_has_every_loss_of_torch() -> None:
    elsewhere = {"CTCLoss", "NLLLoss2d", "LinearCrossEntropyLoss"}  # 2d is a deprecated NLLLoss
    assert {case[0] for case in CASES} | elsewhere >= set(torch_modules.__all__)


@pytest.mark.parametrize("zero_infinity", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_ctc_takes_its_lengths_with_the_targets(zero_infinity: bool, flat: bool) -> None:
    inputs = normal(N, 9, 5).log_softmax(dim=-1)
    lengths, targets = indices(N, high=3) + 1, indices(N, 3) + 1
    steps = torch.full((N,), 9)
    module = nn.CTCLoss(zero_infinity=zero_infinity)
    expected = float(module(inputs.transpose(0, 1), targets, steps, lengths))

    def batch(rows: slice) -> Any:
        words = targets[rows]
        if flat:
            words = torch.cat([w[:n] for w, n in zip(words, lengths[rows], strict=True)])
        return inputs[rows], (words, steps[rows], lengths[rows])

    data = [batch(slice(0, 8)), batch(slice(8, N))]
    objective = Objective(Given("time first"), module, data)
    assert objective.loss() == pytest.approx(expected, rel=1e-10)
    assert float(objective.terms().mean()) == pytest.approx(expected, rel=1e-10)
    with pytest.raises(ObjectiveError, match=r"CTCLoss takes \(targets, input_lengths, target_"):
        Objective(Given("time first"), module, [(inputs, targets)]).loss()


FUNCTIONS: list[tuple[Any, Tensor, Tensor]] = [
    (functools.partial(F.cross_entropy, ignore_index=255), LINES, IGNORED),
    (functools.partial(F.nll_loss, weight=WEIGHT), LOGITS.log_softmax(1), CLASSES),
    (F.binary_cross_entropy, SHARES, YES),
    (functools.partial(F.binary_cross_entropy_with_logits, pos_weight=WEIGHT), LOGITS, YES),
    (functools.partial(F.poisson_nll_loss, full=True), REAL, COUNTS),
    (F.multi_margin_loss, LOGITS, CLASSES),
    (F.multilabel_margin_loss, LOGITS, RANKED),
    (F.multilabel_soft_margin_loss, LOGITS, YES),
    (F.hinge_embedding_loss, normal(N), SIGNS),
    (F.soft_margin_loss, normal(N), SIGNS),
    (F.smooth_l1_loss, REAL, OTHER),
    (F.huber_loss, REAL, OTHER),
    (functools.partial(F.kl_div, reduction="batchmean"), LOGITS.log_softmax(1), SOFT),
]


def test_functions_of_several_outputs_are_means_over_all_rows() -> None:
    functions: list[tuple[Any, Tensor, Tensor, Any]] = [
        (F.gaussian_nll_loss, MEANS, REAL[:, 0], lambda o, t: (o[:, 0], t, o[:, 1])),
        (F.cosine_embedding_loss, PAIRS, SIGNS, lambda o, t: (o[:, 0], o[:, 1], t)),
        (F.margin_ranking_loss, SCORES, SIGNS, lambda o, t: (o[:, 0], o[:, 1], t)),
        (
            functools.partial(F.triplet_margin_loss, margin=3),
            TRIPLES,
            SIGNS,
            lambda o, t: o.unbind(1),
        ),
    ]
    for function, inputs, targets, arrange in functions:
        objective = make_objective(function, inputs, targets, "several")
        expected = float(function(*arrange(inputs, targets)))
        assert objective.loss() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("function", "inputs", "targets"), FUNCTIONS)
def test_functions_of_torch_are_means_over_all_rows(
    function: Any, inputs: Tensor, targets: Tensor
) -> None:
    objective = make_objective(function, inputs, targets)
    expected = float(function(inputs, targets))
    assert objective.loss() == pytest.approx(expected, rel=1e-10)
    assert float(objective.terms().mean()) == pytest.approx(expected, rel=1e-10)


# ------------------------------------------------------------------------- reductions and weights


@pytest.mark.parametrize(
    ("loss", "inputs", "targets"),
    [
        (nn.CrossEntropyLoss(reduction="sum"), LOGITS, HOLES),
        (nn.CrossEntropyLoss(reduction="sum", weight=WEIGHT), LINES, WORDS),
        (nn.MSELoss(reduction="sum"), REAL, OTHER),
        (nn.KLDivLoss(reduction="sum"), LOGITS.log_softmax(1), SOFT),
        (functools.partial(F.l1_loss, reduction="sum"), REAL, OTHER),
        (functools.partial(F.cross_entropy, reduction="sum"), LINES, WORDS),
    ],
)
def test_a_sum_is_averaged_over_samples_and_noted(
    loss: Any, inputs: Tensor, targets: Tensor
) -> None:
    objective = make_objective(loss, inputs, targets)
    assert objective.loss() == pytest.approx(float(loss(inputs, targets)) / N, rel=1e-10)
    assert "reduction='sum'" in objective.notes[0]
    assert "averaged over the samples" in objective.notes[0]


def test_the_options_of_old_versions_of_torch_mean_the_same() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        total, single = nn.MSELoss(size_average=False), nn.MSELoss(reduce=False)
    objective = make_objective(total, REAL, OTHER)
    assert objective.loss() == pytest.approx(float((REAL - OTHER).square().sum()) / N)
    assert "reduction='sum'" in objective.notes[0]
    objective = make_objective(single, REAL, OTHER)
    assert objective.loss() == pytest.approx(float((REAL - OTHER).square().mean()))
    assert objective.notes == ()


def test_no_reduction_is_a_mean_and_with_class_weights_a_weighted_one() -> None:
    loss = nn.CrossEntropyLoss(weight=WEIGHT, reduction="none")
    objective = make_objective(loss, LOGITS, CLASSES)
    expected = float(nn.CrossEntropyLoss(weight=WEIGHT)(LOGITS, CLASSES))
    assert objective.loss() == pytest.approx(expected, rel=1e-10)
    assert "their weighted mean" in objective.notes[0]
    plain = make_objective(nn.CrossEntropyLoss(reduction="none"), LOGITS, HOLES)
    assert plain.loss() == pytest.approx(float(F.cross_entropy(LOGITS, HOLES)), rel=1e-10)
    assert plain.notes == ()


def test_weights_of_the_rows_of_a_batch_are_refused() -> None:
    """torch repeats them in every batch, whichever samples it has."""
    for module in (nn.BCELoss(weight=uniform(5, 1)), nn.BCEWithLogitsLoss(weight=uniform(5, 4))):
        with pytest.raises(ObjectiveError, match="a weight for each row of a batch"):
            make_objective(module, SHARES[:5], YES[:5]).loss()


def test_label_smoothing_gives_a_class_of_weight_0_a_loss_but_no_weight() -> None:
    loss = nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.4)
    objective = make_objective(loss, LOGITS, CLASSES)
    assert (CLASSES == 0).any()
    single = F.cross_entropy(LOGITS, CLASSES, WEIGHT, reduction="none", label_smoothing=0.4)
    expected = single / WEIGHT[CLASSES].mean()
    torch.testing.assert_close(objective.terms(), expected, rtol=1e-10, atol=0)


# ------------------------------------------------------------------------- classes, and outputs


@pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyLoss"), reason="since torch 2.13")
@pytest.mark.parametrize("ignored", [None, 2])
def test_a_loss_with_a_layer_of_its_own_keeps_it_where_it_is(ignored: int | None) -> None:
    loss = nn.LinearCrossEntropyLoss(4, 4, ignore_index=ignored, dtype=torch.float64)
    objective = make_objective(loss, LOGITS, CLASSES)
    expected = float(loss(LOGITS, CLASSES).detach())
    assert objective.loss() == pytest.approx(expected, rel=1e-10)
    assert float(objective.terms().mean()) == pytest.approx(expected, rel=1e-10)
    assert "LinearCrossEntropyLoss has trainable parameters, which stay" in objective.notes[0]
    with pytest.raises(ObjectiveError, match="outputs are features"):
        Objective(Given("one"), loss, (LOGITS, CLASSES), metrics={"a": losses.accuracy}).evaluate()


class Renamed(nn.CrossEntropyLoss):
    """A class of the user that sets an option."""

    def __init__(self) -> None:
        super().__init__(ignore_index=255)


class Halved(nn.CrossEntropyLoss):
    """A class of the user that computes something else."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().forward(outputs, targets) / 2


def test_a_class_of_the_user_is_read_by_its_forward() -> None:
    objective = make_objective(Renamed(), LINES, IGNORED)
    expected = F.cross_entropy(LINES, IGNORED, ignore_index=255)
    assert objective.loss() == pytest.approx(float(expected), rel=1e-10)
    halved = make_objective(Halved(), LOGITS, CLASSES)
    assert halved.loss() == pytest.approx(float(F.cross_entropy(LOGITS, CLASSES)) / 2, rel=1e-10)
    assert halved.problem.loss.per_batch


@pytest.mark.parametrize("name", sorted(SEVERAL))
def test_a_loss_of_several_outputs_says_what_it_takes(name: str) -> None:
    with pytest.raises(ObjectiveError, match=rf"{name} takes a tuple \("):
        make_objective(getattr(nn, name)(), LOGITS, CLASSES).loss()
    accuracy = {"accuracy": losses.accuracy}
    inputs = MEANS if name == "GaussianNLLLoss" else TRIPLES[:, :2]
    inputs = TRIPLES if name.startswith("Triplet") else inputs
    targets = normal(N, 3) if name == "GaussianNLLLoss" else SIGNS[:, None].expand(N, 5)
    targets = SIGNS if name == "CosineEmbeddingLoss" else targets
    objective = Objective(
        Given("several"), getattr(nn, name)(), (inputs, targets), metrics=accuracy
    )
    with pytest.raises(ObjectiveError, match="has no classes for this metric"):
        objective.evaluate()


def test_the_arguments_of_the_losses_are_those_of_the_table() -> None:
    """A new argument of torch would need a new row."""
    several = {
        name
        for name in torch_modules.__all__
        if len(inspect.signature(getattr(torch_modules, name).forward).parameters) > 3
    }
    assert several == SEVERAL | {"CTCLoss"}
