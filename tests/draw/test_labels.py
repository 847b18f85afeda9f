"""Labels of contour lines: where matplotlib put them, against lines, frame and paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from landscope import draw
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


def test_labels_of_contour_lines_keep_away_from_paths_and_from_the_frame(
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
        way = ((1 - share) * at[:-1] + share * at[1:]).reshape(-1, 2)
        for label in labels:
            middle = np.asarray(ax.transData.transform(label.get_position()))
            assert np.linalg.norm(way - middle, axis=1).min() > 0.15 * 100
            assert np.minimum(middle - frame.min, frame.max - middle).min() > 0.15 * 100
