"""Pictures of landscapes: matplotlib figures, and a page that can be turned with the mouse.

``scene`` turns a Landscape into plain arrays, with the help of ``values``, ``scales`` and
``levels``; the other modules paint scenes: ``plane`` (flat pictures of planes), ``relief`` (3-D
surfaces), ``errors``, ``lines``, ``bands`` (many lines as one), ``panels`` (several landscapes side
by side), ``quantities`` (several of one landscape), ``convexity`` (maps of it), ``saving`` (files)
and ``webpage`` (HTML); ``labels`` and ``legends`` serve them all. ``profiles`` and ``spectra``
paint what says whether planes show it all. ``path_scene`` turns paths of training into arrays;
``path_plane`` paints them over planes, ``path_surface`` over surfaces, and ``path_animation`` lets them be walked.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
