"""WHICH points of a slice are evaluated, and which samples of the data.

A sampler is a pure function of what is known; evaluating points belongs to ``engines``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
