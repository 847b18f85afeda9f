"""WHAT is evaluated: the loss, and metrics, of a model over data as a function of its parameters.

``slices`` defines how the parameters move, ``engines`` which workers evaluate.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
