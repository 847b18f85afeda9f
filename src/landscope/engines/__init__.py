"""WHO evaluates points: threads of this machine, any executor, a cluster.

What is evaluated belongs to ``objective``; which points come next, to ``sampling``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
