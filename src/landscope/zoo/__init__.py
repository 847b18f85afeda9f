"""Models, data and recipes to try things on: ``landscope zoo`` lists them.

digits_*    small networks on scikit-learn's digits, trained in seconds and cached
the others  the 29 CIFAR-10 networks of the 2018 scripts; their data and weights are yours
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from landscope import losses
from landscope.errors import TargetError
from landscope.formats import checkpoint as checkpoint_
from landscope.objective import Objective
from landscope.zoo import cifar, cifar10, digits

_LOSSES = {"cross_entropy": nn.CrossEntropyLoss(), "mse": losses.softmax_mse}


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Args:
        name: that ``zoo:NAME`` takes.
        build: makes it, untrained.
        data: what it is trained on.
    """

    name: str
    build: Callable[[], nn.Module]
    data: str

    def size(self) -> tuple[int, int]:
        """Return its (trainable parameters, layers of weights), without using memory for it."""
        with torch.device("meta"):
            model = self.build()
        kinds = (nn.Linear, nn.Conv2d)
        layers = sum(isinstance(m, kinds) for n, m in model.named_modules() if "shortcut" not in n)
        return sum(p.numel() for p in model.parameters()), layers


CATALOG: dict[str, Entry] = {
    **{n: Entry(n, build, "digits 8x8") for n, build in digits.NETWORKS.items()},
    **{n: Entry(n, build, "CIFAR-10 32x32") for n, build in cifar.NETWORKS.items()},
}


def objective(
    name: str,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    loss: str = "cross_entropy",
    normalize: bool = True,
    split: int = 1,
    corrupt: float = 0.0,
    test: bool = False,
    seed: int = 0,
    epochs: int = digits.EPOCHS,
) -> Objective:
    """Return the objective of a network of the zoo.

    Args:
        name: of the network.
        checkpoint: weights to load; the digits networks are trained when none are given.
        data: for the CIFAR-10 networks: the archive, or the folder that it was unpacked to.
        loss: "cross_entropy" or "mse" (of the softmax against one-hot targets).
        normalize: CIFAR-10 with the 2018 mean and standard deviation, or raw in [0, 1].
        split: a random 1/split of CIFAR-10.
        corrupt: share of CIFAR-10's labels replaced by random ones.
        test: evaluate the test data beside the training data.
        seed: of training, of the split and of the corruption.
        epochs: of training a digits network.

    Raises:
        TargetError: for an unknown name or loss, or when a CIFAR-10 network lacks its data or
            its weights.
    """
    if name not in CATALOG:
        raise TargetError(f"zoo:{name} is not in the zoo: `landscope zoo` lists what is.")
    if loss not in _LOSSES:
        raise TargetError(f"loss={loss!r}; expected one of {', '.join(_LOSSES)}.")
    if name in digits.NETWORKS:
        model = digits.trained(name, seed=seed, epochs=epochs) if checkpoint is None else (
            CATALOG[name].build())  # fmt: skip
        sets = [digits.data(), digits.data(train=False)]
    else:
        _check_given(name, checkpoint, data)
        model = CATALOG[name].build()
        sets = [
            cifar10.tensors(
                str(data), train=train, normalize=normalize, split=split, seed=seed,
                corrupt=corrupt if train else 0.0,
            )
            for train in ((True, False) if test else (True,))
        ]  # fmt: skip
    if checkpoint is not None:
        checkpoint_.load(model, checkpoint)
    return Objective(
        model.eval(),
        _LOSSES[loss],
        sets[0],
        metrics={"accuracy": losses.accuracy},
        test_data=sets[1] if test else None,
    )


def initial(name: str, *, seed: int = 0) -> nn.Module | None:
    """Return the network with the weights that its training begins with; None where unknown."""
    return digits.initial(name, seed=seed) if name in digits.NETWORKS else None


def _check_given(name: str, checkpoint: object, data: object) -> None:
    if data is None:
        raise TargetError(
            f"zoo:{name} needs CIFAR-10: pass --set data=cifar-10-python.tar.gz (or the folder that"
            " it was unpacked to)."
        )
    if checkpoint is None:
        raise TargetError(f"zoo:{name} needs trained weights: pass --checkpoint FILE.t7.")
