"""Options of ``plot``: what they read, and one sentence for each wrong value.

Witness: the size and the colors of the files that ``plot`` writes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from landscope import draw
from landscope.cli.picture_style import PictureStyle, read_style

Command = Callable[..., Any]  # words -> code, out, err
NOTHING: dict[str, Any] = dict.fromkeys(("levels", "cmap", "view", "size", "dpi"))


def test_options_are_read_as_the_keywords_of_the_draw_functions() -> None:
    style = read_style(
        levels="0.1,0.5", cmap="magma", view="60,-10.5", size="6x4", dpi=72, title="", scale="log"
    )
    assert style == PictureStyle(
        scale="log", title="", levels=[0.1, 0.5], cmap="magma", view=(60.0, -10.5),
        size=(6.0, 4.0), dpi=72,
    )  # fmt: skip
    assert set(style.keywords_of(draw.line)) == {"scale", "title", "size"}
    assert set(style.keywords_of(draw.surface)) == {"scale", "title", "cmap", "view", "size"}
    assert read_style(**NOTHING | {"levels": "12"}).levels == 12
    assert read_style(**NOTHING).keywords_of(draw.contour) == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--levels", "many"), "--levels many cannot be used: give the number of contour levels"),
        (("--levels", "0"), "--levels 0 cannot be used: give the number of contour levels"),
        (("--cmap", "virids"), "--cmap virids is not a color map of matplotlib: did you mean"),
        (("--view", "30"), "--view 30 cannot be used: give elevation and azimuth in degrees"),
        (("--view", "up,1"), "--view up,1 cannot be used: give elevation and azimuth in degrees"),
        (("--size", "6,4"), "--size 6,4 cannot be used: give width and height in inches"),
        (("--size", "600x400"), "--size 600x400 cannot be used: give width and height in inches"),
        (("--size", "6x"), "--size 6x cannot be used: give width and height in inches"),
        (("--dpi", "5"), "--dpi 5 cannot be used: give 10 to 1200 dots per inch"),
        (("--dpi", "100000"), "--dpi 100000 cannot be used: give 10 to 1200 dots per inch"),
    ],
)
def test_a_wrong_value_gets_one_sentence_that_names_the_option(
    command: Command, plane: Path, words: tuple[str, str], sentence: str
) -> None:
    answer = command("plot", plane, *words)
    assert answer.code == 1
    assert sentence in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_plot_follows_size_resolution_colors_and_title(
    command: Command, plane: Path, tmp_path: Path
) -> None:
    looks = ("--size", "5x4", "--dpi", "40", "--cmap", "gray", "--title", "", "--view", "80,0")
    answer = command("plot", plane, "--out", tmp_path, "--levels", "3", *looks)
    assert answer.code == 0, answer.err
    for name in ("surface", "contour", "filled", "heatmap"):
        pixels = image.imread(tmp_path / f"{name}.png")[..., :3]
        assert pixels.shape == (160, 200, 3)
        assert np.ptp(pixels, axis=-1).max() < 0.02, name  # without a color


def test_a_volume_is_drawn_as_planes(command: Command, target: str, tmp_path: Path) -> None:
    axes = ("--x=-1:1:3", "--y=-1:1:3", "--z=-1:1:3")
    answer = command("scan", target, *axes, "--out", tmp_path / "volume")
    assert answer.code == 0, answer.err
    assert f"wrote {tmp_path / 'volume' / 'volume.png'}" in answer.out
    again = command("plot", tmp_path / "volume", "--quantity", "accuracy")
    assert again.code == 0, again.err
    assert (tmp_path / "volume" / "volume_accuracy.png").is_file()
