"""Models and training loops of other frameworks: Hugging Face transformers and Lightning.

Each framework is imported when it is used, and is installed by its own extra of landscope.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
