"""Pictures of landscapes: matplotlib figures, and a page that can be turned with the mouse.

``scene`` turns a Landscape into plain arrays, with the help of ``fields``, ``choices`` and
``levels``; the other modules paint scenes: ``static`` (flat pictures of planes), ``relief`` (3-D
surfaces), ``errors``, ``lines``, ``bands`` (many lines as one), ``panels`` (several landscapes side
by side), ``quantities`` (several of one landscape), ``convexity`` (maps of it), ``saving`` (files)
and ``webpage`` (HTML); ``labels`` and ``legends`` serve them all. ``profiles`` and ``spectra``
paint what says whether planes show it all. ``trails`` turns paths of training into arrays;
``paths`` paints them over planes, ``floating`` over surfaces, and ``walk`` lets them be walked.
"""

from landscope.draw.bands import band
from landscope.draw.convexity import convexities, convexity, convexity_beside
from landscope.draw.errors import errors
from landscope.draw.floating import path_surface
from landscope.draw.lines import line
from landscope.draw.off_plane import path_errors
from landscope.draw.panels import side_by_side
from landscope.draw.paths import path, trajectory
from landscope.draw.profiles import profiles, whole
from landscope.draw.quantities import quantities
from landscope.draw.relief import surface
from landscope.draw.saving import save
from landscope.draw.spectra import spectrum
from landscope.draw.static import contour, filled, heatmap
from landscope.draw.walk import walk
from landscope.draw.webpage import page

__all__ = [
    "band",
    "contour",
    "convexities",
    "convexity",
    "convexity_beside",
    "errors",
    "filled",
    "heatmap",
    "line",
    "page",
    "path",
    "path_errors",
    "path_surface",
    "profiles",
    "quantities",
    "save",
    "side_by_side",
    "spectrum",
    "surface",
    "trajectory",
    "walk",
    "whole",
]
