"""WHERE a loss is looked at: directions in parameter space, the slices they span, and curves.

Which points of a slice are evaluated belongs to ``sampling``; directions that need second
derivatives to ``curvature``, and those that need a training path to ``training``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
