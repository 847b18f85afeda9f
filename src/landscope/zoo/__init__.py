"""Networks and data sets for first experiments; ``landscope zoo`` lists them.

digits_*    small networks on scikit-learn's digits, trained in seconds and cached
text_*      sequence models on Python's own sources, trained in less than a minute and cached
the others  the 29 CIFAR-10 networks of the 2018 scripts; you provide the data and the weights

The 2018 scripts are the code that was published with Li et al., 2018, arXiv 1712.09913.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
