"""Metrics read outputs and targets as the loss does; the witness is a loop over single predictions.

The loops below know what the documentation of torch says about each loss, and nothing of landscope.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscope import Objective, losses
from landscope.errors import ObjectiveError
from landscope.objective.loss_terms import Loss
from landscope.objective.metrics import accuracy
from landscope.params import Params

torch_rng = torch.Generator().manual_seed(3)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch_rng, dtype=torch.float64)


def whole(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=torch_rng)


class Given(nn.Module):
    """A model whose inputs are its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs + self.zero


def measure(loss: Any, outputs: Tensor, targets: Tensor, metric: Any = losses.accuracy) -> float:
    """Return a metric by an objective, over batches of 5 and fewer rows."""
    objective = Objective(
        Given(), loss, (outputs, targets), metrics={"metric": metric}, batch_size=5
    )
    return objective.evaluate()["metric"]


def percent(hits: list[bool]) -> float:
    return 100.0 * sum(hits) / len(hits)


def by_class(outputs: Tensor, targets: Tensor, ignored: int | None = None) -> float:
    """Return the percentage of rows, with classes last, whose largest output is the target."""
    rows = zip(outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1).tolist(), strict=True)
    return percent([int(o.argmax()) == t for o, t in rows if t != ignored])


def by_label(outputs: Tensor, yes: Tensor, threshold: float) -> float:
    pairs = zip(outputs.reshape(-1).tolist(), yes.reshape(-1).tolist(), strict=True)
    return percent([(o > threshold) == bool(t) for o, t in pairs])


LOGITS, CLASSES = normal(23, 4), whole(4, 23)
HOLES = CLASSES.where(torch.arange(23) % 3 != 0, -100)
PIXELS, MASKS = normal(7, 3, 4, 2), whole(3, 7, 4, 2)
LINES, WORDS = normal(11, 6, 4), whole(4, 11, 6)  # [b, t, c]
ONE, YES = normal(23), whole(2, 23).double()
MANY, LABELS = normal(23, 4), whole(2, 23, 4).double()
SIGNS = 2 * YES - 1
SOFT = normal(23, 4).softmax(dim=1)
ONEHOT = F.one_hot(CLASSES, 4).double()


def with_value(targets: Tensor, value: int) -> Tensor:
    marked = targets.clone()
    marked.reshape(-1)[::3] = value
    return marked


def ignoring(value: int) -> Any:
    return nn.CrossEntropyLoss(ignore_index=value)


def functional(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


def last_axis(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def logits_of_one(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs, targets)


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return (1 - outputs * targets).clamp(min=0).mean()


P_ONE, P_MANY = ONE.sigmoid(), MANY.sigmoid()
TABLE: list[tuple[str, Any, Tensor, Tensor, float]] = [
    ("classes", nn.CrossEntropyLoss(), LOGITS, CLASSES, by_class(LOGITS, CLASSES)),
    ("-100", nn.CrossEntropyLoss(), LOGITS, HOLES, by_class(LOGITS, HOLES, -100)),
    *(
        (f"ignored {k}", ignoring(k), LOGITS, marked, by_class(LOGITS, marked, k))
        for k in (255, -1, 0, 2)
        for marked in [with_value(CLASSES, k)]
    ),
    (
        "ignored pixels",
        ignoring(255),
        PIXELS,
        with_value(MASKS, 255),
        by_class(PIXELS.movedim(1, -1), with_value(MASKS, 255), 255),
    ),
    (
        "weighted classes",
        nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1, 2, 3]).double(), label_smoothing=0.1),
        LOGITS,
        CLASSES,
        by_class(LOGITS, CLASSES),
    ),
    (
        "log-probabilities",
        nn.NLLLoss(ignore_index=1),
        LOGITS.log_softmax(1),
        CLASSES,
        by_class(LOGITS, CLASSES, 1),
    ),
    (
        "F.nll_loss",
        functools.partial(F.nll_loss, ignore_index=3),
        LOGITS.log_softmax(1),
        CLASSES,
        by_class(LOGITS, CLASSES, 3),
    ),
    ("soft targets", nn.CrossEntropyLoss(), LOGITS, SOFT, by_class(LOGITS, SOFT.argmax(1))),
    ("one-hot targets", nn.CrossEntropyLoss(), LOGITS, ONEHOT, by_class(LOGITS, CLASSES)),
    ("kl", nn.KLDivLoss(), LOGITS.log_softmax(1), SOFT, by_class(LOGITS, SOFT.argmax(1))),
    ("one-hot fit", nn.MSELoss(), LOGITS.softmax(1), ONEHOT, by_class(LOGITS, CLASSES)),
    ("margins", nn.MultiMarginLoss(), LOGITS, CLASSES, by_class(LOGITS, CLASSES)),
    ("logit", nn.BCEWithLogitsLoss(), ONE, YES, by_label(ONE, YES, 0.0)),
    ("logit [n, 1]", nn.BCEWithLogitsLoss(), ONE[:, None], YES[:, None], by_label(ONE, YES, 0.0)),
    ("labels", nn.BCEWithLogitsLoss(), MANY, LABELS, by_label(MANY, LABELS, 0.0)),
    ("one label a row", nn.BCEWithLogitsLoss(), MANY, ONEHOT, by_label(MANY, ONEHOT, 0.0)),
    ("probability", nn.BCELoss(), P_ONE, YES, by_label(P_ONE, YES, 0.5)),
    ("probabilities", nn.BCELoss(), P_MANY, LABELS, by_label(P_MANY, LABELS, 0.5)),
    ("F.bce", F.binary_cross_entropy, P_ONE, YES, by_label(P_ONE, YES, 0.5)),
    ("multi-label", nn.MultiLabelSoftMarginLoss(), MANY, LABELS, by_label(MANY, LABELS, 0.0)),
    ("signs", nn.SoftMarginLoss(), ONE, SIGNS, by_label(ONE, YES, 0.0)),
    ("sign pixels", nn.SoftMarginLoss(), MANY, 2 * LABELS - 1, by_label(MANY, LABELS, 0.0)),
    ("tokens", losses.tokens(ignore_index=2), LINES, WORDS, by_class(LINES, WORDS, 2)),
    (
        "next tokens",
        losses.tokens(shift=True, padding=0),
        LINES,
        WORDS,
        by_class(LINES[:, :-1], WORDS[:, 1:], 0),
    ),
    ("softmax_mse", losses.softmax_mse, LOGITS, CLASSES, by_class(LOGITS, CLASSES)),
    ("function", functional, LOGITS, HOLES, by_class(LOGITS, HOLES, -100)),
    ("function, pixels", functional, PIXELS, MASKS, by_class(PIXELS.movedim(1, -1), MASKS)),
    ("function, last axis", last_axis, LINES, WORDS, by_class(LINES, WORDS)),
    ("function, soft", functional, LOGITS, SOFT, by_class(LOGITS, SOFT.argmax(1))),
    ("function, logit", logits_of_one, ONE, YES, by_label(ONE, YES, 0.0)),
    ("function, signs", hinge, ONE, SIGNS, by_label(ONE, YES, 0.0)),
]


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "expected"),
    [row[1:] for row in TABLE],
    ids=[r[0] for r in TABLE],
)
def test_accuracy_reads_outputs_and_targets_as_the_loss_does(
    loss: Any, outputs: Tensor, targets: Tensor, expected: float
) -> None:
    assert 0 < expected < 100
    assert measure(loss, outputs, targets) == pytest.approx(expected, rel=1e-6)


REFUSED: list[tuple[str, Any, Tensor, Tensor, str]] = [
    ("regression", nn.MSELoss(), MANY, SOFT, "MSE has targets .* that are not classes"),
    ("numbers", nn.L1Loss(), ONE, ONE + 1, "L1 has numbers as targets"),
    ("counts", nn.PoissonNLLLoss(), ONE, YES, "targets are counts"),
    ("distances", nn.HingeEmbeddingLoss(), ONE, SIGNS, "outputs are distances"),
    ("ranks", nn.MultiLabelMarginLoss(), MANY, whole(4, 23, 4), "outputs are ranked"),
    ("function, numbers", lambda o, t: (o - t).square(), ONE, ONE + 1, "as in a regression"),
    ("function, 255", lambda o, t: o.sum(), LOGITS, with_value(CLASSES, 255), "go up to 255"),
    ("function, labels", lambda o, t: o.sum(), MANY, LABELS, "several labels a sample"),
    ("function, probability", lambda o, t: (o - t).square(), P_ONE, YES, "all outputs are in"),
    ("function, square", lambda o, t: o.sum(), LINES[:, :4], WORDS[:, :4], "axis 1 or the last"),
    ("function, shapes", lambda o, t: o.sum(), LINES, CLASSES[:11], "neither axis 1 nor the last"),
]


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_accuracy_is_refused_where_no_class_follows(
    loss: Any, outputs: Tensor, targets: Tensor, message: str
) -> None:
    with pytest.raises(ObjectiveError, match=message):
        measure(loss, outputs, targets)


def test_outputs_in_a_mapping_need_a_metric_that_knows_where_logits_are() -> None:
    class Mapped(Given):
        def forward(self, outputs: Tensor) -> Any:
            return {"logits": outputs + self.zero}

    data = [{"outputs": LINES, "labels": WORDS}]
    loss = losses.custom(lambda model, batch: model(batch["outputs"])["logits"].mean(dim=(1, 2)))
    with pytest.raises(ObjectiveError, match=r"returned a dict, .* ls\.losses.token_accuracy"):
        Objective(Mapped(), loss, data, metrics={"a": losses.accuracy}).evaluate()
    found = Objective(Mapped(), loss, data, metrics={"a": losses.token_accuracy()}).evaluate()
    assert found["a"] == pytest.approx(by_class(LINES, WORDS))


def test_accuracy_of_a_diverged_point_is_not_refused() -> None:
    """The check for probabilities is made at the center only."""
    objective = Objective(Given(), logits_of_one, (ONE, YES), metrics={"a": losses.accuracy})
    shifted = {"zero": torch.tensor(-ONE.min().item() + 0.0)}
    scaled = Objective(Given(), logits_of_one, (ONE / 10, YES), metrics={"a": losses.accuracy})
    expected = by_label(ONE + shifted["zero"], YES, 0.0)
    assert objective.evaluate(shifted)["a"] == pytest.approx(expected)
    assert scaled.evaluate({"zero": torch.tensor(0.5)})["a"] == pytest.approx(percent(YES.tolist()))


def test_the_identity_of_accuracy_is_that_of_version_0_1_where_it_reads_the_same() -> None:
    assert accuracy.fit is not None
    fitted = [
        accuracy.fit(Loss("a", accuracy.function)),
        accuracy.fit(losses.custom(lambda m, b: b)),
    ]
    assert {f.identity for f in fitted} == {accuracy.identity} == {"accuracy"}
    identities = set()
    for loss in (nn.CrossEntropyLoss(), ignoring(255), nn.BCELoss(), nn.BCEWithLogitsLoss()):
        problem = Objective(Given(), loss, (ONE, YES), metrics={"a": accuracy}).problem
        identities.add(problem.metrics["a"].identity)
    assert len(identities) == 4


def test_accuracy_without_an_objective_takes_indices_and_one_logit() -> None:
    terms = accuracy(LOGITS, HOLES)
    assert float(terms.values.sum() / terms.weights.sum()) == pytest.approx(
        by_class(LOGITS, HOLES, -100)
    )
    terms = accuracy(ONE, with_value(YES, -100))
    kept = torch.arange(23) % 3 != 0
    assert float(terms.values.sum() / terms.weights.sum()) == pytest.approx(
        by_label(ONE[kept], YES[kept], 0.0)
    )
    assert accuracy.units == "%"


def test_softmax_mse_is_the_mean_square_against_one_hot() -> None:
    expected = float(F.mse_loss(LOGITS.softmax(dim=1), ONEHOT))
    for loss in (nn.CrossEntropyLoss(), functional, losses.softmax_mse):
        assert measure(loss, LOGITS, CLASSES, losses.softmax_mse) == pytest.approx(expected)


def test_softmax_mse_leaves_out_what_the_loss_ignores() -> None:
    marked = with_value(MASKS, 255)
    onehot = F.one_hot(MASKS, 3).double()
    squares = (PIXELS.softmax(dim=1).movedim(1, -1) - onehot).square().mean(dim=-1)
    expected = float(squares[marked != 255].mean())
    assert measure(ignoring(255), PIXELS, marked, losses.softmax_mse) == pytest.approx(expected)
    with pytest.raises(ObjectiveError, match="targets are yes or no"):
        measure(nn.BCEWithLogitsLoss(), MANY, LABELS, losses.softmax_mse)


def test_the_gradient_of_weight_decay_is_what_sgd_adds() -> None:
    a, b = normal(2, 3).requires_grad_(), normal(4).requires_grad_()
    penalty = losses.weight_decay(0.3)
    value = penalty(Params({"a": a, "b": b}))
    assert float(value.detach()) == pytest.approx(
        0.15 * float(a.detach().square().sum() + b.detach().square().sum()), rel=1e-13
    )
    for grad, tensor in zip(torch.autograd.grad(value, [a, b]), [a, b], strict=True):
        torch.testing.assert_close(grad, 0.3 * tensor.detach())
    assert penalty.name == "weight decay 0.3 / 2 x |params|^2"
    with pytest.raises(ObjectiveError, match=r"strength=-0\.1; expected a finite number, 0 or"):
        losses.weight_decay(-0.1)
