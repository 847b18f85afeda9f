"""Losses of sequence models.

The witnesses are plain loops over tokens in float64, written with nothing but logarithms and
exponentials; and that how tokens are padded and batched cannot matter.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.errors import ObjectiveError
from landscope.objective import loss_terms, sequence_losses

CLASSES = 11


def _by_hand(logits: Tensor, targets: Tensor, ignored: set[int]) -> list[float]:
    """Return -log softmax of each counted token, one after the other."""
    found, flat = [], logits.detach().double().reshape(-1, CLASSES)
    for row, target in zip(flat, targets.reshape(-1), strict=True):
        if int(target) not in ignored:
            total = math.log(sum(math.exp(v) for v in row.tolist()))
            found.append(total - float(row[int(target)]))
    return found


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 7, CLASSES, generator=generator)
    return logits, torch.randint(1, CLASSES, (4, 7), generator=generator)


def _mean(loss: loss_terms.Loss, outputs: object, targets: Tensor) -> float:
    found = loss(outputs, targets)
    return float(found.values.double().sum() / found.weights.double().sum())


def test_each_token_has_its_cross_entropy(drawn: tuple[Tensor, Tensor]) -> None:
    logits, targets = drawn
    found = ls.losses.tokens()(logits, targets)
    assert found.values.tolist() == pytest.approx(_by_hand(logits, targets, set()), rel=1e-5)
    assert found.weights.tolist() == [1.0] * 28


def test_padding_and_ignored_targets_do_not_count(drawn: tuple[Tensor, Tensor]) -> None:
    logits, targets = drawn
    targets[0, 5:], targets[2, 3:], targets[3, 0] = 0, 0, -100
    expected = _by_hand(logits, targets, {0, -100})
    found = ls.losses.tokens(padding=0)(logits, targets)
    assert float(found.weights.sum()) == len(expected) == 21
    assert float(found.values.sum()) == pytest.approx(sum(expected), rel=1e-5)
    assert found.values[found.weights == 0].tolist() == [0.0] * 7
    unpadded = _mean(ls.losses.tokens(ignore_index=7), logits, targets.masked_fill(targets < 1, 7))
    kept = _by_hand(logits, targets.masked_fill(targets < 1, 7), {7})
    assert unpadded == pytest.approx(sum(kept) / len(kept), rel=1e-5)


def test_ignored_targets_may_be_any_number(drawn: tuple[Tensor, Tensor]) -> None:
    logits, targets = drawn
    expected = _by_hand(logits, targets, {5})
    targets[targets == 5] = -1  # which is no class
    found = _mean(ls.losses.tokens(ignore_index=-1), logits, targets)
    assert found == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_shifted_logits_tell_the_next_token(drawn: tuple[Tensor, Tensor]) -> None:
    logits, targets = drawn
    expected = _by_hand(logits[:, :-1], targets[:, 1:], set())
    found = ls.losses.tokens(shift=True)(logits, targets)
    assert float(found.weights.sum()) == 24
    assert _mean(ls.losses.tokens(shift=True), logits, targets) == pytest.approx(
        sum(expected) / 24, rel=1e-5
    )


def test_smoothed_labels_are_those_of_torch(drawn: tuple[Tensor, Tensor]) -> None:
    logits, targets = drawn
    targets[1, 2:] = -100
    witness = nn.CrossEntropyLoss(label_smoothing=0.1)
    expected = float(witness(logits.double().reshape(-1, CLASSES), targets.reshape(-1)))
    assert _mean(ls.losses.tokens(label_smoothing=0.1), logits, targets) == pytest.approx(expected)


def test_a_classifier_of_sequences_has_one_target_a_row() -> None:
    logits = torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([1, 2, 3, -100, 5])
    expected = _by_hand(logits, targets, {-100})
    assert _mean(ls.losses.tokens(), logits, targets) == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_outputs_may_be_what_language_models_return(drawn: tuple[Tensor, Tensor]) -> None:
    logits, targets = drawn
    expected = _mean(ls.losses.tokens(), logits, targets)
    for outputs in ({"logits": logits, "state": None}, (logits, None), [logits]):
        assert _mean(ls.losses.tokens(), outputs, targets) == expected


@pytest.mark.parametrize(
    ("outputs", "description"),
    [({"hidden": torch.ones(2, 3)}, "'hidden'"), (SimpleNamespace(logits=1), "SimpleNamespace")],
)
def test_outputs_without_logits_are_named(outputs: object, description: str) -> None:
    with pytest.raises(ObjectiveError, match=f"{description}.*expected logits"):
        ls.losses.tokens()(outputs, torch.ones(2, dtype=torch.long))


def test_targets_of_another_shape_are_named(drawn: tuple[Tensor, Tensor]) -> None:
    logits, targets = drawn
    with pytest.raises(ObjectiveError, match=r"\(4, 7, 11\) and targets are \(4, 6\)"):
        ls.losses.tokens()(logits, targets[:, 1:])
    with pytest.raises(ObjectiveError, match=r"nn\.CrossEntropyLoss"):
        ls.losses.tokens()(logits.transpose(1, 2), targets)
    with pytest.raises(ObjectiveError, match="label_smoothing=1"):
        ls.losses.tokens(label_smoothing=1.0)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32])
def test_targets_may_be_whole_numbers_of_any_kind(
    kind: torch.dtype, drawn: tuple[Tensor, Tensor]
) -> None:
    """Text read as bytes has no -100 in it, and torch's cross-entropy takes few of these."""
    logits, targets = drawn
    expected = _by_hand(logits[:, :-1], targets[:, 1:], {5})
    for padding in (None, 5):
        counted = expected if padding else _by_hand(logits[:, :-1], targets[:, 1:], set())
        found = _mean(ls.losses.tokens(shift=True, padding=padding), logits, targets.to(kind))
        assert found == pytest.approx(sum(counted) / len(counted), rel=1e-5)


def test_what_is_no_whole_number_is_named(drawn: tuple[Tensor, Tensor]) -> None:
    logits, targets = drawn
    with pytest.raises(ObjectiveError, match=r"targets are torch\.float32; expected tokens"):
        ls.losses.tokens()(logits, targets.float())
    with pytest.raises(ObjectiveError, match="ignore_index=None, padding=0; expected whole"):
        ls.losses.tokens(ignore_index=None, padding=0)  # type: ignore[arg-type] # on purpose


def test_large_vocabularies_are_evaluated_in_parts_to_the_same_values(
    drawn: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, targets = drawn
    whole = ls.losses.tokens()(logits, targets).values
    monkeypatch.setattr(sequence_losses, "_MAX_LOGITS", 3 * CLASSES)
    assert torch.equal(ls.losses.tokens()(logits, targets).values, whole)
    leaf = logits.clone().requires_grad_()
    ls.losses.tokens()(leaf, targets).values.sum().backward()
    assert leaf.grad is not None
    soft = logits.softmax(-1) - nn.functional.one_hot(targets, CLASSES)
    assert torch.allclose(leaf.grad, soft, atol=1e-6)


def test_small_vocabularies_are_evaluated_the_fast_way_to_the_same_values() -> None:
    logits = torch.randn(40, 5, CLASSES, generator=torch.Generator().manual_seed(2))
    targets = torch.randint(CLASSES, (40, 5), generator=torch.Generator().manual_seed(3))
    assert loss_terms.has_few_classes(logits.reshape(-1, CLASSES), targets.reshape(-1))
    found = ls.losses.tokens()(logits, targets).values.tolist()
    assert found == pytest.approx(_by_hand(logits, targets, set()), rel=1e-5)


def test_perplexity_is_the_exponential_of_the_mean_over_all_tokens() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(CLASSES, 6), nn.Linear(6, CLASSES))
    text = torch.randint(1, CLASSES, (9, 5))
    text[::2, 3:] = 0
    loss = ls.losses.tokens(shift=True, padding=0)
    metrics = {
        "perplexity": ls.losses.perplexity(loss),
        "accuracy": ls.losses.token_accuracy(shift=True, padding=0),
    }
    expected = _by_hand(model(text)[:, :-1], text[:, 1:], {0})
    hits = (model(text)[:, :-1].argmax(-1) == text[:, 1:])[text[:, 1:] != 0]
    for size in (1, 4, 9):  # a mean of the batches' perplexities would differ
        values = ls.Objective(
            model, loss, (text, text), metrics=metrics, batch_size=size
        ).evaluate()
        assert values["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-6)
        assert values["perplexity"] == pytest.approx(math.exp(values["loss"]), rel=1e-12)
        assert values["accuracy"] == pytest.approx(100 * float(hits.double().mean()))


def test_a_perplexity_beyond_all_numbers_is_infinite() -> None:
    assert ls.losses.perplexity(ls.losses.tokens()).transform(1e4) == math.inf


def test_perplexity_is_of_a_loss() -> None:
    with pytest.raises(ObjectiveError, match=r"ls\.losses\.tokens"):
        ls.losses.perplexity(nn.CrossEntropyLoss())  # type: ignore[arg-type] # on purpose
    with pytest.raises(
        ObjectiveError, match="loss='accuracy' has the unit '%'; expected a loss in"
    ):
        ls.losses.perplexity(ls.losses.token_accuracy())


def test_losses_that_differ_have_other_fingerprints() -> None:
    made = [
        ls.losses.tokens(),
        ls.losses.tokens(shift=True),
        ls.losses.tokens(padding=0),
        ls.losses.tokens(ignore_index=0),
        ls.losses.tokens(label_smoothing=0.1),
        ls.losses.perplexity(ls.losses.tokens()),
        ls.losses.token_accuracy(),
    ]
    assert len({loss.identity for loss in made}) == len(made)


def test_sequences_of_unequal_length_give_the_mean_over_their_tokens() -> None:
    """One batch a length, one padded batch, and a batch for each sequence: the same mean."""
    torch.manual_seed(1)
    embedding, cell, head = (
        nn.Embedding(CLASSES, 6),
        nn.GRU(6, 8, batch_first=True),
        nn.Linear(8, CLASSES),
    )

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.cell, self.head = embedding, cell, head

        def forward(self, text: Tensor) -> Tensor:
            logits: Tensor = self.head(self.cell(self.embedding(text))[0])
            return logits

    model = Model()
    lengths = [3, 8, 5, 5, 2, 8]
    rows = [torch.randint(1, CLASSES, (n,)) for n in lengths]
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    loss = ls.losses.tokens(shift=True, padding=0)
    singly = [(row[None], row[None]) for row in rows]
    by_hand = [v for r in rows for v in _by_hand(model(r[None])[:, :-1], r[None, 1:], set())]
    for data in (singly, (padded, padded), [(padded[:4], padded[:4]), (padded[4:], padded[4:])]):
        found = ls.Objective(model, loss, data).loss()
        assert found == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-6)


def test_the_text_of_a_loss_is_that_of_version_0_1_for_fingerprints_in_journals() -> None:
    text = repr(ls.losses.perplexity(ls.losses.tokens(padding=0)))
    assert text.startswith("Loss(name='perplexity', function=functools.partial(<function _token_te")
    assert text.endswith(
        ", units='1', identity='exp of tokens False (-100, 0) 0.0', per_batch=False, told='exp')"
    )


def test_the_accuracy_of_tokens_counts_those_that_the_loss_counts(
    drawn: tuple[Tensor, Tensor],
) -> None:
    logits, targets = drawn
    model = nn.Embedding(28, CLASSES)
    model.weight.data = logits.flatten(0, 1)
    positions = torch.arange(28).reshape(4, 7)
    loss = ls.losses.tokens(shift=True, padding=int(targets[0, 1]))
    metrics = {"by loss": ls.losses.token_accuracy(), "own": ls.losses.token_accuracy(padding=3)}
    found = ls.Objective(model, loss, (positions, targets), metrics=metrics).evaluate()
    guess = logits.argmax(dim=-1)
    pairs = [(g, t) for g, t in zip(guess[:, :-1].flatten(), targets[:, 1:].flatten(), strict=True)]
    hits = [bool(g == t) for g, t in pairs if t != targets[0, 1]]
    assert found["by loss"] == pytest.approx(100 * sum(hits) / len(hits))
    others = zip(guess.flatten(), targets.flatten(), strict=True)
    own = [bool(g == t) for g, t in others if t != 3]
    assert found["own"] == pytest.approx(100 * sum(own) / len(own))
