"""Where weights lie: containers, copies, shards, folders, adapters; other files get a sentence."""

from __future__ import annotations

import copy
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor, nn

from landscope.errors import FormatError
from landscope.formats import checkpoint


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


STATE, COPY = dict(network(1).state_dict()), dict(network(2).state_dict())


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def assert_loads(path: Path, expected: Mapping[str, Tensor], key: str | None = None) -> str:
    model = network()
    notes = checkpoint.load(model, path, key)
    assert all(torch.equal(t, expected[n]) for n, t in model.state_dict().items())
    return "; ".join(notes)


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ({"state_dict": under("model.", STATE), "hyper_parameters": {}}, "without the prefix"),
        (under("_orig_mod.", STATE), "without the prefix '_orig_mod.'"),
        ({"state_dict": {**under("net.", STATE), "loss.weight": torch.ones(3)}}, "loss.weight"),
        ({"state_dict": STATE, "state_dict_ema": COPY}, "state_dict_ema would fit as well"),
        ({"model": STATE, "model_ema": COPY}, "those of model; model_ema would fit"),
        ({"ema": {"decay": 0.9, "module": STATE}, "epoch": 1}, ""),
        ({"student": under("module.", STATE), "teacher": COPY}, "teacher would fit as well"),
        ({**under("teacher.", COPY), **under("student.", STATE)}, "teacher would fit as well"),
        ({"module": under("module.", STATE), "ds_config": {}}, "without the prefix 'module.'"),
        ({"my_weights": STATE, "lr": 0.1}, ""),
        ({"checkpoint": {"model": STATE}}, ""),
        (torch.optim.swa_utils.AveragedModel(network(1)).state_dict(), "n_averaged"),
        (nn.DataParallel(network(1)).state_dict(), "without the prefix 'module.'"),
    ],
)
def test_weights_are_found_in_containers_and_under_prefixes(
    tmp_path: Path, content: Any, note: str
) -> None:
    assert note in assert_loads(save(content, tmp_path / "a.ckpt"), STATE)


def test_an_optimizer_is_not_taken_for_weights(tmp_path: Path) -> None:
    model = network(1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 6)).sum().backward()
    optimizer.step()
    state = dict(model.state_dict())
    content = {"optimizer": optimizer.state_dict(), "model": state}
    assert_loads(save(content, tmp_path / "a.pt"), state)
    with pytest.raises(FormatError, match="no tensors where a state dict should be"):
        checkpoint.read(save({"optimizer": optimizer.state_dict()}, tmp_path / "b.pt"))


def test_a_key_chooses_the_weights(tmp_path: Path) -> None:
    path = save({"state_dict": STATE, "ema": {"shadow": COPY}}, tmp_path / "a.pt")
    assert assert_loads(path, COPY, "ema.shadow") == ""
    assert assert_loads(path, STATE, "state_dict") == ""
    with pytest.raises(FormatError, match=r"it has them in state_dict, ema\.shadow"):
        checkpoint.read(path, "swa")


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch.compile's own imports
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_model_loads_its_own_file_and_a_bare_one(tmp_path: Path, wrap: Any) -> None:
    own = wrap(network(1)).state_dict()
    for number, state in enumerate((own, STATE, under("model.", STATE))):
        model = wrap(network())
        checkpoint.load(model, save(state, tmp_path / f"{number}.pt"))
        assert all(torch.equal(t, own[n]) for n, t in model.state_dict().items())


def test_hooks_of_a_model_may_rename_what_is_in_the_file(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        old = nn.utils.weight_norm(nn.Linear(3, 4)).state_dict()
    model = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    checkpoint.load(model, save(under("module.", old), tmp_path / "a.pt"))
    state = model.state_dict()
    assert torch.equal(state["parametrizations.weight.original1"], old["weight_v"])
    with pytest.raises(FormatError, match="does not fit ParametrizedLinear"):
        checkpoint.load(model, save({"weight": torch.ones(4, 3)}, tmp_path / "b.pt"))


def test_the_nearest_entry_explains_why_nothing_fits(tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3))
    path = save({"state_dict": under("model.", STATE)}, tmp_path / "a.pt")
    with pytest.raises(FormatError) as caught:
        checkpoint.load(wide, path)
    assert "does not fit Sequential (under the prefix 'model.'): 0.weight has" in str(caught.value)
    with pytest.raises(FormatError, match=r"The file has model\.0\.weight and 8 more"):
        checkpoint.load(nn.Linear(2, 2), path)


def test_tensors_are_selected_under_the_names_of_a_center(tmp_path: Path) -> None:
    center = dict(network().named_parameters())
    state, notes = checkpoint.select(center, save(under("model.", STATE), tmp_path / "a.pt"))
    assert list(state) == list(center)
    assert all(torch.equal(state[n], STATE[n]) for n in center)
    assert "without the prefix 'model.'" in notes[0]


def write_shards(folder: Path, suffix: str) -> Path:
    folder.mkdir()
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names = list(STATE)
    places: dict[str, str] = {}
    for number, part in enumerate((names[:3], names[3:]), start=1):
        file = f"{stem}-{number:05d}-of-00002{suffix}"
        state = {name: STATE[name] for name in part}
        if suffix == ".safetensors":
            safetensors.torch.save_file(state, folder / file)
        else:
            torch.save(state, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_are_read_by_their_index_or_folder(tmp_path: Path, suffix: str) -> None:
    index = write_shards(tmp_path / "a", suffix)
    assert_loads(index, STATE)
    assert_loads(index.parent, STATE)


def test_a_part_of_the_shards_is_not_enough(tmp_path: Path) -> None:
    index = write_shards(tmp_path / "a", ".safetensors")
    first, second = sorted(index.parent.glob("*-of-*"))
    with pytest.raises(FormatError, match=r"one shard of a checkpoint: give its folder, or model"):
        checkpoint.read(first)
    safetensors.torch.save_file({"other": torch.ones(1)}, second)
    with pytest.raises(FormatError, match="which does not hold it: copy all shards"):
        checkpoint.read(index)
    second.unlink()
    with pytest.raises(FormatError, match="names 2 shards, and model-00002-of-00002"):
        checkpoint.read(index)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": {"a": "../b.safetensors"}}'])
def test_a_damaged_index_gets_a_sentence(tmp_path: Path, content: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(FormatError, match="is not the index of a checkpoint in shards"):
        checkpoint.read(index)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_save_pretrained_is_read(tmp_path: Path, name: str) -> None:
    if name.endswith("bin"):
        torch.save(STATE, tmp_path / name)
    else:
        safetensors.torch.save_file(STATE, tmp_path / name)
    torch.save({"step": 3}, tmp_path / "optimizer.pt")
    assert_loads(tmp_path, STATE)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (".metadata", r"dcp_to_torch_save\(folder, 'model\.pt'\)"),
        ("zero_to_fp32.py", "run its zero_to_fp32.py"),
        ("notes.txt", "give the checkpoint file itself"),
    ],
)
def test_folders_of_other_tools_get_a_sentence(tmp_path: Path, file: str, sentence: str) -> None:
    (tmp_path / file).write_text("")
    with pytest.raises(FormatError, match=f"is a folder: .*{sentence}"):
        checkpoint.read(tmp_path)


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "text")


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "b.txt")


def write_script(path: Path) -> None:
    torch.jit.trace(network().eval(), torch.zeros(2, 6)).save(path)


def write_program(path: Path) -> None:
    torch.export.save(torch.export.export(network().eval(), (torch.zeros(2, 6),)), path)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # what is tested is reading
@pytest.mark.parametrize(
    ("name", "write", "sentence"),
    [
        ("a.pt", write_script, r"TorchScript program: .* torch\.jit\.load"),
        ("a.pt2", write_program, r"a program of torch\.export"),
        ("a.pth", write_zip, "a zip archive: unpack it"),
        ("a.pth.tar", write_tar, "a tar archive: unpack it"),
        ("a.onnx", Path.touch, "an ONNX graph"),
        ("a.gguf", Path.touch, "a GGUF file"),
        ("a.npz", Path.touch, "an archive of NumPy arrays"),
    ],
)
def test_other_kinds_of_files_get_a_sentence(
    tmp_path: Path, name: str, write: Any, sentence: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(FormatError, match=sentence) as caught:
        checkpoint.load(network(), tmp_path / name)
    assert "weights_only" not in str(caught.value)


@pytest.fixture
def base() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, eos_token_id=1, bos_token_id=1
    )
    return transformers.GPT2LMHeadModel(config)


IGNORE_PEFT = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is:FutureWarning"  # peft asks transformers for it
)
CONFIGURATIONS = [
    peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"),
    peft.LoraConfig(
        r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM",
        modules_to_save=["ln_f"],
    ),
    peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
]  # fmt: skip


@IGNORE_PEFT
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_weights_of_an_adapter_load_into_a_model_that_has_it(
    tmp_path: Path, base: nn.Module, configuration: Any
) -> None:
    source = peft.get_peft_model(copy.deepcopy(base), configuration)
    for parameter in source.parameters():
        nn.init.normal_(parameter.data) if parameter.requires_grad else None
    source.save_pretrained(str(tmp_path))
    target = peft.get_peft_model(copy.deepcopy(base), configuration)
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        assert checkpoint.load(target, path) == ("only the weights of the adapter were loaded",)
    expected = dict(source.named_parameters())
    trained = {n: p for n, p in target.named_parameters() if p.requires_grad}
    assert trained
    assert all(torch.equal(p, expected[n]) for n, p in trained.items())


@IGNORE_PEFT
def test_an_adapter_for_another_model_gets_a_sentence(tmp_path: Path, base: nn.Module) -> None:
    peft.get_peft_model(copy.deepcopy(base), CONFIGURATIONS[0]).save_pretrained(str(tmp_path))
    wider = peft.LoraConfig(
        r=3, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    for model in (base, peft.get_peft_model(copy.deepcopy(base), wider)):
        with pytest.raises(FormatError, match=r"holds an adapter of PEFT .*get_peft_model"):
            checkpoint.load(model, tmp_path)


@IGNORE_PEFT
def test_a_whole_model_with_an_adapter_loads_as_any_other(tmp_path: Path, base: nn.Module) -> None:
    source = peft.get_peft_model(copy.deepcopy(base), CONFIGURATIONS[0])
    state = {n: t + 1 for n, t in source.state_dict().items()}
    target = peft.get_peft_model(copy.deepcopy(base), CONFIGURATIONS[0])
    checkpoint.load(target, save(state, tmp_path / "a.pt"))
    assert all(torch.equal(t, state[n]) for n, t in target.state_dict().items())
