"""landscope: see and measure the loss landscape of any PyTorch model.

The public names are those of ``__init__.pyi``; each is loaded on first use, so that ``import
landscope`` and ``landscope --help`` are quick.
"""

import lazy_loader

from landscope._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
