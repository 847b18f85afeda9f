"""Offloaded models against the same model, kept whole in memory and changed in place.

The witness never meets a hook: its parameters are plain tensors that the same change is added to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from accelerate.hooks import attach_align_device_hook
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from landscope.errors import ParamsError
from landscope.integrations.eval_copy import make_eval_copy
from landscope.objective import offloaded

Model = Any  # the types of transformers do not know its modules
CPU = torch.device("cpu")
TOKENS = torch.arange(24).reshape(2, 12) % 20
BLOCKS = {
    "transformer.wte": "cpu",
    "transformer.wpe": "cpu",
    "transformer.drop": "cpu",
    "transformer.h.0": "cpu",
    "transformer.h.1": "disk",
    "transformer.ln_f": "disk",
    "lm_head": "cpu",
}
TIED_ON_DISK = BLOCKS | {"transformer.wte": "disk", "lm_head": "disk", "transformer.h.1": "cpu"}


def gpt2() -> Model:
    torch.manual_seed(0)
    sizes = GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=2, n_head=2)
    model: Model = GPT2LMHeadModel(sizes)
    return model.eval()


def _cpu(model: nn.Module, folder: Path) -> None:
    accelerate.cpu_offload(model, execution_device=CPU)


def _disk(model: nn.Module, folder: Path) -> None:
    accelerate.disk_offload(model, str(folder), execution_device=CPU)


def _dispatch(blocks: dict[str, str]) -> Callable[[nn.Module, Path], None]:
    def dispatch(model: nn.Module, folder: Path) -> None:
        accelerate.dispatch_model(model, blocks, main_device="cpu", offload_dir=str(folder))

    return dispatch


def _whole_blocks(model: nn.Module, folder: Path) -> None:
    """Blocks that load the weights of all their submodules at once."""
    accelerate.cpu_offload(model, execution_device=CPU, preload_module_classes=["GPT2Block"])


def _whole_model(model: nn.Module, folder: Path) -> None:
    """Everything, with the tied embedding, is loaded when the pass begins."""
    accelerate.cpu_offload(model, execution_device=CPU, preload_module_classes=["GPT2LMHeadModel"])


def _one_tensor_for_ties(model: nn.Module, folder: Path) -> None:
    """As dispatching to a GPU does it: what is tied is loaded once, from the memory of the CPU."""
    state = dict(model.state_dict())
    attach_align_device_hook(
        model,
        execution_device=CPU,
        offload=True,
        weights_map=state,
        tied_params_map={state["lm_head.weight"].data_ptr(): {}},
        preload_module_classes=["GPT2LMHeadModel"],
    )


WAYS = {
    "cpu": _cpu,
    "disk": _disk,
    "some blocks on disk": _dispatch(BLOCKS),
    "tied ones on disk": _dispatch(TIED_ON_DISK),
    "whole blocks": _whole_blocks,
    "whole model": _whole_model,
    "one tensor for ties": _one_tensor_for_ties,
}


@pytest.fixture(params=WAYS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    found = gpt2()
    WAYS[request.param](found, tmp_path)
    return found


def noise(name: str, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    return 0.1 * torch.randn(like.shape, generator=generator)


def add_noise(name: str, tensor: Tensor) -> None:
    tensor.add_(noise(name, tensor))


def changed(only: list[str]) -> Model:
    """The witness: the whole model, with noise added to the parameters of these names."""
    whole = gpt2()
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if name in only:
                parameter.add_(noise(name, parameter))
    return whole


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(TOKENS).logits
    return found


def footprint(model: nn.Module) -> list[Any]:
    """What must be the same afterwards: hooks, their methods, and where parameters lie."""
    hooks = [getattr(m, "_hf_hook", None) for m in model.modules()]
    own = [sorted(vars(h)) for h in hooks if h is not None]
    places = [(n, p.device.type) for n, p in model.named_parameters(remove_duplicate=False)]
    return [*map(id, hooks), own, places]


def test_a_moved_model_computes_what_the_whole_model_with_the_same_change_does(
    model: Model,
) -> None:
    logits(model)  # hooks write some of their fields in their first pass
    before, values = footprint(model), logits(model)
    names = offloaded.list_names(model)
    with offloaded.change_when_loaded(model, add_noise):
        for _ in range(2):
            assert torch.equal(logits(model), logits(changed(names)))
    assert footprint(model) == before
    assert torch.equal(logits(model), values)
    assert torch.equal(values, logits(gpt2()))


def test_the_originals_are_the_parameters_of_the_whole_model(model: Model) -> None:
    whole = dict(gpt2().named_parameters())
    names = offloaded.list_names(model)
    assert names
    with offloaded.change_when_loaded(model, add_noise):
        logits(model)
        for name in names:
            assert torch.equal(offloaded.read_stored(model, name), whole[name])


def test_an_exception_inside_a_module_leaves_no_weight_in_memory(model: Model) -> None:
    logits(model)
    before, values = footprint(model), logits(model)

    def refuse(*given: object) -> None:
        raise RuntimeError("in the middle")

    handle = model.transformer.ln_f.register_forward_hook(refuse)
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        offloaded.change_when_loaded(model, add_noise),
    ):
        logits(model)
    handle.remove()
    assert footprint(model) == before
    assert torch.equal(logits(model), values)


def test_an_exception_inside_the_change_leaves_no_weight_in_memory(model: Model) -> None:
    logits(model)
    before, values = footprint(model), logits(model)

    def refuse(name: str, tensor: Tensor) -> None:
        tensor.zero_()
        raise RuntimeError("in the change")

    with (
        pytest.raises(RuntimeError, match="in the change"),
        offloaded.change_when_loaded(model, refuse),
    ):
        logits(model)
    assert footprint(model) == before
    assert torch.equal(logits(model), values)


def test_names_are_those_of_a_whole_model_with_tied_ones_once(tmp_path: Path) -> None:
    whole = [name for name, _ in gpt2().named_parameters()]
    for way in ("cpu", "disk", "whole model"):
        model = gpt2()
        WAYS[way](model, tmp_path)
        assert offloaded.list_names(model) == whole
    some = gpt2()
    WAYS["some blocks on disk"](some, tmp_path / "some")
    expected = [n for n in whole if n.startswith(("transformer.h.1", "transformer.ln_f"))]
    assert offloaded.list_names(some) == expected


def test_ties_of_a_plain_module_are_seen_where_the_stored_values_share_memory() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    names = [name for name, _ in model.named_parameters()]
    accelerate.cpu_offload(model, execution_device=CPU)
    assert (
        offloaded.list_names(model)
        == names
        == ["0.weight", "0.bias", "1.weight", "1.bias", "2.bias"]
    )
    assert torch.equal(
        offloaded.read_stored(model, "2.weight"), offloaded.read_stored(model, "0.weight")
    )


def test_the_device_is_where_weights_are_used(model: Model) -> None:
    assert offloaded.find_device(model) == CPU
    assert offloaded.find_device(gpt2()) is None


def stores(model: nn.Module) -> list[int]:
    """Where the weights of each module are kept."""
    hooks = [getattr(m, "_hf_hook", None) for m in model.modules()]
    return [id(getattr(hook, "weights_map", None)) for hook in hooks]


def test_a_body_of_an_offloaded_model_reads_the_same_store(model: Model) -> None:
    body = make_eval_copy(model)
    assert stores(body) == stores(model)
    names = offloaded.list_names(body)
    assert names == offloaded.list_names(model)
    values, before = logits(model), footprint(model)
    with offloaded.change_when_loaded(body, add_noise):
        assert torch.equal(logits(body), logits(changed(names)))
        assert torch.equal(logits(model), values)
    assert footprint(model) == before


def test_a_model_that_is_not_offloaded_has_no_such_names() -> None:
    assert offloaded.list_names(gpt2()) == []
    with offloaded.change_when_loaded(gpt2(), add_noise):
        pass


@pytest.mark.parametrize("part", ["lm_head", "transformer.wte"])
def test_ties_that_are_offloaded_in_part_are_a_sentence(part: str, tmp_path: Path) -> None:
    model = gpt2()
    _dispatch(BLOCKS | {part: "disk"})(model, tmp_path)
    text = "transformer.wte.weight, lm_head.weight are one tensor, which is offloaded under some"
    with pytest.raises(ParamsError, match=text):
        offloaded.list_names(model)


@pytest.mark.parametrize("whole", [[], ["Sequential"]])
def test_statistics_that_are_offloaded_are_a_sentence(whole: list[str]) -> None:
    """A pass in training mode would write to the user's own, which nobody would put back."""
    for buffers in (False, True):
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        accelerate.cpu_offload(model, CPU, buffers, preload_module_classes=whole)
        if buffers:
            with pytest.raises(ParamsError, match=r"statistics of a BatchNorm1d in it are offload"):
                offloaded.list_names(model)
        else:
            assert len(offloaded.list_names(model)) == 4


def test_a_name_that_is_not_offloaded_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"'nothing' is not an offloaded parameter of this GPT"):
        offloaded.read_stored(gpt2(), "nothing")
