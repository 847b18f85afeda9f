"""The command line: arguments, run folders, reports. ``app`` lists the commands.

Nothing here computes; every command calls a public function.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
