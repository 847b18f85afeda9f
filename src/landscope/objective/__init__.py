"""WHAT is evaluated: the loss, and metrics, of a model over data as a function of its parameters.

Where the parameters move is the business of ``slices``; who evaluates, of ``engines``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
