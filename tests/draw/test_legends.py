"""Legends of many paths with long names: the very boxes that matplotlib drew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from landscope import draw
from landscope.landscape import Landscape


@pytest.mark.parametrize("count", [2, 10])
def test_long_names_leave_room_for_the_picture_and_are_all_read(
    count: int, ground: Landscape, descent: Any, rasterize: Callable[..., Any]
) -> None:
    names = [f"runs/resnet56_noshort_sgd_lr=0.1_bs=128_wd=0.0005_seed={k}" for k in range(count)]
    paths = [descent] * count
    for picture in (
        draw.path(ground, paths, labels=names).figure,
        draw.path_surface(ground, paths, labels=names).figure,
        draw.trajectory(ground, paths, labels=names),
        draw.path_errors(paths, labels=names),
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
        told = {text.get_text().replace("\n", "") for text in legends[0].get_texts()}
        assert set(names) <= told
