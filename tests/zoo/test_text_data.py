"""The text: Python's own files, read here in the simplest way, are the witness of each block."""

from __future__ import annotations

import argparse
import importlib.util
import tarfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from landscope.errors import TargetError
from landscope.zoo import text_data

WHOLE = (True, False)


def _join(*, train: bool) -> str:
    return "".join(
        piece for pieces in text_data.cut_blocks(train=train).values() for piece in pieces
    )


def _lengths(rows: Tensor) -> list[int]:
    """Return the length of each row; padding stands at its end and nowhere else."""
    lengths = (rows != text_data.PADDING).sum(dim=1)
    places = torch.arange(rows.shape[1])
    assert torch.equal(rows != text_data.PADDING, places < lengths[:, None])
    return [int(k) for k in lengths]


def test_the_corpus_is_the_beginning_of_files_of_the_standard_library() -> None:
    corpus = text_data.read_corpus()
    assert tuple(corpus) == text_data.MODULES
    for module in (argparse, tarfile):
        file = Path(str(module.__file__))
        assert corpus[module.__name__] == file.read_text(encoding="utf-8")[:45_000]
    assert all(len(source) == 45_000 for source in corpus.values())
    assert 200_000 < sum(map(len, corpus.values())) < 400_000


def test_another_text_has_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = text_data.identity()
    assert text_data.identity() == before
    changed = {
        **text_data.read_corpus(),
        "argparse": text_data.read_corpus()["argparse"][:-1] + "~",
    }
    monkeypatch.setattr(text_data, "read_corpus", lambda: changed)
    assert text_data.identity() != before


def test_each_place_of_the_text_is_in_one_piece_for_training_or_for_testing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = "".join(map(chr, range(100_000, 145_000)))  # all of them different
    monkeypatch.setattr(text_data, "read_corpus", lambda: {"a module": places})
    train, test = _join(train=True), _join(train=False)
    assert sorted(train + test) == list(places)
    assert 0.15 < len(test) / len(places) < 0.25


def test_what_is_encoded_is_decoded_and_what_is_not_ascii_is_a_question_mark() -> None:
    known = "def f(x):\n    return {'a': x} ~ 1\n"
    assert text_data.decode(text_data.encode(known)) == known
    assert text_data.decode(text_data.encode("é\tλ\x07")) == "? ? "
    assert text_data.encode("").shape == (0,)
    every = text_data.encode("".join(map(chr, range(128))))
    assert set(every.tolist()) == set(range(1, len(text_data.ALPHABET)))  # none of them is padding


@pytest.mark.parametrize("train", WHOLE)
def test_targets_of_windows_are_the_characters_that_follow(train: bool) -> None:
    inputs, targets = text_data.cut_windows(64, train=train)
    assert inputs.shape == targets.shape
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    pieces = [piece for pieces in text_data.cut_blocks(train=train).values() for piece in pieces]
    for k in range(0, len(inputs), len(inputs) // 20):
        window = text_data.decode(inputs[k]) + text_data.decode(targets[k, -1:])
        assert any(window in piece for piece in pieces)
    # all but what is left at the end of a piece, and each character once
    assert sum((len(piece) - 1) // 64 for piece in pieces) == len(inputs)
    first = next(iter(text_data.read_corpus().values()))
    if train:
        assert text_data.decode(inputs[:10].reshape(-1)) == first[:640]


@pytest.mark.parametrize("train", WHOLE)
def test_lines_are_whole_padded_and_of_unequal_length(train: bool) -> None:
    inputs, targets = text_data.cut_lines(40, train=train)
    assert inputs.shape == targets.shape
    assert len(inputs) == 40
    lengths = _lengths(inputs)
    assert _lengths(targets) == lengths
    assert len(set(lengths)) > 10
    every = _join(train=train).splitlines()
    for row, target, length in zip(inputs, targets, lengths, strict=True):
        assert torch.equal(row[1:length], target[: length - 1])
        assert text_data.decode(row) in every
        assert text_data.decode(target[length - 1 : length]) == "\n"


@pytest.mark.parametrize("train", WHOLE)
def test_passages_are_of_the_module_that_labels_them(train: bool) -> None:
    inputs, labels = text_data.cut_passages(64, train=train)
    assert inputs.shape == (len(labels), 64)
    assert set(labels.tolist()) == set(range(len(text_data.MODULES)))
    lengths = _lengths(inputs)
    assert min(lengths) > 20
    assert max(lengths) == 64
    for k in range(0, len(inputs), len(inputs) // 50):
        source = text_data.cut_blocks(train=train)[text_data.MODULES[int(labels[k])]]
        beginning = text_data.decode(inputs[k]).splitlines()[0]
        assert any(beginning in piece for piece in source)


def test_places_are_evenly_spaced() -> None:
    assert text_data.space_evenly(10, 5) == [0, 2, 4, 6, 8]
    assert text_data.space_evenly(3, 5) == [0, 1, 2]


def test_a_python_without_its_sources_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    text_data.read_corpus.cache_clear()
    try:
        with pytest.raises(TargetError, match="source of Python's module 'argparse' is missing"):
            text_data.read_corpus()
    finally:
        text_data.read_corpus.cache_clear()
