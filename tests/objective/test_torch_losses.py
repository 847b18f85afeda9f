from __future__ import annotations

import functools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscope import losses
from landscope.errors import ObjectiveError
from landscope.objective import torch_losses
from landscope.objective.loss_terms import Loss
from landscope.objective.torch_losses import as_loss

torch_rng = torch.Generator().manual_seed(11)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch_rng, dtype=torch.float64)


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch_rng, dtype=torch.float64)


CLASSES = torch.tensor([0, 1, 2, 3, 0, 2, 1, 3])
HOLES = torch.tensor([0, 1, -100, 3, 0, -100, -100, 3])
TOKENS = torch.stack([CLASSES, CLASSES.flip(0), HOLES], dim=1)  # [8, 3]
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 3.5], dtype=torch.float64)
PROBABILITIES = normal(8, 4).softmax(dim=1)
LOGITS, LINES = normal(8, 4), normal(8, 4, 3)
REAL, OTHER = normal(8, 2, 3), normal(8, 2, 3)
SIGNS = torch.tensor([1.0, -1, 1, 1, -1, -1, 1, -1]).double()
YES = torch.tensor([1.0, 0, 1, 1, 0, 0, 1, 0]).double()
LOG = LOGITS.log_softmax(dim=1)

partial = functools.partial
TABLE: list[tuple[str, Any, Tensor, Tensor]] = [
    ("cross entropy", nn.CrossEntropyLoss(), LOGITS, CLASSES),
    ("weights", nn.CrossEntropyLoss(weight=WEIGHT), LOGITS, CLASSES),
    ("holes", nn.CrossEntropyLoss(), LOGITS, HOLES),
    ("ignored class", nn.CrossEntropyLoss(ignore_index=2), LOGITS, CLASSES),
    ("smoothing", nn.CrossEntropyLoss(label_smoothing=0.2), LOGITS, CLASSES),
    (
        "all three",
        nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1, label_smoothing=0.3),
        LOGITS,
        CLASSES,
    ),
    ("probabilities", nn.CrossEntropyLoss(), LOGITS, PROBABILITIES),
    ("weighted probabilities", nn.CrossEntropyLoss(weight=WEIGHT), LOGITS, PROBABILITIES),
    ("smooth probabilities", nn.CrossEntropyLoss(label_smoothing=0.1), LOGITS, PROBABILITIES),
    ("tokens", nn.CrossEntropyLoss(), LINES, TOKENS),
    ("weighted tokens", nn.CrossEntropyLoss(weight=WEIGHT), LINES, TOKENS),
    ("token probabilities", nn.CrossEntropyLoss(), LINES, normal(8, 4, 3).softmax(dim=1)),
    ("nll", nn.NLLLoss(), LOG, CLASSES),
    ("nll, weights, holes", nn.NLLLoss(weight=WEIGHT), LOG, HOLES),
    ("mse", nn.MSELoss(), REAL, OTHER),
    ("l1", nn.L1Loss(), REAL, OTHER),
    ("smooth l1", nn.SmoothL1Loss(beta=0.5), REAL, OTHER),
    ("huber", nn.HuberLoss(delta=0.7), REAL, OTHER),
    ("bce", nn.BCELoss(), uniform(8, 3), uniform(8, 3)),
    ("bce with logits", nn.BCEWithLogitsLoss(), LOGITS, PROBABILITIES),
    ("bce, positive", nn.BCEWithLogitsLoss(pos_weight=WEIGHT), LOGITS, PROBABILITIES),
    ("bce, one logit", nn.BCEWithLogitsLoss(), normal(8), YES),
    ("kl batchmean", nn.KLDivLoss(reduction="batchmean"), LOG, PROBABILITIES),
    ("kl of logs", nn.KLDivLoss(reduction="batchmean", log_target=True), LOG, LOG.roll(1, 0)),
    ("poisson", nn.PoissonNLLLoss(full=True), normal(8, 2), 3 * uniform(8, 2)),
    ("multi margin", nn.MultiMarginLoss(weight=WEIGHT), LOGITS, CLASSES),
    ("soft margin", nn.SoftMarginLoss(), normal(8), SIGNS),
    ("hinge embedding", nn.HingeEmbeddingLoss(), normal(8), SIGNS),
    ("multi-label soft margin", nn.MultiLabelSoftMarginLoss(), LOGITS, (LOG > -1).double()),
    ("F.cross_entropy", F.cross_entropy, LOGITS, CLASSES),
    ("F.cross_entropy, holes", F.cross_entropy, LOGITS, HOLES),
    ("F.nll_loss", F.nll_loss, LOG, HOLES),
    ("F.mse_loss", F.mse_loss, REAL, OTHER),
    ("F.l1_loss", F.l1_loss, REAL, OTHER),
    ("F.soft_margin_loss", F.soft_margin_loss, normal(8), SIGNS),
    (
        "partial F.cross_entropy",
        partial(F.cross_entropy, weight=WEIGHT, label_smoothing=0.2, ignore_index=1),
        LOGITS,
        CLASSES,
    ),
    ("partial F.huber_loss", partial(F.huber_loss, delta=0.3), REAL, OTHER),
    ("F.kl_div batchmean", partial(F.kl_div, reduction="batchmean"), LOG, PROBABILITIES),
    ("per sample", lambda o, t: (o - t).square().flatten(1).mean(dim=1), REAL, OTHER),
    ("scalar", lambda o, t: (o - t).abs().mean(), REAL, OTHER),
]
each_loss = pytest.mark.parametrize(
    ("given", "outputs", "targets"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)


def mean_over(loss: Loss, outputs: Tensor, targets: Tensor, *sizes: int) -> float:
    """Return sum(values) / sum(weights) over batches of these sizes."""
    batches = zip(outputs.split(list(sizes)), targets.split(list(sizes)), strict=True)
    terms = [loss(o, t) for o, t in batches]
    values = torch.cat([t.values for t in terms])
    weights = torch.cat([t.weights for t in terms])
    assert values.shape == weights.shape
    assert values.ndim == 1
    return float(values.sum() / weights.sum())


@each_loss
@pytest.mark.parametrize("sizes", [(8,), (5, 3), (1, 6, 1)])
def test_the_mean_over_uneven_batches_is_torchs_mean_over_all_rows(
    given: Any, outputs: Tensor, targets: Tensor, sizes: tuple[int, ...]
) -> None:
    expected = given(outputs, targets)
    expected = float(expected.mean())  # one number but for the lambda that gives one a sample
    found = mean_over(as_loss(given), outputs, targets, *sizes)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("module", [nn.MSELoss, nn.L1Loss])
def test_a_sum_is_summed_in_a_sample_and_averaged_over_samples(module: Any) -> None:
    expected = float(module(reduction="sum")(REAL, OTHER)) / 8
    assert mean_over(as_loss(module(reduction="sum")), REAL, OTHER, 5, 3) == pytest.approx(
        expected, rel=1e-12
    )
    whole = as_loss(nn.CrossEntropyLoss(reduction="sum"))
    expected = float(F.cross_entropy(LOGITS, CLASSES, reduction="sum")) / 8
    assert mean_over(whole, LOGITS, CLASSES, 5, 3) == pytest.approx(expected, rel=1e-12)


def test_a_loss_module_is_left_as_it_was() -> None:
    module = nn.CrossEntropyLoss()
    as_loss(module)(LOGITS, CLASSES)
    assert module.reduction == "mean"


def test_a_term_of_a_batch_of_ignored_targets_counts_nothing() -> None:
    terms = as_loss(nn.CrossEntropyLoss())(LOGITS[:2], torch.tensor([-100, -100]))
    assert terms.values.tolist() == [0.0, 0.0]
    assert terms.weights.tolist() == [0.0, 0.0]


def test_a_single_sample_without_a_batch_axis_is_one_term() -> None:
    terms = as_loss(nn.CrossEntropyLoss())(LOGITS[0], CLASSES[0])
    assert terms.values.item() == pytest.approx(float(F.cross_entropy(LOGITS[:1], CLASSES[:1])))
    assert as_loss(nn.MSELoss())(LOGITS[0, 0], LOGITS[1, 1]).weights.tolist() == [1.0]


@pytest.mark.parametrize(
    ("given", "name", "units", "per_batch"),
    [
        (nn.CrossEntropyLoss(), "CrossEntropy", "nat", False),
        (F.cross_entropy, "CrossEntropy", "nat", False),
        (nn.MSELoss(), "MSE", "", False),
        (nn.BCEWithLogitsLoss(), "BCEWithLogits", "nat", False),
        (F.mse_loss, "mse_loss", "", False),
        (torch.dist, "dist", "", True),
    ],
)
def test_a_loss_has_a_name_and_units(given: Any, name: str, units: str, per_batch: bool) -> None:
    loss = as_loss(given)
    assert (loss.name, loss.units, loss.per_batch) == (name, units, per_batch)
    assert as_loss(given, "mine").name == "mine"
    assert as_loss(loss) is loss
    assert as_loss(loss, "mine").name == "mine"


def test_losses_that_differ_in_a_setting_have_different_identities() -> None:
    given = [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(ignore_index=0),
        nn.CrossEntropyLoss(weight=WEIGHT),
        nn.KLDivLoss(reduction="batchmean"),
        nn.KLDivLoss(reduction="sum"),
        nn.HuberLoss(delta=1.0),
        nn.HuberLoss(delta=2.0),
        F.cross_entropy,
        partial(F.cross_entropy, weight=WEIGHT),
        partial(F.cross_entropy, weight=WEIGHT + 1e-12),
    ]
    assert len({as_loss(loss).identity for loss in given}) == len(given)


def test_an_object_that_cannot_be_hashed_may_be_a_loss() -> None:
    @dataclass
    class Scaled:
        factor: float

        def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return self.factor * (outputs - targets).abs().mean()

    expected = 3 * float((REAL - OTHER).abs().mean())
    loss = as_loss(Scaled(3.0))
    assert loss.name == "Scaled"
    assert mean_over(loss, REAL, OTHER, 5, 3) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("given", ["mse", None, 3.0, torch.zeros(2)])
def test_a_loss_that_cannot_be_called_is_refused(given: Any) -> None:
    with pytest.raises(ObjectiveError, match="expected a torch loss such as"):
        as_loss(given)


@pytest.mark.parametrize("given", ["text", None, (1.0, 2.0), torch.zeros(2, dtype=torch.complex64)])
def test_what_is_no_number_is_refused(given: Any) -> None:
    with pytest.raises(ObjectiveError, match=r"loss 'odd' returned (a|None).*; expected a num"):
        as_loss(lambda o, t: given, "odd")(LOGITS, CLASSES)


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), F.mse_loss, losses.accuracy, losses.softmax_mse]
)
@pytest.mark.parametrize("outputs", [{"logits": LOGITS}, (LOGITS, None)])
def test_outputs_in_which_a_loss_finds_no_tensor_are_named(loss: Any, outputs: Any) -> None:
    with pytest.raises(ObjectiveError, match=r"returned a (dict|tuple), .*ls\.losses\.token"):
        as_loss(loss)(outputs, CLASSES)


@pytest.mark.filterwarnings("ignore:Using a target size")  # torch sees it too, and goes on
@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.PoissonNLLLoss(), F.l1_loss])
def test_rows_that_torch_would_compare_with_all_others_are_refused(loss: Any) -> None:
    """The mean would depend on the batches: [n, 1] against [n] is n x n differences."""
    outputs, targets = normal(6, 1), normal(6)
    with pytest.raises(ObjectiveError, match=r"outputs have the shape \(6, 1\) and targets \(6,\)"):
        as_loss(loss)(outputs, targets)
    found = as_loss(loss)(outputs, targets[:, None])
    assert float(found.values.sum() / found.weights.sum()) == pytest.approx(
        float(loss(outputs[:, 0], targets))
    )


def test_a_plain_number_or_whole_numbers_are_taken() -> None:
    terms = as_loss(lambda o, t: 2.5)(LOGITS, CLASSES)
    assert (terms.values.tolist(), terms.weights.tolist()) == ([20.0], [8.0])
    counts = as_loss(lambda o, t: o.argmax(dim=1) != t)(LOGITS, CLASSES)
    assert float(counts.values.mean()) == float((LOGITS.argmax(1) != CLASSES).double().mean())


@pytest.mark.parametrize(
    "outputs",
    [LOGITS, {"logits": LOGITS, "hidden": REAL[:1]}, (LOGITS, REAL[:1]), [[LOGITS]]],
    ids=["tensor", "mapping", "tuple", "nested"],
)
def test_samples_are_counted_in_the_first_tensor(outputs: Any) -> None:
    assert torch_losses.count_samples(outputs) == 8


def test_samples_of_a_single_number_are_one_and_of_an_object_unknown() -> None:
    assert torch_losses.count_samples(torch.tensor(3.0)) == 1
    with pytest.raises(ObjectiveError, match="the model returned a SimpleNamespace, in which"):
        torch_losses.count_samples(SimpleNamespace(logits=LOGITS))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 2}])
@pytest.mark.parametrize("weighted", [False, True])
def test_many_rows_of_few_classes_have_the_terms_of_torch(
    options: dict[str, Any], weighted: bool
) -> None:
    outputs, targets = 3 * normal(100, 5), torch.arange(100) % 5
    weight = torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64) if weighted else None
    loss = nn.CrossEntropyLoss(weight=weight, **options)
    terms = as_loss(loss)(outputs, targets)
    expected = F.cross_entropy(outputs, targets, weight, reduction="none", **options)
    torch.testing.assert_close(terms.values, expected)
    if not (weighted and options.get("label_smoothing")):
        mean = terms.values.sum() / terms.weights.sum()
        torch.testing.assert_close(mean, loss(outputs, targets))


# ----------------------------------------------------------------------------------- custom


def test_a_custom_loss_gives_one_term_a_value() -> None:
    loss = losses.custom(lambda model, batch: model(batch), name="mine", units="m")
    found = loss(nn.Identity(), REAL)
    assert (loss.name, loss.units) == ("mine", "m")
    assert found.values.tolist() == REAL.reshape(-1).tolist()
    assert found.weights.tolist() == [1.0] * REAL.numel()


def test_a_custom_loss_may_say_how_much_each_term_counts() -> None:
    kept = HOLES >= 0

    def terms(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
        each = F.cross_entropy(model(batch), HOLES, reduction="none")
        return each, kept

    found = losses.custom(terms)(nn.Identity(), LOGITS)
    mean = float(found.values.sum() / found.weights.sum())
    assert mean == pytest.approx(float(F.cross_entropy(LOGITS, HOLES)), rel=1e-12)


def test_a_custom_loss_is_made_of_a_function() -> None:
    with pytest.raises(ObjectiveError, match="terms='mse'; expected a function"):
        losses.custom("mse")  # type: ignore[arg-type]
