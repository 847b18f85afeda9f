"""What landscapes and training paths MEAN: one subject per file, numbers and no pictures.

Pictures of the results belong to ``draw``, sentences about them to ``cli``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
