"""Trained networks: loaded from the cache folder, or trained and saved there for the next time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn

from landscope import fingerprint
from landscope.errors import TargetError
from landscope.files import cache_folder, write_atomically
from landscope.objective.global_state import preserve_global_state


def load_or_train(
    name: str,
    model: nn.Module,
    train: Callable[[nn.Module], None],
    recipe: object,
    *,
    cache: bool = True,
) -> nn.Module:
    """Return a network with its trained weights, in evaluation mode.

    Args:
        name: The name of the network.
        model: The untrained network; it is modified.
        train: A function that trains the network in place; called if the cache has no file.
        recipe: Any object whose text differs when the trained weights differ. The structure of
            the network need not be part of it.
        cache: Whether the weights are loaded from and saved in :func:`cache_folder`.

    Raises:
        TargetError: When that folder cannot be written to.
    """
    key = fingerprint.of_text(fingerprint.of_module(model), recipe)
    path = cache_folder() / f"{name}-{key}.safetensors"
    if cache and _load(model, path):
        return model.eval()
    if cache:
        _check_writable(path.parent)  # before the training, whose result would be lost
    with preserve_global_state():
        train(model.train())
    if cache:
        _save(model, path)
    return model.eval()


def _load(model: nn.Module, path: Path) -> bool:
    """Load the weights of a file, and return whether it was there and not damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    if not path.exists():
        return False
    try:
        load_model(model, path)
    except SafetensorError:
        return False
    return True


def _save(model: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    try:
        with write_atomically(path) as part:
            save_model(model, str(part))  # it saves tied tensors once; save_file refuses them
    except (OSError, SafetensorError) as error:  # for example, the disk is full
        raise _not_saved(path.parent, error) from error


def _check_writable(folder: Path) -> None:
    """Create a folder; raise TargetError if no file can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _not_saved(folder, error) from error


def _not_saved(folder: Path, error: Exception) -> TargetError:
    return TargetError(
        f"a trained network cannot be saved in {folder} ({error}): set LANDSCOPE_CACHE to a"
        " folder that can be written to."
    )
