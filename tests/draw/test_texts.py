"""Nothing of a picture is cut by its border, however long titles and labels are.

Witness: the extent of everything that is drawn, as matplotlib's renderer measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from landscope import draw
from landscope.analysis.representative_planes import Representativeness
from landscope.curvature.eigensolver import Extremes
from landscope.curvature.spectral_density import Spectrum
from landscope.landscape import Landscape

LONG = "direction of the largest curvature {} (eigenvalue 2.4, the sharpest; filter-normalized)"
TITLE = "my_project/experiments/2026/models.py:resnet56_without_skip_connections, epoch 300 of 300"
TOLERANCE = 0.02  # inches


def lengthen(land: Landscape) -> Landscape:
    data = land.data.copy()
    for dim in land.dims:
        data[dim] = data[dim].assign_attrs(long_name=LONG.format(dim))
    return Landscape(data.assign_attrs(title=TITLE))


def measure_overflow(picture: Figure | Axes) -> float:
    """The inches by which something extends beyond the picture."""
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    return float(max(-box.x0, -box.y0, box.x1 - width, box.y1 - height))


def make_result() -> Representativeness:
    x = np.linspace(-1.0, 1.0, 5)
    curve = np.asarray(x**2 + 1)
    ends, errors = torch.tensor([-0.1, 4.0], dtype=torch.float64), torch.zeros(2)
    extremes = Extremes(ends, errors, errors, (), converged=True, products=9)
    return Representativeness(
        x, np.stack([curve, curve]), curve, curve, curve, -0.5, x, x, extremes, 1.0, 1.0, 5
    )


def make_spectrum() -> Spectrum:
    x = np.linspace(-1.0, 1.0, 5)
    return Spectrum(x, np.full(5, 0.2), x[[0, -1]], x, x**2 + 1, 0.1, 5, 9, np.zeros(5, dtype=int))


@pytest.fixture
def pictures(
    bowl: Landscape, holed: Landscape, training: Landscape, descent: Any, ground: Landscape
) -> dict[str, Callable[[], Any]]:
    plane, holes, flat = map(lengthen, (bowl, holed, Landscape(bowl.data.isel(y=slice(18, 24)))))
    line, below = lengthen(training), lengthen(ground)
    error = plane.data["loss"] / 100
    flag = (("y", "x"), (error > 1).astype(np.int8).values)
    errors = Landscape(plane.data.assign(loss_error=error, evaluated=flag))
    maps = Landscape(plane.data.assign(convexity=3 * plane.data["accuracy"] / 100))
    volume = lengthen(Landscape(xr.concat([bowl.data] * 3, "z").assign_coords(z=[-1.0, 0.0, 1.0])))
    kinds = {"a plane": plane, "holes": holes, "a strip": flat}
    names = ("contour", "filled", "heatmap", "surface", "overview_figure")
    simple = {
        f"{name} of {kind}": partial(getattr(draw, name), land)
        for name in names
        for kind, land in kinds.items()
    }
    return simple | {
        "clipped surface": lambda: draw.surface(plane, clip=1.0),
        "error_map": lambda: draw.error_map(errors),
        "line": lambda: draw.line(line),
        "lines": lambda: draw.line([line, line], labels=[TITLE, "b"]),
        "loss_band": lambda: draw.loss_band([line, line]),
        "volume": lambda: draw.overview_figure(volume),
        "side by side": lambda: draw.side_by_side_figure([plane, plane], labels=[TITLE, TITLE]),
        "surfaces": lambda: draw.side_by_side_figure([plane, plane, plane], kind="surface"),
        "lines side by side": lambda: draw.side_by_side_figure([line, line], kind="line"),
        "quantities": lambda: draw.quantities_figure(errors, ("loss", "loss_error")),
        "convexity": lambda: draw.convexity(maps),
        "convexity beside": lambda: draw.convexity_figure(maps),
        "convexity below": lambda: draw.convexity_figure([maps, maps], labels=[TITLE, TITLE]),
        "profiles": lambda: draw.curvature_profiles(make_result(), title=TITLE),
        "several profiles": lambda: draw.representativeness_figure([make_result()] * 2),
        "spectrum": lambda: draw.spectrum([make_spectrum()] * 2, labels=[TITLE, TITLE]),
        "path": lambda: draw.path(below, descent),
        "path_figure": lambda: draw.path_figure(below, descent, labels=[TITLE]),
        "paths": lambda: draw.path(below, [descent, descent], labels=[TITLE, "b"]),
        "path_surface": lambda: draw.path_surface(below, descent),
        "path_errors": lambda: draw.path_errors_figure([descent, descent], labels=[TITLE, "b"]),
    }  # fmt: skip


def test_nothing_is_cut(pictures: dict[str, Callable[[], Any]]) -> None:
    overflow = {name: measure_overflow(make()) for name, make in pictures.items()}
    assert {name: inches for name, inches in overflow.items() if inches > TOLERANCE} == {}
