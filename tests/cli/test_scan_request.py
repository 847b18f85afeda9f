"""Scan requests: what the options of a command make, and the record of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import landscope as ls
from landscope.cli.scan_request import ScanRequest, parse_spans
from landscope.errors import SamplerError
from landscope.sampling.adaptive import Adaptive
from landscope.sampling.calibrated import Calibrated
from landscope.sampling.grid import Grid


@pytest.mark.parametrize(
    ("texts", "spans"),
    [
        ((None, None, None), [(-1.0, 1.0, 51)] * 2),
        (("-1:2:5", None, None), [(-1.0, 2.0, 5)]),
        (("auto", "auto:9", None), [(None, None, 51), (None, None, 9)]),
        (("0:1:2", "0:1:3", "-.5:1e1:4"), [(0.0, 1.0, 2), (0.0, 1.0, 3), (-0.5, 10.0, 4)]),
    ],
)
def test_axes_are_read_from_their_texts_and_none_is_the_plane_of_the_paper(
    texts: tuple[str | None, ...], spans: list[Any]
) -> None:
    assert parse_spans(*texts) == tuple(spans)


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ((None, "0:1:2", None), "--y is given without --x"),
        ((None, None, "0:1:2"), "--z is given without --x"),
        (("0:1:2", None, "0:1:2"), "--z is given without --y"),
        (("0:1", None, None), "axis '0:1'; expected first:last:points"),
        (("0:1:2.5", None, None), "axis '0:1:2.5'; expected"),
    ],
)
def test_axes_that_are_none_get_a_sentence(texts: tuple[str | None, ...], sentence: str) -> None:
    with pytest.raises(SamplerError, match=sentence):
        parse_spans(*texts)


def test_the_sampler_is_a_grid_or_adaptive_over_the_axes_of_the_request() -> None:
    ends = [(0.0, 1.0), (-1.0, 1.0)]
    request = ScanRequest("zoo:digits_mlp", parse_spans("0:1:2", "-1:1:3", None))
    assert request.make_sampler() == Grid([2, 3], ends)
    request = dataclasses.replace(request, adaptive=True, tolerance=0.1)
    assert request.make_sampler() == Adaptive(0.1, [2, 3], ends)
    request = dataclasses.replace(request, spans=parse_spans("auto:9", "auto:9", None))
    assert request.make_sampler() == Adaptive(0.1, [9, 9], "auto")


def test_samples_and_quantities_are_made_when_they_are_named() -> None:
    plain = ScanRequest("zoo:digits_mlp")
    assert (plain.make_samples(), plain.make_quantities()) == (None, [])
    full = ScanRequest("zoo:digits_mlp", samples=600, average=0.1, error_bars=True)
    assert full.make_samples() == Calibrated(600)
    average, stderr = full.make_quantities()
    assert average == ls.neighborhood_average(0.1)
    assert stderr is ls.loss_stderr


def test_the_defaults_are_those_of_the_library() -> None:
    request = ScanRequest("zoo:digits_mlp")
    assert (request.adaptive, request.tolerance) == (False, Adaptive().tolerance)
    sampler = request.make_sampler()
    assert isinstance(sampler, Grid)
    for axis, default in zip(sampler.axes(("y", "x")), Grid().axes(("y", "x")), strict=True):
        np.testing.assert_array_equal(axis, default)
    defaults = ls.directions.random.__kwdefaults__ or {}
    for name in ("normalize", "ignore", "orthogonal", "seed"):
        assert getattr(request, name) == defaults[name], name


def test_a_record_has_the_keys_of_version_0_1_and_plain_values(tmp_path: Path) -> None:
    record = ScanRequest("zoo:digits_mlp", select=("*lora*",)).record()
    assert list(record) == [
        "target", "checkpoint", "spans", "toward", "directions", "same", "normalize", "ignore",
        "orthogonal", "select", "over", "seed", "set", "adaptive", "tolerance", "samples",
        "budget", "average", "error_bars",
    ]  # fmt: skip
    assert record["select"] == ("*lora*",)
    assert record["toward"] is record["set"] is record["over"] is None
    assert json.loads(json.dumps(record))["spans"] == [[-1.0, 1.0, 51]] * 2
    assert ScanRequest("zoo:digits_mlp", seed=3).record("seed", "same") == {
        "seed": 3,
        "same": False,
    }


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        (("-0.5:1.5:51", None), "--x=-0.5:1.5:49"),
        (("-0.5:1.5:41", None), ""),
        (("-1:1:51", None), ""),
        (("0.2:0.8:7", None), ""),  # neither can be on it
        (("-0.5:1.5:41", "-0.5:1.5:50"), "--y=-0.5:1.5:49"),
    ],
)
def test_axes_that_miss_the_models_of_toward_get_a_hint(
    spans: tuple[str | None, ...], words: str
) -> None:
    request = ScanRequest("a.py:f", parse_spans(*spans, None), toward=(Path("b.pt"),) * 2)
    hint = request.advise_toward()
    assert words in hint
    assert bool(words) == bool(hint)
    for text in hint.split():
        if text.startswith("--"):
            first, last, points = text.rstrip(".").partition("=")[2].split(":")
            axis = np.linspace(float(first), float(last), int(points))
            assert min(abs(axis)) < 1e-12 > min(abs(axis - 1))
