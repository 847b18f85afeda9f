"""Trained networks: taken from the cache folder, or trained and kept there for the next time."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn

from landscope import fingerprint
from landscope.errors import TargetError
from landscope.files import cache_folder, write_atomically
from landscope.objective.borrowing import undisturbed


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

    Raises:
        TargetError: when that folder cannot be written to.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model, save_model

    key = fingerprint.of_text(fingerprint.of_module(model), recipe)
    path = cache_folder() / f"{name}-{key}.safetensors"
    if cache and path.exists():
        with contextlib.suppress(SafetensorError):  # a damaged file is made again
            load_model(model, path)
            return model.eval()
    if cache:
        _check_writable(path.parent)  # before the work, which would be lost
    with undisturbed():
        train(model.train())
    if cache:
        try:
            with write_atomically(path) as part:
                save_model(model, str(part))  # tied tensors once, which save_file refuses
        except (OSError, SafetensorError) as error:  # such as a disk that is full
            raise _unkept(path.parent, error) from error
    return model.eval()


def _check_writable(folder: Path) -> None:
    """Make a folder, and raise a sentence when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _unkept(folder, error) from error


def _unkept(folder: Path, error: Exception) -> TargetError:
    return TargetError(
        f"a trained network cannot be kept in {folder} ({error}): set LANDSCOPE_CACHE to a"
        " folder that can be written to."
    )
