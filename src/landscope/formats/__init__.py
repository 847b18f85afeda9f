"""Files of other tools: the 2018 scripts, checkpoints, ParaView.

Files of landscope itself belong to ``landscape`` and to the room that writes them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
