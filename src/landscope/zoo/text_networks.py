"""Sequence models on Python's own sources: trained in less than a minute, then cached.

text_lstm, text_gru  one recurrent layer of 128 units     predict the next character
text_gpt             a decoder of two blocks, 64 wide     predicts the next character
text_encoder         an encoder of two blocks, 64 wide    tells which module a passage is from

Sources: S. Hochreiter, J. Schmidhuber, *Long short-term memory*, 1997. K. Cho et al., arXiv
1406.1078 (GRU). A. Vaswani et al., arXiv 1706.03762 (attention), with the norms before each branch
and the tied embedding of A. Radford et al., *Language models are unsupervised multitask learners*,
2019 (GPT-2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscope.objective.global_state import preserve_global_state
from landscope.zoo import text_data
from landscope.zoo.cache import load_or_train

LENGTH = 64  # characters in an input
SURFACE_ROWS = 64  # windows evaluated at each point of a surface; twice as many passages

_TOKENS = len(text_data.ALPHABET)
_WIDTH, _HEADS, _BLOCKS = 64, 4, 2
_UNITS = 128  # in a recurrent layer
# GPT-2 uses 0.02 for a width of at least 768. For a width of 64 that is too small: after four
# epochs the loss was 2.0 nat per character, and 1.7 with this value.
_INIT_STD = 0.08
_BATCH = 32
_WEIGHT_DECAY = 0.01
_MAX_GRADIENT_NORM = 1.0  # R. Pascanu et al., arXiv 1211.5063: recurrent gradients explode


class Recurrent(nn.Module):
    """An LSTM or a GRU that predicts each character from those before it.

    Args:
        kind: The class of the recurrent layer, nn.LSTM or nn.GRU.
    """

    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_TOKENS, _WIDTH)
        self.recurrent = kind(_WIDTH, _UNITS, batch_first=True)
        self.head = nn.Linear(_UNITS, _TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [b, t, c] for tokens [b, t]."""
        states, _ = self.recurrent(self.embedding(tokens))
        logits: Tensor = self.head(states)
        return logits


class Block(nn.Module):
    """Attention and a two-layer network, each in a residual branch after a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(_WIDTH)
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.out = nn.Linear(_WIDTH, _WIDTH)
        self.mlp_norm = nn.LayerNorm(_WIDTH)
        self.up = nn.Linear(_WIDTH, 4 * _WIDTH)
        self.down = nn.Linear(4 * _WIDTH, _WIDTH)

    def forward(self, states: Tensor, seen: Tensor | None) -> Tensor:
        """Return states [b, t, d]; a place sees all that are ``seen``, or those up to itself."""
        split = self.qkv(self.attention_norm(states)).unflatten(2, (3, _HEADS, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4)  # each [b, heads, t, d / heads]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)
        states = states + self.out(mixed.transpose(1, 2).flatten(2))
        added: Tensor = self.down(F.gelu(self.up(self.mlp_norm(states))))
        return states + added


class Transformer(nn.Module):
    """A decoder that predicts the next characters, or an encoder that classifies passages.

    Args:
        classes: The number of classes of passages; None for a decoder.
        tied: Whether the head of a decoder shares the weights of the embedding.
    """

    def __init__(self, classes: int | None = None, *, tied: bool = True) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = nn.Embedding(_TOKENS, _WIDTH)
        self.positions = nn.Embedding(LENGTH, _WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(_BLOCKS))
        self.norm = nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, classes or _TOKENS, bias=classes is not None)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if tied and classes is None:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits for tokens [b, t]: [b, t, c] of a decoder, [b, c] of an encoder."""
        states = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
        present = None if self.classes is None else tokens != text_data.PADDING
        for block in self.blocks:
            states = block(states, None if present is None else present[:, None, None])
        states = self.norm(states)
        if present is not None:  # the mean over tokens that are not padding
            weights = present.to(states.dtype).unsqueeze(2)
            states = (states * weights).sum(dim=1) / weights.sum(dim=1)
        logits: Tensor = self.head(states)
        return logits


@dataclass(frozen=True)
class Recipe:
    """How a network is built and trained.

    Args:
        build: Builds the untrained network.
        epochs: The default number of epochs of training.
        learning_rate: The maximum learning rate of AdamW.
        classifies: Whether it classifies passages; otherwise it predicts the next characters.
    """

    build: Callable[[], nn.Module]
    epochs: int
    learning_rate: float
    classifies: bool = False

    @property
    def task(self) -> str:
        """What the network learns, in two words."""
        return "which module" if self.classifies else "next character"


RECIPES: dict[str, Recipe] = {
    "text_lstm": Recipe(partial(Recurrent, nn.LSTM), 8, 0.01),
    "text_gru": Recipe(partial(Recurrent, nn.GRU), 6, 0.005),
    "text_gpt": Recipe(Transformer, 8, 0.01),
    "text_encoder": Recipe(partial(Transformer, len(text_data.MODULES)), 8, 0.005, classifies=True),
}
NETWORKS = {name: recipe.build for name, recipe in RECIPES.items()}


def load_data(name: str, *, train: bool = True, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the inputs [n, t] and targets [n, t] of a network; of an encoder, the classes [n].

    Args:
        name: The name of the network.
        train: Whether to return the training text instead of the test text.
        count: The number of rows, evenly spaced over the text; all if None.
    """
    cut = text_data.cut_passages if RECIPES[name].classifies else text_data.cut_windows
    inputs, targets = cut(LENGTH, train=train)
    rows = text_data.space_evenly(len(inputs), len(inputs) if count is None else count)
    return inputs[rows], targets[rows]


def load_surface_data(name: str, *, train: bool = True) -> tuple[Tensor, Tensor]:
    """Return the few rows of :func:`load_data` on which surfaces of a network are computed.

    A point takes less than 60 ms on one core: a language model evaluates 4,096 characters, an
    encoder 128 passages.
    """
    count = SURFACE_ROWS * (2 if RECIPES[name].classifies else 1)
    return load_data(name, train=train, count=count)


def load_trained(
    name: str, *, epochs: int | None = None, seed: int = 0, cache: bool = True
) -> nn.Module:
    """Return a network of :data:`NETWORKS` trained on the text, in evaluation mode.

    Args:
        name: The name of the network.
        epochs: The number of epochs of training; that of its recipe if None.
        seed: The seed of the initial weights and of the order of the data.
        cache: Whether the weights are loaded from and saved in :func:`cache_folder`. Other versions
            of Python have other texts, and so other weights.

    Raises:
        TargetError: When the weights cannot be saved.

    Cost: 10 to 40 seconds on one core, once.
    """
    recipe = RECIPES[name]
    epochs = recipe.epochs if epochs is None else epochs
    settings = (
        epochs, seed, recipe.learning_rate, _BATCH, _WEIGHT_DECAY, _MAX_GRADIENT_NORM, LENGTH,
        text_data.identity(),
    )  # fmt: skip
    train = partial(_train, name=name, epochs=epochs, seed=seed)
    return load_or_train(name, initial(name, seed=seed), train, settings, cache=cache)


def initial(name: str, *, seed: int = 0) -> nn.Module:
    """Return a network of :data:`NETWORKS` with the initial weights of its training."""
    with preserve_global_state():
        torch.manual_seed(seed)
        return NETWORKS[name]().eval()


def _train(model: nn.Module, *, name: str, epochs: int, seed: int) -> None:
    inputs, targets = load_data(name)
    rate, order = RECIPES[name].learning_rate, torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=_WEIGHT_DECAY)
    steps = epochs * -(-len(inputs) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=order).split(_BATCH):
            optimizer.zero_grad()
            logits = model(inputs[rows]).flatten(0, -2)
            F.cross_entropy(logits, targets[rows].flatten()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRADIENT_NORM)
            optimizer.step()
            schedule.step()
