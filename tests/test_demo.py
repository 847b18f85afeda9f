"""The demo, with small networks: it writes what it says, and a second run computes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import landscope as ls
from landscope import demo, zoo

PICTURES = {f"{kind}.png" for kind in ("surface", "filled", "contour", "heatmap", "line")}


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks that train in a moment."""
    monkeypatch.setattr(demo, "NETWORKS", {"digits_mlp": "An MLP", "digits_resnet8": "Skips"})
    defaults = zoo.objective.__kwdefaults__
    assert defaults
    monkeypatch.setitem(defaults, "epochs", 1)


@pytest.mark.usefixtures("_small")
def test_the_demo_writes_pictures_and_a_page_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    first = demo.demo(tmp_path / "demo", resolution=5, tell=said.append)
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

    monkeypatch.setattr("landscope.session.Session.values", never)
    again = demo.demo(tmp_path / "demo", resolution=5)
    told = capsys.readouterr()
    assert told.out + told.err == ""  # silent as a library
    for title, land in first.landscapes.items():
        np.testing.assert_array_equal(
            again.landscapes[title].data["train_loss"], land.data["train_loss"]
        )
    assert again.shapes == first.shapes


def test_the_networks_of_the_demo_are_in_the_zoo() -> None:
    assert set(demo.NETWORKS) <= set(zoo.CATALOG)
