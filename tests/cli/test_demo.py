"""The demo, with small networks: it writes what it says, and a second run computes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import landscope as ls
from landscope import zoo
from landscope.cli import demo
from landscope.zoo import text_networks

PICTURES = {f"{kind}.png" for kind in ("surface", "filled", "contour", "heatmap", "line")}


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks that train in a moment."""
    networks = {"digits_mlp": "An MLP", "digits_resnet8": "Skips"}
    monkeypatch.setattr(demo, "DIGITS", replace(demo.DIGITS, networks=networks))
    defaults = zoo.objective.__kwdefaults__
    assert defaults
    monkeypatch.setitem(defaults, "epochs", 1)


@pytest.mark.usefixtures("_small")
def test_the_demo_writes_pictures_and_a_page_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    first = demo.demo(tmp_path / "demo", resolution=5, announce=said.append)
    assert {f.name for f in first.files} == {*PICTURES, "page.html"}
    assert all(f.is_file() and f.stat().st_size > 1000 for f in first.files)
    assert list(first.landscapes) == list(first.shapes) == ["An MLP", "Skips"]
    assert [land.data["train_loss"].shape for land in first.landscapes.values()] == [(5, 5)] * 2
    assert ls.load(tmp_path / "demo" / "digits_mlp_line").data["test_loss"].shape == (51,)
    assert len(said) == 3
    assert said[-1] == "drawing"
    assert "An MLP" in capsys.readouterr().err

    def never(*_: object) -> None:
        raise AssertionError("a point was computed again")

    monkeypatch.setattr("landscope.objective.evaluation.Session.evaluate", never)
    again = demo.demo(tmp_path / "demo", resolution=5)
    output = capsys.readouterr()
    assert output.out + output.err == ""  # silent as a library
    for title, land in first.landscapes.items():
        np.testing.assert_array_equal(
            again.landscapes[title].data["train_loss"], land.data["train_loss"]
        )
    assert again.shapes == first.shapes


@pytest.fixture
def _untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequence models as they begin, on few short windows, and coarse maps of convexity."""
    monkeypatch.setattr(text_networks, "_train", lambda *_, **__: None)
    monkeypatch.setattr(text_networks, "SURFACE_ROWS", 3)
    monkeypatch.setattr(text_networks, "LENGTH", 8)
    monkeypatch.setattr(demo, "_SAMPLES", 2)
    monkeypatch.setattr(demo, "SEQUENCES", replace(demo.SEQUENCES, convexity=3))


@pytest.mark.usefixtures("_untrained")
def test_the_demo_of_sequence_models_also_maps_where_their_loss_is_convex(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDSCOPE_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    first = demo.demo(tmp_path / "demo", sequence=True, resolution=5, announce=said.append)
    assert {f.name for f in first.files} == {*PICTURES, "convexity.png", "page.html"}
    assert all(f.is_file() and f.stat().st_size > 1000 for f in first.files)
    titles = list(demo.SEQUENCES.networks.values())
    assert list(first.landscapes) == list(first.shapes) == list(first.convexities) == titles
    assert len(said) == 3
    assert "Python's standard library" in said[0]
    for name, title in demo.SEQUENCES.networks.items():
        bends = first.convexities[title].data
        assert bends["convexity"].shape == (3, 3)
        assert bends["x"].values.tolist() == [-0.5, 0.0, 0.5]
        # at the center: the extremes of the same two windows, by another way
        hessian = ls.curvature.Hessian(zoo.objective(name), samples=2, seed=0)
        pairs = ls.curvature.eigenpairs(hessian, 2, "extremes")
        assert float(bends["hessian_max"][1, 1]) == pytest.approx(
            float(pairs.value.max()), rel=0.02
        )
        assert float(bends["hessian_min"][1, 1]) == pytest.approx(
            float(pairs.value.min()), rel=0.05
        )

    def never(*_: object) -> None:
        raise AssertionError("a point was computed again")

    monkeypatch.setattr("landscope.objective.evaluation.Session.evaluate", never)
    monkeypatch.setattr("landscope.curvature.convexity_map.extremes", never)
    monkeypatch.setattr(demo, "_draw_pictures", lambda *_: [])  # they take longer than all else
    assert demo.demo(tmp_path / "demo", sequence=True, resolution=5).shapes == first.shapes


def test_the_networks_of_the_demos_are_in_the_zoo() -> None:
    assert {*demo.DIGITS.networks, *demo.SEQUENCES.networks} <= set(zoo.CATALOG)
