"""Files are compared byte for byte, and read back by Pillow."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from landscope import draw
from landscope.errors import DrawError
from landscope.landscape import Landscape


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_the_same_picture_gives_the_same_bytes(
    suffix: str, holed: Landscape, tmp_path: Path
) -> None:
    first, second = (draw.save(draw.heatmap(holed), tmp_path / f"{n}{suffix}") for n in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert b"CreationDate" not in first.read_bytes()
    assert b"<dc:date>" not in first.read_bytes()


def test_a_png_has_the_requested_size_and_resolution(bowl: Landscape, tmp_path: Path) -> None:
    path = draw.save(draw.surface(bowl), tmp_path / "new" / "folder" / "s.png", dpi=50)
    with Image.open(path) as image:
        assert image.size == (360, 250)


def test_a_figure_and_its_axes_are_saved_alike(bowl: Landscape, tmp_path: Path) -> None:
    figure = draw.side_by_side_figure([bowl, bowl])
    whole = draw.save(figure, tmp_path / "figure.png", dpi=40)
    again = draw.save(figure.axes[0], tmp_path / "axes.png", dpi=40)
    with Image.open(whole) as a, Image.open(again) as b:
        assert a.size == b.size


def test_the_text_of_a_pdf_can_be_searched(bowl: Landscape, tmp_path: Path) -> None:
    path = draw.save(draw.contour(bowl), tmp_path / "c.pdf")
    assert b"/FontFile2" in path.read_bytes()


def test_another_ending_is_refused(bowl: Landscape, tmp_path: Path) -> None:
    with pytest.raises(DrawError, match=r"ends in '\.gif'.*\.png, \.pdf, \.svg"):
        draw.save(draw.heatmap(bowl), tmp_path / "a.gif")


def test_a_file_that_cannot_be_written_is_named(bowl: Landscape, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DrawError, match="cannot be written"):
        draw.save(draw.heatmap(bowl), tmp_path / "file" / "a.png")
