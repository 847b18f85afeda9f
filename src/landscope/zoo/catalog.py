"""The catalog of the zoo: every network by its name, and an objective for each."""

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
        name: The NAME in ``zoo:NAME``.
        build: Builds the untrained network.
        data: The data that it is trained on, in a few words.
    """

    name: str
    build: Callable[[], nn.Module]
    data: str

    def size(self) -> tuple[int, int]:
        """Return the numbers of trainable parameters and of layers with weights.

        Embeddings and the projections of shortcuts are not counted as layers. The network is
        built without allocating memory.
        """
        with torch.device("meta"):
            model = self.build()
        modules = [m for n, m in model.named_modules() if "shortcut" not in n]
        layers = sum(isinstance(m, _LAYERS) for m in modules)
        layers += sum(m.num_layers for m in modules if isinstance(m, nn.RNNBase))
        return sum(p.numel() for p in model.parameters()), layers


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
        name: The name of the network, a key of ``CATALOG``.
        checkpoint: The file of its weights. If None, the digits and text networks are trained.
        data: The archive of CIFAR-10 or its extracted folder, for the CIFAR-10 networks only.
        loss: "cross_entropy" (language models: per character, with the perplexity as a metric) or
            "mse" (between softmax and one-hot targets, for classifiers only).
        normalize: Whether CIFAR-10 is standardized with the mean and standard deviation of the
            2018 scripts; otherwise its values are in [0, 1].
        split: The inverse of the fraction of CIFAR-10 that is used, chosen at random.
        corrupt: The fraction of labels of CIFAR-10 that are replaced by random ones.
        test: Whether the test data are evaluated as well.
        seed: The seed of the training, the split and the corruption.
        epochs: The number of epochs of training a digits or text network; its default if None.

    Raises:
        TargetError: When the name or loss is unknown, the seed or the number of epochs is out of
            range, a CIFAR-10 network lacks its data or weights, or another network is given an
            option of CIFAR-10.
    """
    if name not in CATALOG:
        raise TargetError(f"zoo:{name} is not in the zoo: `landscope zoo` lists its networks.")
    _check_loss(name, loss)
    _check_numbers(seed, epochs)
    if name not in cifar_networks.NETWORKS:
        _check_defaults(
            name, data=data is None, normalize=normalize, split=split == 1, corrupt=corrupt == 0
        )
    model = _load_network(name, checkpoint, data, seed, epochs)

    def load_data(*, train: bool) -> tuple[Tensor, Tensor]:
        if name in digits.NETWORKS:
            return digits.load_data(train=train)
        if name in text_networks.NETWORKS:
            return text_networks.load_surface_data(name, train=train)
        return cifar_data.load_tensors(
            str(data), train=train, normalize=normalize, split=split, seed=seed,
            corrupt=corrupt if train else 0.0,
        )  # fmt: skip

    loss_function, metrics = _loss_and_metrics(name, loss)
    return Objective(
        model.eval(),
        loss_function,
        load_data(train=True),
        metrics=metrics,
        test_data=load_data(train=False) if test else None,
    )


def initial(name: str, *, seed: int = 0) -> nn.Module | None:
    """Return a network with the initial weights of its training; None for CIFAR-10 networks."""
    if name in text_networks.NETWORKS:
        return text_networks.initial(name, seed=seed)
    return digits.initial(name, seed=seed) if name in digits.NETWORKS else None


def _check_loss(name: str, loss: str) -> None:
    if loss not in _LOSSES:
        raise TargetError(f"loss={loss!r}; expected one of {', '.join(_LOSSES)}.")
    if loss != "cross_entropy" and _is_language_model(name):
        raise TargetError(
            f"loss={loss!r} is for classifiers, but zoo:{name} predicts characters: use"
            " loss='cross_entropy'."
        )


def _check_numbers(seed: int, epochs: int | None) -> None:
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise TargetError(f"seed={seed!r}; expected a whole number from 0 to 2^63 - 1.")
    if epochs is not None and not (isinstance(epochs, int) and epochs >= 1):
        raise TargetError(f"epochs={epochs!r}; expected a whole number from 1, or None.")


def _check_defaults(name: str, **is_default: bool) -> None:
    """Check that a network without CIFAR-10 got no argument that is for CIFAR-10."""
    argument = next((argument for argument, default in is_default.items() if not default), None)
    if argument is not None:
        raise TargetError(
            f"{argument}= is for CIFAR-10, but the data of zoo:{name} are {CATALOG[name].data}:"
            " leave it out."
        )


def _is_language_model(name: str) -> bool:
    return name in text_networks.NETWORKS and not text_networks.RECIPES[name].classifies


def _loss_and_metrics(name: str, loss: str) -> tuple[Any, dict[str, Any]]:
    """Return the loss of a network, and its metrics by name."""
    if not _is_language_model(name):
        return _LOSSES[loss], {"accuracy": metrics.accuracy}
    tokens = replace(sequence_losses.tokens(), units="nat per character")
    perplexity = sequence_losses.perplexity(tokens)
    return tokens, {"accuracy": sequence_losses.token_accuracy(), "perplexity": perplexity}


def _load_network(
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    data: str | os.PathLike[str] | None,
    seed: int,
    epochs: int | None,
) -> nn.Module:
    """Return a network with the weights of a checkpoint, or trained if there is none."""
    if name in cifar_networks.NETWORKS:
        _check_files(name, checkpoint, data)
    if checkpoint is not None:
        model = CATALOG[name].build()
        checkpoint_.load(model, checkpoint)
        return model
    if name in text_networks.NETWORKS:
        return text_networks.load_trained(name, seed=seed, epochs=epochs)
    return digits.load_trained(name, seed=seed, epochs=digits.EPOCHS if epochs is None else epochs)


def _check_files(name: str, checkpoint: object, data: object) -> None:
    if data is None:
        raise TargetError(
            f"zoo:{name} needs CIFAR-10: pass --set data=cifar-10-python.tar.gz, or its extracted"
            " folder."
        )
    if checkpoint is None:
        raise TargetError(f"zoo:{name} needs trained weights: pass --checkpoint FILE.t7.")
