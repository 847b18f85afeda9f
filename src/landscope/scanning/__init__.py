"""The LOOP: ask a sampler for points, have an engine evaluate them, keep the values.

Also what a scan costs. What the values mean belongs to ``analysis``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
