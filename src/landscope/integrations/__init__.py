"""Other people's models and training loops: ``transformers``, ``lightning``.

Each is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from landscope.integrations import lightning, transformers

__all__ = ["lightning", "transformers"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"landscope.integrations.{name}")
    raise AttributeError(f"module 'landscope.integrations' has no attribute {name!r}")
