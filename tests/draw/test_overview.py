"""A landscape at a glance: which picture each kind gets, and what a notebook says beside it."""

from __future__ import annotations

import base64
import re
import webbrowser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from landscope import draw
from landscope.draw.webpage import WebPage
from landscope.errors import DrawError
from landscope.landscape import Landscape


@pytest.fixture
def volume() -> Landscape:
    x, z = np.linspace(-1, 1, 4), np.linspace(-2, 2, 9)
    loss = 1 + x**2 + x[:, None] ** 2 + 0 * z[:, None, None] ** 2
    return Landscape(xr.Dataset({"loss": (("z", "y", "x"), loss)}, {"x": x, "y": x, "z": z}))


def list_names(figure: Figure) -> list[str]:
    return [ax.name for ax in figure.axes]


def test_each_kind_of_landscape_has_its_picture(
    bowl: Landscape, training: Landscape, volume: Landscape
) -> None:
    assert list_names(bowl.plot()) == ["3d", "rectilinear", "rectilinear"]  # the last is the bar
    assert [len(ax.lines) > 1 for ax in training.plot().axes] == [True, True]  # losses, percentages
    titles = [ax.get_title() for ax in volume.plot().axes]
    assert titles == ["z = \N{MINUS SIGN}2", "z = \N{MINUS SIGN}1", "z = 0", "z = 1", "z = 2", ""]
    row = Landscape(bowl.data.isel(y=[3]))
    assert list_names(row.plot()) == ["rectilinear"] * 2


def test_the_options_of_the_picture_are_followed(bowl: Landscape) -> None:
    labels = [ax.get_ylabel() for ax in bowl.plot(quantity="accuracy", scale="linear").axes]
    assert "accuracy (%)" in labels
    with pytest.raises(DrawError, match="'acc' is not in the landscape"):
        bowl.plot(quantity="acc")


def test_a_notebook_shows_a_picture_and_the_ranges_with_units(bowl: Landscape) -> None:
    bowl.data.attrs["model"] = "<script>"
    text = bowl._repr_html_()
    assert "Landscape: a plane of 41 x 41 points" in text
    assert ">0.01 to 1000<" in text
    assert "direction x (filter-normalized)" in text
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    (encoded,) = re.findall(r"base64,([^']*)'", text)
    assert base64.b64decode(encoded).startswith(b"\x89PNG")


def test_a_landscape_without_a_value_says_so_instead_of_a_picture(bowl: Landscape) -> None:
    nothing = Landscape(bowl.data[["loss"]] * np.nan)
    assert "has no finite value" in nothing._repr_html_()
    assert "loss without a finite value" in repr(nothing)


def test_the_text_of_a_landscape_is_one_line(bowl: Landscape, volume: Landscape) -> None:
    assert repr(bowl) == (
        "<Landscape: a plane of 41 x 41 points, x from -1 to 1, y from -1 to 1;"
        " loss 0.01 to 1000; also accuracy>"
    )
    assert repr(volume).startswith("<Landscape: a volume of 4 x 4 x 9 points, x from -1 to 1, y")


def test_the_page_of_a_notebook_is_the_page_of_a_file(bowl: Landscape, tmp_path: Path) -> None:
    page = draw.page(bowl)
    assert isinstance(page, WebPage)
    assert draw.page(bowl, tmp_path / "a.html").read_text() == page.html
    assert page.save(tmp_path / "b.html").read_text() == page.html
    assert page._repr_html_().startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert "MB" in repr(page)


def test_a_script_shows_the_page_in_the_browser(
    bowl: Landscape, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bowl.show(title="shown")
    (address,) = opened
    assert "<title>shown</title>" in Path(address.removeprefix("file://")).read_text()
