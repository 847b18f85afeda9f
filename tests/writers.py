"""Models whose forward pass writes into the model itself, each in another way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Write = Callable[[nn.Linear], None]


class Words(nn.Module):
    """Embeds one of 7 tokens for each row; looked-up rows are renormalized in place."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table, self.out = table, nn.Linear(4, 3)

    def forward(self, rows: Tensor) -> Tensor:
        tokens = (rows[:, :1] * 3).long().remainder(7)
        return torch.as_tensor(self.out(self.table(tokens).reshape(-1, 4)))


class Writer(nn.Module):
    """An MLP that does something to its first layer before each pass."""

    def __init__(self, write: Write, *, frozen: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.write = nn.Linear(4, 8), nn.Linear(8, 3), write
        self.first.requires_grad_(requires_grad=not frozen)

    def forward(self, rows: Tensor) -> Tensor:
        self.write(self.first)
        return torch.as_tensor(self.last(torch.tanh(self.first(rows))))


class Rescaled(Writer):
    """Divides weights by two in the first pass, and remembers by a flag that it did."""

    def __init__(self) -> None:
        super().__init__(self.rescale)
        self.is_rescaled = False

    def rescale(self, layer: nn.Linear) -> None:
        if not self.is_rescaled:
            layer.weight.data.div_(2)
            self.is_rescaled = True


class Codebook(nn.Module):
    """Adds the nearest of some codes, which follow the data: an average that moves in each pass."""

    def __init__(self, *, plain: bool, assign: bool) -> None:
        super().__init__()
        self.first, self.last, self.assign = nn.Linear(4, 8), nn.Linear(8, 3), assign
        self.codes: Tensor
        if plain:
            self.codes = torch.randn(5, 8)
        else:
            self.register_buffer("codes", torch.randn(5, 8))

    def forward(self, rows: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(rows))
        nearest = torch.cdist(hidden.detach(), self.codes).argmin(dim=1)
        coded = hidden + self.codes[nearest]
        with torch.no_grad():
            step = 0.1 * (hidden.mean(dim=0) - self.codes)
            if self.assign:
                self.codes = self.codes + step
            else:
                self.codes.add_(step)
        return torch.as_tensor(self.last(coded))


def clamp(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.clamp_(-0.2, 0.2)


def clamp_data(layer: nn.Linear) -> None:
    layer.weight.data.clamp_(-0.2, 0.2)


def clamp_numpy(layer: nn.Linear) -> None:
    array = layer.weight.detach().numpy()
    array.clip(-0.2, 0.2, out=array)


def center(layer: nn.Linear) -> None:
    layer.weight.data = layer.weight.data - layer.weight.data.mean(dim=1, keepdim=True)


def hook(module: nn.Module, _: object) -> None:
    assert isinstance(module, nn.Linear)
    clamp(module)


def with_hook() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    model[0].register_forward_pre_hook(hook)
    return model


def with_spectral_norm() -> nn.Module:
    norm = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(norm(nn.Linear(4, 8)), nn.Tanh(), nn.Linear(8, 3)).train()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "embedding": lambda: Words(nn.Embedding(7, 4, max_norm=1.0)),
    "frozen embedding": lambda: Words(nn.Embedding(7, 4, max_norm=1.0).requires_grad_(False)),
    "embedding bag": lambda: Words(nn.EmbeddingBag(7, 4, max_norm=1.0)),
    "clamp": lambda: Writer(clamp),
    "clamp of frozen weights": lambda: Writer(clamp, frozen=True),
    "clamp of data": lambda: Writer(clamp_data),
    "clamp by numpy": lambda: Writer(clamp_numpy),
    "data replaced": lambda: Writer(center),
    "frozen data replaced": lambda: Writer(center, frozen=True),
    "hook": with_hook,
    "spectral norm": with_spectral_norm,
    "flag": Rescaled,
    "buffer": lambda: Codebook(plain=False, assign=False),
    "buffer replaced": lambda: Codebook(plain=False, assign=True),
    "plain tensor": lambda: Codebook(plain=True, assign=False),
    "plain tensor replaced": lambda: Codebook(plain=True, assign=True),
}


def make(name: str) -> nn.Module:
    """Return a model, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name]()
