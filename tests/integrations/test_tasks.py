"""Tasks and their losses, against what the models compute from labels themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from landscope.errors import ObjectiveError
from landscope.integrations import tasks
from landscope.integrations.transformers import objective
from tests.integrations import cases
from tests.integrations.cases import CASES, TEXT, own_loss, padded


def test_a_classifier_with_one_output_is_a_regression() -> None:
    model = cases.bert_classes(num_labels=1)
    rows = [{**r, "label": 0.3 * k} for k, r in enumerate(TEXT)]
    found = objective(model, rows, batch_size=4)
    assert found.loss() == pytest.approx(own_loss(model, padded(rows)), rel=1e-6)
    assert list(found.values()) == ["loss"]


def test_a_classifier_of_several_labels_has_one_term_a_label() -> None:
    model = cases.bert_classes(problem_type="multi_label_classification")
    rows = [{**r, "labels": [1.0, 0.0, float(k % 2)]} for k, r in enumerate(TEXT)]
    batch = padded(TEXT) | {"labels": torch.tensor([r["labels"] for r in rows])}
    found = objective(model, rows, batch_size=4)
    assert found.loss() == pytest.approx(own_loss(model, batch), rel=1e-6)
    assert len(found.terms()) == 3 * 11


@pytest.mark.parametrize(
    ("kind", "encoder_decoder", "task"),
    [
        ("MistralForCausalLM", False, "causal"),
        ("OpenAIGPTLMHeadModel", False, "causal"),
        ("RobertaForMaskedLM", False, "masked"),
        ("BartForConditionalGeneration", True, "seq2seq"),
        ("EncoderDecoderModel", True, "seq2seq"),
        ("BartForSequenceClassification", True, "classification"),
        ("LlavaForConditionalGeneration", False, "causal"),
        ("DebertaV2ForTokenClassification", False, "token_classification"),
    ],
)
def test_the_task_is_told_by_the_class(kind: str, encoder_decoder: bool, task: str) -> None:
    model: Any = type(kind, (nn.Module,), {})()
    model.config = SimpleNamespace(is_encoder_decoder=encoder_decoder)
    assert tasks.inferred(model) == task


def test_the_task_of_ones_own_class_is_that_of_its_parent() -> None:
    mine = type("Mine", (GPT2LMHeadModel,), {})
    model = mine(cases.gpt2().config)
    assert tasks.inferred(model) == "causal"


def test_a_task_that_is_not_known_is_a_sentence_and_may_be_named() -> None:
    with pytest.raises(ObjectiveError, match="task of a GPT2Model is not known: pass task= one of"):
        objective(cases.gpt2().transformer, TEXT)
    with pytest.raises(ObjectiveError, match="task='translation'; expected one of causal, masked"):
        objective(cases.gpt2(), TEXT, task="translation")
    model = cases.bert()
    rows = CASES["bert"].rows
    assert objective(model, rows, task="token_classification").loss() == pytest.approx(
        own_loss(model, padded(rows)), rel=1e-6
    )
