"""Train a network, record its path, and read it back.

Where a path lies on a slice belongs to ``analysis``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
