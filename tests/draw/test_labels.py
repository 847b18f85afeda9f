"""Labels and legends: the boxes that matplotlib drew against lines, frame and paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from landscope import draw
from landscope.draw.labels import label_contours
from landscope.landscape import Landscape


def test_each_part_of_a_contour_line_has_one_label_at_most(rugged: Landscape) -> None:
    ax = draw.contour(rugged)
    levels = next(c for c in ax.get_children() if isinstance(c, ContourSet)).levels
    x, y, z = (rugged.data[name].values for name in ("x", "y", "loss"))
    bare = Figure().add_subplot().contour(x, y, z, levels)
    parts = [part for line in bare.allsegs for part in line if len(part)]
    labels = [text.get_position() for text in ax.texts]
    own = [np.argmin([np.hypot(*(part - at).T).min() for part in parts]) for at in labels]
    assert len(own) == len(set(own)) > 10


def test_labels_of_contour_lines_are_away_from_paths_and_frame(
    ground: Landscape, descent: Any, heavy: Any, rasterize: Callable[..., Any]
) -> None:
    ax = draw.path(ground, [descent, heavy])
    rasterize(ax, dpi=100)
    labels = [text for text in ax.texts if text.get_text()]
    assert len(labels) > 5
    frame = ax.get_window_extent()
    share = np.linspace(0, 1, 30)[:, None, None]
    for path in (descent, heavy):
        at = ax.transData.transform(np.c_[path["x"], path["y"]])
        points = ((1 - share) * at[:-1] + share * at[1:]).reshape(-1, 2)
        for label in labels:
            middle = np.asarray(ax.transData.transform(label.get_position()))
            assert np.linalg.norm(points - middle, axis=1).min() > 0.15 * 100
            assert np.minimum(middle - frame.min, frame.max - middle).min() > 0.15 * 100


def test_long_numbers_have_more_room_than_short_ones() -> None:
    """A path along y = 0 crosses lines whose labels are vertical: none may overlap it."""
    figure = Figure(figsize=(6, 3), dpi=100)
    ax = figure.add_subplot()
    x, y = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 201))
    lines = ax.contour(x, y, 0.0017 + 1e-4 * x, np.linspace(0.00161, 0.00179, 9))
    at = np.linspace(-1, 1, 300)
    label_contours(ax, lines, np.stack([at, 0 * at], axis=1))
    figure.draw_without_rendering()
    labels = [text for text in ax.texts if len(text.get_text()) > 6]
    assert len(labels) > 4
    path = ax.transData.transform((0, 0))[1]
    for label in labels:
        box = label.get_window_extent()
        assert not box.y0 - 5 < path < box.y1 + 5


@pytest.mark.parametrize("count", [2, 10])
def test_long_names_leave_room_for_the_picture_and_are_complete_in_the_legend(
    count: int, ground: Landscape, descent: Any, rasterize: Callable[..., Any]
) -> None:
    names = [f"runs/resnet56_noshort_sgd_lr=0.1_bs=128_wd=0.0005_seed={k}" for k in range(count)]
    paths = [descent] * count
    for picture in (
        draw.path(ground, paths, labels=names).figure,
        draw.path_surface(ground, paths, labels=names).figure,
        draw.path_figure(ground, paths, labels=names),
        draw.path_errors_figure(paths, labels=names),
    ):
        rasterize(picture, dpi=60)
        whole = picture.bbox
        legends = [legend for ax in picture.axes if (legend := ax.get_legend()) is not None]
        for legend in legends:
            box = legend.get_window_extent()
            assert min(box.x0, box.y0) >= 0
            assert box.x1 <= whole.x1
            assert box.y1 <= whole.y1
        left = picture.axes[0]
        assert left.get_window_extent().width > 0.25 * whole.width
        shown = {text.get_text().replace("\n", "") for text in legends[0].get_texts()}
        assert set(names) <= shown
