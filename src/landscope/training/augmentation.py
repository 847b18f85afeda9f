"""Changes of the training data: labels replaced by random ones, images cropped and flipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from landscope.errors import TrainingError
from landscope.objective.batches import Batches
from landscope.objective.global_state import preserve_global_state
from landscope.objective.nested_batches import TARGET_KEYS, split
from landscope.objective.objective import Objective


def corrupt_labels(objective: Objective, share: float, *, seed: int = 0) -> Objective:
    """Return the objective with a share of its training labels replaced by random ones.

    The new labels are drawn uniformly from those that occur, so some labels stay the same. A larger
    share includes the changes of a smaller one. Test data do not change; negative (ignored) labels
    stay ignored. On all of CIFAR-10 this equals ``corrupt`` of ``ls.zoo.objective``.

    Args:
        objective: An objective whose targets are classes.
        share: The share of the labels, in [0, 1].
        seed: The seed of the random labels.

    Raises:
        TrainingError: When the share is out of range, or the targets are not integers.

    Source: Zhang et al., 2016, arXiv 1611.03530, section 2.
    """
    if not 0.0 <= share <= 1.0:
        raise TrainingError(
            f"the share of random labels (label_noise) is {share}; expected a number from 0 to 1."
        )
    if not share:
        return objective
    problem = objective.problem
    prefix = next(iter(problem.batches))
    with preserve_global_state(*problem.sources.values()):
        parts = list(problem.batches[prefix])
        targets = [split(part)[1] for part in parts]
        if not all(isinstance(t, Tensor) and not t.is_floating_point() for t in targets):
            raise TrainingError(
                "random labels (label_noise) need targets that are classes (integers); those of the"
                " objective are not: train without them."
            )
        labels = _draw_labels(torch.cat([t.reshape(-1) for t in targets]), share, seed)
        pieces = labels.split([t.numel() for t in targets])
        changed = [
            _replace_targets(part, piece.reshape(before.shape))
            for part, before, piece in zip(parts, targets, pieces, strict=True)
        ]
    old = problem.batches[prefix]
    new = Batches(changed, device=old.device, dtype=old.dtype, cache=old.cache, name=old.name)
    return Objective.of(replace(problem, batches={**problem.batches, prefix: new}))


def _draw_labels(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return the labels, shape (n,), a share of them replaced by random ones."""
    generator = torch.Generator().manual_seed(seed)
    count, changed = len(labels), labels.clone()
    places = torch.randperm(count, generator=generator)[: round(share * count)].to(labels.device)
    classes = labels[labels >= 0].unique()
    draws = torch.randint(len(classes), (count,), generator=generator)[: len(places)]
    changed[places] = classes[draws.to(labels.device)]
    return changed.where(labels >= 0, labels)


def _replace_targets(batch: Any, targets: Tensor) -> Any:
    if isinstance(batch, Mapping):
        key = next(k for k in TARGET_KEYS if k in batch)
        return {**batch, key: targets}
    return batch[0], targets


def crop_and_flip(images: Tensor, *, fill: tuple[float, ...], padding: int = 4) -> Tensor:
    """Return images shifted by up to ``padding`` pixels, half of them mirrored.

    Args:
        images: The images, shape (b, c, h, w).
        fill: The value of the pixels beyond the edges, for each channel.
        padding: The largest shift, in pixels.

    Returns:
        Images of the same shape; the random numbers are those of torch's global generator.

    Source: He et al., 2015, arXiv 1512.03385, section 4.2, as in the 2018 scripts.
    """
    count, channels, height, width = images.shape
    device = images.device
    edges = images.new_tensor(fill).reshape(1, channels, 1, 1)
    padded = edges.repeat(count, 1, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    top, left = torch.randint(2 * padding + 1, (2, count, 1)).to(device)
    mirrored = (torch.rand(count, 1) < 0.5).to(device)
    rows = top + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(count, width)
    columns = left + columns.where(~mirrored, width - 1 - columns)
    places = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    flat = places.reshape(count, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, flat).reshape(images.shape)
