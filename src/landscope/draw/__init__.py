"""Pictures of landscapes: matplotlib figures, and a page that can be turned with the mouse.

``scene`` turns a Landscape into plain arrays, with the help of ``fields``, ``choices`` and
``levels``; the other modules paint scenes: ``static`` (flat pictures of planes), ``relief`` (3-D
surfaces), ``errors``, ``lines``, ``panels`` (several side by side), ``saving`` (files) and
``webpage`` (HTML).
"""

from landscope.draw.errors import errors
from landscope.draw.lines import line
from landscope.draw.panels import side_by_side
from landscope.draw.relief import surface
from landscope.draw.saving import save
from landscope.draw.static import contour, filled, heatmap
from landscope.draw.webpage import page

__all__ = [
    "contour",
    "errors",
    "filled",
    "heatmap",
    "line",
    "page",
    "save",
    "side_by_side",
    "surface",
]
