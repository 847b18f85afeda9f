"""Second derivatives of the loss at a point: matrices, eigenvalues, traces, sharpness.

Maps of them over a slice are quantities of a scan (``hessian_extremes``).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
