"""Functions that return one number for a batch, against the mean over single rows by a loop.

The forms are those of training code: a plain function, a step, a LightningModule, a model of
transformers, a model that returns its loss, a detector with a mapping of losses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import landscope as ls
from landscope.engines import Local
from landscope.engines.plan import Plan
from landscope.errors import ObjectiveError
from landscope.objective import batch_means
from landscope.objective.torch_losses import as_loss, count_batch

rng = torch.Generator().manual_seed(4)
REAL = torch.randn(8, 2, 3, generator=rng, dtype=torch.float64)
OTHER = torch.randn(8, 2, 3, generator=rng, dtype=torch.float64)
INPUTS = torch.randn(11, 6, generator=rng)
TARGETS = torch.randint(3, (11,), generator=rng)
BATCHES = list(zip(INPUTS.split(4), TARGETS.split(4), strict=True))  # of 4, 4 and 3 rows


def test_a_mean_of_a_batch_is_separated_row_by_row() -> None:
    loss = as_loss(lambda o, t: (o - t).square().mean())
    found = batch_means.evaluate_by_sample(loss, REAL, OTHER, loss(REAL, OTHER))
    expected = (REAL - OTHER).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(found.values, expected, rtol=1e-13, atol=0)
    assert found.weights.tolist() == [1.0] * 8


def test_outputs_that_differ_in_length_cannot_be_separated() -> None:
    loss = as_loss(lambda o, t: o[0].mean(), "paired")
    ragged = (REAL, REAL[:1]), OTHER
    with pytest.raises(ObjectiveError, match="'paired' gives one number for each batch, which"):
        batch_means.evaluate_by_sample(loss, *ragged, loss(*ragged))
    assert batch_means.note_unless_mean(loss, ragged) is None


def test_outputs_in_a_tuple_are_separated_row_by_row() -> None:
    loss = as_loss(lambda o, t: (o[0] - o[1] * t).square().mean(), "paired")
    pair = (REAL, OTHER), REAL
    terms = batch_means.evaluate_by_sample(loss, *pair, loss(*pair))
    expected = (REAL - OTHER * REAL).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(terms.values, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("function", "is_mean"),
    [
        (lambda o, t: (o - t).square().mean(), True),
        (lambda o, t: (o - t).square().flatten(1).sum(dim=1), True),
        (lambda o, t: (o - t).square().sum(), False),
        (lambda o, t: (o - t).square().mean().sqrt(), False),
        (lambda o, t: o.sum() * 0.0, True),
    ],
)
def test_a_remark_is_made_when_a_number_is_not_the_mean_over_samples(
    function: Callable[[Tensor, Tensor], Tensor], is_mean: bool
) -> None:
    note = batch_means.note_unless_mean(as_loss(function, "odd"), (REAL, OTHER))
    assert (note is None) == is_mean
    if note is not None:
        assert note.startswith("loss 'odd' is not the mean over the samples of a batch")


def test_a_batch_of_one_sample_gives_no_note() -> None:
    loss = as_loss(lambda o, t: (o - t).square().sum())
    assert batch_means.note_unless_mean(loss, (REAL[:1], OTHER[:1])) is None


# ------------------------------------------------------------------------- one number for a batch


def make_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(6, 3).eval()


def step(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets)


def whole_loss(params: Any = None) -> Tensor:
    """Return the loss of all rows at once."""
    model = make_model()
    if params is not None:
        model.load_state_dict(dict(params))
    return F.cross_entropy(model(INPUTS), TARGETS)


class ReturnsLoss(nn.Module):
    """A model that computes its loss from inputs and targets, as in minGPT: (logits, loss)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = make_model()

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layer(inputs)
        return logits, F.cross_entropy(logits, targets)


class Detector(ReturnsLoss):
    """A model that returns a mapping of losses."""

    def forward(self, inputs: Tensor, targets: Tensor) -> Any:
        _, loss = super().forward(inputs, targets)
        return {"loss_class": 0.75 * loss, "loss_box": 0.25 * loss}


def pair(value: Tensor, batch: Any) -> Any:
    return value, len(batch[1])


FORMS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "step": (make_model, step),
    "number and weight": (make_model, lambda m, b: pair(step(m, b), b)),
    "mapping with loss": (make_model, lambda m, b: {"loss": step(m, b), "log": {"a": 1}}),
    "logits and loss": (ReturnsLoss, lambda m, b: m(*b)[1]),
    "sum of a mapping": (Detector, lambda m, b: sum(m(*b).values())),
    "values": (make_model, lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none")),
    "values and weights": (
        make_model,
        lambda m, b: (F.cross_entropy(m(b[0]), b[1], reduction="none"), torch.ones(len(b[1]))),
    ),
}
each_form = pytest.mark.parametrize("form", FORMS)


def make_objective(form: str, **options: Any) -> ls.Objective:
    make, function = FORMS[form]
    return ls.Objective(make(), ls.losses.custom(function), BATCHES, **options)


@each_form
def test_every_form_of_a_loss_is_the_mean_over_all_rows(form: str) -> None:
    objective = make_objective(form)
    expected = float(whole_loss().detach())
    single = F.cross_entropy(make_model()(INPUTS), TARGETS, reduction="none").detach()
    assert objective.loss() == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(objective.terms(), single, rtol=1e-5)
    gradient = torch.autograd.grad(whole_loss_of(model := make_model()), list(model.parameters()))
    for ours, torchs in zip(objective.gradient().values(), gradient, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-7)
    assert objective.notes == ()


def whole_loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(INPUTS), TARGETS)


@each_form
def test_every_form_is_scanned_and_has_curvature(form: str) -> None:
    objective = make_objective(form)
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])
    plan = Plan(rows=2) if form.startswith("values") else Plan(rows=None, workers=2, threads=1)
    land = ls.scan(objective, line, 3, engine=Local(plan=plan))
    names = [name.removeprefix("layer.") for name in objective.center]
    expected = [
        float(whole_loss(zip(names, line.at((x,)).values(), strict=True)).detach())
        for x in land.data["x"].values
    ]
    np.testing.assert_allclose(land.data["loss"], expected, rtol=1e-5)
    (largest,) = ls.curvature.eigenpairs(ls.curvature.Hessian(objective), 1, "largest").value
    hessian = torch.autograd.functional.hessian(flat_loss, flat_center())
    assert float(largest) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-3)


def flat_center() -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in make_model().parameters()])


def flat_loss(flat: Tensor) -> Tensor:
    weight, bias = flat[:18].reshape(3, 6), flat[18:]
    return F.cross_entropy(INPUTS @ weight.T + bias, TARGETS)


def test_one_number_for_a_batch_says_that_samples_cannot_be_drawn() -> None:
    for form, can in (("step", False), ("values", True)):
        objective = make_objective(form)
        assert objective.problem.can_be_sampled() == can
    line = ls.Line(objective.center, ls.directions.random(objective.center)[0])
    with pytest.raises(ObjectiveError, match="the loss is one number for a batch"):
        ls.scan(make_objective("step"), line, 5, samples=ls.Calibrated(6, anchors=2))


def test_batches_are_not_divided_where_the_loss_is_one_number() -> None:
    objective = make_objective("step")
    with objective.problem.session() as session:
        session.evaluate(None)
        assert session.halve_batches() is None
    divided = objective.problem.rebatch(objective.problem.batches, 2)
    assert divided is objective.problem.batches
    with make_objective("values").problem.session() as session:
        session.evaluate(None)
        assert session.halve_batches() == 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, b: step(m, b).sqrt(), "is not the mean over the samples of a batch"),
        (lambda m, b: step(m, b) * len(b[1]), "but their sum, so its mean depends"),
    ],
)
def test_one_number_that_is_no_mean_is_noted(function: Any, message: str) -> None:
    objective = ls.Objective(make_model(), ls.losses.custom(function, name="odd"), BATCHES)
    objective.loss()
    assert message in objective.notes[0]
    with pytest.raises(ObjectiveError, match=r"'odd' is not the mean .* so it has no terms"):
        objective.terms()


def root(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets).sqrt()


def test_a_function_that_is_no_mean_has_no_terms_and_no_standard_error() -> None:
    objective = ls.Objective(make_model(), root, BATCHES)
    message = r"'root' is not the mean .* so it has no terms"
    with pytest.raises(ObjectiveError, match=message):
        objective.terms()
    with pytest.raises(ObjectiveError, match=message):
        ls.curvature.trace(ls.curvature.Fisher(objective))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "returned None; .* the model got no labels"),
        ({"loss_box": torch.tensor(1.0), "loss_class": torch.tensor(2.0)},
         r"returned a dict with loss_box, loss_class; .* sum\(losses.values\(\)\)"),
        ({"loss": None}, "returned a dict with loss"),
        ((torch.tensor(1.0), torch.ones(4, 3)), r"shapes \(\) and \(4, 3\); expected the loss"),
        ((torch.ones(4, 3), torch.tensor([1.0, 2.0])), r"\(4, 3\) and \(2,\); expected the loss"),
        ((torch.tensor(1.0),) * 3, r"returned a tuple of 3; .* model\(\*batch\)\[1\]"),
        ("text", "returned a str"),
    ],
)  # fmt: skip
def test_what_is_no_loss_is_a_sentence_that_shows_the_way(value: Any, message: str) -> None:
    loss = ls.losses.custom(lambda model, batch: value, name="odd")
    with pytest.raises(ObjectiveError, match=f"loss 'odd' .*{message}"):
        ls.Objective(make_model(), loss, BATCHES).loss()


def test_a_model_that_returns_its_loss_is_named_with_the_way() -> None:
    class Both(nn.Linear):
        def forward(self, inputs: Tensor) -> Any:
            logits = super().forward(inputs)
            return logits, logits.mean()

    model = Both(6, 3)
    with pytest.raises(ObjectiveError, match=r"model\(\*batch\)\[1\] where forward\(\) returns"):
        ls.Objective(model, nn.CrossEntropyLoss(), BATCHES).loss()


def test_samples_of_a_batch_are_counted() -> None:
    images = [torch.ones(3, 5, 5), torch.ones(3, 4, 6)]
    boxes = [{"boxes": torch.ones(3, 4)}, {"boxes": torch.ones(3, 4)}]
    assert count_batch((images, boxes)) == 2  # and not 3, the first length of all tensors
    assert count_batch({"images": images, "targets": boxes}) == 2
    assert count_batch(boxes) == 2
    assert count_batch([torch.ones(5, 2), torch.ones(5)]) == 5
    assert count_batch((torch.ones(5, 2), torch.ones(4))) is None
    loss = ls.losses.custom(lambda model, batch: model(batch[0]).mean())
    with pytest.raises(ObjectiveError, match=r"return the pair \(loss, number of samples\)"):
        ls.Objective(make_model(), loss, [(INPUTS, TARGETS[:3])]).loss()


def test_images_of_unequal_size_with_their_boxes_are_averaged_by_image() -> None:
    """The batches of a detector: lists of images and of mappings."""
    model = nn.Conv2d(3, 1, 1)
    sizes = [(4, 5), (6, 3), (5, 5), (2, 7), (3, 3)]
    images = [torch.randn(3, *size, generator=rng) for size in sizes]
    boxes = [{"boxes": torch.ones(3 + k, 4)} for k in range(5)]
    batches = [(images[:2], boxes[:2]), (images[2:], boxes[2:])]

    def losses(model: nn.Module, batch: Any) -> Any:
        each = [model(image).square().mean() for image in batch[0]]
        return {"loss": torch.stack(each).mean()}

    with torch.no_grad():
        expected = np.mean([float(model(image).square().mean()) for image in images])
    found = ls.Objective(model, ls.losses.custom(losses), batches).loss()
    assert found == pytest.approx(float(expected), rel=1e-6)


# ------------------------------------------------------------------------- other frameworks


@pytest.fixture
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.usefixtures("_quiet")
def test_the_training_step_of_lightning_is_a_loss() -> None:
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = make_model()

        def training_step(self, batch: Any, batch_index: int) -> Any:
            layer: Any = self.layer
            loss = step(layer, batch)
            self.log("loss", loss)
            return {"loss": loss}

    module: Any = Module()
    module.eval()

    def call(model: Any, batch: Any) -> Any:
        return model.training_step(batch, 0)

    loss = ls.losses.custom(call)
    objective = ls.Objective(module, loss, BATCHES)
    assert objective.loss() == pytest.approx(float(whole_loss().detach()), rel=1e-6)
    with pytest.raises(ObjectiveError, match=r"model\.training_step\(batch, 0\)"):
        ls.Objective(module, module.training_step, BATCHES)


def test_the_loss_of_a_transformers_model_is_a_mean_of_tokens_and_noted() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=20, **sizes)).eval()
    for weight in model.parameters():  # far from the uniform distribution of a new model
        weight.data.normal_(generator=rng)
    words = torch.randint(20, (5, 7), generator=rng)
    labels = words.clone()
    labels[3:, 2:] = -100
    batches = [{"input_ids": words[:4], "labels": labels[:4]},
               {"input_ids": words[4:], "labels": labels[4:]}]  # fmt: skip
    loss = ls.losses.custom(lambda model, batch: model(**batch).loss)
    objective = ls.Objective(model, loss, batches)
    with torch.no_grad():
        parts = [float(model(**batch).loss) for batch in batches]
    assert objective.loss() == pytest.approx((4 * parts[0] + parts[1]) / 5, rel=1e-5)
    assert "is not the mean over the samples of a batch" in objective.notes[0]
    mapping = ls.losses.custom(lambda model, batch: model(**batch))  # a mapping with "loss"
    assert ls.Objective(model, mapping, batches).loss() == pytest.approx(objective.loss())
