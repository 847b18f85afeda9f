"""Models and training loops of other frameworks: Hugging Face transformers, Lightning.

Each is imported when it is used, and needs its own extra.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
