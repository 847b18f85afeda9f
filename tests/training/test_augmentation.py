"""Noise in the data: wrong labels, shifted and mirrored images.

Witnesses: CIFAR-10's own corruption, which was there before; each shifted image is looked for among
all shifts that NumPy cuts out of the padded original.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscope as ls
from landscope.errors import TrainingError
from landscope.objective.nested_batches import split
from landscope.training.augmentation import corrupt_labels, crop_and_flip
from landscope.zoo import cifar_data, digits
from tests.zoo.test_cifar_data import EACH, extracted, known, pickled


def objective(data: Any, **more: Any) -> ls.Objective:
    return ls.Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), data, **more)


def labels(given: ls.Objective, prefix: str = "") -> Tensor:
    return torch.cat([split(batch)[1] for batch in given.problem.batches[prefix]])


def thousand() -> tuple[Tensor, Tensor]:
    return torch.zeros(3000, 4), torch.arange(3000) % 3


def test_the_share_of_labels_is_replaced_uniformly_and_the_same_each_time() -> None:
    clean, known = objective(thousand()), thousand()[1]
    changed = labels(corrupt_labels(clean, 0.3, seed=4))
    assert torch.equal(labels(clean), known)
    assert torch.equal(labels(corrupt_labels(clean, 0.3, seed=4)), changed)
    assert not torch.equal(labels(corrupt_labels(clean, 0.3, seed=5)), changed)
    wrong = int((changed != known).sum())  # of 900 drawn two thirds are wrong; 5 sigma are 71
    assert 600 - 71 < wrong < 600 + 71
    counts = torch.bincount(changed[changed != known], minlength=3)
    assert int(counts.min()) > 150
    assert corrupt_labels(clean, 0.0) is clean


def test_a_larger_share_contains_a_smaller_one() -> None:
    clean, known = objective(thousand()), thousand()[1]
    few, many = (labels(corrupt_labels(clean, share, seed=1)) for share in (0.1, 0.6))
    changed = few != known
    assert torch.equal(many[changed], few[changed])
    assert int((many != known).sum()) > int(changed.sum())


def test_on_cifar_10_it_is_the_corruption_of_the_zoo(tmp_path: Path) -> None:
    every = [[(EACH * batch + k) % 10 for k in range(EACH)] for batch in range(5)]  # label occurs
    batches = {f"data_batch_{k + 1}": pickled(known(k + 1)[0], every[k]) for k in range(len(every))}
    folder = extracted(tmp_path, batches)
    clean = objective(cifar_data.load_tensors(folder))
    corrupt = cifar_data.load_tensors(folder, corrupt=0.5, seed=3)[1]
    assert torch.equal(labels(corrupt_labels(clean, 0.5, seed=3)), corrupt)
    assert not torch.equal(corrupt, labels(clean))


def test_test_data_and_ignored_labels_stay_clean_and_dicts_stay_dicts() -> None:
    targets = torch.tensor([[1, 2, -100], [2, -100, 1]] * 20)
    inputs = torch.zeros(40, 3, dtype=torch.int64)
    batches = [{"input_ids": inputs, "labels": targets}]
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3))
    clean = ls.Objective(model, ls.losses.tokens(), batches, test_data=batches)
    changed = corrupt_labels(clean, 1.0)
    found = labels(changed, "train_")
    assert torch.equal(found < 0, targets < 0)
    assert set(found[found >= 0].tolist()) == {1, 2}
    assert not torch.equal(found, targets)
    assert torch.equal(labels(changed, "test_"), targets)
    assert set(next(iter(changed.problem.batches["train_"]))) == {"input_ids", "labels"}


def test_another_noise_is_another_question() -> None:
    clean = objective(thousand())
    assert (
        corrupt_labels(clean, 0.2).problem.fingerprints()["data"]
        != clean.problem.fingerprints()["data"]
    )


def test_what_is_no_share_or_has_no_labels_gets_a_sentence() -> None:
    for share in (-0.1, 1.5):
        with pytest.raises(
            TrainingError, match=rf"random labels \(label_noise\) is {share}; expected"
        ):
            corrupt_labels(objective(thousand()), share)
    regression = ls.Objective(nn.Linear(4, 1), nn.MSELoss(), (torch.zeros(5, 4), torch.zeros(5, 1)))
    with pytest.raises(TrainingError, match=r"targets that are classes \(integers\)"):
        corrupt_labels(regression, 0.5)


def test_images_are_shifted_by_whole_pixels_and_every_other_one_is_mirrored() -> None:
    images = digits.load_data()[0][:200].repeat(1, 3, 1, 1) + torch.arange(3.0).reshape(1, 3, 1, 1)
    fill, padding = (7.0, 8.0, 9.0), 2
    torch.manual_seed(0)
    shown = crop_and_flip(images, fill=fill, padding=padding)
    assert shown.shape == images.shape
    seen = []
    for image, there in zip(images.numpy(), shown.numpy(), strict=True):
        wide = np.stack([np.pad(c, 2, constant_values=f) for c, f in zip(image, fill, strict=True)])
        cuts = {
            (top, left, side): wide[:, top : top + 8, left : left + 8][:, :, ::side]
            for top in range(5)
            for left in range(5)
            for side in (1, -1)
        }
        (found,) = (place for place, cut in cuts.items() if np.array_equal(cut, there))
        seen.append(found)
    tops, lefts, sides = (np.array(values) for values in zip(*seen, strict=True))
    assert set(tops) == set(lefts) == set(range(5))
    assert abs(sides.sum()) < 71  # 5 sigma of 200 draws of 1 or -1
    assert not np.array_equal(tops, lefts)


def test_shifts_are_drawn_from_the_global_random_state() -> None:
    images = torch.randn(8, 3, 6, 6)
    shown = []
    for _ in range(2):
        torch.manual_seed(3)
        shown.append(crop_and_flip(images, fill=(0.0, 0.0, 0.0)))
    assert torch.equal(*shown)
    assert not torch.equal(crop_and_flip(images, fill=(0.0, 0.0, 0.0)), shown[0])
