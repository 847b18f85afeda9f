"""Bodies: what they compute is the witness's, and the model does not see that there are any."""

from __future__ import annotations

import pytest
import torch

from landscope.errors import ObjectiveError
from landscope.integrations.transformers import objective
from tests.integrations import cases
from tests.integrations.cases import CASES, TEXT, Case, Model, own_loss, padded


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_the_model_keeps_its_mode_its_configuration_and_its_attention() -> None:
    model = cases.gpt2()
    model.config.output_hidden_states = True
    before = model.config.to_dict()
    found = objective(model, TEXT, attention="eager")
    assert found.probe() == found.probe()  # dropout is off
    assert all(m.training for m in model.modules())
    assert model.config.to_dict() == before
    assert model.config._attn_implementation == "sdpa"
    body: Model = found.model
    assert body.config._attn_implementation == "eager"
    assert list(body(padded(TEXT)["input_ids"])) == ["logits"]


def test_the_body_shares_every_tensor_with_the_model_which_may_be_trained_on() -> None:
    model = cases.gpt2()
    found = objective(model, TEXT)
    pairs = zip(model.state_dict(keep_vars=True).values(), found.model.parameters(), strict=False)
    assert all(a is b for a, b in pairs)
    before = found.loss()
    with torch.no_grad():
        model.transformer.wte.weight.mul_(1.5)
    assert found.loss() == before
    expected = own_loss(model, padded(TEXT))
    assert found.recentered().loss() == pytest.approx(expected, rel=1e-6)
    assert expected != pytest.approx(before, rel=1e-3)


def test_activations_are_not_checkpointed() -> None:
    model, expected = cases.llama(), objective(cases.llama(), TEXT).loss()

    def refuse(*given: object) -> None:
        raise AssertionError("a body never computes activations twice")

    for layer in model.model.layers:
        layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, refuse
    assert objective(model, TEXT).loss() == expected


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_loss_is_the_same_with_any_attention(case: Case, attention: str) -> None:
    model = case.make()
    expected = own_loss(model, padded(case.rows))
    found = objective(model, case.rows, attention=attention)
    assert found.loss() == pytest.approx(expected, rel=1e-5)


def test_bfloat16_is_near_and_gives_the_loss_in_float32() -> None:
    model = cases.llama()
    found = objective(model, TEXT, precision="bfloat16")
    exact = objective(model, TEXT).loss()
    assert found.loss() != exact
    assert found.loss() == pytest.approx(exact, rel=0.02)


def test_flash_attention_in_float32_is_a_sentence() -> None:
    model = cases.gpt2()
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ObjectiveError, match=r"'flash_attention_2', which computes in 16 bits"):
        objective(model, TEXT)
    assert objective(model, TEXT, attention="sdpa").loss() > 0
    objective(model, TEXT, precision="bfloat16")


def test_an_unknown_attention_is_a_sentence() -> None:
    with pytest.raises(ObjectiveError, match="attention='none' is not to be had in a GPT2LMHead"):
        objective(cases.gpt2(), TEXT, attention="none")


def test_modules_that_cannot_be_copied_are_a_sentence() -> None:
    model = cases.gpt2()
    model.transformer.drop.locked = (k for k in range(3))
    with pytest.raises(ObjectiveError, match="modules of the GPT2LMHeadModel cannot be copied"):
        objective(model, TEXT)
