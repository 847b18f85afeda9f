"""Figures and axes that a notebook shows: as the last line of a cell, and wherever pyplot's are.

Scripts get plain figures that pyplot does not know, so that no window opens, nothing needs to be
closed, and no global state changes. In a Jupyter kernel with the inline backend, new figures are
registered with pyplot, which shows them at the end of the cell and then forgets them.
"""

from __future__ import annotations

import base64
import io
import sys
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D

from landscope.draw.fitting import FittingLayout

_DENSITY = 2  # pixels of the picture per pixel of the page, for sharp screens
_LIMIT: Final = "figure.max_open_warning"


class NotebookFigure(Figure):
    """A figure that a notebook shows as a picture."""

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return build_bundle(self)


class NotebookAxes(Axes):
    """Axes that a notebook shows as the picture of their figure."""

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return build_bundle(self)


class NotebookAxes3D(Axes3D):  # type: ignore[misc]  # mplot3d has no type information
    """3-D axes that a notebook shows as the picture of their figure."""

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return build_bundle(self)


def create_figure(size: tuple[float, float], *, layout: str = "compressed") -> Figure:
    """Return an empty figure, ``size`` inches wide and high; a notebook shows it.

    Args:
        size: The width and height in inches.
        layout: "compressed" for axes of fixed aspect, or "constrained".
    """
    engine = FittingLayout(compress=layout == "compressed")
    if not _is_inline():
        return NotebookFigure(figsize=size, layout=engine)
    from matplotlib import pyplot

    # Pyplot warns of more than 20 open figures; these are closed at the end of the cell. Not by
    # rc_context, which would also undo what the first figure of a notebook sets: interactive mode.
    limit = matplotlib.rcParams[_LIMIT]
    matplotlib.rcParams[_LIMIT] = 0
    try:
        return pyplot.figure(figsize=size, layout=engine, FigureClass=NotebookFigure)
    finally:
        matplotlib.rcParams[_LIMIT] = limit


def add_axes(
    figure: Figure, place: Any = 111, *, projection: str | None = None, **options: Any
) -> Any:
    """Return new axes in a figure, flat or with ``projection="3d"``; a notebook shows them.

    Args:
        figure: The figure.
        place: A position as of ``figure.add_subplot``: a number, (rows, columns, index), or part
            of a grid.
        projection: None or "3d".
        options: Further keywords of ``figure.add_subplot``.
    """
    kind = NotebookAxes if projection is None else NotebookAxes3D
    where = place if isinstance(place, tuple) else (place,)
    return figure.add_subplot(*where, axes_class=kind, **options)


def forget_figure(figure: Figure) -> None:
    """Keep pyplot, where it knows the figure, from showing it at the end of the cell."""
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)


def render_png(figure: Figure, dpi: float) -> bytes:
    """Return the picture as the bytes of a .png file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def build_bundle(picture: Figure | Axes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a picture as Jupyter displays it: data by type, and the size on the page.

    The inline backend of Jupyter displays figures as its user configured it (retina, svg); then
    nothing is returned for a figure, and for axes what is displayed for their figure. Elsewhere the
    picture is rendered here. A figure that pyplot would show at the end of the cell is not shown
    there again.
    """
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    forget_figure(figure)
    if _is_inline():
        if picture is figure:
            return {}, {}
        data, metadata = sys.modules["IPython"].get_ipython().display_formatter.format(figure)
        return data | {"text/plain": repr(picture)}, metadata
    width, height = figure.get_size_inches() * figure.dpi
    encoded = base64.b64encode(render_png(figure, _DENSITY * figure.dpi)).decode()
    data = {"image/png": encoded, "text/plain": repr(picture)}
    return data, {"image/png": {"width": round(width), "height": round(height)}}


def _is_inline() -> bool:
    """Tell whether this is a Jupyter kernel that shows pyplot's figures below their cell."""
    return "ipykernel" in sys.modules and "inline" in matplotlib.get_backend()
