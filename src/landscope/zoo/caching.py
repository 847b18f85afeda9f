"""Trained networks: taken from the cache folder, or trained and kept there for the next time."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from landscope import fingerprint
from landscope.borrow import undisturbed
from landscope.files import cache_folder, whole


def trained(
    name: str,
    model: nn.Module,
    train: Callable[[nn.Module], None],
    recipe: object,
    *,
    cache: bool = True,
) -> nn.Module:
    """Return the network with its trained weights, in evaluation mode.

    Args:
        name: of the network.
        model: untrained; it is changed.
        train: trains it in place; called when there is no file of it.
        recipe: whose text tells apart what trains to different weights; the structure of the
            network is told apart without it.
        cache: keep the weights in :func:`cache_folder` and take them from there.
    """
    from safetensors.torch import load_model, save_model

    key = fingerprint.of_text(fingerprint.of_module(model), recipe)
    path = cache_folder() / f"{name}-{key}.safetensors"
    if cache and path.exists():
        load_model(model, path)
        return model.eval()
    with undisturbed():
        train(model.train())
    if cache:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            save_model(model, str(part))  # tied tensors once, which save_file refuses
    return model.eval()
