"""Bodies: what they compute is the witness's, and the model does not see that there are any."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import accelerate
import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import RwkvConfig, RwkvForCausalLM

import landscope as ls
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
    wrapped = objective(model, TEXT, attention="eager")
    assert wrapped.evaluate() == wrapped.evaluate()  # dropout is off
    assert all(m.training for m in model.modules())
    assert model.config.to_dict() == before
    assert model.config._attn_implementation == "sdpa"
    body: Model = wrapped.model
    assert body.config._attn_implementation == "eager"
    assert list(body(padded(TEXT)["input_ids"])) == ["logits"]


def test_the_body_shares_every_tensor_with_the_model_which_may_be_trained_on() -> None:
    model = cases.gpt2()
    wrapped = objective(model, TEXT)
    pairs = zip(model.state_dict(keep_vars=True).values(), wrapped.model.parameters(), strict=False)
    assert all(a is b for a, b in pairs)
    before = wrapped.loss()
    with torch.no_grad():
        model.transformer.wte.weight.mul_(1.5)
    assert wrapped.loss() == before
    expected = own_loss(model, padded(TEXT))
    assert ls.Objective.of(wrapped.problem.recenter()).loss() == pytest.approx(expected, rel=1e-6)
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
    wrapped = objective(model, case.rows, attention=attention)
    assert wrapped.loss() == pytest.approx(expected, rel=1e-5)


def test_bfloat16_is_near_and_gives_the_loss_in_float32() -> None:
    model = cases.llama()
    wrapped = objective(model, TEXT, precision="bfloat16")
    exact = objective(model, TEXT).loss()
    assert wrapped.loss() != exact
    assert wrapped.loss() == pytest.approx(exact, rel=0.02)


@pytest.fixture
def accelerator() -> Iterator[accelerate.Accelerator]:
    """What a Trainer with bf16=True prepares its model with; it is one for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield accelerate.Accelerator(mixed_precision="bf16", cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_16_bits_of_a_training_end_with_it(accelerator: accelerate.Accelerator) -> None:
    model, expected = cases.llama(), objective(cases.llama(), TEXT)
    trained = accelerator.prepare(model)
    assert own_loss(trained, padded(TEXT)) != pytest.approx(expected.loss(), rel=1e-6)
    wrapped = objective(trained, TEXT)
    assert wrapped.loss() == expected.loss()
    assert wrapped.problem.fingerprints() == expected.problem.fingerprints()
    assert own_loss(trained, padded(TEXT)) != pytest.approx(expected.loss(), rel=1e-6)


@pytest.mark.parametrize("in_place", [False, True])
def test_rwkv_does_not_halve_the_weights_that_it_is_given(in_place: bool) -> None:
    """In evaluation mode it does, once, so that all directions after that are twice as long."""
    torch.manual_seed(0)
    sizes: Any = {"vocab_size": cases.VOCABULARY, "hidden_size": 16, "num_hidden_layers": 4}
    model_class: Any = RwkvForCausalLM  # the types of transformers know no modules
    model: Model = model_class(RwkvConfig(context_length=16, rescale_every=1, **sizes)).train()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    wrapped = objective(model, TEXT, in_place=in_place)
    (d,) = ls.directions.random(wrapped.center, 1, seed=1)
    land = ls.scan(wrapped, ls.Line(wrapped.center, d), ls.Grid(3))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert all(torch.equal(p, before[n]) for n, p in wrapped.center.items())
    moved = copy.deepcopy(model)  # which stays in training mode: it has no dropout
    with torch.no_grad():
        for n, p in moved.named_parameters():
            p.add_(d[n])
        losses = [moved(torch.tensor([r["input_ids"]])).logits[0, :-1] for r in TEXT]
        targets = [torch.tensor(r["input_ids"][1:]) for r in TEXT]
        expected = torch.nn.functional.cross_entropy(torch.cat(losses), torch.cat(targets))
    assert float(land.data["loss"].sel(x=1)) == pytest.approx(float(expected), rel=1e-5)


def test_a_forward_that_stays_with_the_model_is_a_sentence_while_there_is_dropout() -> None:
    model = cases.gpt2()
    expected, forward = own_loss(model, padded(TEXT)), model.forward

    def compiled(input_ids: Any = None, attention_mask: Any = None) -> Any:  # as torch.compile does
        return forward(input_ids=input_ids, attention_mask=attention_mask)

    model.forward = compiled
    with pytest.raises(ObjectiveError, match=r"GPT2LMHeadModel was replaced.*call model\.eval\(\)"):
        objective(model, TEXT)
    assert objective(model.eval(), TEXT).loss() == pytest.approx(expected, rel=1e-6)


def test_flash_attention_in_float32_is_a_sentence() -> None:
    model = cases.gpt2()
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ObjectiveError, match=r"'flash_attention_2', which computes in 16 bits"):
        objective(model, TEXT)
    assert objective(model, TEXT, attention="sdpa").loss() > 0
    objective(model, TEXT, precision="bfloat16")


def test_an_unknown_attention_is_a_sentence() -> None:
    with pytest.raises(ObjectiveError, match="attention='none' is not available in a GPT2LMHead"):
        objective(cases.gpt2(), TEXT, attention="none")


def test_modules_that_cannot_be_copied_are_a_sentence() -> None:
    model = cases.gpt2()
    model.transformer.drop.locked = (k for k in range(3))
    with pytest.raises(ObjectiveError, match="modules of the GPT2LMHeadModel cannot be copied"):
        objective(model, TEXT)
