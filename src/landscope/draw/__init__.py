"""SHOW it: matplotlib pictures of landscapes and training paths, and one interactive page.

Functions return Axes; those that end in ``_figure`` return a Figure; ``save``, ``page`` and
``animate`` return the path of the file that they wrote.

Scenes are plain arrays made from landscapes and paths (``plane_scene``, ``line_scene``,
``path_scene``), with the help of ``values``, ``scales`` and ``levels``; every other module renders
scenes and computes nothing. What landscapes mean belongs to ``analysis``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
