"""SHOW it: matplotlib figures of landscapes, and a page that can be turned with the mouse.

Scenes are plain arrays made from landscapes and paths (``plane_scene``, ``line_scene``,
``path_scene``), with the help of ``values``, ``scales`` and ``levels``; every other module renders
scenes and computes nothing.
What landscapes mean belongs to ``analysis``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
