"""Pictures in notebooks: axes, figures and landscapes display themselves; scripts stay quiet.

What Jupyter shows is read from a real kernel where ``ipykernel`` and ``nbclient`` are installed.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image
from matplotlib.figure import Figure

from landscope import draw
from landscope.landscape import Landscape

CELLS = {  # what is displayed below each cell, by mime type
    "land": ["text/html"],
    "ls.draw.contour(land)": ["image/png"],
    "ls.draw.surface(land).figure": ["image/png"],
    "land.plot()": ["image/png"],
    "axes = ls.draw.filled(land)": ["image/png"],
    "ls.draw.heatmap(land); plt.show()": ["image/png"],
    "for k in range(21): axes = ls.draw.heatmap(land)": ["image/png"] * 21,
    "ls.draw.page(land)": ["text/html"],
}


def read_size(encoded: str, path: Path) -> tuple[int, int]:
    path.write_bytes(base64.b64decode(encoded))
    height, width = image.imread(path).shape[:2]
    return width, height


@pytest.mark.parametrize("draw_one", [draw.contour, draw.surface, draw.overview_figure])
def test_axes_and_figures_display_themselves_as_sharp_pictures(
    draw_one: Any, bowl: Landscape, tmp_path: Path
) -> None:
    drawn = draw_one(bowl)
    figure = drawn if isinstance(drawn, Figure) else drawn.figure
    data, metadata = drawn._repr_mimebundle_(include=None, exclude=None)
    width, height = (figure.get_size_inches() * figure.dpi).round()
    assert metadata == {"image/png": {"width": width, "height": height}}
    assert read_size(data["image/png"], tmp_path / "a.png") == (2 * width, 2 * height)
    assert "size" in data["text/plain"] or "label" in data["text/plain"]


def test_a_script_that_draws_forty_pictures_opens_none() -> None:
    code = (
        "import warnings, matplotlib; warnings.simplefilter('error'); matplotlib.use('svg');"
        "import numpy as np, xarray as xr, landscope as ls; x = np.linspace(-1, 1, 5);"
        "land = ls.Landscape(xr.Dataset({'loss': (('y', 'x'), x[:, None]**2 + x**2)},"
        " {'x': x, 'y': x})); [ls.draw.heatmap(land) for _ in range(40)]; land.plot();"
        "from matplotlib import pyplot; assert pyplot.get_fignums() == []"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_notebook_shows_each_picture_once() -> None:
    """Also one that is not the last line of its cell, as pyplot's figures are shown."""
    pytest.importorskip("ipykernel")
    client = pytest.importorskip("nbclient")
    from nbformat import v4  # type: ignore[import-not-found,unused-ignore]

    first = (
        "import numpy as np, xarray as xr, landscope as ls; from matplotlib import pyplot as plt;"
        "x = np.linspace(-1, 1, 5);"
        "land = ls.Landscape(xr.Dataset({'loss': (('y', 'x'), x[:, None]**2 + x**2)},"
        " {'x': x, 'y': x}))"
    )
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in [first, *CELLS]])
    client.NotebookClient(notebook, timeout=120).execute()
    shown = {
        cell.source: [
            next(kind for kind in ("text/html", "image/png", "text/plain") if kind in output.data)
            for output in cell.outputs
            if "data" in output
        ]
        for cell in notebook.cells[1:]
    }
    assert shown == CELLS
