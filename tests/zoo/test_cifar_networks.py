"""The CIFAR networks against the 2018 scripts.

Witnesses: names and shapes were recorded from the scripts themselves (tests/data). The functions
are stated again below from the paper and from nothing but the tensors of a state dict, with
torch.nn.functional in float64, without a module and without a list of layers: depth, width, stride
and kind of block are read off the names and shapes. One loss and one accuracy were stored by the
scripts in a surface file.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscope.formats import checkpoint
from landscope.zoo import cifar_data, cifar_networks

BUILDERS = {"tiny": cifar_networks.build_tiny, **cifar_networks.NETWORKS}
DATA = Path(__file__).parents[1] / "data"
REFERENCE = DATA / "reference"
RECORD: dict[str, list[list[object]]] = json.loads(
    gzip.decompress((DATA / "state_dict_keys.json.gz").read_bytes())
)


def test_the_29_networks_of_the_2018_scripts_are_there_under_their_names() -> None:
    assert len(cifar_networks.NETWORKS) == 29
    assert {*cifar_networks.NETWORKS, "tiny"} == set(RECORD)


@pytest.mark.parametrize("name", BUILDERS)
def test_names_order_and_shapes_are_those_of_published_checkpoints(name: str) -> None:
    with torch.device("meta"):
        state = BUILDERS[name]().state_dict()
    assert [[key, list(value.shape)] for key, value in state.items()] == RECORD[name]


def network(name: str, at: str = "") -> nn.Module:
    """A network, or a part of one, in float64 and eval mode, whose batch norms do something."""
    with torch.device("meta"):
        model = BUILDERS[name]().get_submodule(at)
    model = model.to_empty(device="cpu").double().eval()
    generator = torch.Generator().manual_seed(7)
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            value.zero_()
        elif value.dim() > 1:
            fan_in = value[0].numel()
            value.normal_(0, fan_in**-0.5, generator=generator)
        else:
            value.uniform_(0.5, 1.5, generator=generator)
    return model


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


State = dict[str, Tensor]


def norm(state: State, name: str, x: Tensor) -> Tensor:
    gain, shift, mean, var = (
        state[f"{name}.{part}"].view(-1, *[1] * (x.dim() - 2))
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return gain * (x - mean) / torch.sqrt(var + 1e-5) + shift


def conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, weight.shape[-1] // 2)


def restated_block(state: State, at: str, x: Tensor, stride: int, *, skip: bool) -> Tensor:
    if f"{at}.conv3.weight" in state:
        out = F.relu(norm(state, f"{at}.bn1", conv(state, f"{at}.conv1", x)))
        out = F.relu(norm(state, f"{at}.bn2", conv(state, f"{at}.conv2", out, stride)))
        out = norm(state, f"{at}.bn3", conv(state, f"{at}.conv3", out))
        if not skip:
            return out
    else:
        out = F.relu(norm(state, f"{at}.bn1", conv(state, f"{at}.conv1", x, stride)))
        out = norm(state, f"{at}.bn2", conv(state, f"{at}.conv2", out))
    if f"{at}.shortcut.0.weight" in state:
        x = norm(state, f"{at}.shortcut.1", conv(state, f"{at}.shortcut.0", x, stride))
    return F.relu(out + x) if skip else F.relu(out)


def restated_residual(state: State, x: Tensor, *, skip: bool) -> Tensor:
    out = F.relu(norm(state, "bn1", conv(state, "conv1", x)))
    blocks = dict.fromkeys(key.rsplit(".conv1", 1)[0] for key in state if ".conv1." in key)
    for at in blocks:
        stride = 2 if at.endswith(".0") and at != "layer1.0" else 1
        out = restated_block(state, at, out, stride, skip=skip)
    return F.linear(out.mean(dim=(2, 3)), state["linear.weight"], state["linear.bias"])


def restated_densenet(state: State, x: Tensor) -> Tensor:
    out = conv(state, "conv1", x)
    for stage, count in enumerate((6, 12, 24, 16), start=1):
        for at in (f"dense{stage}.{index}" for index in range(count)):
            new = conv(state, f"{at}.conv1", F.relu(norm(state, f"{at}.bn1", out)))
            new = conv(state, f"{at}.conv2", F.relu(norm(state, f"{at}.bn2", new)))
            out = torch.cat((new, out), 1)
        if stage < 4:
            at = f"trans{stage}"
            out = conv(state, f"{at}.conv", F.relu(norm(state, f"{at}.bn", out)))
            out = F.avg_pool2d(out, 2)
    out = F.relu(norm(state, "bn", out)).mean(dim=(2, 3))
    return F.linear(out, state["linear.weight"], state["linear.bias"])


def restated_vgg9(state: State, x: Tensor) -> Tensor:
    for index in (0, 3, 7, 10, 14, 17, 20):
        x = F.relu(norm(state, f"features.{index + 1}", conv(state, f"features.{index}", x)))
        if index in (3, 10, 20):
            x = F.max_pool2d(x, 2)
    x = F.linear(x.reshape(len(x), -1), state["fc.0.weight"], state["fc.0.bias"])
    x = F.relu(norm(state, "fc.1", x))
    return F.linear(x, state["classifier.weight"], state["classifier.bias"])


def restated_tiny(state: State, x: Tensor) -> Tensor:
    x = F.avg_pool2d(F.relu(norm(state, "bn1", conv(state, "conv1", x))), 4)
    x = F.avg_pool2d(F.relu(norm(state, "bn2", conv(state, "conv2", x))), 4)
    return F.linear(x.reshape(len(x), -1), state["fc.weight"], state["fc.bias"])


def with_skips(state: State, x: Tensor) -> Tensor:
    return restated_residual(state, x, skip=True)


def without_skips(state: State, x: Tensor) -> Tensor:
    return restated_residual(state, x, skip=False)


@pytest.mark.parametrize(
    ("name", "restated"),
    [
        ("tiny", restated_tiny),
        ("vgg9", restated_vgg9),
        ("densenet121", restated_densenet),
        ("resnet20", with_skips),
        ("resnet20_noshort", without_skips),
        ("resnet18", with_skips),
    ],
)
def test_a_network_computes_what_the_paper_states(
    name: str, restated: Callable[[State, Tensor], Tensor]
) -> None:
    model, x = network(name), noise(1, 3, 32, 32)
    with torch.no_grad():
        expected = restated(model.state_dict(), x)
        assert expected.shape == (1, 10)
        assert (
            restated(model.state_dict(), -x) - expected
        ).abs().max() > 1e-6 * expected.abs().max()
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-12)


def test_the_tiny_network_gives_the_loss_that_the_2018_scripts_stored_for_it() -> None:
    model = cifar_networks.build_tiny().eval()
    checkpoint.load(model, REFERENCE / "tiny_a" / "model_10.t7")
    with np.load(REFERENCE / "data.npz") as data:
        x = cifar_data.preprocess(data["train_images"])
        y = torch.from_numpy(data["train_labels"]).long()
    with torch.no_grad():
        logits = model(x)
    # the middle of the 5 x 5 surface over the weights: its train_loss and train_acc
    assert F.cross_entropy(logits, y).item() == pytest.approx(0.22553449496626854, rel=1e-6)
    assert (logits.argmax(1) == y).double().mean().item() == 0.9453125


@pytest.mark.parametrize(("at", "channels", "stride"), [("layer1.0", 64, 1), ("layer2.0", 256, 2)])
@pytest.mark.parametrize(("name", "skip"), [("resnet50", True), ("resnet50_noshort", False)])
def test_a_bottleneck_computes_what_the_2018_scripts_computed(
    name: str, at: str, channels: int, stride: int, *, skip: bool
) -> None:
    block, x = network(name, at), noise(2, channels, 8, 8)
    state = {f"block.{key}": value for key, value in block.state_dict().items()}
    out = block(x)
    expected = restated_block(state, "block", x, stride, skip=skip)
    assert out.shape == (2, 2 * channels if stride == 2 else 256, 8 // stride, 8 // stride)
    assert (out.min() < 0) == (not skip)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)


def test_a_dense_block_puts_its_new_channels_in_front() -> None:
    x = noise(2, 64, 4, 4)
    out = network("densenet121", "dense1.0")(x)
    assert out.shape == (2, 96, 4, 4)
    torch.testing.assert_close(out[:, 32:], x, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["wrn56_2_noshort", "resnet110"])
def test_deep_and_wide_networks_give_ten_logits_an_image(name: str) -> None:
    model = cifar_networks.NETWORKS[name]().eval()
    with torch.no_grad():
        logits = model(noise(1, 3, 32, 32).float())
    assert logits.shape == (1, 10)
    assert torch.isfinite(logits).all()


PARTS = [  # one of each kind, with the shape that it takes
    ("tiny", "", (2, 3, 32, 32)),
    ("vgg9", "features", (2, 3, 8, 8)),
    ("vgg9", "fc", (2, 4096)),
    ("densenet121", "dense1.0", (2, 64, 4, 4)),
    ("densenet121", "trans1", (2, 256, 4, 4)),
    ("resnet20", "layer1.0", (2, 16, 8, 8)),
    ("resnet20", "layer2.0", (2, 16, 8, 8)),
    ("resnet20_noshort", "layer1.0", (2, 16, 8, 8)),
    ("resnet50", "layer1.1", (2, 256, 4, 4)),
]


@pytest.mark.parametrize(("name", "at", "shape"), PARTS)
def test_a_hessian_product_by_torch_func_equals_double_backward(
    name: str, at: str, shape: tuple[int, ...]
) -> None:
    model, x = network(name, at), noise(*shape)
    params = {key: value.detach() for key, value in model.named_parameters()}
    vector = {key: torch.cos(value) for key, value in params.items()}

    def loss(values: State) -> Tensor:
        return torch.sin(torch.func.functional_call(model, values, (x,))).mean()

    (product,) = torch.func.vjp(torch.func.grad(loss), params)[1](vector)

    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    gradient = torch.autograd.grad(loss(leaves), list(leaves.values()), create_graph=True)
    dots = [(g * v).sum() for g, v in zip(gradient, vector.values(), strict=True)]
    twice = torch.autograd.grad(torch.stack(dots).sum(), list(leaves.values()))
    for key, expected in zip(params, twice, strict=True):
        torch.testing.assert_close(product[key], expected, rtol=1e-8, atol=1e-12)
    assert max(value.abs().max() for value in twice) > 0


@pytest.mark.parametrize(("name", "at", "shape"), PARTS)
def test_a_network_leaves_its_input_as_it_was(name: str, at: str, shape: tuple[int, ...]) -> None:
    x = noise(*shape)
    network(name, at).train()(x)
    assert torch.equal(x, noise(*shape))
