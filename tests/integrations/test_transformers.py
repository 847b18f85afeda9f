"""Objectives of models of transformers against the loss that these models compute themselves.

The witness is ``model(**batch).loss`` with labels, on a batch that a plain loop padded, or row by
row without any padding: neither our losses nor our collating take part in it.
"""

from __future__ import annotations

import copy
import math
import re
import sys
from pathlib import Path
from typing import Any

import accelerate
import peft
import pytest
import torch
from torch import nn
from transformers import (
    CanineConfig,
    CanineForSequenceClassification,
    LlamaForCausalLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

import landscope as ls
from landscope.errors import MissingExtraError, ObjectiveError
from landscope.integrations.transformers import callback, objective
from landscope.training.recorder import Recorder
from tests.integrations import cases
from tests.integrations.cases import CASES, TEXT, Case, own_loss, padded, row_by_row

GUIDE = Path(__file__).parents[2] / "docs/guides/hugging-face.md"


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_the_loss_is_that_of_the_model_itself_on_the_same_batch(case: Case) -> None:
    model = case.make()
    wrapped = objective(model, case.rows, batch_size=len(case.rows))
    assert wrapped.loss() == pytest.approx(own_loss(model, padded(case.rows)), rel=1e-6)
    assert len(wrapped.terms()) == case.count


def test_the_loss_is_that_of_rows_without_padding_whatever_the_batches(case: Case) -> None:
    model = case.make()
    expected = row_by_row(model, case.rows, shift=case.shift)
    for size in (1, 7, len(case.rows)):
        loss = objective(model, case.rows, batch_size=size).loss()
        assert loss == pytest.approx(expected, rel=1e-6)


def test_perplexity_and_accuracy_are_those_of_a_plain_loop() -> None:
    model = cases.gpt2()
    values = objective(model, TEXT, batch_size=3).evaluate()
    hits = count = 0
    still = copy.deepcopy(model).eval()
    for row in TEXT:
        tokens = torch.tensor([row["input_ids"]])
        guesses = still(tokens).logits[0, :-1].argmax(dim=1)
        hits, count = hits + int((guesses == tokens[0, 1:]).sum()), count + len(guesses)
    assert hits > 0
    assert values["accuracy"] == pytest.approx(100 * hits / count)
    expected = math.exp(own_loss(model, padded(TEXT)))
    assert values["perplexity"] == pytest.approx(expected, rel=1e-5)


def test_test_data_are_evaluated_beside() -> None:
    model = cases.gpt2()
    values = objective(model, TEXT[:6], test_dataset=TEXT[6:]).evaluate()
    assert values["train_loss"] == pytest.approx(own_loss(model, padded(TEXT[:6])), rel=1e-6)
    assert values["test_loss"] == pytest.approx(own_loss(model, padded(TEXT[6:])), rel=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5"])
def test_a_plane_is_the_loss_of_the_model_with_these_weights(name: str) -> None:
    case = CASES[name]
    model = case.make()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    wrapped = objective(model, case.rows)
    dx, dy = ls.directions.random(wrapped.center, seed=1)
    land = ls.scan(wrapped, ls.Plane(wrapped.center, dx, dy), ls.Grid(3, (-0.5, 0.5)))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    moved = copy.deepcopy(model)
    for x, y in ((-0.5, 0.5), (0.5, 0.0)):
        with torch.no_grad():
            for n, p in moved.named_parameters():
                p.copy_(wrapped.center[n] + x * dx[n] + y * dy[n])
        value = float(land.data["loss"].sel(x=x, y=y))
        assert value == pytest.approx(own_loss(moved, padded(case.rows)), rel=1e-5)


def test_a_scan_in_place_gives_the_same_plane_and_leaves_every_bit() -> None:
    model = cases.gpt2()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    objectives = [objective(model, TEXT, in_place=in_place) for in_place in (True, False)]
    dx, dy = ls.directions.seeded(objectives[0].center, seed=1)
    planes = [ls.scan(o, ls.Plane(o.center, dx, dy), ls.Grid(3)).data["loss"] for o in objectives]
    assert planes[0].values == pytest.approx(planes[1].values, rel=1e-5)
    assert planes[0].std() > 1e-2
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert model.training


def test_a_plane_of_offloaded_weights_is_that_of_the_whole_model(tmp_path: Path) -> None:
    model, whole = cases.gpt2(), objective(cases.gpt2(), TEXT)
    accelerate.disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    with pytest.raises(ObjectiveError, match="pass in_place=True"):
        objective(model, TEXT)
    wrapped = objective(model, TEXT, in_place=True)
    assert list(wrapped.center) == list(whole.center)
    dx, dy = ls.directions.seeded(whole.center, seed=1)
    planes = [
        ls.scan(o, ls.Plane(o.center, dx, dy), ls.Grid(3)).data["loss"] for o in (wrapped, whole)
    ]
    assert planes[0].values == pytest.approx(planes[1].values, rel=1e-5)
    assert planes[0].std() > 1e-2
    assert all(p.is_meta for p in model.parameters())
    assert model.training


def test_metrics_and_penalties_are_as_for_any_objective() -> None:
    model = cases.gpt2()
    bare = objective(model, TEXT, metrics={})
    assert list(bare.evaluate()) == ["loss"]
    penalty = ls.losses.weight_decay(0.01)
    wrapped = objective(
        model, TEXT, metrics={"also": ls.losses.tokens(shift=True)}, penalty=penalty
    )
    values = wrapped.evaluate()
    assert values["also"] == bare.loss()
    squares = sum(float(p.detach().square().sum()) for p in model.parameters())
    assert values["loss"] - values["also"] == pytest.approx(0.005 * squares, rel=1e-5)


def test_second_derivatives_are_those_of_finite_differences() -> None:
    wrapped = objective(cases.gpt2().double(), TEXT)  # fused attention has no second derivatives
    center = wrapped.center
    (d,) = ls.directions.random(center, 1, seed=2)
    product = ls.curvature.Hessian(wrapped) @ d
    ahead, behind = (wrapped.gradient({n: center[n] + s * d[n] for n in d}) for s in (1e-5, -1e-5))
    for name in center:
        assert torch.allclose(product[name], (ahead[name] - behind[name]) / 2e-5, atol=1e-7)


def test_tied_weights_are_moved_once_and_buffers_not_at_all() -> None:
    model = cases.gpt2()
    wrapped = objective(model, TEXT)
    assert list(wrapped.center) == [n for n, _ in model.named_parameters()]
    assert "lm_head.weight" not in wrapped.center
    assert "transformer.wte.weight" in wrapped.center


def test_the_filters_of_the_layers_are_their_outputs() -> None:
    gpt2 = ls.params.layouts(cases.gpt2())
    assert gpt2["transformer.h.0.attn.c_attn.weight"].axis == 1  # Conv1D is (in, out)
    assert gpt2["transformer.h.0.mlp.c_proj.weight"].axis == 1
    assert gpt2["transformer.wte.weight"].axis == 0
    assert gpt2["transformer.ln_f.weight"].vector
    t5 = ls.params.layouts(cases.t5())
    llama = ls.params.layouts(cases.llama())
    assert t5["encoder.final_layer_norm.weight"].vector
    assert llama["model.layers.0.self_attn.q_proj.weight"].axis == 0


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")  # peft asks
def test_only_the_adapter_moves() -> None:
    model = peft.get_peft_model(
        cases.gpt2(),
        peft.LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True),
    )
    with torch.no_grad():  # B begins as zero
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    before = {n: p.clone() for n, p in model.named_parameters()}
    wrapped = objective(model, TEXT)
    assert wrapped.loss() == pytest.approx(own_loss(model, padded(TEXT)), rel=1e-6)
    assert list(wrapped.center) == [n for n, p in model.named_parameters() if p.requires_grad]
    assert all("lora_" in n for n in wrapped.center)
    dx, dy = ls.directions.random(wrapped.center, seed=0)
    land = ls.scan(wrapped, ls.Plane(wrapped.center, dx, dy), ls.Grid(3))
    with torch.no_grad():
        for n, d in dx.items():
            model.get_parameter(n).add_(d)
    expected = own_loss(model, padded(TEXT))
    assert float(land.data["loss"].sel(x=1, y=0)) == pytest.approx(expected, rel=1e-5)
    frozen = [n for n in before if n not in wrapped.center]
    assert all(torch.equal(model.get_parameter(n), before[n]) for n in frozen)
    assert land.data["loss"].std() > 1e-3


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")  # peft asks
@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM"),
        peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
        peft.PromptEncoderConfig(
            num_virtual_tokens=3, encoder_hidden_size=8, task_type="CAUSAL_LM"
        ),
        peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    ],
    ids=["embeddings", "prompt", "prompt encoder", "prefix"],
)
def test_adapters_of_other_kinds_have_the_loss_of_the_model(config: Any) -> None:
    model = peft.get_peft_model(cases.llama(), config)
    batch = padded(TEXT)
    wrapped = objective(model, TEXT, batch_size=len(TEXT))
    assert wrapped.loss() == pytest.approx(own_loss(model, batch), rel=1e-6)
    assert 0 < len(wrapped.center) < len(list(model.parameters()))


def test_a_forward_that_passes_all_on_takes_what_its_parent_takes() -> None:
    class Mine(LlamaForCausalLM):  # type: ignore[no-untyped-call] # of transformers
        def forward(self, *given: Any, **named: Any) -> Any:
            return super().forward(*given, **named)

    model: Any = Mine(cases.llama().config)
    rows = [{**row, "labels": row["input_ids"], "text": "a", "number": 1} for row in TEXT]
    wrapped = objective(model, rows)
    assert wrapped.loss() == pytest.approx(own_loss(model, padded(TEXT)), rel=1e-6)


def m2m() -> Any:
    """A model that says nowhere but in its forward how labels are shifted."""
    sizes = {f"{part}_{name}": 2 for part in ("encoder", "decoder")
             for name in ("layers", "attention_heads", "ffn_dim")}  # fmt: skip
    config = M2M100Config(vocab_size=30, d_model=16, max_position_embeddings=16, **sizes)  # type: ignore[arg-type] # numbers
    model_class: Any = M2M100ForConditionalGeneration
    return model_class(config)


def test_the_inputs_of_a_decoder_follow_from_labels_also_where_the_model_has_no_rule() -> None:
    model = m2m()
    expected = own_loss(model, padded(cases.PAIRS, token=1))
    assert objective(model, cases.PAIRS).loss() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("make", [m2m, cases.t5])
def test_a_decoder_without_a_first_token_is_a_sentence(make: Any) -> None:
    model = make()
    model.config.decoder_start_token_id = None
    with pytest.raises(ObjectiveError, match=r"derived from labels: .*decoder_start_token"):
        objective(model, cases.PAIRS)


def test_a_model_without_a_table_of_tokens_takes_any() -> None:
    model_class: Any = CanineForSequenceClassification
    model = model_class(
        CanineConfig(
            hidden_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_hash_functions=2,
            num_hash_buckets=64,
        )
    )
    rows = [{"input_ids": [ord(c) for c in "a house 家"], "label": k} for k in range(2)]
    assert objective(model, rows).loss() == pytest.approx(own_loss(model, padded(rows)), rel=1e-6)


def test_a_model_of_pictures_is_a_sentence() -> None:
    model_class: Any = ViTForImageClassification
    model = model_class(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(ObjectiveError, match=r"ViTForImageClassification takes pixel_values; exp"):
        objective(model, [], task="classification")


def test_what_is_no_model_of_transformers_is_a_sentence() -> None:
    name: Any = "gpt2"
    with pytest.raises(ObjectiveError, match="model is a str; expected a model of transformers"):
        objective(name, TEXT)
    with pytest.raises(ObjectiveError, match="model is a Linear; expected a model of transf"):
        objective(nn.Linear(2, 2), TEXT)


def test_the_same_question_is_asked_whatever_mode_the_model_is_in() -> None:
    model = cases.gpt2()
    first = objective(model, TEXT).problem.fingerprints()
    model.eval()(**padded(TEXT))
    assert objective(model, TEXT).problem.fingerprints() == first
    assert objective(model, TEXT[1:]).problem.fingerprints() != first


def test_without_transformers_there_is_a_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cases.gpt2()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'landscope\[transformers\]'"):
        objective(model, TEXT)
    with pytest.raises(MissingExtraError, match=r"pip install 'landscope\[transformers\]'"):
        callback(Recorder("run"))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")  # peft asks
def test_the_code_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(code) == 8
    exec(compile("\n".join(code), str(GUIDE), "exec"), {})
    assert {"gpt2.png", "run"} <= {p.name for p in tmp_path.iterdir()}
