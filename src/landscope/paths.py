"""Training paths on slices, as ``ls.paths``: names only."""

from __future__ import annotations

from landscope.analysis.path_projection import Path, on, plane, spans

__all__ = ["Path", "on", "plane", "spans"]


def __dir__() -> list[str]:
    return __all__
