"""Files of other tools: ``reference_h5`` (2018 scripts), ``checkpoint`` (weights), ``vtk``."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from landscope.formats import checkpoint, reference_h5, vtk

__all__ = ["checkpoint", "reference_h5", "vtk"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"landscope.formats.{name}")
    raise AttributeError(f"module 'landscope.formats' has no attribute {name!r}")
