"""Optional libraries: imported where they are used, with the pip command if they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from landscope.errors import MissingExtraError


def import_optional(name: str, *, extra: str) -> ModuleType:
    """Return the module ``name``, which ``landscope[extra]`` installs.

    Raises:
        MissingExtraError: When it is not installed; the message contains the pip command.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"{name} is not installed: run  pip install 'landscope[{extra}]'."
        ) from error
