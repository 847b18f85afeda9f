"""The fused pass: the values of the model, in fewer steps, and the model stays as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscope.engines.fused import Fused
from landscope.zoo.cifar_networks import build_residual
from tests.cases import seeded

INPUTS = torch.randn(5, 3, 8, 8, generator=seeded(0))


class Branching(nn.Module):
    """Sums whose parts are needed again, views of them, and sums of one thing with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.three = nn.Conv2d(4, 4, 1, bias=False)
        self.last = nn.Linear(4 * 64, 3)

    def forward(self, images: Tensor) -> Tensor:
        first = self.one(images)
        seen = first.view(first.shape[0], -1)  # shares the memory of ``first``
        second = torch.relu(self.two(first) + first)
        third = F.relu(self.three(second) + second)
        fourth = (third + third).relu()
        found: Tensor = self.last(seen + second.flatten(1) + fourth.flatten(1))
        return found


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(rows) if rows.sum() > 0 else rows


def _stirred(model: nn.Module) -> nn.Module:
    """Statistics and gains that are not those of a new network."""
    draws = seeded(4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    tensor.data = torch.rand(tensor.shape, generator=draws) + 0.5
    return model.eval()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "with skips": lambda: build_residual((2, 2, 2), 4, inputs=3, image=8),
    "without skips": lambda: build_residual((2, 2, 2), 4, shortcut=False, inputs=3, image=8),
    "branching": Branching,
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.ReLU(), nn.Linear(7, 2)),
    "biases before batch norm": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3, stride=2)
    ),
    "batch norm without gains": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, groups=1), nn.BatchNorm2d(4, affine=False), nn.ReLU()
    ),
    "grouped, dilated, padded": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3, dilation=2, padding=2), nn.BatchNorm2d(6), nn.GELU()
    ),
    "reflected padding": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Conv2d(4, 2, 1)
    ),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())


@every_model
def test_the_values_are_those_of_the_model_wherever_it_stands(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    model = _stirred(make())
    fused, draws = Fused(model), seeded(1)
    before = INPUTS.clone()
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(fused(INPUTS), model(INPUTS), rtol=1e-5, atol=1e-5)
            for parameter in model.parameters():
                step = 0.1 * torch.randn(parameter.shape, generator=draws)
                parameter.data = parameter.data + step  # new memory, as a point of a scan has
            fused.refresh()
        assert torch.equal(INPUTS, before)


def test_batch_norm_and_activations_are_gone() -> None:
    fused = Fused(MODELS["with skips"]().eval())
    names = [type(m).__name__ for m in fused._forward.modules()]
    assert "BatchNorm2d" not in names
    assert sum(p.after == "sum" for p in fused._products) == 6
    assert any(p.inplace for p in fused._products)


def test_batch_norm_in_training_mode_stays() -> None:
    model = MODELS["biases before batch norm"]().train()
    expected = model(INPUTS)
    names = [type(m).__name__ for m in Fused(model)._forward.modules()]
    assert "BatchNorm2d" in names
    torch.testing.assert_close(Fused(model)(INPUTS), expected)


def test_the_model_stays_as_it_is() -> None:
    model = _stirred(MODELS["with skips"]())
    before = {n: t.clone() for n, t in model.state_dict().items()}
    children = [n for n, _ in model.named_modules()]
    Fused(model)(INPUTS)
    assert [n for n, _ in model.named_modules()] == children
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_layers_with_hooks_are_left_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Linear(3, 3))
    model[1].register_forward_hook(lambda module, args, out: out + 1)
    torch.testing.assert_close(Fused(model)(INPUTS), model(INPUTS))


@pytest.mark.parametrize("model", [Deciding(), nn.Sequential(nn.LayerNorm(8), nn.Tanh())])
def test_what_cannot_be_rewritten_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"traced|rewritten"):
        Fused(model)


def test_double_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="rewritten"):
        Fused(nn.Linear(3, 3).double())
