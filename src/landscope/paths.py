"""Training paths on slices, as ``ls.paths``: names only."""

from __future__ import annotations

from landscope.analysis.path_projection import plane, project
from landscope.analysis.training_path import TrainingPath, spans

__all__ = ["TrainingPath", "plane", "project", "spans"]


def __dir__() -> list[str]:
    return __all__
