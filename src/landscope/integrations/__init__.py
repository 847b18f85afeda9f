"""Integrations with other libraries, each loaded when it is asked for.

``transformers``  an objective of any model of Hugging Face, and a callback of its Trainer
``lightning``     a callback of Lightning's Trainer
"""

import importlib
from typing import Any

_MODULES = ("lightning", "transformers")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"landscope.integrations.{name}")
    raise AttributeError(f"module 'landscope.integrations' has no attribute {name!r}")
