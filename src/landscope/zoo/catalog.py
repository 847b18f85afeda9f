"""Models, data and recipes to try things on: ``landscope zoo`` lists them.

digits_*    small networks on scikit-learn's digits, trained in seconds and cached
text_*      sequence models on Python's own sources, trained in less than a minute and cached
the others  the 29 CIFAR-10 networks of the 2018 scripts; their data and weights are yours
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from landscope.errors import TargetError
from landscope.formats import checkpoint as checkpoint_
from landscope.objective import metrics, sequence_losses
from landscope.objective.objective import Objective
from landscope.zoo import cifar_data, cifar_networks, digits, text_networks

_LOSSES = {"cross_entropy": nn.CrossEntropyLoss(), "mse": metrics.softmax_mse}
_LAYERS = (nn.Linear, nn.Conv2d)


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
        """Return its (trainable parameters, layers of weights), without using memory for it.

        An embedding, which only looks up, is no layer; nor is a projection in a shortcut.
        """
        with torch.device("meta"):
            model = self.build()
        layers = [m for n, m in model.named_modules() if "shortcut" not in n]
        count = sum(isinstance(m, _LAYERS) for m in layers)
        count += sum(m.num_layers for m in layers if isinstance(m, nn.RNNBase))
        return sum(p.numel() for p in model.parameters()), count


CATALOG: dict[str, Entry] = {
    **{n: Entry(n, build, "digits 8x8") for n, build in digits.NETWORKS.items()},
    **{
        n: Entry(n, recipe.build, f"Python text, {recipe.task}")
        for n, recipe in text_networks.RECIPES.items()
    },
    **{n: Entry(n, build, "CIFAR-10 32x32") for n, build in cifar_networks.NETWORKS.items()},
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
    epochs: int | None = None,
) -> Objective:
    """Return the objective of a network of the zoo.

    Args:
        name: of the network.
        checkpoint: weights to load; the digits and text networks are trained when none are given.
        data: for the CIFAR-10 networks: the archive, or the folder that it was unpacked to.
        loss: "cross_entropy" (of language models: a character, with the perplexity as a metric)
            or "mse" (of the softmax against one-hot targets; of classifiers only).
        normalize: CIFAR-10 with the 2018 mean and standard deviation, or raw in [0, 1].
        split: a random 1/split of CIFAR-10.
        corrupt: share of CIFAR-10's labels replaced by random ones.
        test: evaluate the test data beside the training data.
        seed: of training, of the split and of the corruption.
        epochs: of training a digits or text network; as many as suit it if None.

    Raises:
        TargetError: for an unknown name or loss, a seed or epochs out of range, or when a CIFAR-10
            network lacks its data or its weights, or another is given what is for CIFAR-10.
    """
    if name not in CATALOG:
        raise TargetError(f"zoo:{name} is not in the zoo: `landscope zoo` lists what is.")
    _check_loss(name, loss)
    _check_numbers(seed, epochs)
    if name not in cifar_networks.NETWORKS:
        _check_left_out(
            name, data=data is None, normalize=normalize, split=split == 1, corrupt=corrupt == 0
        )
    model = _network(name, checkpoint, data, seed, epochs)

    def of(*, train: bool) -> tuple[Tensor, Tensor]:
        if name in digits.NETWORKS:
            return digits.data(train=train)
        if name in text_networks.NETWORKS:
            return text_networks.evaluated(name, train=train)
        return cifar_data.tensors(
            str(data), train=train, normalize=normalize, split=split, seed=seed,
            corrupt=corrupt if train else 0.0,
        )  # fmt: skip

    term, metrics = _measures(name, loss)
    return Objective(
        model.eval(),
        term,
        of(train=True),
        metrics=metrics,
        test_data=of(train=False) if test else None,
    )


def initial(name: str, *, seed: int = 0) -> nn.Module | None:
    """Return the network with the weights that its training begins with; None where unknown."""
    if name in text_networks.NETWORKS:
        return text_networks.initial(name, seed=seed)
    return digits.initial(name, seed=seed) if name in digits.NETWORKS else None


def _check_loss(name: str, loss: str) -> None:
    if loss not in _LOSSES:
        raise TargetError(f"loss={loss!r}; expected one of {', '.join(_LOSSES)}.")
    if loss != "cross_entropy" and _is_language_model(name):
        raise TargetError(
            f"loss={loss!r} is for classifiers, and zoo:{name} predicts characters: use"
            " loss='cross_entropy'."
        )


def _check_numbers(seed: int, epochs: int | None) -> None:
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise TargetError(f"seed={seed!r}; expected a whole number from 0 to 2^63 - 1.")
    if epochs is not None and not (isinstance(epochs, int) and epochs >= 1):
        raise TargetError(f"epochs={epochs!r}; expected a whole number from 1, or None.")


def _check_left_out(name: str, **left_out: bool) -> None:
    given = next((argument for argument, is_out in left_out.items() if not is_out), None)
    if given is not None:
        raise TargetError(
            f"{given}= is for CIFAR-10, and the data of zoo:{name} are {CATALOG[name].data}: leave"
            " it out."
        )


def _is_language_model(name: str) -> bool:
    return name in text_networks.NETWORKS and not text_networks.RECIPES[name].classifies


def _measures(name: str, loss: str) -> tuple[Any, dict[str, Any]]:
    """Return the loss of a network and its metrics."""
    if not _is_language_model(name):
        return _LOSSES[loss], {"accuracy": metrics.accuracy}
    tokens = replace(sequence_losses.tokens(), units="nat per character")
    perplexity = sequence_losses.perplexity(tokens)
    return tokens, {"accuracy": sequence_losses.token_accuracy(), "perplexity": perplexity}


def _network(
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    data: str | os.PathLike[str] | None,
    seed: int,
    epochs: int | None,
) -> nn.Module:
    """Return a network with the weights of a checkpoint, or trained."""
    if name in cifar_networks.NETWORKS:
        _check_given(name, checkpoint, data)
    if checkpoint is not None:
        model = CATALOG[name].build()
        checkpoint_.load(model, checkpoint)
        return model
    if name in text_networks.NETWORKS:
        return text_networks.trained(name, seed=seed, epochs=epochs)
    return digits.trained(name, seed=seed, epochs=digits.EPOCHS if epochs is None else epochs)


def _check_given(name: str, checkpoint: object, data: object) -> None:
    if data is None:
        raise TargetError(
            f"zoo:{name} needs CIFAR-10: pass --set data=cifar-10-python.tar.gz (or the folder that"
            " it was unpacked to)."
        )
    if checkpoint is None:
        raise TargetError(f"zoo:{name} needs trained weights: pass --checkpoint FILE.t7.")
