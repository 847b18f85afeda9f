"""Tasks and their losses, against what the models compute from labels themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForCausalLM,
    GPT2LMHeadModel,
    XLMConfig,
    XLMWithLMHeadModel,
)

from landscope.errors import ObjectiveError
from landscope.integrations import tasks
from landscope.integrations.transformers import objective
from tests.integrations import cases
from tests.integrations.cases import CASES, TEXT, own_loss, padded


def test_a_classifier_with_one_output_is_a_regression() -> None:
    model = cases.bert_classes(num_labels=1)
    rows = [{**r, "label": 0.3 * k} for k, r in enumerate(TEXT)]
    wrapped = objective(model, rows, batch_size=4)
    assert wrapped.loss() == pytest.approx(own_loss(model, padded(rows)), rel=1e-6)
    assert list(wrapped.evaluate()) == ["loss"]


def test_a_classifier_of_several_labels_has_one_term_a_label() -> None:
    model = cases.bert_classes(problem_type="multi_label_classification")
    rows = [{**r, "labels": [1.0, 0.0, float(k % 2)]} for k, r in enumerate(TEXT)]
    batch = padded(TEXT) | {"labels": torch.tensor([r["labels"] for r in rows])}
    wrapped = objective(model, rows, batch_size=4)
    assert wrapped.loss() == pytest.approx(own_loss(model, batch), rel=1e-6)
    assert len(wrapped.terms()) == 3 * 11


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
        ("XLNetLMHeadModel", False, "masked"),
        ("MBartForCausalLM", False, "masked"),
    ],
)
def test_the_task_is_told_by_the_class(kind: str, encoder_decoder: bool, task: str) -> None:
    model: Any = type(kind, (nn.Module,), {})()
    model.config = SimpleNamespace(is_encoder_decoder=encoder_decoder)
    assert tasks.infer_task(model) == task


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (
            BartForCausalLM,
            BartConfig(
                vocab_size=cases.VOCABULARY,
                d_model=16,
                decoder_layers=1,
                decoder_attention_heads=2,
                decoder_ffn_dim=16,
            ),
        ),
        (
            XLMWithLMHeadModel,
            XLMConfig(vocab_size=cases.VOCABULARY, emb_dim=16, n_layers=1, n_heads=2),
        ),
    ],
)
def test_models_that_do_not_shift_their_labels_are_not_shifted(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    model = kind(config).eval()
    rows = [{**r, "labels": [*r["input_ids"][1:], -100]} for r in TEXT]
    expected = own_loss(model, padded(rows))
    assert objective(model, rows).loss() == pytest.approx(expected, rel=1e-6)


def test_a_loss_of_ones_own_is_a_sentence_and_not_passed_over() -> None:
    model = cases.gpt2()
    model.loss_function = lambda logits, labels, **more: logits.square().mean()
    with pytest.raises(ObjectiveError, match="GPT2LMHeadModel was given a loss_function"):
        objective(model, TEXT)
    expected = own_loss(cases.gpt2(), padded(TEXT))
    assert objective(model, TEXT, task="causal").loss() == pytest.approx(expected, rel=1e-6)


def test_the_task_of_ones_own_class_is_that_of_its_parent() -> None:
    mine = type("Mine", (GPT2LMHeadModel,), {})
    model = mine(cases.gpt2().config)
    assert tasks.infer_task(model) == "causal"


def test_a_task_that_is_not_known_is_a_sentence_and_may_be_named() -> None:
    with pytest.raises(ObjectiveError, match="task of a GPT2Model is unknown: pass task= one of"):
        objective(cases.gpt2().transformer, TEXT)
    with pytest.raises(ObjectiveError, match="task='translation'; expected one of causal, masked"):
        objective(cases.gpt2(), TEXT, task="translation")
    model = cases.bert()
    rows = CASES["bert"].rows
    assert objective(model, rows, task="token_classification").loss() == pytest.approx(
        own_loss(model, padded(rows)), rel=1e-6
    )
