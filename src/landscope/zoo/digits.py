"""Networks for the handwritten digits of scikit-learn: trained in seconds, then cached.

The residual networks are those of He et al. (arXiv 1512.03385) for CIFAR-10, with half the width
and for 8x8 images. Data: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI,
1998.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscope.objective.global_state import preserve_global_state
from landscope.zoo.cache import load_or_train
from landscope.zoo.cifar_networks import build_residual

EPOCHS = 25
_TRAINING = 1437  # the training images among 1797; the others are test images
_LEARNING_RATE = 0.1  # the maximum of the schedule of L. Smith, N. Topin, arXiv 1708.07120
_BATCH = 128
_WEIGHT_DECAY = 5e-4  # as in Li et al., arXiv 1712.09913


def _build_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 128), nn.ReLU(),
        nn.Linear(128, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip


def _build_resnet(depth: int, *, shortcut: bool = True) -> nn.Module:
    return build_residual(((depth - 2) // 6,) * 3, 8, shortcut=shortcut, inputs=1, image=8)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits_mlp": _build_mlp,
    **{
        f"digits_resnet{depth}{'' if shortcut else '_noshort'}": partial(
            _build_resnet, depth, shortcut=shortcut
        )
        for depth in (8, 20, 32, 56)
        for shortcut in (True, False)
    },
}


@lru_cache(maxsize=1)
def _load_split() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None]
    images = (images - images.mean()) / images.std()
    labels = torch.tensor(data.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:_TRAINING], order[_TRAINING:]
    return images[train], labels[train], images[test], labels[test]


def load_data(*, train: bool = True) -> tuple[Tensor, Tensor]:
    """Return standardized images [n, 1, 8, 8] and labels [n]: 1437 for training, 360 for tests."""
    parts = _load_split()
    return parts[:2] if train else parts[2:]


def load_trained(
    name: str, *, epochs: int = EPOCHS, seed: int = 0, cache: bool = True
) -> nn.Module:
    """Return a network of :data:`NETWORKS` trained on the digits, in evaluation mode.

    Args:
        name: The name of the network.
        epochs: The number of epochs of training.
        seed: The seed of the initial weights and of the order of the data.
        cache: Whether the weights are loaded from and saved in :func:`cache_folder`.

    Cost: 2 to 20 seconds on two cores, once.
    """
    recipe = epochs, seed, _LEARNING_RATE, _BATCH, _WEIGHT_DECAY
    train = partial(_train, epochs=epochs, seed=seed)
    return load_or_train(name, initial(name, seed=seed), train, recipe, cache=cache)


def initial(name: str, *, seed: int = 0) -> nn.Module:
    """Return a network of :data:`NETWORKS` with the initial weights of its training."""
    with preserve_global_state():
        torch.manual_seed(seed)
        return NETWORKS[name]().eval()


def _train(model: nn.Module, epochs: int, seed: int) -> None:
    inputs, targets = load_data()
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        model.parameters(), _LEARNING_RATE, 0.9, weight_decay=_WEIGHT_DECAY, nesterov=True
    )
    steps = epochs * -(-len(targets) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(targets), generator=order).split(_BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
            schedule.step()
